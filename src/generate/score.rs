//! Pairs of texts → how well they belong together, by the same door.

use sconce_models::{ModelKind, Tokenizer};

use crate::engine::EmbedderHandle;
use crate::generate::{Account, GenerateError, Generator, prompt};
use crate::manager::{ModelLease, Runner};

/// Two texts: what is looked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPair {
    /// The question.
    pub query: String,
    /// What may answer it.
    pub document: String,
}

/// The scores, in the order of the pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// One for each pair; squashed as the model's files say.
    pub scores: Vec<f32>,
    /// Tokens of all pairs.
    pub prompt_tokens: u32,
}

impl Generator {
    /// Scores pairs; `account` is what it costs. Of each document at most `document_tokens` tokens are read.
    ///
    /// # Errors
    /// [`GenerateError`] for what is wrong with a pair or the model, and when the model's queue is full.
    pub async fn score(
        &self,
        lease: &ModelLease,
        pairs: Vec<TextPair>,
        document_tokens: Option<usize>,
        account: &mut Account,
    ) -> Result<Scores, GenerateError> {
        let scorer = scorer(lease)?;
        let (tokenizer, context) = (lease.tokenizer.clone(), lease.spec.context_length);
        let inputs = prompt::aside(self.workers(), move || {
            let encoded = |pair: TextPair| encode(&tokenizer, &pair, document_tokens, context);
            pairs.into_iter().map(encoded).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let prompt_tokens = inputs.iter().map(|(ids, _)| ids.len()).sum::<usize>();
        let (bill, logits) = scorer.score_billed(inputs);
        account.add(bill);
        let activation = lease.profile.features.activation;
        let one = |logits: Vec<f32>| match logits.as_slice() {
            [logit] => Ok(activation.of(*logit)),
            labels => Err(GenerateError::Unsupported {
                param: "model",
                reason: format!("it sorts pairs into {} classes and does not rank them", labels.len()),
            }),
        };
        let scores = logits.await?.into_iter().map(one).collect::<Result<_, _>>()?;
        Ok(Scores { scores, prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX) })
    }
}

fn scorer(lease: &ModelLease) -> Result<EmbedderHandle, GenerateError> {
    match &lease.runner {
        Runner::Embedder(scorer) if lease.spec.kind == ModelKind::CrossEncoder => Ok(scorer.clone()),
        _ => Err(GenerateError::WrongKind {
            model: lease.id.clone(),
            kind: lease.spec.kind,
            wanted: "score pairs of texts",
        }),
    }
}

/// Ids and types of a pair within the context.
fn encode(
    tokenizer: &Tokenizer,
    pair: &TextPair,
    document_tokens: Option<usize>,
    context: usize,
) -> Result<(Vec<u32>, Vec<u32>), GenerateError> {
    // A text that is too long by itself is found so before both are tokenised; one that surely is, before it is.
    let fits = |text| match prompt::encode(tokenizer, text, false, context)?.len() {
        prompt if prompt > context => Err(GenerateError::ContextLength { prompt, context, at_least: true }),
        _ => Ok(()),
    };
    fits(&pair.query)?;
    let document = match document_tokens {
        Some(most) => beginning(tokenizer, &pair.document, most)?,
        None => {
            fits(&pair.document)?;
            pair.document.as_str()
        }
    };
    let encoding = tokenizer.encode_pair(&pair.query, document).map_err(GenerateError::Tokenizer)?;
    let prompt = encoding.ids.len();
    if prompt > context {
        return Err(GenerateError::ContextLength { prompt, context, at_least: false });
    }
    Ok((encoding.ids, encoding.type_ids))
}

/// No tokenizer in use makes more than this of one token; what lies behind cannot be among the first.
const LONGEST_TOKEN_BYTES: usize = 512;

fn beginning<'text>(
    tokenizer: &Tokenizer,
    document: &'text str,
    most: usize,
) -> Result<&'text str, GenerateError> {
    let within = document.floor_char_boundary(most.saturating_add(1).saturating_mul(LONGEST_TOKEN_BYTES));
    tokenizer.beginning(&document[..within], most).map_err(GenerateError::Tokenizer)
}
