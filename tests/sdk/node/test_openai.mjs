// The official OpenAI SDK for Node against a running server with the real models.
//
// The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = process.env.SCONCE_CHAT_MODEL;
const client = new OpenAI({ baseURL: process.env.SCONCE_URL + "/v1", apiKey: process.env.SCONCE_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France? Answer in one short sentence." }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    strict: true,
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

test("chat", async () => {
  const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 32 });
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("stream", async () => {
  const whole = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 32 });
  const stream = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 32, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, whole.choices[0].message.content);
});

test("parse", async () => {
  const Capital = z.object({ country: z.enum(["France", "Spain"]), size: z.number().int() });
  const answer = await client.chat.completions.parse({
    model, messages, temperature: 0, max_tokens: 64, response_format: zodResponseFormat(Capital, "capital"),
  });
  assert.ok(["France", "Spain"].includes(answer.choices[0].message.parsed.country));
});

test("tools", async () => {
  const answer = await client.chat.completions.create({
    model, messages, temperature: 0, max_tokens: 128, tools: [weather],
    tool_choice: { type: "function", function: { name: "get_weather" } },
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
});

test("tools, streamed", async () => {
  const stream = client.chat.completions.stream({
    model, messages, temperature: 0, max_tokens: 128, tools: [weather], tool_choice: "required",
  });
  const answer = await stream.finalChatCompletion();
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
});

test("responses", async () => {
  const response = await client.responses.create({
    model, input: messages[0].content, temperature: 0, max_output_tokens: 32,
  });
  assert.match(response.output_text, /Paris/);
  const again = await client.responses.retrieve(response.id);
  assert.equal(again.output_text ?? again.output[0].content[0].text, response.output_text);
  const next = await client.responses.create({
    model, previous_response_id: response.id, input: "And of Italy?", temperature: 0, max_output_tokens: 32,
  });
  assert.equal(next.previous_response_id, response.id);
  await client.responses.delete(response.id);
});

test("responses, streamed", async () => {
  const stream = await client.responses.create({
    model, input: messages[0].content, temperature: 0, max_output_tokens: 32, stream: true,
  });
  const types = [];
  for await (const event of stream) types.push(event.type);
  assert.equal(types[0], "response.created");
  assert.equal(types.at(-1), "response.completed");
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model: process.env.SCONCE_EMBED_MODEL, input: ["one", "two"] });
  assert.deepEqual(answer.data.map((data) => data.embedding.length), [384, 384]);
});

test("sixteen at once", async () => {
  const one = () => client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16 });
  const answers = await Promise.all(Array.from({ length: 16 }, one));
  assert.equal(new Set(answers.map((answer) => answer.choices[0].message.content)).size, 1);
});

test("errors have their kind", async () => {
  await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ model, messages, temprature: 1 }), OpenAI.BadRequestError);
  const stranger = new OpenAI({ baseURL: process.env.SCONCE_URL + "/v1", apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});
