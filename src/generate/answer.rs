//! A generation folded into its whole answer: what a client gets that does not stream.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::{Stream, StreamExt};

use crate::generate::{EndReason, GenerationEvent, TextToken, ToolCall, Usage};

/// The whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// All choices, in their order.
    pub choices: Vec<AnswerChoice>,
    /// The final count.
    pub usage: Usage,
}

/// One whole choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerChoice {
    /// All its text.
    pub text: String,
    /// All that was thought before it.
    pub reasoning: String,
    /// The calls in it.
    pub tool_calls: Vec<ToolCall>,
    /// All its tokens, if log-probabilities were asked for.
    pub tokens: Vec<TextToken>,
    /// Why it ended.
    pub reason: Option<EndReason>,
}

impl Answer {
    /// Waits for the end of `events`.
    ///
    /// # Errors
    /// The first error among them.
    pub async fn collect<E>(events: impl Stream<Item = Result<GenerationEvent, E>>) -> Result<Self, E> {
        let mut events = pin!(events);
        let mut collected = CollectedAnswer::default();
        while let Some(event) = events.next().await {
            collected.add(event?);
        }
        Ok(collected.into_answer())
    }
}

/// An answer as far as its events have come.
#[derive(Debug, Default)]
pub struct CollectedAnswer {
    choices: BTreeMap<u32, AnswerChoice>,
    usage: Usage,
}

impl CollectedAnswer {
    /// Adds what an event says.
    pub fn add(&mut self, event: GenerationEvent) {
        match event {
            GenerationEvent::Started { .. } => {}
            GenerationEvent::Text { choice, text, tokens } => {
                let choice = self.choices.entry(choice).or_default();
                choice.text.push_str(&text);
                choice.tokens.extend(tokens);
            }
            GenerationEvent::Reasoning { choice, text, .. } => {
                self.choices.entry(choice).or_default().reasoning.push_str(&text);
            }
            GenerationEvent::ToolCallBegun { choice, id, name, .. } => {
                let call = ToolCall { id, name, arguments: String::new() };
                self.choices.entry(choice).or_default().tool_calls.push(call);
            }
            GenerationEvent::ToolCallArguments { choice, call, text } => {
                let calls = &mut self.choices.entry(choice).or_default().tool_calls;
                if let Some(call) = calls.get_mut(call as usize) {
                    call.arguments.push_str(&text);
                }
            }
            GenerationEvent::Ended { choice, reason } => {
                self.choices.entry(choice).or_default().reason = Some(reason);
            }
            GenerationEvent::Done { usage } => self.usage = usage,
        }
    }

    /// What has come.
    pub fn into_answer(self) -> Answer {
        Answer { choices: self.choices.into_values().collect(), usage: self.usage }
    }
}
