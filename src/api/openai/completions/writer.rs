//! How plain completions are sent: piece by piece, or whole with the best answers chosen.

use std::collections::{HashMap, HashSet};
use std::future;

use futures_util::TryStreamExt;
use serde_json::{Map, Value, json};

use super::Show;
use crate::api::inference::Writer;
use crate::api::openai::types::{Envelope, Head, TextChoice, TextLogprobs, finish_reason, finite_logprob};
use crate::generate::{Answer, AnswerChoice, GenerationEvent, TextToken, TokenLogprob, Usage};
use crate::http::ApiError;
use crate::http::metered::Metered;

/// Writes events and answers.
pub(super) struct TextWriter {
    head: Head,
    show: Show,
    include_usage: bool,
    /// Characters of each choice sent so far.
    offsets: HashMap<u32, usize>,
    /// The choices whose prompt has come.
    begun: HashSet<u32>,
}

impl Writer for TextWriter {
    // Whole answers are collected by [`Whole`], which knows prompts from answers.
    fn answer(&self, answer: Answer) -> Value {
        let choices =
            answer.choices.into_iter().map(|choice| WholeChoice { choice, ..WholeChoice::default() });
        self.whole(Whole { choices: choices.collect(), usage: answer.usage })
    }

    fn chunks(&mut self, event: GenerationEvent) -> Vec<Value> {
        match event {
            GenerationEvent::Started { .. } => Vec::new(),
            GenerationEvent::Text { choice, text, tokens } => {
                if self.show.has_prompt() && self.begun.insert(choice) {
                    return self.prompt(choice, text, tokens);
                }
                let logprobs = self.logprobs(choice, tokens);
                vec![self.chunk(choice, text, logprobs, None)]
            }
            // Plain text has no parts.
            GenerationEvent::Reasoning { .. }
            | GenerationEvent::ToolCallBegun { .. }
            | GenerationEvent::ToolCallArguments { .. } => Vec::new(),
            GenerationEvent::Ended { choice, reason } => {
                vec![self.chunk(choice, String::new(), None, Some(finish_reason(reason)))]
            }
            GenerationEvent::Done { usage } if self.include_usage => {
                let choices = Vec::<TextChoice>::new();
                vec![json!(Envelope { head: &self.head, choices, usage: Some(Some(usage.into())) })]
            }
            GenerationEvent::Done { .. } => Vec::new(),
        }
    }
}

impl TextWriter {
    pub(super) fn new(head: Head, show: Show, include_usage: bool) -> Self {
        Self { head, show, include_usage, offsets: HashMap::new(), begun: HashSet::new() }
    }

    /// The answer: of each prompt the best choices, numbered through.
    pub(super) fn whole(&self, answer: Whole) -> Value {
        let (kept, made) = (self.show.choices as usize, self.show.best_of.max(1) as usize);
        let mut shown = Vec::new();
        let mut choices = answer.choices.into_iter().peekable();
        while choices.peek().is_some() {
            let mut group: Vec<WholeChoice> = choices.by_ref().take(made).collect();
            if made > kept {
                // Stable: of equals the first.
                group.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
                group.truncate(kept);
            }
            shown.extend(group);
        }
        let choices = shown.into_iter().enumerate().map(|(index, choice)| self.choice(index, choice));
        let usage = Some(Some(answer.usage.into()));
        json!(Envelope { head: &self.head, choices: choices.collect(), usage })
    }

    fn choice(&self, index: usize, whole: WholeChoice) -> TextChoice {
        let WholeChoice { mut prompt, mut prompt_tokens, choice } = whole;
        let prompt_logprobs = self.show.prompt_logprobs.map(|top| prompt_logprobs(&prompt_tokens, top));
        if !self.show.echo {
            prompt.clear();
            prompt_tokens.clear();
        }
        prompt.push_str(&choice.text);
        prompt_tokens.extend(choice.tokens);
        TextChoice {
            index,
            text: prompt,
            logprobs: self.show.logprobs.map(|top| TextLogprobs::new(prompt_tokens, 0, top as usize).0),
            finish_reason: choice.reason.map(finish_reason),
            prompt_logprobs,
        }
    }

