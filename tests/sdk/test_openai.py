"""The official OpenAI SDK against a running server with the real models.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import asyncio
import base64
import math
import os
import struct
import unittest

import openai

URL = os.environ["SCONCE_URL"] + "/v1"
KEY = os.environ["SCONCE_KEY"]
CHAT = os.environ["SCONCE_CHAT_MODEL"]
EMBED = os.environ["SCONCE_EMBED_MODEL"]
CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]


def client(**changes):
    """A client that does not retry, so that each error is seen as it is."""
    return openai.OpenAI(**({"base_url": URL, "api_key": KEY, "max_retries": 0} | changes))


class Chat(unittest.TestCase):
    """Chat completions."""

    def test_answer(self):
        answer = client().chat.completions.create(model=CHAT, messages=CAPITAL, temperature=0, max_tokens=32)
        choice = answer.choices[0]
        self.assertIn("Paris", choice.message.content)
        self.assertEqual(choice.message.role, "assistant")
        self.assertEqual(choice.finish_reason, "stop")
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model, CHAT)
        self.assertTrue(answer.system_fingerprint)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertGreater(answer.usage.completion_tokens, 3)

    def test_stream_equals_answer(self):
        whole = client().chat.completions.create(model=CHAT, messages=CAPITAL, temperature=0, max_tokens=32)
        stream = client().chat.completions.create(
            model=CHAT, messages=CAPITAL, temperature=0, max_tokens=32, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        self.assertEqual([reason for reason in reasons if reason], ["stop"])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-1].usage.prompt_tokens, whole.usage.prompt_tokens)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)

    def test_stream_without_usage(self):
        stream = client().chat.completions.create(model=CHAT, messages=CAPITAL, max_tokens=4, stream=True)
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in stream))

    def test_stored(self):
        chats = client().chat.completions
        note = {"run": os.urandom(8).hex()}
        first = chats.create(model=CHAT, messages=CAPITAL, max_tokens=4, store=True, metadata=note)
        chunks = list(chats.create(model=CHAT, messages=CAPITAL, max_tokens=4, store=True, metadata=note, stream=True))
        self.assertEqual(chats.retrieve(first.id).choices[0].message, first.choices[0].message)
        self.assertEqual([chat.id for chat in chats.list(metadata=note, limit=1)], [first.id, chunks[0].id])
        self.assertEqual([chat.id for chat in chats.list(metadata=note, order="desc", model=CHAT)], [chunks[0].id, first.id])
        self.assertEqual([message.content for message in chats.messages.list(first.id)], [CAPITAL[0]["content"]])
        changed = chats.update(first.id, metadata={"run": "over"})
        self.assertEqual(changed.metadata, {"run": "over"})
        self.assertEqual([chat.id for chat in chats.list(metadata=note)], [chunks[0].id])
        for chat in [first.id, chunks[0].id]:
            self.assertTrue(chats.delete(chat).deleted)
            with self.assertRaises(openai.NotFoundError):
                chats.retrieve(chat)

    def test_logprobs(self):
        answer = client().chat.completions.create(
            model=CHAT, messages=CAPITAL, temperature=0, max_tokens=8, logprobs=True, top_logprobs=5
        )
        content = answer.choices[0].logprobs.content
        # The token that ends an answer is counted, but is no part of it.
        ended = answer.choices[0].finish_reason == "stop"
        self.assertEqual(len(content), answer.usage.completion_tokens - ended)
        for token in content:
            self.assertLessEqual(token.logprob, 0.0)
            self.assertEqual(len(token.top_logprobs), 5)
            # Greedy: the chosen token is the best alternative, and alternatives come best first.
            self.assertEqual(token.top_logprobs[0].token, token.token)
            self.assertAlmostEqual(token.top_logprobs[0].logprob, token.logprob, places=4)
            values = [alternative.logprob for alternative in token.top_logprobs]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertLessEqual(sum(math.exp(value) for value in values), 1.0001)
        text = b"".join(bytes(token.bytes) for token in content).decode()
        self.assertEqual(text, answer.choices[0].message.content)

    def test_three_choices(self):
        answer = client().chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Write a line of a poem."}], n=3, temperature=1.2, max_tokens=16, seed=7
        )
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertEqual(len({choice.message.content for choice in answer.choices}), 3)

    def test_stop_strings(self):
        messages = [{"role": "user", "content": "Count from one to ten in digits: 1, 2, 3,"}]
        free = client().chat.completions.create(model=CHAT, messages=messages, temperature=0, max_tokens=48)
        text = free.choices[0].message.content
        stop = text[len(text) // 2 :][:3]
        cut = client().chat.completions.create(model=CHAT, messages=messages, temperature=0, max_tokens=48, stop=[stop, "\u2603"])
        self.assertEqual(cut.choices[0].message.content, text.split(stop)[0])
        self.assertEqual(cut.choices[0].finish_reason, "stop")

    def test_same_seed_same_answer(self):
        def ask(seed):
            return client().chat.completions.create(
                model=CHAT, messages=[{"role": "user", "content": "Tell me something."}], temperature=1.0, seed=seed, max_tokens=24
            ).choices[0].message.content

        self.assertEqual(ask(42), ask(42))
        self.assertNotEqual(ask(42), ask(43))

    def test_length(self):
        answer = client().chat.completions.create(model=CHAT, messages=CAPITAL, temperature=0, max_completion_tokens=2)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 2)

    def test_logit_bias(self):
        plain = client().chat.completions.create(model=CHAT, messages=CAPITAL, temperature=0, max_tokens=1, logprobs=True)
        first = plain.choices[0].logprobs.content[0].token
        other = client().chat.completions.create(
            model=CHAT, messages=CAPITAL, temperature=0, max_tokens=1, logit_bias={"504": -100}, logprobs=True
        )
        self.assertIsInstance(first, str)
        self.assertIsNotNone(other.choices[0].logprobs)

    def test_sixteen_at_once(self):
        async def ask_all():
            async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0) as shared:
                return await asyncio.gather(*(
                    shared.chat.completions.create(model=CHAT, messages=CAPITAL, temperature=0, max_tokens=32) for _ in range(16)
                ))

        answers = asyncio.run(ask_all())
        self.assertEqual(len({answer.choices[0].message.content for answer in answers}), 1)

    def test_leaving_a_stream(self):
        with client().chat.completions.create(
            model=CHAT, messages=CAPITAL, max_tokens=512, stream=True, extra_body={"ignore_eos": True}
        ) as stream:
            for _, _chunk in zip(range(3), stream):
                pass


class Completions(unittest.TestCase):
    """Legacy completions."""

    def test_text(self):
        answer = client().completions.create(model=CHAT, prompt="The capital of France is", temperature=0, max_tokens=8)
        self.assertIn("Paris", answer.choices[0].text)
        self.assertEqual(answer.object, "text_completion")

    def test_several_prompts_and_choices(self):
        answer = client().completions.create(model=CHAT, prompt=["One, two,", "Red, green,"], n=2, max_tokens=4, seed=1)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2, 3])

    def test_stream(self):
        stream = client().completions.create(model=CHAT, prompt="Once upon a time", temperature=0, max_tokens=8, stream=True)
        self.assertTrue("".join(chunk.choices[0].text for chunk in stream if chunk.choices))

    def test_echo_and_logprobs(self):
        answer = client().completions.create(
            model=CHAT, prompt="The capital of France is", temperature=0, max_tokens=4, echo=True, logprobs=2
        )
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith("The capital of France is"))
        self.assertEqual("".join(choice.logprobs.tokens), choice.text)
        self.assertIsNone(choice.logprobs.token_logprobs[0])


class Embeddings(unittest.TestCase):
    """Embeddings."""

    def test_encodings_agree(self):
        text = "The quick brown fox jumps over the lazy dog."
        floats = client().embeddings.create(model=EMBED, input=text, encoding_format="float").data[0].embedding
        coded = client().embeddings.create(model=EMBED, input=text, encoding_format="base64").data[0].embedding
        decoded = struct.unpack(f"<{len(floats)}f", base64.b64decode(coded)) if isinstance(coded, str) else coded
        self.assertEqual(len(floats), 384)
        self.assertTrue(all(abs(a - b) < 1e-6 for a, b in zip(floats, decoded)))
        self.assertAlmostEqual(sum(value * value for value in floats), 1.0, places=4)

    def test_meaning(self):
        answer = client().embeddings.create(
            model=EMBED, input=["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose sharply."]
        )
        cat, kitten, rates = (entry.embedding for entry in answer.data)
        near = sum(a * b for a, b in zip(cat, kitten))
        far = sum(a * b for a, b in zip(cat, rates))
        self.assertGreater(near, far + 0.3)
        self.assertEqual([entry.index for entry in answer.data], [0, 1, 2])
        self.assertGreater(answer.usage.prompt_tokens, 10)


class Models(unittest.TestCase):
    """Listing models."""

    def test_list_and_retrieve(self):
        names = [model.id for model in client().models.list()]
        self.assertIn(CHAT, names)
        self.assertIn(EMBED, names)
        self.assertEqual(client().models.retrieve(CHAT).id, CHAT)


class Errors(unittest.TestCase):
    """Each mistake raises the class that the SDK has for it."""

    def test_wrong_key(self):
        with self.assertRaises(openai.AuthenticationError) as raised:
            client(api_key="sk-wrong").models.list()
        self.assertEqual(raised.exception.code, "invalid_api_key")

    def test_unknown_model(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            client().chat.completions.create(model="no-such-model", messages=CAPITAL)
        self.assertEqual(raised.exception.code, "model_not_found")
        with self.assertRaises(openai.NotFoundError):
            client().models.retrieve("no-such-model")

    def test_bad_parameters(self):
        for changes, param in [
            ({"temperature": 9}, "temperature"),
            ({"top_p": -1}, "top_p"),
            ({"n": 0}, "n"),
            ({"max_tokens": -5}, "max_tokens"),
            ({"messages": []}, "messages"),
            ({"extra_body": {"no_such_parameter": 1}}, "no_such_parameter"),
            ({"extra_body": {"temprature": 1}}, "temprature"),
        ]:
            with self.subTest(param=param), self.assertRaises(openai.BadRequestError) as raised:
                client().chat.completions.create(**({"model": CHAT, "messages": CAPITAL} | changes))
            self.assertEqual(raised.exception.param, param)

    def test_too_long(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            client().chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "word " * 40000}])
        self.assertEqual(raised.exception.code, "context_length_exceeded")

    def test_wrong_kind_of_model(self):
        with self.assertRaises(openai.BadRequestError):
            client().chat.completions.create(model=EMBED, messages=CAPITAL)
        with self.assertRaises(openai.BadRequestError):
            client().embeddings.create(model=CHAT, input="text")


if __name__ == "__main__":
    unittest.main(verbosity=2)
