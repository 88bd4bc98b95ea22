//! Makes an answer of what a generation gives, item by item, and tells of each step by an event: the order of the events
//! is that of OpenAI's SDK (`openai/types/responses/response_stream_event.py`).
//!
//! The one thing to know: the answer and its events are made by the same hands, so that who streams gets what who waits
//! gets.

use sconce_models::GenerationDefaults;
use serde_json::{Map, Value, json};

use crate::api::inference;
use crate::api::openai::responses::item::carried;
use crate::api::openai::responses::item_id::{FIRST_OF_ANSWER, item_id};
use crate::api::openai::responses::request::{ResponseRequest, Thoughts};
use crate::api::openai::types::ChatLogprobs;
use crate::auth::responses::ResponseStatus;
use crate::error::Code;
use crate::generate::{EndReason, GenerationEvent, TextToken, Usage};
use crate::http::ApiError;

/// An answer that is being made.
pub struct Maker {
    id: String,
    created_at: u64,
    model: String,
    echoed: Map<String, Value>,
    effective: Effective,
    is_stored: bool,
    is_background: bool,
    thoughts: Thoughts,
    logprobs: bool,
    status: ResponseStatus,
    completed_at: Option<u64>,
    error: Value,
    /// Those that are whole.
    output: Vec<Value>,
    open: Option<Open>,
    ended: Option<EndReason>,
    usage: Option<Usage>,
    /// None: nobody listens.
    events: Option<Vec<Value>>,
    sequence: u64,
}

/// What holds where the request says nothing, or whatever it says.
#[derive(Debug, Clone, Copy)]
pub struct Effective {
    /// How much chance there is.
    pub temperature: f64,
    /// Among how likely tokens.
    pub top_p: f64,
    /// Who goes first.
    pub service_tier: &'static str,
}

impl Effective {
    /// What the model's files and its administrator say, else what is usual.
    pub fn of(defaults: &GenerationDefaults, service_tier: &'static str) -> Self {
        // By its digits: the same number with more of them is another.
        let number =
            |number: Option<f32>| number.and_then(|number| number.to_string().parse().ok()).unwrap_or(1.0);
        Self { temperature: number(defaults.temperature), top_p: number(defaults.top_p), service_tier }
    }
}

/// An item that is being made.
struct Open {
    id: String,
    kind: Kind,
    text: String,
}

enum Kind {
    Message { tokens: Vec<TextToken> },
    Reasoning,
    Call { number: u32, call_id: String, name: String },
}

impl Maker {
    /// Of an answer to this request; events are made if somebody is to hear them.
    pub fn new(id: &str, request: &ResponseRequest, effective: Effective, is_stored: bool) -> Self {
        Self {
            id: id.to_owned(),
            created_at: inference::now(),
            model: request.question.model.clone(),
            echoed: request.echoed.0.clone(),
            effective,
            is_stored,
            is_background: request.background,
            thoughts: request.thoughts,
            logprobs: request.sampling.logprobs.is_some(),
            status: if request.background { ResponseStatus::Queued } else { ResponseStatus::InProgress },
            completed_at: None,
            error: Value::Null,
            output: Vec::new(),
            open: None,
            ended: None,
            usage: None,
            events: request.stream.then(Vec::new),
            sequence: 0,
        }
    }

    /// How it stands.
    pub fn status(&self) -> ResponseStatus {
        self.status
    }

    /// Whether events are made.
    pub fn is_heard(&self) -> bool {
        self.events.is_some()
    }

