//! Events and answers in Anthropic's words: an answer is a list of blocks, of which one at a time is open.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::api::anthropic::thinking::Display;
use crate::api::anthropic::types::{Block, BlockDelta, Ended, Event, Message, MessageUsage};
use crate::api::inference::{self, Writer};
use crate::generate::{Answer, AnswerChoice, EndReason, GenerationEvent, ToolCall, Usage};

/// What an answer needs to know of its request.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The model as it was asked for.
    pub model: String,
    /// The texts that end an answer.
    pub stop: Vec<String>,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// What is sent of what the model thinks.
    pub display: Display,
}

/// Writes events and answers.
pub struct MessageWriter {
    id: String,
    asked: Asked,
    open: Open,
    /// The number of the block that is open, or comes next.
    index: u32,
    is_pinged: bool,
    thought: blake3::Hasher,
    reason: EndReason,
}

/// The block that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Thinking,
    Text,
    Call,
}

impl MessageWriter {
    /// For an answer that begins now.
    pub fn new(asked: Asked) -> Self {
        Self {
            id: inference::id("msg").replacen('-', "_", 1),
            asked,
            open: Open::None,
            index: 0,
            is_pinged: false,
            thought: blake3::Hasher::new(),
            reason: EndReason::Stop,
        }
    }

    fn message(&self, content: Vec<Block>, ended: Ended, usage: Usage) -> Message {
        Message {
            id: self.id.clone(),
            r#type: "message",
            role: "assistant",
            content,
            model: self.asked.model.clone(),
            stop_reason: ended.stop_reason,
            stop_sequence: ended.stop_sequence,
            usage: usage.into(),
        }
    }

    fn ended(&self, reason: EndReason, usage: Usage) -> Ended {
        Ended::of(reason, &self.asked.stop, usage.completion_tokens < self.asked.max_tokens)
    }

    fn blocks(&self, choice: AnswerChoice) -> Vec<Block> {
        let mut blocks = Vec::new();
        if !choice.reasoning.is_empty() {
            let signature = signature(&blake3::hash(choice.reasoning.as_bytes()));
            let thinking = self.shown(choice.reasoning).unwrap_or_default();
            blocks.push(Block::Thinking { thinking, signature });
        }
        if !choice.text.is_empty() {
            blocks.push(Block::Text { text: choice.text });
        }
        blocks.extend(choice.tool_calls.into_iter().map(call));
        blocks
    }

    /// What is sent of a thought.
    fn shown(&self, thought: String) -> Option<String> {
        (self.asked.display == Display::Shown).then_some(thought)
    }

    /// Begins a block, after the end of the one before it.
    fn begin(&mut self, open: Open, block: Block) -> Vec<Event> {
        let mut events = self.close();
        self.open = open;
        events.push(Event::ContentBlockStart { index: self.index, content_block: block });
        if !std::mem::replace(&mut self.is_pinged, true) {
            events.push(Event::Ping);
        }
        events
    }

    /// Ends the block that is open.
    fn close(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let index = self.index;
        if self.open == Open::Thinking {
            let signature = signature(&self.thought.finalize());
            self.thought.reset();
            events.push(Event::ContentBlockDelta { index, delta: BlockDelta::Signature { signature } });
        }
        if std::mem::replace(&mut self.open, Open::None) != Open::None {
            events.push(Event::ContentBlockStop { index });
            self.index += 1;
        }
        events
    }

    /// More of a text, in a block of its own kind.
    fn text(&mut self, text: String) -> Vec<Event> {
        let mut events = match self.open {
            Open::Text => Vec::new(),
            _ => self.begin(Open::Text, Block::Text { text: String::new() }),
        };
        let delta = BlockDelta::Text { text };
        events.push(Event::ContentBlockDelta { index: self.index, delta });
        events
    }

    fn thought(&mut self, text: String) -> Vec<Event> {
        let empty = Block::Thinking { thinking: String::new(), signature: String::new() };
        let mut events = match self.open {
            Open::Thinking => Vec::new(),
            _ => self.begin(Open::Thinking, empty),
        };
        self.thought.update(text.as_bytes());
        let index = self.index;
        let shown = self.shown(text).map(|thinking| BlockDelta::Thinking { thinking });
        events.extend(shown.map(|delta| Event::ContentBlockDelta { index, delta }));
        events
    }

    fn arguments(&self, text: String) -> Event {
        let delta = BlockDelta::InputJson { partial_json: text };
        Event::ContentBlockDelta { index: self.index, delta }
    }

    fn done(&self, usage: Usage) -> Vec<Event> {
        let delta = self.ended(self.reason, usage);
        vec![Event::MessageDelta { delta, usage: MessageUsage::from(usage) }, Event::MessageStop]
    }

