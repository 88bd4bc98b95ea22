//! Starts generations: checks a request against the model and hands it to the engine.

use std::sync::Arc;

use sconce_models::ModelKind;
use tokio::sync::Semaphore;

use crate::engine::{EngineHandle, SequenceRequest, ThoughtLimit};
use crate::generate::compilers::Compilers;
use crate::generate::form::Form;
use crate::generate::generation::{Echo, Extent, Presentation, Reading};
use crate::generate::prompt::Prepared;
use crate::generate::{
    Account, GenerateError, GenerateRequest, Generation, GenerationBatch, Prompt, ToolChoice, conversation,
    prompt,
};
use crate::manager::{ModelLease, Runner};

/// The door to the engine. Cheap to clone.
#[derive(Clone)]
pub struct Generator {
    workers: Arc<Semaphore>,
    /// Where constraints are compiled.
    compilers: Compilers,
}

impl Generator {
    /// Prepares at most `workers` long prompts at the same time.
    pub fn new(workers: usize) -> Self {
        let workers = workers.max(1);
        Self { workers: Arc::new(Semaphore::new(workers)), compilers: Compilers::new(workers) }
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
        let form = match Form::of(&request, &lease)? {
            Some(form) => Some(form.checked(&self.compilers).await?),
            None => None,
        };
        let Prepared { ids, is_thinking, .. } = prompt::prepare(&request, &lease, self.workers()).await?;
        let guide = match form {
            // A thought that the prompt began is not held to anything.
            Some(form) => {
                let thought = prompt::format_of(&lease).and_then(|format| format.thought_marks());
                let after = thought.filter(|_| is_thinking).map(|marks| marks.end.to_owned());
                Some(form.guide(after, &lease, &self.compilers).await?)
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
