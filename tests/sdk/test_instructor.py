"""Instructor against a running server: typed answers.

The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.
"""

import enum
import os
import unittest

import instructor
import openai
from pydantic import BaseModel, ConfigDict, Field

QUESTION = [{"role": "user", "content": "Paris is a large city in France. What is it?"}]


class Kind(enum.Enum):
    CITY = "city"
    RIVER = "river"


class Place(BaseModel):
    # Else the schema admits more members, and a small model goes on inventing them.
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=20)
    kind: Kind
    size: int = Field(ge=1, le=5)


def ask(mode):
    inner = openai.OpenAI(base_url=os.environ["SCONCE_URL"] + "/v1", api_key=os.environ["SCONCE_KEY"], max_retries=0)
    client = instructor.from_openai(inner, mode=mode)
    return client.chat.completions.create(
        model=os.environ["SCONCE_CHAT_MODEL"], response_model=Place, messages=QUESTION, temperature=0, max_tokens=128, max_retries=1
    )


class Instructor(unittest.TestCase):
    def check(self, place):
        self.assertIsInstance(place, Place)
        self.assertTrue(1 <= place.size <= 5)

    def test_json_schema(self):
        self.check(ask(instructor.Mode.JSON_SCHEMA))

    def test_tools(self):
        self.check(ask(instructor.Mode.TOOLS))

    def test_tools_strict(self):
        self.check(ask(instructor.Mode.TOOLS_STRICT))


if __name__ == "__main__":
    unittest.main(verbosity=2)