    fn events(&mut self, event: GenerationEvent) -> Vec<Event> {
        match event {
            GenerationEvent::Started { usage, .. } => {
                // The first token is there when the prompt has run.
                let usage = Usage { completion_tokens: usage.completion_tokens.max(1), ..usage };
                vec![Event::MessageStart { message: self.message(Vec::new(), Ended::default(), usage) }]
            }
            GenerationEvent::Text { text, .. } | GenerationEvent::Reasoning { text, .. }
                if text.is_empty() =>
            {
                Vec::new()
            }
            GenerationEvent::Text { text, .. } => self.text(text),
            GenerationEvent::Reasoning { text, .. } => self.thought(text),
            GenerationEvent::ToolCallBegun { id, name, .. } => {
                let block = Block::ToolUse { id: tool_use_id(&id), name, input: Map::new() };
                let mut events = self.begin(Open::Call, block);
                // As Anthropic does: a call of nothing has a piece, too.
                events.push(self.arguments(String::new()));
                events
            }
            GenerationEvent::ToolCallArguments { text, .. } => vec![self.arguments(text)],
            GenerationEvent::Ended { reason, .. } => {
                self.reason = reason;
                self.close()
            }
            GenerationEvent::Done { usage } => self.done(usage),
        }
    }
}

impl Writer for MessageWriter {
    fn answer(&self, answer: Answer) -> Value {
        let choice = answer.choices.into_iter().next().unwrap_or_default();
        let ended = self.ended(choice.reason.unwrap_or(EndReason::Stop), answer.usage);
        json!(self.message(self.blocks(choice), ended, answer.usage))
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        self.events(event).into_iter().map(|event| json!(event)).collect()
    }
}

/// A call as a block. Arguments that are no object cannot be sent; the call itself still is.
fn call(call: ToolCall) -> Block {
    let input = serde_json::from_str(&call.arguments).unwrap_or_default();
    Block::ToolUse { id: tool_use_id(&call.id), name: call.name, input }
}

/// `toolu_…`, as Anthropic's clients know it.
fn tool_use_id(id: &str) -> String {
    id.strip_prefix("call_").map_or_else(|| id.to_owned(), |number| format!("toolu_{number}"))
}