    /// The piece that has the prompt.
    fn prompt(&mut self, choice: u32, text: String, tokens: Vec<TextToken>) -> Vec<Value> {
        let described = self.show.prompt_logprobs.map(|top| prompt_logprobs(&tokens, top));
        let (text, logprobs) = match self.show.echo {
            true => (text, self.logprobs(choice, tokens)),
            false => (String::new(), None),
        };
        let choices = vec![TextChoice {
            index: choice as usize,
            text,
            logprobs,
            finish_reason: None,
            prompt_logprobs: described,
        }];
        vec![self.envelope(choices)]
    }

    fn chunk(
        &self,
        choice: u32,
        text: String,
        logprobs: Option<TextLogprobs>,
        finish_reason: Option<&'static str>,
    ) -> Value {
        let index = choice as usize;
        self.envelope(vec![TextChoice { index, text, logprobs, finish_reason, prompt_logprobs: None }])
    }

    fn envelope(&self, choices: Vec<TextChoice>) -> Value {
        json!(Envelope { head: &self.head, choices, usage: self.include_usage.then_some(None) })
    }

    fn logprobs(&mut self, choice: u32, tokens: Vec<TextToken>) -> Option<TextLogprobs> {
        let top = self.show.logprobs?;
        let offset = self.offsets.entry(choice).or_default();
        let (logprobs, next) = TextLogprobs::new(tokens, *offset, top as usize);
        *offset = next;
        Some(logprobs)
    }
}

/// A whole answer, prompts apart.
#[derive(Default)]
pub(super) struct Whole {
    choices: Vec<WholeChoice>,
    usage: Usage,
}

/// A choice and the prompt that came back before it.
#[derive(Default)]
struct WholeChoice {
    prompt: String,
    prompt_tokens: Vec<TextToken>,
    choice: AnswerChoice,
}

impl WholeChoice {
    /// How likely its tokens were, so that long answers are not worse than short ones.
    fn mean_logprob(&self) -> f64 {
        let known = self.choice.tokens.iter().filter_map(|token| token.logprob.as_ref());
        let (sum, count) =
            known.fold((0.0, 0_u32), |(sum, count), token| (sum + f64::from(token.logprob), count + 1));
        if count == 0 { f64::NEG_INFINITY } else { sum / f64::from(count) }
    }
}

impl Whole {
    /// Waits for the end of the events.
    pub(super) async fn collect(events: Metered, show: Show) -> Result<Self, ApiError> {
        let mut prompts: HashMap<u32, (String, Vec<TextToken>)> = HashMap::new();
        let answers = events.try_filter_map(|event| {
            let rest = match event {
                GenerationEvent::Text { choice, text, tokens }
                    if show.has_prompt() && !prompts.contains_key(&choice) =>
                {
                    prompts.insert(choice, (text, tokens));
                    None
                }
                other => Some(other),
            };
            future::ready(Ok(rest))
        });
        let Answer { choices, usage } = Answer::collect(answers).await?;
        let numbered = (0..).zip(choices);
        let choices = numbered.map(|(number, choice)| {
            let (prompt, prompt_tokens) = prompts.remove(&number).unwrap_or_default();
            WholeChoice { prompt, prompt_tokens, choice }
        });
        Ok(Self { choices: choices.collect(), usage })
    }
}

/// A prompt's log-probabilities as vLLM shows them: for each token its own and the likeliest, by id; null for the first,
/// which nothing predicts.
fn prompt_logprobs(tokens: &[TextToken], top: u32) -> Vec<Value> {
    let shown =
        |token: &TextToken| token.logprob.as_ref().map_or(Value::Null, |found| entry(token, found, top));
    tokens.iter().map(shown).collect()
}

fn entry(token: &TextToken, found: &TokenLogprob, top: u32) -> Value {
    let mut entry = Map::new();
    for (rank, ((id, logprob), (text, _))) in (1..=top).zip(found.top.iter().zip(&token.alternatives)) {
        let shown = json!({"logprob": finite_logprob(*logprob), "rank": rank, "decoded_token": text});
        entry.insert(id.to_string(), shown);
    }
    // Its rank is known where it is among the likeliest.
    let own = entry.entry(token.id.to_string());
    own.or_insert_with(
        || json!({"logprob": finite_logprob(found.logprob), "rank": null, "decoded_token": token.text}),
    );
    Value::Object(entry)
}
