//! Starts generations: checks a request against the model and hands it to the engine.

use std::sync::Arc;

use sconce_models::ModelKind;
use sconce_models::grammar::{self, Language};
use tokio::sync::Semaphore;

use crate::engine::{EngineHandle, SequenceRequest, ThoughtLimit};
use crate::generate::constraint::{Refusal, at_fault, guide};
use crate::generate::generation::{Echo, Extent, Presentation, Reading};
use crate::generate::prompt::Prepared;
use crate::generate::{
    Account, Constraint, GenerateError, GenerateRequest, Generation, GenerationBatch, Prompt, Tool,
    ToolChoice, conversation, format, prompt,
};
use crate::manager::{ModelLease, Runner};

/// The door to the engine. Cheap to clone.
#[derive(Clone)]
pub struct Generator {
    workers: Arc<Semaphore>,
    /// How many constraints are compiled at the same time.
    compilers: Arc<Semaphore>,
}

impl Generator {
    /// Prepares at most `workers` long prompts at the same time.
    pub fn new(workers: usize) -> Self {
        let permits = || Arc::new(Semaphore::new(workers.max(1)));
        Self { workers: permits(), compilers: permits() }
    }

    pub(super) fn workers(&self) -> &Semaphore {
        &self.workers
    }

    /// Prepares the prompt and hands it to the engine; `account` is what it costs.
    ///
    /// # Errors
    /// [`GenerateError`] for what is wrong with the request or the model, and when the engine's queue is full.
    pub async fn start(
        &self,
        lease: ModelLease,
        request: GenerateRequest,
        account: &mut Account,
    ) -> Result<Generation, GenerateError> {
        let engine = causal_engine(&lease)?;
        let vocabulary = lease.spec.vocab_size;
        let biased: Vec<u32> = request.sampling.logit_bias.iter().map(|(id, _)| *id).collect();
        prompt::check_ids(&biased, vocabulary, Some("logit_bias"))?;
        prompt::check_ids(&request.stop_token_ids, vocabulary, Some("stop_token_ids"))?;

        // What is wrong with it is told before the prompt, which shows it, is found too long.
        let wanted = constraint(&request, &lease)?;
        let Prepared { ids, is_thinking, .. } = prompt::prepare(&request, &lease, self.workers()).await?;
        let guide = match wanted {
            // A thought that the prompt began is not held to anything.
            Some(constraint) => {
                let thought = prompt::format_of(&lease).and_then(|format| format.thought_marks());
                let after = thought.filter(|_| is_thinking).map(|marks| marks.end.to_owned());
                let is_of_tools = request.constraint.as_ref() != Some(&constraint);
                match guide(constraint, after, &lease, &self.compilers).await {
                    Ok(guide) => Some(guide),
                    Err(refusal) if is_of_tools => {
                        return Err(self.blame(&request, &lease, refusal).await);
                    }
                    Err(refusal) => return Err(refusal.of(|| request.names.constraint.to_owned())),
                }
            }
            None => None,
        };
        let most = lease.spec.context_length;
        let context = request.context.map_or(most, |context| most.min(context as usize));
        let max_new_tokens = room(ids.len(), context, request.max_new_tokens)?;
        let must_call = matches!(request.tools.choice, ToolChoice::Required(_));
        let is_held = guide.is_some() && (request.constraint.is_some() || must_call);
        let prediction: Arc<[u32]> = prompt::predicted(&request, &lease, self.workers()).await?.into();
        let presentation = Presentation {
            // What an answer is held to is whole or cut short by its length, and not by words in the middle of it.
            stop: if is_held { Arc::default() } else { request.stop.as_slice().into() },
            show_special_tokens: request.show_special_tokens,
            logprobs: request.sampling.logprobs.is_some(),
            echo: echo(&request, &lease, &ids)?,
            reading: reading(&request, &lease, is_thinking),
            prediction: prediction.clone(),
            blame: if request.constraint.is_some() { request.names.constraint } else { request.names.tools },
        };
        let thought = thought(&request, &lease, is_thinking)?;
        let extent = Extent { prompt_tokens: ids.len(), choices: request.choices, max_new_tokens };
        let tokens = engine.submit(SequenceRequest {
            guide,
            thought,
            prediction,
            ..sequence(request, &lease, ids, max_new_tokens)
        })?;
        account.add(tokens.bill());
        Ok(Generation::new(lease, tokens, &extent, presentation))
    }

    /// What is wrong where the grammar of functions, and of the answer beside them, is refused: told by the part of it that
    /// was sent and is at fault, since nobody sent the whole.
    async fn blame(&self, request: &GenerateRequest, lease: &ModelLease, refusal: Refusal) -> GenerateError {
        let names = &request.names;
        if !matches!(refusal, Refusal::Grammar(_)) {
            return refusal.of(|| names.tools.to_owned());
        }
        if let Some(own) = request.constraint.clone()
            && let Err(refusal) = guide(own, None, lease, &self.compilers).await
        {
            return refusal.of(|| names.constraint.to_owned());
        }
        match at_fault(&request.tools.tools, lease, &self.compilers).await {
            Some((number, refusal)) => refusal.of(|| names.schema_of(number)),
            None => refusal.of(|| names.tools.to_owned()),
        }
    }

