//! Texts → vectors, by the same door.

use sconce_models::{Cuts, ModelKind};

use crate::engine::EmbedderHandle;
use crate::generate::{Account, GenerateError, Generator, prompt};
use crate::manager::{ModelLease, Runner};

/// What is to be embedded.
#[derive(Debug, Clone, PartialEq)]
pub enum EmbedInput {
    /// A text; special tokens are added.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

/// How inputs are embedded, beside what they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedOptions {
    /// Which of the model's prompts stands before each text; none: the model's default.
    pub prompt: Option<PromptChoice>,
    /// How long the vectors are to be; none: as the model makes them.
    pub dimensions: Option<usize>,
    /// A text that does not fit is cut behind what does, rather than refused.
    pub truncate: bool,
}

/// A prompt, by the words of different protocols.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptChoice {
    /// The one of this name.
    Named(String),
    /// The first of these names that the model has: what it is for.
    For(&'static str, &'static [&'static str]),
}

/// The vectors, in the order of the inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One for each input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: u32,
}

impl Generator {
    /// Embeds inputs; `account` is what it costs.
    ///
    /// # Errors
    /// [`GenerateError`] for what is wrong with an input or the model, and when the model's queue is full.
    pub async fn embed(
        &self,
        lease: &ModelLease,
        inputs: Vec<EmbedInput>,
        options: &EmbedOptions,
        account: &mut Account,
    ) -> Result<Embeddings, GenerateError> {
        let embedder = embedder(lease)?;
        let cut = cut(lease, options.dimensions)?;
        let before = prompt_text(lease, options.prompt.as_ref(), &inputs)?;
        let (tokenizer, context) = (lease.tokenizer.clone(), lease.spec.context_length);
        let (vocabulary, truncate) = (lease.spec.vocab_size, options.truncate);
        let sequences = prompt::aside(self.workers(), move || {
            let ids = |input| match input {
                EmbedInput::Text(text) if truncate => {
                    prompt::encode_cut(&tokenizer, &format!("{before}{text}"), context)
                }
                EmbedInput::Text(text) => {
                    prompt::encode(&tokenizer, &format!("{before}{text}"), true, context)
                }
                EmbedInput::Tokens(ids) => prompt::check_ids(&ids, vocabulary, None).map(|()| ids),
            };
            inputs.into_iter().map(ids).map(|ids| within(ids?, context)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let prompt_tokens = sequences.iter().map(Vec::len).sum::<usize>();
        let (bill, vectors) = embedder.embed_billed(sequences);
        account.add(bill);
        let mut vectors = vectors.await?;
        if let Some(length) = cut {
            let normalised = lease.profile.features.embedding.normalised;
            vectors.iter_mut().for_each(|vector| shorten(vector, length, normalised));
        }
        Ok(Embeddings { vectors, prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX) })
    }
}

/// The length to which vectors are to be cut; none: they stay as they are.
fn cut(lease: &ModelLease, wanted: Option<usize>) -> Result<Option<usize>, GenerateError> {
    let size = lease.spec.embedding_size;
    let Some(wanted) = wanted.filter(|wanted| *wanted != size) else { return Ok(None) };
    let cuts = &lease.profile.features.embedding.cuts;
    if wanted < size && cuts.allow(wanted) {
        return Ok(Some(wanted));
    }
    let reason = match cuts {
        Cuts::None => format!("this model's vectors have {size} dimensions, and were not trained to be cut"),
        Cuts::Any => format!("this model's vectors have {size} dimensions, and can only be cut to fewer"),
        Cuts::To(lengths) => {
            format!("this model's vectors have {size} dimensions, and can be cut to {lengths:?}")
        }
    };
    Err(GenerateError::Unsupported { param: "dimensions", reason })
}

/// Keeps the first `length` numbers; a vector of length 1 is scaled to it again.
fn shorten(vector: &mut Vec<f32>, length: usize, normalised: bool) {
    vector.truncate(length);
    if normalised {
        let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12);
        #[allow(clippy::cast_possible_truncation, reason = "its parts are not above 1")]
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// What stands before each text.
fn prompt_text(
    lease: &ModelLease,
    choice: Option<&PromptChoice>,
    inputs: &[EmbedInput],
) -> Result<String, GenerateError> {
    let embedding = &lease.profile.features.embedding;
    let (param, found) = match choice {
        None => {
            let name = embedding.default_prompt.as_ref();
            return Ok(name.and_then(|name| embedding.prompts.get(name)).cloned().unwrap_or_default());
        }
        Some(PromptChoice::Named(name)) => ("prompt_name", embedding.prompts.get(name)),
        Some(PromptChoice::For(param, names)) => {
            (*param, names.iter().find_map(|name| embedding.prompts.get(*name)))
        }
    };
    let Some(text) = found else {
        let known: Vec<&str> = embedding.prompts.keys().map(String::as_str).collect();
        let reason = match known.is_empty() {
            true => "this model's files hold no prompts; put one into the text".to_owned(),
            false => format!("this model has the prompts {}", known.join(", ")),
        };
        return Err(GenerateError::Unsupported { param, reason });
    };
    if inputs.iter().any(|input| matches!(input, EmbedInput::Tokens(_))) {
        let reason = "a prompt cannot be put before token ids".to_owned();
        return Err(GenerateError::Unsupported { param, reason });
    }
    Ok(text.clone())
}

fn embedder(lease: &ModelLease) -> Result<EmbedderHandle, GenerateError> {
    match &lease.runner {
        Runner::Embedder(embedder) if lease.spec.kind == ModelKind::Embedding => Ok(embedder.clone()),
        _ => Err(GenerateError::WrongKind {
            model: lease.id.clone(),
            kind: lease.spec.kind,
            wanted: "embed text",
        }),
    }
}

pub(super) fn within(ids: Vec<u32>, context: usize) -> Result<Vec<u32>, GenerateError> {
    match ids.len() {
        0 => Err(GenerateError::EmptyPrompt),
        prompt if prompt > context => Err(GenerateError::ContextLength { prompt, context, at_least: false }),
        _ => Ok(ids),
    }
}
