"""The official Ollama client against a running server with the real models.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import asyncio
import os
import unittest
import urllib.request

import ollama

URL = os.environ["SCONCE_URL"]
KEY = os.environ["SCONCE_KEY"]
CHAT = os.environ["SCONCE_CHAT_MODEL"]
EMBED = os.environ["SCONCE_EMBED_MODEL"]
CAPITAL = "What is the capital of France? Answer in one short sentence."
MESSAGES = [{"role": "user", "content": CAPITAL}]
OPTIONS = {"temperature": 0, "num_predict": 32}


def client(key=KEY):
    return ollama.Client(host=URL, headers={"Authorization": f"Bearer {key}"})


class Chat(unittest.TestCase):
    """Conversations."""

    def test_answer(self):
        answer = client().chat(CHAT, MESSAGES, options=OPTIONS)
        self.assertIn("Paris", answer.message.content)
        self.assertEqual((answer.message.role, answer.done, answer.done_reason), ("assistant", True, "stop"))
        self.assertEqual(answer.model, CHAT)
        self.assertGreater(answer.prompt_eval_count, 10)
        self.assertGreater(answer.eval_count, 3)
        parts = answer.load_duration + answer.prompt_eval_duration + answer.eval_duration
        self.assertTrue(0 < parts <= answer.total_duration)

    def test_stream_equals_answer(self):
        whole = client().chat(CHAT, MESSAGES, options=OPTIONS)
        parts = list(client().chat(CHAT, MESSAGES, options=OPTIONS, stream=True))
        self.assertEqual("".join(part.message.content for part in parts), whole.message.content)
        self.assertEqual([part.done for part in parts], [False] * (len(parts) - 1) + [True])
        self.assertEqual(parts[-1].eval_count, whole.eval_count)

    def test_length_and_stop(self):
        self.assertEqual(client().chat(CHAT, MESSAGES, options=OPTIONS | {"num_predict": 2}).done_reason, "length")
        answer = client().chat(CHAT, MESSAGES, options=OPTIONS | {"stop": ["Paris"]})
        self.assertNotIn("Paris", answer.message.content)

    def test_logprobs(self):
        answer = client().chat(CHAT, MESSAGES, options=OPTIONS, logprobs=True, top_logprobs=3)
        self.assertTrue(all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in answer.logprobs))

    def test_sixteen_at_once(self):
        async def ask_all():
            shared = ollama.AsyncClient(host=URL, headers={"Authorization": f"Bearer {KEY}"})
            return await asyncio.gather(*(shared.chat(CHAT, MESSAGES, options=OPTIONS) for _ in range(16)))

        self.assertEqual(len({answer.message.content for answer in asyncio.run(ask_all())}), 1)


class Generate(unittest.TestCase):
    """Prompts."""

    def test_answer_and_stream(self):
        answer = client().generate(CHAT, CAPITAL, options=OPTIONS)
        self.assertIn("Paris", answer.response)
        parts = client().generate(CHAT, CAPITAL, options=OPTIONS, stream=True)
        self.assertEqual("".join(part.response for part in parts), answer.response)

    def test_raw(self):
        answer = client().generate(CHAT, "The capital of France is", raw=True, options=OPTIONS | {"num_predict": 8})
        self.assertIn("Paris", answer.response)

    def test_load(self):
        self.assertEqual(client().generate(CHAT).done_reason, "load")

    def test_unload(self):
        # The key may use models, not manage them.
        for unload in (client().generate, client().chat):
            with self.assertRaises(ollama.ResponseError) as caught:
                unload(CHAT, keep_alive=0)
            self.assertEqual(caught.exception.status_code, 403)


class Embed(unittest.TestCase):
    """Vectors."""

    def test_embed(self):
        answer = client().embed(EMBED, ["Good morning", "Bonjour"])
        self.assertEqual([len(vector) for vector in answer.embeddings], [384, 384])
        self.assertGreater(answer.prompt_eval_count, 2)
        older = client().embeddings(EMBED, "Good morning")
        self.assertEqual(list(older.embedding), list(answer.embeddings[0]))


class Models(unittest.TestCase):
    """Lists of models."""

    def test_lists(self):
        self.assertEqual([model.model for model in client().list().models], [CHAT, EMBED])
        self.assertIn(CHAT, [model.model for model in client().ps().models])
        details = client().list().models[0].details
        self.assertEqual((details.format, details.family, details.quantization_level), ("gguf", "llama", "Q4_1"))
        self.assertEqual(details.parameter_size, "134.52M")

    def test_show(self):
        shown = client().show(CHAT)
        self.assertEqual(shown.capabilities, ["completion"])
        self.assertGreaterEqual(shown.modelinfo["llama.context_length"], 2048)
        self.assertEqual(shown.modelinfo["general.parameter_count"], 134_515_008)
        self.assertEqual(shown.details.parameter_size, "134.52M")
        self.assertIn("<|im_start|>", shown.template)
        self.assertTrue(shown.modelfile.startswith(f"FROM {CHAT}\n"))

    def test_probe(self):
        with urllib.request.urlopen(URL) as answer:
            self.assertEqual((answer.status, answer.read()), (200, b"Ollama is running"))

    def test_tag(self):
        self.assertEqual(client().generate(f"{CHAT}:latest").done_reason, "load")


class Errors(unittest.TestCase):
    """Errors in Ollama's shape."""

    def refused(self, status, ask):
        with self.assertRaises(ollama.ResponseError) as caught:
            ask()
        self.assertEqual(caught.exception.status_code, status)
        return caught.exception.error

    def test_unknown_model(self):
        self.assertIn("nobody", self.refused(404, lambda: client().chat("nobody", MESSAGES)))

    def test_wrong_key(self):
        self.refused(401, lambda: client("wrong").chat(CHAT, MESSAGES))

    def test_wrong_parameters(self):
        self.assertIn("num_ctx", self.refused(400, lambda: client().chat(CHAT, MESSAGES, options={"num_ctx": 1 << 20})))
        self.assertIn("suffix", self.refused(400, lambda: client().generate(CHAT, "a", suffix="b")))

    def test_models_are_not_changed_here(self):
        for ask in (client().pull, client().push, client().delete):
            self.assertIn("/api/", self.refused(404, lambda ask=ask: ask("x")))


if __name__ == "__main__":
    unittest.main()