    /// Tokens of a request's prompt. Nothing is generated.
    ///
    /// # Errors
    /// As [`Generator::start`], as far as it concerns the prompt.
    pub async fn prompt_tokens(
        &self,
        lease: &ModelLease,
        request: GenerateRequest,
    ) -> Result<usize, GenerateError> {
        causal_engine(lease)?;
        Ok(prompt::prepare(&request, lease, self.workers()).await?.ids.len())
    }

    /// The text and the tokens of a conversation's prompt, without running it.
    ///
    /// # Errors
    /// [`GenerateError`] for what is wrong with the conversation or the model.
    pub async fn rendered(
        &self,
        lease: &ModelLease,
        request: GenerateRequest,
    ) -> Result<(String, Vec<u32>), GenerateError> {
        causal_engine(lease)?;
        let Prepared { text, ids, .. } = prompt::prepare(&request, lease, self.workers()).await?;
        Ok((text.unwrap_or_default(), ids))
    }

    /// The tokens of a text, whatever the model is for.
    ///
    /// # Errors
    /// [`GenerateError::Tokenizer`].
    pub async fn tokens(
        &self,
        lease: &ModelLease,
        text: String,
        add_special_tokens: bool,
    ) -> Result<Vec<u32>, GenerateError> {
        let tokenizer = lease.tokenizer.clone();
        let encode = move || tokenizer.encode(&text, add_special_tokens).map_err(GenerateError::Tokenizer);
        prompt::aside(self.workers(), encode).await
    }

    /// The text of tokens, special ones included.
    ///
    /// # Errors
    /// [`GenerateError::NoSuchToken`].
    pub async fn text(&self, lease: &ModelLease, ids: Vec<u32>) -> Result<String, GenerateError> {
        prompt::check_ids(&ids, lease.spec.vocab_size, Some("tokens"))?;
        let tokenizer = lease.tokenizer.clone();
        let decode = move || tokenizer.decode(&ids, false).map_err(GenerateError::Tokenizer);
        prompt::aside(self.workers(), decode).await
    }

    /// Starts several requests at once; their choices are numbered through. If one cannot start those before it are
    /// given up, but may have cost something.
    ///
    /// # Errors
    /// As [`Generator::start`], of the first request that cannot start.
    pub async fn start_all(
        &self,
        lease: ModelLease,
        requests: Vec<GenerateRequest>,
        account: &mut Account,
    ) -> Result<GenerationBatch, GenerateError> {
        let mut generations = Vec::with_capacity(requests.len());
        for request in requests {
            generations.push(self.start(lease.clone(), request, account).await?);
        }
        Ok(GenerationBatch::new(generations))
    }
}

fn causal_engine(lease: &ModelLease) -> Result<EngineHandle, GenerateError> {
    match &lease.runner {
        Runner::Engine(engine) if lease.spec.kind == ModelKind::Causal => Ok(engine.clone()),
        _ => Err(GenerateError::WrongKind {
            model: lease.id.clone(),
            kind: lease.spec.kind,
            wanted: "generate text",
        }),
    }
}

/// Room for the answer: what was asked for, but no more than the context leaves.
fn room(prompt: usize, context: usize, wanted: Option<u32>) -> Result<u32, GenerateError> {
    let left = context.checked_sub(prompt).and_then(|left| u32::try_from(left).ok());
    match (left, wanted) {
        (Some(_), Some(0)) => Ok(0),
        (None | Some(0), _) => Err(GenerateError::ContextLength { prompt, context, at_least: false }),
        (Some(left), wanted) => Ok(wanted.unwrap_or(left).min(left)),
    }
}

fn echo(request: &GenerateRequest, lease: &ModelLease, ids: &[u32]) -> Result<Option<Echo>, GenerateError> {
    if !request.echo {
        return Ok(None);
    }
    let text = match &request.prompt {
        Prompt::Text(text) | Prompt::Infill { before: text, .. } => text.clone(),
        _ => lease.tokenizer.decode(ids, !request.show_special_tokens).map_err(GenerateError::Tokenizer)?,
    };
    Ok(Some(Echo { ids: ids.to_vec(), text, logprobs: request.prompt_logprobs.is_some() }))
}

/// How long the answer may think; none: as long as the model likes.
///
/// # Errors
/// [`GenerateError::Unsupported`] for a model whose thoughts end with no token of their own.
fn thought(
    request: &GenerateRequest,
    lease: &ModelLease,
    is_open: bool,
) -> Result<Option<ThoughtLimit>, GenerateError> {
    let (Prompt::Chat { .. }, Some(format)) = (&request.prompt, prompt::format_of(lease)) else {
        return Ok(None);
    };
    let Some(budget) = request.reasoning.budget else { return Ok(None) };
    let token = |mark: &str| lease.tokenizer.token_to_id(mark.trim_end());
    let marks = format.thought_marks();
    match marks.and_then(|marks| token(marks.end)) {
        Some(end) => {
            let begin = marks.and_then(|marks| token(marks.begin));
            Ok(Some(ThoughtLimit { begin, end, is_open, budget }))
        }
        None => {
            let reason = "this model's thoughts do not end with a token of their own".to_owned();
            Err(GenerateError::Unsupported { param: request.names.budget, reason })
        }
    }
}

