//! A running request: engine events in, text events out. Dropping it stops the engine.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use sconce_models::Tokenizer;

use crate::engine::{EngineError, FinishReason, TokenEvent, TokenLogprob, TokenStream};
use crate::generate::meter::Meter;
use crate::generate::text::{ChoiceText, Piece};
use crate::generate::{EndReason, GenerateError, GenerationEvent, TextToken, Usage};
use crate::manager::ModelLease;

/// How the text of an answer is shown.
pub(super) struct Presentation {
    pub(super) stop: Arc<[String]>,
    pub(super) show_special_tokens: bool,
    pub(super) logprobs: bool,
    /// The prompt's ids, if it is to be shown before the answers.
    pub(super) echo: Option<Echo>,
}

/// How much goes in and may come out.
pub(super) struct Extent {
    pub(super) prompt_tokens: usize,
    pub(super) choices: u32,
    pub(super) max_new_tokens: u32,
}

/// The prompt, to be shown again.
pub(super) struct Echo {
    pub(super) ids: Vec<u32>,
    pub(super) text: String,
    pub(super) logprobs: bool,
}

/// A stream of [`GenerationEvent`]; it ends after `Done` or the first error.
pub struct Generation {
    /// None once all choices have ended: the engine is not asked any further.
    tokens: Option<TokenStream>,
    choices: Vec<Choice>,
    usage: Usage,
    ready: VecDeque<GenerationEvent>,
    echo: Option<Echo>,
    logprobs: bool,
    meter: Meter,
    lease: ModelLease,
}

struct Choice {
    text: ChoiceText,
    generated: u32,
    ended: bool,
}

impl Generation {
    pub(super) fn new(
        lease: ModelLease,
        tokens: TokenStream,
        extent: &Extent,
        presentation: Presentation,
    ) -> Self {
        let choice = || Choice {
            text: ChoiceText::new(
                lease.tokenizer.decoder(!presentation.show_special_tokens),
                Arc::clone(&presentation.stop),
            ),
            generated: 0,
            ended: false,
        };
        let prompt_tokens = u32::try_from(extent.prompt_tokens).unwrap_or(u32::MAX);
        Self {
            choices: (0..extent.choices).map(|_| choice()).collect(),
            tokens: Some(tokens),
            usage: Usage { prompt_tokens, ..Usage::default() },
            ready: VecDeque::new(),
            echo: presentation.echo,
            logprobs: presentation.logprobs,
            meter: Meter::new(&lease.id, prompt_tokens, extent.max_new_tokens),
            lease,
        }
    }

    /// Names weights, kernels and version: the same fingerprint gives the same tokens for the same request.
    pub fn fingerprint(&self) -> &str {
        &self.lease.spec.fingerprint
    }

    /// Answers wanted.
    pub fn choices(&self) -> u32 {
        u32::try_from(self.choices.len()).unwrap_or(u32::MAX)
    }

    fn take(&mut self, event: TokenEvent) -> Result<(), GenerateError> {
        match event {
            TokenEvent::Prefilled { cached_tokens, prompt_logprobs } => {
                self.started(cached_tokens, prompt_logprobs)
            }
            TokenEvent::Token { choice, id, logprob } => self.token(choice, id, logprob),
            TokenEvent::Finished { reason: FinishReason::Deadline, .. } => {
                Err(EngineError::DeadlineExceeded.into())
            }
            TokenEvent::Finished { choice, reason, generated_tokens } => {
                self.finished(choice, reason, generated_tokens);
                Ok(())
            }
            TokenEvent::Failed { reason } => Err(EngineError::Failed { reason }.into()),
        }
    }

    fn started(&mut self, cached_tokens: u32, logprobs: Option<PromptLogprobs>) -> Result<(), GenerateError> {
        self.usage.cached_tokens = cached_tokens;
        let all = 0..self.choices();
        self.ready.push_back(GenerationEvent::Started { choices: all.clone(), usage: self.usage });
        if let Some(echo) = self.echo.take() {
            let tokens = if echo.logprobs { self.prompt_tokens(&echo.ids, logprobs) } else { Vec::new() };
            self.ready.extend(all.map(|choice| GenerationEvent::Text {
                choice,
                text: echo.text.clone(),
                tokens: tokens.clone(),
            }));
        }
        Ok(())
    }

