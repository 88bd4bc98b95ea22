// The Vercel AI SDK against a running server with the real models.
//
// The server's address and key come from SCONCE_URL and SCONCE_KEY; `tests/sdk.rs` starts the server and runs this file.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "sconce",
  baseURL: process.env.SCONCE_URL + "/v1",
  apiKey: process.env.SCONCE_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider(process.env.SCONCE_CHAT_MODEL);
const prompt = "What is the capital of France? Answer in one short sentence.";
const usual = { model, temperature: 0, maxRetries: 0 };
const weather = tool({
  description: "The weather in a city",
  inputSchema: z.object({ city: z.string().max(20) }),
});

test("generateText", async () => {
  const { text, usage } = await generateText({ ...usual, prompt, maxOutputTokens: 32 });
  assert.match(text, /Paris/);
  assert.ok(usage.outputTokens > 3);
});

test("streamText", async () => {
  const whole = await generateText({ ...usual, prompt, maxOutputTokens: 32 });
  const result = streamText({ ...usual, prompt, maxOutputTokens: 32 });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.ok((await result.usage).outputTokens > 3);
});

test("generateObject", async () => {
  const schema = z.object({ country: z.enum(["France", "Spain"]), capital: z.string().max(20) });
  const { object } = await generateObject({ ...usual, prompt, schema, maxOutputTokens: 96 });
  assert.ok(["France", "Spain"].includes(object.country));
});

test("tools", async () => {
  const { toolCalls } = await generateText({
    ...usual, prompt: "How is the weather in Oslo?", tools: { weather }, toolChoice: "required", maxOutputTokens: 128,
  });
  assert.equal(toolCalls[0].toolName, "weather");
  assert.equal(typeof toolCalls[0].input.city, "string");
});

test("embedMany", async () => {
  const { embeddings } = await embedMany({
    model: provider.embeddingModel(process.env.SCONCE_EMBED_MODEL), values: ["one", "two"], maxRetries: 0,
  });
  assert.deepEqual(embeddings.map((vector) => vector.length), [384, 384]);
});
