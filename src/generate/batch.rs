//! Several generations as one: their choices numbered through, their usage added up.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::SelectAll;

use crate::generate::generation::shifted;
use crate::generate::{GenerateError, Generation, GenerationEvent, Usage};

/// Generations that run side by side. One `Started` comes from each, one `Done` from all; the first error ends all. Nothing
/// is held any more when either is told.
pub struct GenerationBatch {
    running: SelectAll<Numbered>,
    fingerprint: String,
    unfinished: usize,
    usage: Usage,
}

struct Numbered {
    generation: Generation,
    first_choice: u32,
}

impl GenerationBatch {
    pub(super) fn new(generations: Vec<Generation>) -> Self {
        let fingerprint = generations.first().map(|first| first.fingerprint().to_owned()).unwrap_or_default();
        let unfinished = generations.len();
        let mut first_choice = 0;
        let running = generations.into_iter().map(|generation| {
            let numbered = Numbered { first_choice, generation };
            first_choice += numbered.generation.choices();
            numbered
        });
        Self { running: running.collect(), fingerprint, unfinished, usage: Usage::default() }
    }

    /// As [`Generation::fingerprint`].
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Lets go of the engine and of the model. Nothing comes any more.
    pub fn let_go(&mut self) {
        self.running.clear();
    }

    fn add(&mut self, usage: Usage) {
        self.usage.prompt_tokens += usage.prompt_tokens;
        self.usage.cached_tokens += usage.cached_tokens;
        self.usage.completion_tokens += usage.completion_tokens;
        self.usage.reasoning_tokens += usage.reasoning_tokens;
        self.usage.accepted_prediction_tokens += usage.accepted_prediction_tokens;
        self.usage.rejected_prediction_tokens += usage.rejected_prediction_tokens;
        // They run side by side.
        self.usage.timings.prompt = self.usage.timings.prompt.max(usage.timings.prompt);
        self.usage.timings.answer = self.usage.timings.answer.max(usage.timings.answer);
        self.unfinished -= 1;
    }
}

impl Stream for GenerationBatch {
    type Item = Result<GenerationEvent, GenerateError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match ready!(Pin::new(&mut this.running).poll_next(context)) {
                Some(Ok(GenerationEvent::Done { usage })) => {
                    this.add(usage);
                    if this.unfinished == 0 {
                        // Before it is told: who hears of the end may unload the model at once.
                        this.let_go();
                        return Poll::Ready(Some(Ok(GenerationEvent::Done { usage: this.usage })));
                    }
                }
                Some(Err(error)) => {
                    this.let_go();
                    return Poll::Ready(Some(Err(error)));
                }
                other => return Poll::Ready(other),
            }
        }
    }
}

impl Stream for Numbered {
    type Item = Result<GenerationEvent, GenerateError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let event = ready!(Pin::new(&mut this.generation).poll_next(context));
        Poll::Ready(event.map(|event| event.map(|event| renumber(event, this.first_choice))))
    }
}

fn renumber(event: GenerationEvent, first: u32) -> GenerationEvent {
    match event {
        GenerationEvent::Started { choices, usage } => {
            GenerationEvent::Started { choices: shifted(&choices, first), usage }
        }
        GenerationEvent::Text { choice, text, tokens } => {
            GenerationEvent::Text { choice: choice + first, text, tokens }
        }
        GenerationEvent::Reasoning { choice, text, tokens } => {
            GenerationEvent::Reasoning { choice: choice + first, text, tokens }
        }
        GenerationEvent::ToolCallBegun { choice, call, id, name } => {
            GenerationEvent::ToolCallBegun { choice: choice + first, call, id, name }
        }
        GenerationEvent::ToolCallArguments { choice, call, text } => {
            GenerationEvent::ToolCallArguments { choice: choice + first, call, text }
        }
        GenerationEvent::Ended { choice, reason } => {
            GenerationEvent::Ended { choice: choice + first, reason }
        }
        done @ GenerationEvent::Done { .. } => done,
    }
}