    /// The events since the last time.
    pub fn events(&mut self) -> Vec<Value> {
        self.events.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Tells that there is an answer to come.
    pub fn announce(&mut self) {
        self.tell_of_all("response.created");
        match self.status {
            ResponseStatus::Queued => self.tell_of_all("response.queued"),
            _ => self.tell_of_all("response.in_progress"),
        }
    }

    /// Goes on by what a generation gave.
    pub fn take(&mut self, event: GenerationEvent) {
        match event {
            GenerationEvent::Started { .. } => self.begin(),
            GenerationEvent::Text { text, tokens, .. } => self.text(&text, tokens),
            GenerationEvent::Reasoning { text, .. } => self.thought(&text),
            GenerationEvent::ToolCallBegun { call, id, name, .. } => {
                self.open(Kind::Call { number: call, call_id: id, name });
            }
            GenerationEvent::ToolCallArguments { call, text, .. } => self.arguments(call, &text),
            GenerationEvent::Ended { reason, .. } => self.ended = Some(reason),
            GenerationEvent::Done { usage } => self.finish(usage),
        }
    }

    fn begin(&mut self) {
        if self.status == ResponseStatus::Queued {
            self.status = ResponseStatus::InProgress;
            self.tell_of_all("response.in_progress");
        }
    }

    fn finish(&mut self, usage: Usage) {
        self.usage = Some(usage);
        let is_cut = self.ended == Some(EndReason::Length);
        if self.open.is_none() && self.output.iter().all(|item| item["type"] == "reasoning") && !is_cut {
            // Who looks for what was said finds that it was nothing.
            self.open(Kind::Message { tokens: Vec::new() });
        }
        self.close(if is_cut { "incomplete" } else { "completed" });
        if is_cut {
            self.status = ResponseStatus::Incomplete;
            self.tell_of_all("response.incomplete");
        } else {
            self.status = ResponseStatus::Completed;
            self.completed_at = Some(inference::now());
            self.tell_of_all("response.completed");
        }
    }

    /// Ends with an error.
    pub fn fail(&mut self, error: &ApiError) {
        self.close("incomplete");
        self.status = ResponseStatus::Failed;
        self.error = shown_error(error);
        self.tell_of_all("response.failed");
    }

    /// Ends because it was taken back; what was made so far stays.
    pub fn cancel(&mut self, usage: Usage) {
        self.usage = Some(usage);
        self.close("incomplete");
        self.status = ResponseStatus::Cancelled;
        self.tell(
            "error",
            json!({"code": "cancelled", "message": "the response was cancelled", "param": null}),
        );
    }

    /// Ends because it took too long; what was made so far stays.
    pub fn time_out(&mut self, usage: Usage) {
        self.usage = Some(usage);
        self.fail(&ApiError::of(Code::Timeout));
    }

    /// Notes that it could not be kept, where its end is told.
    pub fn is_not_kept(&mut self) {
        self.is_stored = false;
        for event in self.events.iter_mut().flatten() {
            if let Some(response) = event.get_mut("response") {
                response["store"] = false.into();
            }
        }
    }

    fn text(&mut self, text: &str, tokens: Vec<TextToken>) {
        if !matches!(self.open, Some(Open { kind: Kind::Message { .. }, .. })) {
            self.open(Kind::Message { tokens: Vec::new() });
        }
        let logprobs = self.shown_logprobs(&tokens);
        if let Some(Open { kind: Kind::Message { tokens: all }, text: whole, .. }) = &mut self.open {
            whole.push_str(text);
            all.extend(tokens);
        }
        let place = self.place();
        self.tell(
            "response.output_text.delta",
            json!({"item_id": place.0, "output_index": place.1, "content_index": 0, "delta": text, "logprobs": logprobs}),
        );
    }

    fn thought(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if !matches!(self.open, Some(Open { kind: Kind::Reasoning, .. })) {
            self.open(Kind::Reasoning);
        }
        if let Some(open) = &mut self.open {
            open.text.push_str(text);
        }
        let (item_id, output_index) = self.place();
        let (name, index) = if self.thoughts.as_summary {
            ("response.reasoning_summary_text.delta", "summary_index")
        } else {
            ("response.reasoning_text.delta", "content_index")
        };
        self.tell(name, json!({"item_id": item_id, "output_index": output_index, index: 0, "delta": text}));
    }

    fn arguments(&mut self, call: u32, text: &str) {
        let Some(Open { kind: Kind::Call { number, .. }, text: whole, .. }) = &mut self.open else { return };
        if *number != call {
            return;
        }
        whole.push_str(text);
        let (item_id, output_index) = self.place();
        self.tell(
            "response.function_call_arguments.delta",
            json!({"item_id": item_id, "output_index": output_index, "delta": text}),
        );
    }

    /// The id of the open item, and where it will stand.
    fn place(&self) -> (String, usize) {
        (self.open.as_ref().map(|open| open.id.clone()).unwrap_or_default(), self.output.len())
    }

    fn open(&mut self, kind: Kind) {
        self.close("completed");
        let prefix = match kind {
            Kind::Message { .. } => "msg",
            Kind::Reasoning => "rs",
            Kind::Call { .. } => "fc",
        };
        let id = item_id(prefix, &self.id, FIRST_OF_ANSWER + self.output.len());
        let open = Open { id, kind, text: String::new() };
        let item = self.shown(&open, "in_progress");
        let part = self.part(&open);
        self.open = Some(open);
        let (item_id, output_index) = self.place();
        self.tell("response.output_item.added", json!({"output_index": output_index, "item": item}));
        if let Some((name, index, part)) = part {
            self.tell(
                &format!("response.{name}.added"),
                json!({"item_id": item_id, "output_index": output_index, index: 0, "part": part}),
            );
        }
    }

    fn close(&mut self, status: &str) {
        let Some(open) = self.open.take() else { return };
        let (item_id, output_index) = (open.id.clone(), self.output.len());
        let place = |mut rest: Value| {
            rest["item_id"] = item_id.clone().into();
            rest["output_index"] = output_index.into();
            rest
        };
        let (text, index) = (&open.text, "content_index");
        match &open.kind {
            Kind::Message { tokens } => {
                let logprobs = self.shown_logprobs(tokens);
                let said = place(json!({index: 0, "text": text, "logprobs": logprobs}));
                self.tell("response.output_text.done", said);
            }
            Kind::Reasoning if self.thoughts.as_summary => {
                let said = place(json!({"summary_index": 0, "text": text}));
                self.tell("response.reasoning_summary_text.done", said);
            }
            Kind::Reasoning => {
                self.tell("response.reasoning_text.done", place(json!({index: 0, "text": text})));
            }
            Kind::Call { name, .. } => {
                let said = place(json!({"name": name, "arguments": text}));
                self.tell("response.function_call_arguments.done", said);
            }
        }
        if let Some((name, index, part)) = self.part(&open) {
            self.tell(&format!("response.{name}.done"), place(json!({index: 0, "part": part})));
        }
        let item = self.shown(&open, status);
        self.tell("response.output_item.done", json!({"output_index": output_index, "item": item}));
        self.output.push(item);
    }

    /// What the parts of an item are called, how they are numbered, and the one there is; calls have none.
    fn part(&self, open: &Open) -> Option<(&'static str, &'static str, Value)> {
        match &open.kind {
            Kind::Message { tokens } => Some((
                "content_part",
                "content_index",
                json!({"type": "output_text", "annotations": [], "logprobs": self.shown_logprobs(tokens), "text": open.text}),
            )),
            Kind::Reasoning if self.thoughts.as_summary => Some((
                "reasoning_summary_part",
                "summary_index",
                json!({"type": "summary_text", "text": open.text}),
            )),
            Kind::Reasoning => {
                Some(("content_part", "content_index", json!({"type": "reasoning_text", "text": open.text})))
            }
            Kind::Call { .. } => None,
        }
    }

    /// An item as it is shown.
    fn shown(&self, open: &Open, status: &str) -> Value {
        let is_begun = status != "in_progress";
        let parts: Vec<Value> =
            self.part(open).filter(|_| is_begun).map(|(_, _, part)| part).into_iter().collect();
        match &open.kind {
            Kind::Message { .. } => json!({"id": open.id, "type": "message", "status": status,
                "role": "assistant", "content": parts}),
            Kind::Reasoning => {
                let mut item = json!({"id": open.id, "type": "reasoning", "summary": [], "status": status});
                item[if self.thoughts.as_summary { "summary" } else { "content" }] = parts.into();
                if self.thoughts.carried {
                    let carried = is_begun.then(|| carried(&open.text));
                    item["encrypted_content"] = json!(carried);
                }
                item
            }
            Kind::Call { call_id, name, .. } => {
                json!({"id": open.id, "type": "function_call", "status": status,
                "call_id": call_id, "name": name, "arguments": open.text})
            }
        }
    }

    fn shown_logprobs(&self, tokens: &[TextToken]) -> Value {
        if !self.logprobs {
            return json!([]);
        }
        json!(ChatLogprobs::from(tokens.to_vec()))["content"].take()
    }

    fn tell_of_all(&mut self, name: &str) {
        if self.events.is_some() {
            let response = self.body();
            self.tell(name, json!({ "response": response }));
        }
    }

    fn tell(&mut self, name: &str, rest: Value) {
        let Some(events) = &mut self.events else { return };
        let mut event = Map::new();
        event.insert("type".to_owned(), name.into());
        event.insert("sequence_number".to_owned(), self.sequence.into());
        if let Value::Object(rest) = rest {
            event.extend(rest);
        }
        self.sequence += 1;
        events.push(Value::Object(event));
    }

    /// The answer as it is now.
    pub fn body(&self) -> Value {
        let echoed = |name: &str| self.echoed.get(name).cloned().unwrap_or_default();
        let or = |name: &str, usual: f64| match echoed(name) {
            Value::Null => json!(usual),
            sent => sent,
        };
        let is_cut = self.status == ResponseStatus::Incomplete;
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": self.status.name(),
            "background": self.is_background,
            "completed_at": self.completed_at,
            "error": self.error,
            "incomplete_details": is_cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": echoed("instructions"),
            "max_output_tokens": echoed("max_output_tokens"),
            "max_tool_calls": echoed("max_tool_calls"),
            "model": self.model,
            "output": self.output,
            "parallel_tool_calls": echoed("parallel_tool_calls"),
            "previous_response_id": echoed("previous_response_id"),
            "prompt_cache_key": echoed("prompt_cache_key"),
            "reasoning": echoed("reasoning"),
            "safety_identifier": echoed("safety_identifier"),
            "service_tier": self.effective.service_tier,
            "store": self.is_stored,
            "temperature": or("temperature", self.effective.temperature),
            "text": echoed("text"),
            "tool_choice": echoed("tool_choice"),
            "tools": echoed("tools"),
            "top_logprobs": echoed("top_logprobs"),
            "top_p": or("top_p", self.effective.top_p),
            "truncation": echoed("truncation"),
            "usage": self.usage.map(shown_usage),
            "user": echoed("user"),
            "metadata": echoed("metadata"),
        })
    }
}

fn shown_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}

/// An error within an answer: OpenAI knows few codes there.
pub fn shown_error(error: &ApiError) -> Value {
    let code = match error.code() {
        Code::RateLimited | Code::ModelOverloaded => "rate_limit_exceeded",
        Code::ContextLengthExceeded | Code::InvalidValue | Code::TemplateError => "invalid_prompt",
        _ => "server_error",
    };
    json!({"code": code, "message": error.message()})
}

/// What is said of an answer that nobody makes any more.
pub fn lost() -> Value {
    json!({"code": "server_error", "message": "the server that made this response stopped before it was done; ask again"})
}

#[cfg(test)]
mod tests;
