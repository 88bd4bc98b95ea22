//! A running request: engine events in, text events out. Dropping it stops the engine.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use sconce_models::Tokenizer;
use sconce_models::grammar::GrammarError;
use uuid::Uuid;

use crate::engine::{EngineError, FinishReason, Foreseen, TokenEvent, TokenLogprob, TokenStream};
use crate::generate::format::{Format, Part};
use crate::generate::meter::Meter;
use crate::generate::text::ChoiceText;
use crate::generate::{EndReason, GenerateError, GenerationEvent, TextToken, Tool, Usage};
use crate::manager::ModelLease;

/// How the text of an answer is shown.
pub(super) struct Presentation {
    pub(super) stop: Arc<[String]>,
    pub(super) show_special_tokens: bool,
    pub(super) logprobs: bool,
    /// The prompt's ids, if it is to be shown before the answers.
    pub(super) echo: Option<Echo>,
    /// How calls and thoughts are told from text, where there can be any.
    pub(super) reading: Option<Reading>,
    /// What the answers were said to be; empty: nothing.
    pub(super) prediction: Arc<[u32]>,
    /// The parameter to blame for a grammar that turns out to be too much.
    pub(super) blame: &'static str,
}

/// How the answer to a conversation is read.
pub(super) struct Reading {
    pub(super) format: Format,
    /// What may be called.
    pub(super) tools: Arc<[Tool]>,
    /// The prompt ends inside of a thought.
    pub(super) is_thinking: bool,
    /// Whether a choice may have several calls.
    pub(super) parallel: bool,
    /// Whether an answer is calls and no text.
    pub(super) must_call: bool,
}

impl Reading {
    /// The special tokens among the marks that are looked for.
    fn special_marks(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let ids = self.format.marks().filter_map(|mark| tokenizer.token_to_id(mark));
        ids.filter(|&id| tokenizer.is_special(id)).collect()
    }
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
    /// Whether a choice may have several calls.
    parallel: bool,
    /// As [`Presentation::blame`].
    blame: &'static str,
    /// Whether an answer is calls and no text: what of one was cut short is not shown as text.
    must_call: bool,
    meter: Meter,
    lease: ModelLease,
}

struct Choice {
    text: ChoiceText,
    /// Calls that were told.
    calls: u32,
    generated: u32,
    /// Of these, thought.
    thought: u32,
    /// What it was said to be.
    foreseen: Foreseen,
    ended: bool,
}

