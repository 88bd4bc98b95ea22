//! How chats are sent: whole, or piece by piece.

use serde_json::{Value, json};

use crate::api::inference::Writer;
use crate::api::openai::types::{
    Call, CallDelta, ChatChoice, ChatLogprobs, ChunkChoice, Delta, Envelope, Head, Message, finish_reason,
};
use crate::generate::{Answer, AnswerChoice, EndReason, GenerationEvent, TextToken};

/// Writes events and answers.
pub(super) struct ChatWriter {
    pub(super) head: Head,
    pub(super) logprobs: bool,
    pub(super) include_usage: bool,
    /// Calls are told in the older words.
    pub(super) legacy: bool,
    /// There will be calls, and so no text.
    pub(super) must_call: bool,
}

impl Writer for ChatWriter {
    fn answer(&self, answer: Answer) -> Value {
        let choices =
            answer.choices.into_iter().enumerate().map(|(index, choice)| self.choice(index, choice));
        let usage = Some(Some(answer.usage.into()));
        json!(Envelope { head: &self.head, choices: choices.collect(), usage })
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Started { choices, .. } => choices.map(|choice| self.first(choice)).collect(),
            GenerationEvent::Text { choice, text, tokens } => {
                let delta = Delta { content: Some(Some(text)), ..Delta::default() };
                vec![self.chunk(choice, delta, self.logprobs(tokens), None)]
            }
            GenerationEvent::Reasoning { choice, text, .. } => {
                let delta = Delta { reasoning_content: Some(text), ..Delta::default() };
                vec![self.chunk(choice, delta, None, None)]
            }
            GenerationEvent::ToolCallBegun { choice, call, id, name } => {
                vec![self.chunk(choice, self.call(CallDelta::begun(call, id, name)), None, None)]
            }
            GenerationEvent::ToolCallArguments { choice, call, text } => {
                vec![self.chunk(choice, self.call(CallDelta::more(call, text)), None, None)]
            }
            GenerationEvent::Ended { choice, reason } => {
                vec![self.chunk(choice, Delta::default(), None, Some(self.finish_reason(reason)))]
            }
            GenerationEvent::Done { usage } if self.include_usage => {
                let choices = Vec::<ChunkChoice>::new();
                vec![json!(Envelope { head: &self.head, choices, usage: Some(Some(usage.into())) })]
            }
            GenerationEvent::Done { .. } => Vec::new(),
        }
    }
}

impl ChatWriter {
    fn choice(&self, index: usize, choice: AnswerChoice) -> ChatChoice {
        let has_calls = !choice.tool_calls.is_empty();
        let mut tool_calls: Vec<Call> = choice.tool_calls.into_iter().map(Call::from).collect();
        let mut function_call = None;
        if self.legacy {
            function_call = std::mem::take(&mut tool_calls).into_iter().next().map(|call| call.function);
        }
        let message = Message {
            role: "assistant",
            content: Some(choice.text).filter(|text| !(has_calls || self.must_call) || !text.is_empty()),
            refusal: None,
            reasoning_content: Some(choice.reasoning).filter(|thought| !thought.is_empty()),
            tool_calls,
            function_call,
        };
        let finish_reason = choice.reason.map_or("stop", |reason| self.finish_reason(reason));
        ChatChoice { index, message, logprobs: self.logprobs(choice.tokens), finish_reason }
    }

    fn finish_reason(&self, reason: EndReason) -> &'static str {
        match reason {
            EndReason::ToolCalls if self.legacy => "function_call",
            reason => finish_reason(reason),
        }
    }

    fn first(&self, choice: u32) -> Value {
        let content = if self.must_call { None } else { Some(String::new()) };
        let delta = Delta {
            role: Some("assistant"),
            content: Some(content),
            refusal: Some(None),
            ..Delta::default()
        };
        self.chunk(choice, delta, None, None)
    }

    /// What is new of a call, in either words.
    fn call(&self, delta: CallDelta) -> Delta {
        match self.legacy {
            true => Delta { function_call: Some(delta.function), ..Delta::default() },
            false => Delta { tool_calls: Some(vec![delta]), ..Delta::default() },
        }
    }

    fn chunk(
        &self,
        index: u32,
        delta: Delta,
        logprobs: Option<ChatLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Value {
        let choices = vec![ChunkChoice { index, delta, logprobs, finish_reason }];
        // Where a usage chunk is to come, the others say that they have none.
        let usage = self.include_usage.then_some(None);
        json!(Envelope { head: &self.head, choices, usage })
    }

    fn logprobs(&self, tokens: Vec<TextToken>) -> Option<ChatLogprobs> {
        self.logprobs.then(|| tokens.into())
    }
}