    fn prompt_tokens(&self, ids: &[u32], logprobs: Option<PromptLogprobs>) -> Vec<TextToken> {
        let known = logprobs
            .unwrap_or_default()
            .into_iter()
            .map(|(logprob, top)| Some(TokenLogprob { logprob, top }));
        let logprobs = std::iter::once(None).chain(known).chain(std::iter::repeat(None));
        ids.iter().zip(logprobs).map(|(&id, logprob)| describe(&self.lease.tokenizer, id, logprob)).collect()
    }

    fn token(&mut self, index: u32, id: u32, logprob: Option<TokenLogprob>) -> Result<(), GenerateError> {
        let Some(choice) = self.choices.get_mut(index as usize).filter(|choice| !choice.ended) else {
            return Ok(());
        };
        choice.generated += 1;
        self.meter.token(index);
        let described = self.logprobs.then(|| describe(&self.lease.tokenizer, id, logprob));
        let piece = choice.text.push(id, described).map_err(GenerateError::Tokenizer)?;
        let stopped = piece.stopped;
        self.show(index, piece);
        if let Some(stop) = stopped {
            self.end(index, EndReason::StopText(stop));
        }
        Ok(())
    }

    fn finished(&mut self, index: u32, reason: FinishReason, generated: u32) {
        let Some(choice) = self.choices.get_mut(index as usize).filter(|choice| !choice.ended) else {
            return;
        };
        choice.generated = generated;
        let piece = choice.text.finish();
        let reason = match (piece.stopped, reason) {
            (Some(stop), _) => EndReason::StopText(stop),
            (None, FinishReason::Stop(_)) => EndReason::Stop,
            (None, _) => EndReason::Length,
        };
        self.show(index, piece);
        self.end(index, reason);
    }

    fn show(&mut self, choice: u32, piece: Piece) {
        if !piece.is_empty() {
            self.ready.push_back(GenerationEvent::Text { choice, text: piece.text, tokens: piece.tokens });
        }
    }

    fn end(&mut self, index: u32, reason: EndReason) {
        self.choices[index as usize].ended = true;
        self.ready.push_back(GenerationEvent::Ended { choice: index, reason });
        self.usage.completion_tokens = self.choices.iter().map(|choice| choice.generated).sum();
        if self.choices.iter().all(|choice| choice.ended) {
            self.meter.done(reason, self.usage);
            self.tokens = None;
            self.ready.push_back(GenerationEvent::Done { usage: self.usage });
        }
    }
}

type PromptLogprobs = Vec<(f32, Vec<(u32, f32)>)>;

impl Stream for Generation {
    type Item = Result<GenerationEvent, GenerateError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(tokens) = &mut this.tokens else { return Poll::Ready(None) };
            let outcome = match ready!(Pin::new(tokens).poll_next(context)) {
                Some(Ok(event)) => this.take(event),
                Some(Err(error)) => Err(error.into()),
                None => Err(EngineError::Lost.into()),
            };
            if let Err(error) = outcome {
                this.tokens = None;
                this.ready.clear();
                this.meter.failed();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

/// A token with its text and bytes, and those of its alternatives.
fn describe(tokenizer: &Tokenizer, id: u32, logprob: Option<TokenLogprob>) -> TextToken {
    let (text, bytes) = text_and_bytes(tokenizer, id);
    let alternatives = logprob
        .iter()
        .flat_map(|logprob| &logprob.top)
        .map(|&(id, _)| text_and_bytes(tokenizer, id))
        .collect();
    TextToken { id, text, bytes, logprob, alternatives }
}

fn text_and_bytes(tokenizer: &Tokenizer, id: u32) -> (String, Vec<u8>) {
    match tokenizer.token_bytes(id) {
        Some(bytes) => (String::from_utf8_lossy(&bytes).into_owned(), bytes),
        None => {
            let text = tokenizer.decode(&[id], false).unwrap_or_default();
            let bytes = text.clone().into_bytes();
            (text, bytes)
        }
    }
}

/// The choices of a generation, when its numbers begin at `first`.
pub(super) fn shifted(range: &Range<u32>, first: u32) -> Range<u32> {
    range.start + first..range.end + first
}