impl Generation {
    pub(super) fn new(
        lease: ModelLease,
        tokens: TokenStream,
        extent: &Extent,
        presentation: Presentation,
    ) -> Self {
        let reading = presentation.reading.as_ref();
        let reader =
            || reading.and_then(|reading| reading.format.reader(&reading.tools, reading.is_thinking));
        let marks = reading.map(|reading| reading.special_marks(&lease.tokenizer)).unwrap_or_default();
        let choice = || {
            let decoder = lease.tokenizer.decoder(!presentation.show_special_tokens);
            let stop = Arc::clone(&presentation.stop);
            let text = match reader() {
                Some(reader) => ChoiceText::read_by(reader.until(stop), decoder.showing(marks.clone())),
                None => ChoiceText::new(decoder, stop),
            };
            let foreseen = Foreseen::new(presentation.prediction.clone(), extent.max_new_tokens as usize);
            Choice { text, calls: 0, generated: 0, thought: 0, foreseen, ended: false }
        };
        let prompt_tokens = u32::try_from(extent.prompt_tokens).unwrap_or(u32::MAX);
        Self {
            choices: (0..extent.choices).map(|_| choice()).collect(),
            tokens: Some(tokens),
            usage: Usage { prompt_tokens, ..Usage::default() },
            ready: VecDeque::new(),
            echo: presentation.echo,
            logprobs: presentation.logprobs,
            parallel: reading.is_none_or(|reading| reading.parallel),
            blame: presentation.blame,
            must_call: reading.is_some_and(|reading| reading.must_call),
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
        self.meter.prefilled();
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
        choice.foreseen.take(id);
        self.meter.token(index);
        let described = self.logprobs.then(|| describe(&self.lease.tokenizer, id, logprob));
        let parts = choice.text.push(id, described).map_err(GenerateError::Tokenizer)?;
        choice.thought += u32::from(choice.text.is_thinking());
        let (stopped, calls_ended) = (choice.text.stopped(), choice.text.calls_ended());
        self.tell(index, parts);
        if let Some(stop) = stopped {
            self.tell_the_rest(index);
            self.end(index, self.ended_by(index, stop));
        } else if !self.parallel && calls_ended > 0 {
            self.end(index, EndReason::ToolCalls);
        }
        Ok(())
    }

    fn finished(&mut self, index: u32, reason: FinishReason, generated: u32) {
        let Some(choice) = self.choices.get_mut(index as usize).filter(|choice| !choice.ended) else {
            return;
        };
        choice.generated = generated;
        self.tell_the_rest(index);
        let choice = &self.choices[index as usize];
        let reason = match (choice.text.stopped(), reason) {
            (Some(stop), _) => self.ended_by(index, stop),
            (None, FinishReason::Stop(_) | FinishReason::Complete) if choice.calls > 0 => {
                EndReason::ToolCalls
            }
            (None, FinishReason::Stop(_) | FinishReason::Complete) => EndReason::Stop,
            (None, _) => EndReason::Length,
        };
        self.end(index, reason);
    }

    /// Why an answer ends where a stop text is: with calls before it, for these, since somebody has to answer them.
    fn ended_by(&self, index: u32, stop: u32) -> EndReason {
        if self.choices[index as usize].calls > 0 { EndReason::ToolCalls } else { EndReason::StopText(stop) }
    }

    /// The text of a choice is complete.
    fn tell_the_rest(&mut self, index: u32) {
        let parts = self.choices[index as usize].text.finish();
        self.tell(index, parts);
    }

    /// Tells what was read. Where there may be one call only, nothing comes after it.
    fn tell(&mut self, index: u32, parts: Vec<Part>) {
        let calls = &mut self.choices[index as usize].calls;
        for part in parts {
            let event = match part {
                Part::CallBegun(_) if *calls > 0 && !self.parallel => return,
                Part::Text(..) if self.must_call || (*calls > 0 && !self.parallel) => continue,
                Part::Text(text, tokens) => GenerationEvent::Text { choice: index, text, tokens },
                Part::Reasoning(text, tokens) => GenerationEvent::Reasoning { choice: index, text, tokens },
                Part::CallBegun(name) => {
                    *calls += 1;
                    let id = format!("call_{}", Uuid::new_v4().simple());
                    GenerationEvent::ToolCallBegun { choice: index, call: *calls - 1, id, name }
                }
                Part::Arguments(text) => {
                    GenerationEvent::ToolCallArguments { choice: index, call: calls.saturating_sub(1), text }
                }
            };
            self.ready.push_back(event);
        }
    }

    fn end(&mut self, index: u32, reason: EndReason) {
        let choice = &mut self.choices[index as usize];
        choice.ended = true;
        let (said, unsaid) = choice.foreseen.count();
        self.usage.accepted_prediction_tokens += said;
        self.usage.rejected_prediction_tokens += unsaid;
        self.ready.push_back(GenerationEvent::Ended { choice: index, reason });
        self.usage.completion_tokens = self.choices.iter().map(|choice| choice.generated).sum();
        self.usage.reasoning_tokens = self.choices.iter().map(|choice| choice.thought).sum();
        if self.choices.iter().all(|choice| choice.ended) {
            self.usage.timings = self.meter.timings();
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
                Some(Err(EngineError::Grammar { reason })) => {
                    // What follows the first line is about llguidance itself.
                    let reason = reason.lines().next().unwrap_or_default();
                    let error = GrammarError::TooMuch(format!("it became too complex: {reason}"));
                    Err(GenerateError::Constraint { param: this.blame.to_owned(), error })
                }
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