/// What the answer may be, calls included.
///
/// # Errors
/// [`GenerateError::Unsupported`] for what cannot be had together.
fn constraint(request: &GenerateRequest, lease: &ModelLease) -> Result<Option<Constraint>, GenerateError> {
    let own = request.constraint.clone();
    let (Prompt::Chat { .. }, Some(format)) = (&request.prompt, prompt::format_of(lease)) else {
        return Ok(own);
    };
    let tools = conversation::offered(&request.tools);
    let must_call = matches!(request.tools.choice, ToolChoice::Required(_));
    let answer = own.as_ref().map(format::rule_of);
    if matches!(answer, Some(None)) && !tools.is_empty() && !must_call {
        let reason = "a grammar of its own cannot be had together with tools; use a JSON schema".to_owned();
        return Err(GenerateError::Unsupported { param: request.names.tools, reason });
    }
    if let (true, Some(Constraint::Regex(_) | Constraint::Choice(_) | Constraint::Grammar(_))) =
        (must_call && !tools.is_empty(), &own)
    {
        let reason = "a call must come, and leaves no text to hold to it".to_owned();
        return Err(GenerateError::Unsupported { param: request.names.constraint, reason });
    }
    let special = |mark: &str| lease.tokenizer.token_to_id(mark).filter(|&id| lease.tokenizer.is_special(id));
    let calls = format.call_grammar(&tools, &request.tools, &special, answer.flatten().as_deref());
    if calls.is_some() {
        check_parts(request, &tools)?;
    }
    Ok(calls.map(Constraint::Grammar).or(own))
}

/// Holds each part of a grammar of calls to the limits that it has where it stands alone.
fn check_parts(request: &GenerateRequest, offered: &[Tool]) -> Result<(), GenerateError> {
    let names = &request.names;
    if let Some(own) = request.constraint.clone() {
        let refused = |error| GenerateError::Constraint { param: names.constraint.to_owned(), error };
        grammar::check(&own.into()).map_err(refused)?;
    }
    for (number, tool) in request.tools.tools.iter().enumerate() {
        let Some(schema) = tool.parameters.clone().filter(|_| offered.contains(tool)) else { continue };
        let checked = if tool.strict {
            grammar::check(&Language::JsonSchema(schema))
        } else {
            grammar::check_lenient(&schema)
        };
        checked.map_err(|error| GenerateError::Constraint { param: names.schema_of(number), error })?;
    }
    Ok(())
}

/// How the answer to a conversation is read; none for what continues a text.
fn reading(request: &GenerateRequest, lease: &ModelLease, is_thinking: bool) -> Option<Reading> {
    let Prompt::Chat { .. } = request.prompt else { return None };
    let tools = conversation::offered(&request.tools).into();
    let must_call =
        matches!(request.tools.choice, ToolChoice::Required(_)) && !request.tools.tools.is_empty();
    let parallel = request.tools.parallel;
    Some(Reading { format: prompt::format_of(lease)?, tools, is_thinking, parallel, must_call })
}

fn sequence(
    request: GenerateRequest,
    lease: &ModelLease,
    ids: Vec<u32>,
    max_new_tokens: u32,
) -> SequenceRequest {
    let mut stop_token_ids = request.stop_token_ids;
    if !request.ignore_end {
        stop_token_ids.extend(&lease.defaults().end_token_ids);
        if let (Prompt::Infill { .. }, Some(infill)) = (&request.prompt, &lease.profile.features.infill) {
            stop_token_ids.extend(&infill.end);
        }
    }
    SequenceRequest {
        sampling: request.sampling.resolve(lease.defaults()),
        choices: request.choices,
        min_new_tokens: request.min_new_tokens.min(max_new_tokens),
        stop_token_ids,
        prompt_logprobs: request.prompt_logprobs,
        tenant: request.tenant,
        priority: request.priority,
        deadline: request.deadline,
        ..SequenceRequest::new(ids, max_new_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn the_answer_gets_what_the_context_leaves() {
        assert_eq!(room(10, 16, None).ok(), Some(6));
        assert_eq!(room(10, 16, Some(4)).ok(), Some(4));
        assert_eq!(room(10, 16, Some(u32::MAX)).ok(), Some(6));
        assert_eq!(room(15, 16, None).ok(), Some(1));
        assert_eq!(room(16, 16, Some(0)).ok(), Some(0));
    }

    #[test]
    fn a_prompt_that_fills_the_context_is_refused_with_both_numbers() {
        for prompt in [16, 17, 160] {
            let refused = room(prompt, 16, None).expect_err("it does not fit").to_string();
            assert!(refused.contains("16 tokens") && refused.contains(&prompt.to_string()), "{refused}");
        }
        assert!(room(17, 16, Some(0)).is_err());
    }
}
