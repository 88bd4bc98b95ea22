"""`/v1/responses` by the official OpenAI SDK, against a running server with the real models.

As `test_openai.py`; `tests/sdk.rs` starts the server and runs this file. Every answer and every event is parsed strictly
into the SDK's own types.
"""

import os
import time
import unittest

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

URL = os.environ["SCONCE_URL"] + "/v1"
KEY = os.environ["SCONCE_KEY"]
CHAT = os.environ["SCONCE_CHAT_MODEL"]
CAPITAL = "What is the capital of France? Answer in one short sentence."
EVENT = TypeAdapter(ResponseStreamEvent)


def client(**changes):
    """A client that does not retry, so that each error is seen as it is."""
    return openai.OpenAI(**({"base_url": URL, "api_key": KEY, "max_retries": 0} | changes))


def ask(question=CAPITAL, **changes):
    """A greedy answer, checked against the SDK's type member by member."""
    response = client().responses.create(**({"model": CHAT, "input": question, "temperature": 0, "max_output_tokens": 48} | changes))
    Response.model_validate(response.to_dict(mode="json"), strict=False)
    return response


class Answers(unittest.TestCase):
    """Whole answers, and what is kept of them."""

    def test_answer(self):
        response = ask()
        self.assertIn("Paris", response.output_text)
        self.assertEqual((response.object, response.status, response.model), ("response", "completed", CHAT))
        self.assertEqual(response.output[0].type, "message")
        usage = response.usage
        self.assertEqual(usage.total_tokens, usage.input_tokens + usage.output_tokens)
        self.assertGreater(usage.output_tokens, 3)
        self.assertIsNone(response.error)

    def test_cut(self):
        response = ask(max_output_tokens=2)
        self.assertEqual((response.status, response.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        self.assertEqual(response.usage.output_tokens, 2)

    def test_retrieve_and_delete(self):
        response = ask(metadata={"job": "test"})
        again = client().responses.retrieve(response.id)
        self.assertEqual(again.to_dict(), response.to_dict())
        self.assertEqual(again.metadata, {"job": "test"})
        client().responses.delete(response.id)
        with self.assertRaises(openai.NotFoundError):
            client().responses.retrieve(response.id)

    def test_not_stored(self):
        response = ask(store=False)
        with self.assertRaises(openai.NotFoundError):
            client().responses.retrieve(response.id)

    def test_input_items(self):
        items = [{"role": "user", "content": f"Number {number}"} for number in range(5)]
        response = ask(items, max_output_tokens=2)
        listed = list(client().responses.input_items.list(response.id, order="asc", limit=2))
        self.assertEqual([item.content[0].text for item in listed], [item["content"] for item in items])
        newest = client().responses.input_items.list(response.id, limit=1).data[0]
        self.assertEqual(newest.content[0].text, "Number 4")

    def test_conversation(self):
        first = ask("My name is Ada. Remember it.")
        second = ask("What is my name?", previous_response_id=first.id)
        self.assertGreater(second.usage.input_tokens, first.usage.total_tokens)
        # The same with what was answered sent back.
        history = [{"role": "user", "content": "My name is Ada. Remember it."}]
        history += [item.to_dict() for item in first.output]
        history += [{"role": "user", "content": "What is my name?"}]
        self.assertEqual(ask(history).output_text, second.output_text)

    def test_function_results(self):
        call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Paris"}'}
        output = {"type": "function_call_output", "call_id": "call_1", "output": "18 degrees and sunny"}
        response = ask([{"role": "user", "content": "What is the weather in Paris?"}, call, output])
        # What a small model makes of it is its own; that it was shown it is ours.
        self.assertGreater(response.usage.input_tokens, ask("What is the weather in Paris?").usage.input_tokens)

    def test_log_probabilities(self):
        response = ask(include=["message.output_text.logprobs"], top_logprobs=3)
        tokens = response.output[0].content[0].logprobs
        self.assertEqual("".join(token.token for token in tokens), response.output_text)
        self.assertTrue(all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in tokens))

    def test_instructions(self):
        plain, told = ask("Hello"), ask("Hello", instructions="Answer in French.")
        self.assertEqual(told.instructions, "Answer in French.")
        self.assertGreater(told.usage.input_tokens, plain.usage.input_tokens - 40)
        self.assertNotEqual(told.output_text, plain.output_text)


class Streams(unittest.TestCase):
    """Events."""

    def test_order(self):
        whole = ask()
        stream = client().responses.create(model=CHAT, input=CAPITAL, temperature=0, max_output_tokens=48, stream=True)
        events = list(stream)
        for event in events:
            EVENT.validate_python(event.to_dict(mode="json"))
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        names = [event.type.removeprefix("response.") for event in events]
        self.assertEqual(names[:4], ["created", "in_progress", "output_item.added", "content_part.added"])
        self.assertEqual(names[-4:], ["output_text.done", "content_part.done", "output_item.done", "completed"])
        self.assertEqual(set(names[4:-4]), {"output_text.delta"})
        self.assertEqual("".join(event.delta for event in events[4:-4]), whole.output_text)
        self.assertEqual(events[-1].response.output_text, whole.output_text)
        self.assertEqual(client().responses.retrieve(events[0].response.id).to_dict(), events[-1].response.to_dict())

    def test_the_sdks_own_helper(self):
        with client().responses.stream(model=CHAT, input=CAPITAL, temperature=0, max_output_tokens=48) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_response()
        self.assertIn("response.output_text.delta", kinds)
        self.assertIn("Paris", final.output_text)

    def test_leaving_a_stream(self):
        with client().responses.create(model=CHAT, input=CAPITAL, max_output_tokens=512, stream=True) as stream:
            for _, _event in zip(range(6), stream):
                pass


class Background(unittest.TestCase):
    """What goes on though the client leaves."""

    def wait(self, response):
        while response.status in ("queued", "in_progress"):
            time.sleep(0.02)
            response = client().responses.retrieve(response.id)
        return response

    def test_done(self):
        response = ask(background=True)
        self.assertIn(response.status, ("queued", "in_progress"))
        done = self.wait(response)
        self.assertEqual(done.output_text, ask().output_text)

    def test_cancel(self):
        response = ask("Write a very long story about the sea.", background=True, max_output_tokens=1500)
        while client().responses.retrieve(response.id).status == "queued":
            time.sleep(0.02)
        cancelled = client().responses.cancel(response.id)
        self.assertEqual(cancelled.status, "cancelled")
        self.assertLess(cancelled.usage.output_tokens, 1500)
        self.assertEqual(client().responses.cancel(response.id).to_dict(), cancelled.to_dict())

    def test_follow_again(self):
        stream = client().responses.create(
            model=CHAT, input=CAPITAL, temperature=0, max_output_tokens=48, background=True, stream=True
        )
        begun = next(iter(stream)).response
        stream.close()
        self.wait(begun)
        all_events = list(client().responses.retrieve(begun.id, stream=True))
        rest = list(client().responses.retrieve(begun.id, stream=True, starting_after=4))
        self.assertEqual([event.to_dict() for event in all_events[5:]], [event.to_dict() for event in rest])
        self.assertEqual(rest[-1].type, "response.completed")


class Errors(unittest.TestCase):
    """Each mistake raises the class that the SDK has for it, and names its parameter."""

    def test_refused(self):
        for changes, param in [
            ({"temperature": 9}, "temperature"),
            ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"truncation": "always"}, "truncation"),
            ({"extra_body": {"no_such_parameter": 1}}, "no_such_parameter"),
            ({"question": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].type"),
        ]:
            with self.subTest(param=param), self.assertRaises(openai.BadRequestError) as raised:
                ask(**changes)
            self.assertEqual(raised.exception.param, param)

    def test_not_there(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            ask(previous_response_id="resp_none")
        error = raised.exception
        self.assertEqual((error.code, error.param), ("previous_response_not_found", "previous_response_id"))
        with self.assertRaises(openai.NotFoundError) as raised:
            ask(model="no-such-model")
        self.assertEqual(raised.exception.code, "model_not_found")


if __name__ == "__main__":
    unittest.main()
