"""LiteLLM against a running server: what a gateway in front of it does.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import asyncio
import json
import os
import unittest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

CHAT = "openai/" + os.environ["SCONCE_CHAT_MODEL"]
EMBED = "openai/" + os.environ["SCONCE_EMBED_MODEL"]
SERVER = {"api_base": os.environ["SCONCE_URL"] + "/v1", "api_key": os.environ["SCONCE_KEY"], "num_retries": 0}
CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class LiteLLM(unittest.TestCase):
    def test_answer(self):
        answer = litellm.completion(CHAT, CAPITAL, temperature=0, max_tokens=32, **SERVER)
        self.assertIn("Paris", answer.choices[0].message.content)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_stream(self):
        whole = litellm.completion(CHAT, CAPITAL, temperature=0, max_tokens=32, **SERVER)
        chunks = litellm.completion(CHAT, CAPITAL, temperature=0, max_tokens=32, stream=True, **SERVER)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.assertEqual(text, whole.choices[0].message.content)

    def test_async(self):
        async def all():
            one = lambda: litellm.acompletion(CHAT, CAPITAL, temperature=0, max_tokens=16, **SERVER)
            return await asyncio.gather(*(one() for _ in range(8)))

        texts = {answer.choices[0].message.content for answer in asyncio.run(all())}
        self.assertEqual(len(texts), 1)

    def test_schema(self):
        schema = {
            "type": "object",
            "properties": {"capital": {"type": "string", "maxLength": 20}},
            "required": ["capital"],
            "additionalProperties": False,
        }
        response_format = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": schema}}
        answer = litellm.completion(CHAT, CAPITAL, max_tokens=64, temperature=0, response_format=response_format, **SERVER)
        self.assertEqual(list(json.loads(answer.choices[0].message.content)), ["capital"])

    def test_tool(self):
        answer = litellm.completion(
            CHAT, CAPITAL, max_tokens=128, temperature=0, tools=[WEATHER], tool_choice="required", **SERVER
        )
        (call,) = answer.choices[0].message.tool_calls
        self.assertEqual(call.function.name, "get_weather")
        self.assertEqual(list(json.loads(call.function.arguments)), ["city"])

    def test_embedding(self):
        answer = litellm.embedding(EMBED, ["one", "two"], encoding_format="float", **SERVER)
        self.assertEqual([len(data["embedding"]) for data in answer.data], [384, 384])

    def test_refusal_has_its_kind(self):
        with self.assertRaises(litellm.AuthenticationError):
            litellm.completion(CHAT, CAPITAL, **SERVER | {"api_key": "sk-wrong"})
        with self.assertRaises(litellm.NotFoundError):
            litellm.completion("openai/no-such-model", CAPITAL, **SERVER)


if __name__ == "__main__":
    unittest.main(verbosity=2)
