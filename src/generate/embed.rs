//! Texts → vectors, by the same door.

use sconce_models::ModelKind;

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
        account: &mut Account,
    ) -> Result<Embeddings, GenerateError> {
        let embedder = embedder(lease)?;
        let (tokenizer, context) = (lease.tokenizer.clone(), lease.spec.context_length);
        let vocabulary = lease.spec.vocab_size;
        let sequences = prompt::aside(self.workers(), move || {
            let ids = |input| match input {
                EmbedInput::Text(text) => prompt::encode(&tokenizer, &text, true, context),
                EmbedInput::Tokens(ids) => prompt::check_ids(&ids, vocabulary, None).map(|()| ids),
            };
            inputs.into_iter().map(ids).map(|ids| within(ids?, context)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let prompt_tokens = sequences.iter().map(Vec::len).sum::<usize>();
        let (bill, vectors) = embedder.embed_billed(sequences);
        account.add(bill);
        let vectors = vectors.await?;
        Ok(Embeddings { vectors, prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX) })
    }
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

fn within(ids: Vec<u32>, context: usize) -> Result<Vec<u32>, GenerateError> {
    match ids.len() {
        0 => Err(GenerateError::EmptyPrompt),
        prompt if prompt > context => Err(GenerateError::ContextLength { prompt, context, at_least: false }),
        _ => Ok(ids),
    }
}
