//! Measures one generation: time to first token, gaps between tokens, counts. Settles when it is dropped at the latest.

use std::time::Instant;

use metrics::{Label, counter, histogram};

use crate::generate::{EndReason, Timings, Usage};
use crate::telemetry::metrics as names;

/// The clock and the counters of one request.
pub(super) struct Meter {
    model: String,
    begun: Instant,
    prefilled: Option<Instant>,
    last_token: Option<Instant>,
    usage: Usage,
    outcome: Option<&'static str>,
}

impl Meter {
    pub(super) fn new(model: &str, prompt_tokens: u32, max_new_tokens: u32) -> Self {
        let usage = Usage { prompt_tokens, ..Usage::default() };
        counter!(names::INCOMING_REQUESTS, "model" => model.to_owned()).increment(1);
        histogram!(names::REQUEST_MAX_TOKENS, "model_name" => model.to_owned()).record(max_new_tokens);
        Self {
            model: model.to_owned(),
            begun: Instant::now(),
            prefilled: None,
            last_token: None,
            usage,
            outcome: None,
        }
    }

    /// The prompt has run.
    pub(super) fn prefilled(&mut self) {
        self.prefilled = Some(Instant::now());
    }

    /// How long it took so far.
    pub(super) fn timings(&self) -> Timings {
        let prefilled = self.prefilled.unwrap_or_else(Instant::now);
        Timings { prompt: prefilled - self.begun, answer: prefilled.elapsed() }
    }

    /// A token arrived. Gaps are measured over all choices together at the first choice only.
    pub(super) fn token(&mut self, choice: u32) {
        self.usage.completion_tokens += 1;
        if choice != 0 && self.last_token.is_some() {
            return;
        }
        let now = Instant::now();
        match self.last_token {
            None => histogram!(names::TIME_TO_FIRST_TOKEN, self.labels()).record(now - self.begun),
            Some(last) => {
                histogram!(names::INTER_TOKEN_LATENCY, self.labels()).record(now - last);
                histogram!(names::TIME_PER_OUTPUT_TOKEN, self.labels()).record(now - last);
            }
        }
        self.last_token = Some(now);
    }

    /// All choices are complete.
    pub(super) fn done(&mut self, reason: EndReason, usage: Usage) {
        self.usage = usage;
        self.outcome = Some(match reason {
            EndReason::Stop | EndReason::StopText(_) => "stop",
            EndReason::ToolCalls => "tool_calls",
            EndReason::Length => "length",
        });
    }

    /// The engine gave up.
    pub(super) fn failed(&mut self) {
        self.outcome = Some("error");
    }

    fn labels(&self) -> Vec<Label> {
        vec![Label::new("model_name", self.model.clone())]
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let labels = self.labels();
        counter!(names::PROMPT_TOKENS, labels.clone()).increment(u64::from(self.usage.prompt_tokens));
        counter!(names::GENERATION_TOKENS, labels.clone()).increment(u64::from(self.usage.completion_tokens));
        histogram!(names::REQUEST_PROMPT_TOKENS, labels.clone()).record(self.usage.prompt_tokens);
        histogram!(names::REQUEST_GENERATION_TOKENS, labels.clone()).record(self.usage.completion_tokens);
        histogram!(names::E2E_LATENCY, labels.clone()).record(self.begun.elapsed());
        let mut ended = labels;
        ended.push(Label::new("finished_reason", self.outcome.unwrap_or("abort")));
        counter!(names::REQUEST_SUCCESS, ended).increment(1);
    }
}