/// What stands where Anthropic signs a thought: clients keep it and send it back, and nobody here asks for it.
fn signature(digest: &blake3::Hash) -> String {
    STANDARD.encode(digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(display: Display) -> MessageWriter {
        let stop = vec!["END".to_owned()];
        MessageWriter::new(Asked { model: "m".to_owned(), stop, max_tokens: 9, display })
    }

    fn happenings() -> Vec<GenerationEvent> {
        let usage = Usage {
            prompt_tokens: 7,
            cached_tokens: 3,
            completion_tokens: 9,
            reasoning_tokens: 2,
            ..Usage::default()
        };
        let text =
            |text: &str| GenerationEvent::Text { choice: 0, text: text.to_owned(), tokens: Vec::new() };
        let thought =
            |text: &str| GenerationEvent::Reasoning { choice: 0, text: text.to_owned(), tokens: Vec::new() };
        let begun = |call: u32, name: &str| GenerationEvent::ToolCallBegun {
            choice: 0,
            call,
            id: format!("call_{call}"),
            name: name.to_owned(),
        };
        let more =
            |call, text: &str| GenerationEvent::ToolCallArguments { choice: 0, call, text: text.to_owned() };
        vec![
            GenerationEvent::Started { choices: 0..1, usage: Usage { completion_tokens: 0, ..usage } },
            thought("I "),
            thought("see."),
            text("Let "),
            text(""),
            text("me."),
            begun(0, "a"),
            more(0, "{\"x\":"),
            more(0, " 1}"),
            begun(1, "b"),
            GenerationEvent::Ended { choice: 0, reason: EndReason::ToolCalls },
            GenerationEvent::Done { usage },
        ]
    }

    fn written(display: Display) -> Vec<Value> {
        let mut writer = writer(display);
        happenings().into_iter().flat_map(|event| writer.chunks(event)).collect()
    }

    #[test]
    fn one_block_is_open_at_a_time() {
        let events = written(Display::Shown);
        let told: Vec<String> = events
            .iter()
            .map(|event| {
                let kind = event["type"].as_str().expect("a type");
                let of = event["content_block"]["type"].as_str().or(event["delta"]["type"].as_str());
                format!("{kind} {} {}", event["index"], of.unwrap_or_default())
            })
            .collect();
        let expected = [
            "message_start null ",
            "content_block_start 0 thinking",
            "ping null ",
            "content_block_delta 0 thinking_delta",
            "content_block_delta 0 thinking_delta",
            "content_block_delta 0 signature_delta",
            "content_block_stop 0 ",
            "content_block_start 1 text",
            "content_block_delta 1 text_delta",
            "content_block_delta 1 text_delta",
            "content_block_stop 1 ",
            "content_block_start 2 tool_use",
            "content_block_delta 2 input_json_delta",
            "content_block_delta 2 input_json_delta",
            "content_block_delta 2 input_json_delta",
            "content_block_stop 2 ",
            "content_block_start 3 tool_use",
            "content_block_delta 3 input_json_delta",
            "content_block_stop 3 ",
            "message_delta null ",
            "message_stop null ",
        ];
        assert_eq!(told, expected);
        let begun = &events[0]["message"]["usage"];
        assert_eq!((&begun["input_tokens"], &begun["output_tokens"]), (&json!(4), &json!(1)));
        assert_eq!(events[12]["delta"]["partial_json"], "");
        assert_eq!(
            events[11]["content_block"],
            json!({"type": "tool_use", "id": "toolu_0", "name": "a", "input": {}})
        );
        assert_eq!(events[19]["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
        assert_eq!(events[19]["usage"]["output_tokens_details"]["thinking_tokens"], 2);
    }

    #[tokio::test]
    async fn a_whole_answer_says_the_same_as_its_stream() {
        for display in [Display::Shown, Display::Omitted] {
            let events = happenings().into_iter().map(Ok::<_, ()>);
            let answer =
                Answer::collect(futures_util::stream::iter(events)).await.expect("there is no error");
            let whole = writer(display).answer(answer);
            let mut blocks: Vec<Value> = Vec::new();
            for event in written(display) {
                if let Some(block) = event.get("content_block") {
                    blocks.push(block.clone());
                }
                let Some(delta) = event.get("delta").filter(|_| event["type"] == "content_block_delta")
                else {
                    continue;
                };
                let block = blocks.last_mut().expect("one is open").as_object_mut().expect("an object");
                let (name, more) = delta.as_object().expect("an object").iter().nth(1).expect("what is new");
                let before = block.get(name).and_then(Value::as_str).unwrap_or_default();
                let text = format!("{before}{}", more.as_str().expect("a text"));
                block.insert(name.clone(), json!(text));
            }
            for block in &mut blocks {
                if let Some(input) = block.as_object_mut().expect("an object").shift_remove("partial_json") {
                    let input = input.as_str().filter(|input| !input.is_empty()).unwrap_or("{}");
                    block["input"] = serde_json::from_str(input).expect("JSON");
                }
            }
            assert_eq!(whole["content"], json!(blocks));
            assert_eq!(
                whole["content"][0]["thinking"],
                if display == Display::Shown { "I see." } else { "" }
            );
            assert_eq!(whole["stop_reason"], "tool_use");
        }
    }

    /// A value without what differs from answer to answer: texts, numbers, ids.
    fn masked(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| match name.as_str() {
                    "type" | "role" | "index" | "stop_reason" | "stop_sequence" => {
                        (name.clone(), value.clone())
                    }
                    "usage" => {
                        let mut usage = masked(value);
                        // Ours.
                        for name in ["output_tokens_details", "service_tier"] {
                            usage.as_object_mut().expect("an object").shift_remove(name);
                        }
                        (name.clone(), usage)
                    }
                    _ => (name.clone(), masked(value)),
                };
                Value::Object(members.iter().map(member).collect())
            }
            Value::String(_) => json!("text"),
            Value::Number(_) => json!(0),
            other => other.clone(),
        }
    }

    /// Events, masked; pieces of one block that follow each other are one.
    fn shape(events: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let mut shape: Vec<Value> = events.into_iter().map(|event| masked(&event)).collect();
        shape.dedup_by(|next, before| next["type"] == "content_block_delta" && next == before);
        shape
    }

    #[test]
    fn the_events_are_those_of_the_public_example() {
        let example = include_str!("../../../tests/wire/anthropic_thinking_and_tools.sse");
        let data = example.lines().filter_map(|line| line.strip_prefix("data: "));
        let expected = shape(data.map(|data| serde_json::from_str(data).expect("it is JSON")));
        let is_second =
            |event: &GenerationEvent| matches!(event, GenerationEvent::ToolCallBegun { call: 1, .. });
        let mut writer = writer(Display::Shown);
        let one_call = happenings().into_iter().filter(|event| !is_second(event));
        assert_eq!(shape(one_call.flat_map(|event| writer.chunks(event))), expected);
    }

    #[test]
    fn each_end_has_its_word() {
        let stop = ["END".to_owned()];
        for (reason, is_full, expected) in [
            (EndReason::Stop, false, "end_turn"),
            (EndReason::StopText(0), false, "stop_sequence"),
            (EndReason::ToolCalls, false, "tool_use"),
            (EndReason::Length, false, "max_tokens"),
            (EndReason::Length, true, "model_context_window_exceeded"),
        ] {
            let ended = Ended::of(reason, &stop, is_full);
            assert_eq!(ended.stop_reason, Some(expected));
            assert_eq!(ended.stop_sequence.is_some(), expected == "stop_sequence");
        }
    }
}
