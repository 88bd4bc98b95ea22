"""LlamaIndex's OpenAI-like client against a running server.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import os
import unittest

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

QUESTION = "What is the capital of France? Answer in one short sentence."


def client(**changes):
    return OpenAILike(
        model=os.environ["SCONCE_CHAT_MODEL"],
        api_base=os.environ["SCONCE_URL"] + "/v1",
        api_key=os.environ["SCONCE_KEY"],
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0,
        max_tokens=64,
        max_retries=0,
        **changes,
    )


class LlamaIndex(unittest.TestCase):
    def test_chat(self):
        self.assertIn("Paris", client().chat([ChatMessage(role="user", content=QUESTION)]).message.content)

    def test_stream(self):
        message = [ChatMessage(role="user", content=QUESTION)]
        pieces = list(client().stream_chat(message))
        self.assertEqual("".join(piece.delta or "" for piece in pieces), client().chat(message).message.content)

    def test_complete(self):
        self.assertTrue(client().complete(QUESTION).text)

    def test_tool(self):
        def get_weather(city: str) -> str:
            """The weather in a city."""
            return f"sunny in {city}"

        answer = client().chat_with_tools(
            [FunctionTool.from_defaults(get_weather)], user_msg="How is the weather in Oslo?", tool_required=True
        )
        calls = client().get_tool_calls_from_response(answer)
        self.assertEqual([call.tool_name for call in calls][:1], ["get_weather"])
        self.assertIsInstance(calls[0].tool_kwargs["city"], str)


if __name__ == "__main__":
    unittest.main(verbosity=2)
