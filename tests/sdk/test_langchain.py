"""LangChain's OpenAI client against a running server.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import os
import unittest

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

URL = os.environ["SCONCE_URL"] + "/v1"
KEY = os.environ["SCONCE_KEY"]
QUESTION = "What is the capital of France? Answer in one short sentence."


def chat(**changes):
    model = os.environ["SCONCE_CHAT_MODEL"]
    return ChatOpenAI(base_url=URL, api_key=KEY, model=model, temperature=0, max_retries=0, **({"max_tokens": 48} | changes))


class Capital(BaseModel):
    """A country and its capital."""

    country: str = Field(max_length=20)
    capital: str = Field(max_length=20)


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


class LangChain(unittest.TestCase):
    def test_answer(self):
        answer = chat().invoke(QUESTION)
        self.assertIn("Paris", answer.content)
        self.assertGreater(answer.usage_metadata["output_tokens"], 3)

    def test_stream(self):
        text = "".join(chunk.content for chunk in chat().stream(QUESTION))
        self.assertEqual(text, chat().invoke(QUESTION).content)

    def test_batch(self):
        answers = chat().batch([QUESTION] * 4)
        self.assertEqual(len({answer.content for answer in answers}), 1)

    def test_structured_output_by_schema(self):
        answer = chat(max_tokens=96).with_structured_output(Capital, method="json_schema").invoke(QUESTION)
        self.assertIsInstance(answer, Capital)

    def test_structured_output_by_function(self):
        answer = chat(max_tokens=96).with_structured_output(Capital, method="function_calling").invoke(QUESTION)
        self.assertIsInstance(answer, Capital)

    def test_tool_and_its_result(self):
        bound = chat(max_tokens=128).bind_tools([get_weather], tool_choice="get_weather")
        question = HumanMessage("How is the weather in Oslo?")
        answer = bound.invoke([question])
        self.assertIsInstance(answer, AIMessage)
        (call,) = answer.tool_calls
        self.assertEqual(call["name"], "get_weather")
        self.assertIsInstance(call["args"]["city"], str)
        result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
        self.assertTrue(chat().bind_tools([get_weather], tool_choice="none").invoke([question, answer, result]).content)

    def test_embeddings(self):
        embeddings = OpenAIEmbeddings(
            base_url=URL, api_key=KEY, model=os.environ["SCONCE_EMBED_MODEL"], check_embedding_ctx_length=False
        )
        self.assertEqual([len(vector) for vector in embeddings.embed_documents(["one", "two"])], [384, 384])


if __name__ == "__main__":
    unittest.main(verbosity=2)
