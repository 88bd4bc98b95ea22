"""The official Anthropic SDK against a running server with the real models.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import asyncio
import os
import unittest

import anthropic

URL = os.environ["SCONCE_URL"]
KEY = os.environ["SCONCE_KEY"]
CHAT = os.environ["SCONCE_CHAT_MODEL"]
# This version of the SDK has no word for it; the server still has.
GREEDY = {"temperature": 0}
CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]


def client(**changes):
    """A client that does not retry, so that each error is seen as it is."""
    return anthropic.Anthropic(**({"base_url": URL, "api_key": KEY, "max_retries": 0} | changes))


def ask(**changes):
    return client().messages.create(**({"model": CHAT, "messages": CAPITAL, "extra_body": GREEDY, "max_tokens": 32} | changes))


class Messages(unittest.TestCase):
    """Messages."""

    def test_answer(self):
        answer = ask()
        self.assertEqual((answer.type, answer.role, answer.model), ("message", "assistant", CHAT))
        self.assertEqual([block.type for block in answer.content], ["text"])
        self.assertIn("Paris", answer.content[0].text)
        self.assertEqual((answer.stop_reason, answer.stop_sequence), ("end_turn", None))
        self.assertTrue(answer.id.startswith("msg_"))
        self.assertGreater(answer.usage.output_tokens, 3)
        self.assertTrue(answer._request_id)

    def test_stream_equals_answer(self):
        whole = ask()
        with client().messages.stream(model=CHAT, messages=CAPITAL, extra_body=GREEDY, max_tokens=32) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(final.content[0].text, text)
        self.assertEqual((final.stop_reason, final.usage.output_tokens), (whole.stop_reason, whole.usage.output_tokens))

    def test_events_in_their_order(self):
        events = [event.type for event in ask(stream=True)]
        self.assertEqual(events[:2], ["message_start", "content_block_start"])
        self.assertEqual(events[-3:], ["content_block_stop", "message_delta", "message_stop"])
        self.assertEqual(set(events[2:-3]), {"content_block_delta"})

    def test_system_and_blocks(self):
        blocks = ask(
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": [{"type": "text", "text": CAPITAL[0]["content"]}]}],
        )
        texts = ask(system="Be brief.")
        self.assertEqual(blocks.content[0].text, texts.content[0].text)

    def test_max_tokens(self):
        answer = ask(max_tokens=2)
        self.assertEqual((answer.stop_reason, answer.usage.output_tokens), ("max_tokens", 2))

    def test_stop_sequence(self):
        text = ask().content[0].text
        stop = text[len(text) // 2 :][:3]
        answer = ask(stop_sequences=["\u2603", stop])
        self.assertEqual((answer.stop_reason, answer.stop_sequence), ("stop_sequence", stop))
        self.assertEqual(answer.content[0].text, text.split(stop)[0])

    def test_prefill_is_continued(self):
        answer = ask(messages=CAPITAL + [{"role": "assistant", "content": "The capital of France is"}])
        self.assertTrue(answer.content[0].text.lstrip().startswith("Paris"), answer.content[0].text)

    def test_conversation_goes_on_with_what_was_answered(self):
        first = ask()
        second = ask(messages=CAPITAL + [first.to_param(), {"role": "user", "content": "And of Italy?"}])
        self.assertGreater(second.usage.input_tokens + second.usage.cache_read_input_tokens, 20)

    def test_cached_tokens_are_counted_apart(self):
        question = [{"role": "user", "content": "Tell me about this list: " + "one two three four " * 20}]
        first, second = ask(messages=question, max_tokens=4), ask(messages=question, max_tokens=4)
        self.assertGreater(second.usage.cache_read_input_tokens, 0)
        self.assertEqual(
            first.usage.input_tokens + first.usage.cache_read_input_tokens,
            second.usage.input_tokens + second.usage.cache_read_input_tokens,
        )

    def test_sixteen_at_once(self):
        async def ask_all():
            async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as shared:
                return await asyncio.gather(*(
                    shared.messages.create(model=CHAT, messages=CAPITAL, extra_body=GREEDY, max_tokens=32) for _ in range(16)
                ))

        self.assertEqual(len({answer.content[0].text for answer in asyncio.run(ask_all())}), 1)

    def test_leaving_a_stream(self):
        with ask(stream=True, max_tokens=512) as stream:
            for _, _event in zip(range(3), stream):
                pass


class Counting(unittest.TestCase):
    """Counting of tokens."""

    def test_count_is_what_an_answer_counts(self):
        counted = client().messages.count_tokens(model=CHAT, messages=CAPITAL, system="Be brief.")
        usage = ask(system="Be brief.", max_tokens=1).usage
        self.assertEqual(counted.input_tokens, usage.input_tokens + usage.cache_read_input_tokens)


class Models(unittest.TestCase):
    """Lists of models."""

    def test_list_and_retrieve(self):
        listed = list(client().models.list(limit=1))
        self.assertEqual([model.id for model in listed], [CHAT])
        model = client().models.retrieve(CHAT)
        self.assertEqual((model.type, model.display_name), ("model", CHAT))
        self.assertGreater(model.created_at.year, 2000)


class Errors(unittest.TestCase):
    """Errors in Anthropic's shape."""

    def refused(self, kind, **changes):
        with self.assertRaises(kind) as caught:
            ask(**changes)
        body = caught.exception.body
        self.assertEqual(body["type"], "error")
        self.assertEqual(body["request_id"], caught.exception.request_id)
        return body["error"]

    def test_wrong_parameters(self):
        self.assertEqual(self.refused(anthropic.BadRequestError, extra_body={"temperature": 1.5})["type"], "invalid_request_error")
        image = {"type": "image", "source": {"type": "url", "url": "http://localhost/x.png"}}
        error = self.refused(anthropic.BadRequestError, messages=[{"role": "user", "content": [image]}])
        self.assertIn("messages[0].content[0].type", error["message"])
        self.refused(anthropic.BadRequestError, extra_body={"seed": 7})

    def test_unknown_model(self):
        self.assertEqual(self.refused(anthropic.NotFoundError, model="nobody")["type"], "not_found_error")

    def test_wrong_key(self):
        with self.assertRaises(anthropic.AuthenticationError):
            client(api_key="wrong").messages.create(model=CHAT, messages=CAPITAL, max_tokens=1)

    def test_key_in_the_other_header(self):
        answer = client(default_headers={"x-api-key": KEY}).messages.create(model=CHAT, messages=CAPITAL, max_tokens=1)
        self.assertEqual(answer.usage.output_tokens, 1)
        with self.assertRaises(anthropic.AuthenticationError):
            # Which of the two counts is nobody's to guess.
            client(default_headers={"x-api-key": "other"}).messages.create(model=CHAT, messages=CAPITAL, max_tokens=1)

    def test_unknown_version(self):
        with self.assertRaises(anthropic.BadRequestError):
            ask(extra_headers={"anthropic-version": "2099-01-01"})


if __name__ == "__main__":
    unittest.main()
