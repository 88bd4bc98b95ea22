//! Events and answers in Ollama's words: an answer is its lines put together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::api::inference::Writer;
use crate::api::ollama::times::Times;
use crate::api::openai::types::finite_logprob;
use crate::clock::Timestamp;
use crate::generate::{Answer, EndReason, GenerationEvent, TextToken, Usage};

/// Which of the two ways of generating is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/api/chat`: text in a `message`.
    Chat,
    /// `/api/generate`: text in `response`.
    Generate,
}

/// Writes events and answers.
pub struct LineWriter {
    kind: Kind,
    model: String,
    logprobs: bool,
    times: Times,
    /// The call that is being made: its arguments are sent when they are whole.
    call: Option<(Value, String, String)>,
    calls: usize,
    reason: Option<EndReason>,
}

impl LineWriter {
    /// For an answer of a model as it was asked for.
    pub fn new(kind: Kind, model: &str, logprobs: bool, times: Times) -> Self {
        let model = model.to_owned();
        Self { kind, model, logprobs, times, call: None, calls: 0, reason: None }
    }

    /// Notes when something happens; for answers that are whole.
    pub fn note(&mut self, event: &GenerationEvent) {
        self.times.note(event);
    }

    /// The answer to somebody who only wants the model to be there, or not.
    pub fn loaded(&self, unload: bool) -> Value {
        let mut line = self.line(String::new(), None, Vec::new());
        line.insert("done_reason".to_owned(), json!(if unload { "unload" } else { "load" }));
        line.insert("done".to_owned(), json!(true));
        Value::Object(line)
    }

    fn line(&self, text: String, thought: Option<String>, calls: Vec<Value>) -> Map<String, Value> {
        let mut said = Map::new();
        let (text_name, thought_name) = match self.kind {
            Kind::Chat => {
                said.insert("role".to_owned(), json!("assistant"));
                ("content", "thinking")
            }
            Kind::Generate => ("response", "thinking"),
        };
        said.insert(text_name.to_owned(), json!(text));
        said.extend(thought.map(|thought| (thought_name.to_owned(), json!(thought))));
        if !calls.is_empty() {
            said.insert("tool_calls".to_owned(), json!(calls));
        }
        let mut line = Map::new();
        line.insert("model".to_owned(), json!(self.model));
        line.insert("created_at".to_owned(), json!(now()));
        match self.kind {
            Kind::Chat => drop(line.insert("message".to_owned(), Value::Object(said))),
            Kind::Generate => line.extend(said),
        }
        line
    }

    fn piece(
        &self,
        text: String,
        thought: Option<String>,
        calls: Vec<Value>,
        tokens: Vec<TextToken>,
    ) -> Value {
        let mut line = self.line(text, thought, calls);
        line.insert("done".to_owned(), json!(false));
        self.add_logprobs(&mut line, tokens);
        Value::Object(line)
    }

    fn add_logprobs(&self, line: &mut Map<String, Value>, tokens: Vec<TextToken>) {
        if self.logprobs && !tokens.is_empty() {
            let tokens: Vec<Value> = tokens.into_iter().map(logprob).collect();
            line.insert("logprobs".to_owned(), json!(tokens));
        }
    }

    fn end(&self, mut line: Map<String, Value>, reason: Option<EndReason>, usage: Usage) -> Value {
        line.insert("done".to_owned(), json!(true));
        let reason = if reason == Some(EndReason::Length) { "length" } else { "stop" };
        line.insert("done_reason".to_owned(), json!(reason));
        line.extend(self.times.members(usage));
        Value::Object(line)
    }

    /// The call that was being made, now whole.
    fn whole_call(&mut self) -> Vec<Value> {
        let Some((id, name, arguments)) = self.call.take() else { return Vec::new() };
        let index = self.calls;
        self.calls += 1;
        vec![self.piece(String::new(), None, vec![call(index, &id, &name, &arguments)], Vec::new())]
    }
}

impl Writer for LineWriter {
    fn answer(&self, answer: Answer) -> Value {
        let choice = answer.choices.into_iter().next().unwrap_or_default();
        let thought = Some(choice.reasoning).filter(|thought| !thought.is_empty());
        let calls = choice.tool_calls.iter().enumerate();
        let calls = calls.map(|(index, made)| call(index, &json!(made.id), &made.name, &made.arguments));
        let mut line = self.line(choice.text, thought, calls.collect());
        self.add_logprobs(&mut line, choice.tokens);
        self.end(line, choice.reason, answer.usage)
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        self.note(&event);
        match event {
            GenerationEvent::Started { .. } => Vec::new(),
            GenerationEvent::Text { text, tokens, .. } => {
                let mut lines = self.whole_call();
                lines.push(self.piece(text, None, Vec::new(), tokens));
                lines
            }
            GenerationEvent::Reasoning { text, tokens, .. } => {
                vec![self.piece(String::new(), Some(text), Vec::new(), tokens)]
            }
            GenerationEvent::ToolCallBegun { id, name, .. } => {
                let lines = self.whole_call();
                self.call = Some((json!(id), name, String::new()));
                lines
            }
            GenerationEvent::ToolCallArguments { text, .. } => {
                if let Some((.., arguments)) = &mut self.call {
                    arguments.push_str(&text);
                }
                Vec::new()
            }
            GenerationEvent::Ended { reason, .. } => {
                self.reason = Some(reason);
                self.whole_call()
            }
            GenerationEvent::Done { usage } => {
                vec![self.end(self.line(String::new(), None, Vec::new()), self.reason, usage)]
            }
        }
    }
}

