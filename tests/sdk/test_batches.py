"""Files and batches by the official OpenAI SDK against a running server with the real models.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import asyncio
import io
import json
import os
import time
import unittest

import openai

URL = os.environ["SCONCE_URL"] + "/v1"
KEY = os.environ["SCONCE_KEY"]
CHAT = os.environ["SCONCE_CHAT_MODEL"]
EMBED = os.environ["SCONCE_EMBED_MODEL"]
OVER = {"completed", "failed", "expired", "cancelled"}


def client():
    """A client that does not retry, so that each error is seen as it is."""
    return openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)


def lines(url, bodies):
    """A file of requests."""
    requests = ({"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body} for number, body in enumerate(bodies))
    return "\n".join(json.dumps(request) for request in requests).encode()


def chats(count, tokens=8):
    """Short conversations."""
    question = "What is {0} and {0}?"
    return [{"model": CHAT, "temperature": 0, "max_tokens": tokens, "messages": [{"role": "user", "content": question.format(n)}]}
            for n in range(count)]


def begin(content, endpoint="/v1/chat/completions", **more):
    """Uploads a file and makes a batch of it."""
    file = client().files.create(file=("requests.jsonl", io.BytesIO(content)), purpose="batch")
    return client().batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(batch):
    """The batch once it is over."""
    until = time.monotonic() + 300
    while batch.status not in OVER:
        if time.monotonic() > until:
            raise AssertionError(f"it has no end: {batch}")
        time.sleep(0.1)
        batch = client().batches.retrieve(batch.id)
    return batch


def read(file_id):
    """The lines of a file."""
    return [json.loads(line) for line in client().files.content(file_id).text.splitlines()]


class Files(unittest.TestCase):
    """Files."""

    def test_round_trip(self):
        content = lines("/v1/chat/completions", chats(3))
        file = client().files.create(file=("a.jsonl", content), purpose="batch",
                                     expires_after={"anchor": "created_at", "seconds": 7200})
        self.assertEqual((file.object, file.filename, file.bytes, file.purpose), ("file", "a.jsonl", len(content), "batch"))
        self.assertEqual(file.expires_at, file.created_at + 7200)
        self.assertEqual(client().files.retrieve(file.id), file)
        self.assertEqual(client().files.content(file.id).read(), content)
        self.assertTrue(client().files.delete(file.id).deleted)
        with self.assertRaises(openai.NotFoundError):
            client().files.retrieve(file.id)

    def test_pages(self):
        made = {client().files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch").id for n in range(5)}
        listed = [file.id for file in client().files.list(limit=2, purpose="batch")]
        self.assertTrue(made <= set(listed))
        self.assertEqual(len(listed), len(set(listed)))
        for file in made:
            client().files.delete(file)

    def test_refusals(self):
        with self.assertRaises(openai.BadRequestError) as refused:
            client().files.create(file=("a.txt", b"text"), purpose="fine-tune")
        self.assertEqual(refused.exception.param, "purpose")
        with self.assertRaises(openai.BadRequestError):
            client().batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")

    def test_async(self):
        async def round_trip():
            async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0) as asynchronous:
                files = await asyncio.gather(*(asynchronous.files.create(file=(f"{n}.jsonl", b"{}" * (n + 1)), purpose="batch")
                                               for n in range(8)))
                contents = await asyncio.gather(*(asynchronous.files.content(file.id) for file in files))
                self.assertEqual([content.text for content in contents], ["{}" * (n + 1) for n in range(8)])
                await asyncio.gather(*(asynchronous.files.delete(file.id) for file in files))

        asyncio.run(round_trip())


class Batches(unittest.TestCase):
    """Batches."""

    def test_chat(self):
        bodies = chats(5) + [{"model": "none", "messages": []}]
        batch = ended(begin(lines("/v1/chat/completions", bodies), metadata={"run": "1"}))
        self.assertEqual((batch.status, batch.object, batch.metadata), ("completed", "batch", {"run": "1"}))
        self.assertEqual((batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed), (6, 5, 1))
        output = read(batch.output_file_id)
        self.assertEqual([line["custom_id"] for line in output], [f"request-{number}" for number in range(5)])
        for line, body in zip(output, bodies):
            direct = client().chat.completions.create(**body)
            answer = line["response"]["body"]
            self.assertEqual(answer["choices"][0]["message"]["content"], direct.choices[0].message.content)
            self.assertEqual(answer["usage"]["completion_tokens"], direct.usage.completion_tokens)
        sums = [sum(line["response"]["body"]["usage"][name] for line in output) for name in ("prompt_tokens", "completion_tokens")]
        self.assertEqual([batch.usage.input_tokens, batch.usage.output_tokens], sums)
        self.assertEqual(batch.usage.total_tokens, sum(sums))
        self.assertEqual(batch.usage.output_tokens_details.reasoning_tokens, 0)
        self.assertGreaterEqual(batch.usage.input_tokens_details.cached_tokens, 0)
        errors = read(batch.error_file_id)
        self.assertEqual(errors[0]["custom_id"], "request-5")
        self.assertGreaterEqual(errors[0]["response"]["status_code"], 400)
        self.assertIn(batch.id, [listed.id for listed in client().batches.list(limit=1)])

    def test_embeddings(self):
        body = {"model": EMBED, "input": ["Good morning", "Bonjour"]}
        batch = ended(begin(lines("/v1/embeddings", [body]), endpoint="/v1/embeddings"))
        vectors = [item["embedding"] for item in read(batch.output_file_id)[0]["response"]["body"]["data"]]
        self.assertEqual(len(vectors), 2)
        self.assertEqual(batch.model, EMBED)
        self.assertGreater(len(vectors[0]), 100)

    def test_responses(self):
        body = {"model": CHAT, "input": "What is 2 and 2?", "temperature": 0, "max_output_tokens": 8}
        batch = ended(begin(lines("/v1/responses", [body]), endpoint="/v1/responses"))
        answer = read(batch.output_file_id)[0]["response"]["body"]
        direct = client().responses.create(**body)
        self.assertEqual(answer["output"][0]["content"][0]["text"], direct.output_text)
        self.assertEqual(client().responses.retrieve(answer["id"]).output_text, direct.output_text)

    def test_mistakes(self):
        twice = lines("/v1/chat/completions", chats(1)) + b"\n" + lines("/v1/chat/completions", chats(1))
        batch = ended(begin(twice))
        self.assertEqual(batch.status, "failed")
        self.assertEqual((batch.errors.data[0].code, batch.errors.data[0].line), ("duplicate_custom_id", 2))

    def test_cancel(self):
        batch = begin(lines("/v1/chat/completions", chats(200, tokens=64)))
        self.assertIn(client().batches.cancel(batch.id).status, {"cancelling", "cancelled"})
        batch = ended(batch)
        self.assertEqual(batch.status, "cancelled")
        self.assertLess(batch.request_counts.completed, 200)


if __name__ == "__main__":
    unittest.main()