/// A call. Arguments that are no object cannot be sent; the call itself still is.
fn call(index: usize, id: &Value, name: &str, arguments: &str) -> Value {
    let arguments: Map<String, Value> = serde_json::from_str(arguments).unwrap_or_default();
    json!({"id": id, "function": {"index": index, "name": name, "arguments": arguments}})
}

fn logprob(token: TextToken) -> Value {
    let (own, top) = match token.logprob {
        Some(found) => (finite_logprob(found.logprob), found.top),
        None => (finite_logprob(f32::NEG_INFINITY), Vec::new()),
    };
    let alternatives = token.alternatives.into_iter().zip(top);
    let top: Vec<Value> = alternatives
        .map(|((token, bytes), (_, logprob))| json!({"token": token, "logprob": finite_logprob(logprob), "bytes": bytes}))
        .collect();
    json!({"token": token.text, "logprob": own, "bytes": token.bytes, "top_logprobs": top})
}

/// This moment, as RFC 3339 writes it.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(0)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn happenings() -> Vec<GenerationEvent> {
        let usage = Usage { prompt_tokens: 7, completion_tokens: 9, ..Usage::default() };
        let text =
            |text: &str| GenerationEvent::Text { choice: 0, text: text.to_owned(), tokens: Vec::new() };
        let begun = |call: u32, name: &str| GenerationEvent::ToolCallBegun {
            choice: 0,
            call,
            id: format!("call_{call}"),
            name: name.to_owned(),
        };
        let more =
            |call, text: &str| GenerationEvent::ToolCallArguments { choice: 0, call, text: text.to_owned() };
        vec![
            GenerationEvent::Started { choices: 0..1, usage },
            GenerationEvent::Reasoning { choice: 0, text: "Hm.".to_owned(), tokens: Vec::new() },
            text("Let "),
            text("me."),
            begun(0, "a"),
            more(0, "{\"x\":"),
            more(0, " 1}"),
            begun(1, "b"),
            GenerationEvent::Ended { choice: 0, reason: EndReason::ToolCalls },
            GenerationEvent::Done { usage },
        ]
    }

    #[tokio::test]
    async fn lines_put_together_are_the_answer() {
        for kind in [Kind::Chat, Kind::Generate] {
            let writer = || LineWriter::new(kind, "m", false, Times::loaded_since(Instant::now()));
            let mut streaming = writer();
            let lines: Vec<Value> =
                happenings().into_iter().flat_map(|event| streaming.chunks(event)).collect();
            let events = futures_util::stream::iter(happenings().into_iter().map(Ok::<_, ()>));
            let whole = writer().answer(Answer::collect(events).await.expect("there is no error"));
            let said = |line: &Value| if kind == Kind::Chat { line["message"].clone() } else { line.clone() };
            let text_name = if kind == Kind::Chat { "content" } else { "response" };
            let all = |name: &str| -> String {
                lines.iter().filter_map(|line| said(line)[name].as_str().map(str::to_owned)).collect()
            };
            assert_eq!(all(text_name), "Let me.");
            assert_eq!(
                (&said(&whole)[text_name], &said(&whole)["thinking"]),
                (&json!("Let me."), &json!("Hm."))
            );
            let calls: Vec<Value> = lines
                .iter()
                .filter_map(|line| said(line)["tool_calls"].as_array().cloned())
                .flatten()
                .collect();
            assert_eq!(said(&whole)["tool_calls"], json!(calls));
            assert_eq!(calls[0]["function"], json!({"index": 0, "name": "a", "arguments": {"x": 1}}));
            assert!(lines[..lines.len() - 1].iter().all(|line| line["done"] == false));
            let last = lines.last().expect("there are lines");
            for line in [last, &whole] {
                assert_eq!((&line["done"], &line["done_reason"]), (&json!(true), &json!("stop")));
                assert_eq!((&line["prompt_eval_count"], &line["eval_count"]), (&json!(7), &json!(9)));
                assert!(line["total_duration"].as_u64().is_some_and(|all| all > 0));
            }
        }
    }
}
