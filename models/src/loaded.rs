//! Loading: files → a model that can run, its tokenizer and its chat template.

use serde::Serialize;

use crate::{
    CacheType, ChatTemplate, CrossEncoder, DeviceSpec, Embedder, Error, Model, ModelFiles, ModelSpec,
    Tokenizer,
};

/// How matrix products are computed on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Quantised weights meet activations rounded to 8 bits, block by block: what is served.
    #[default]
    Integer,
    /// Weights are dequantised to f32 first: slow, for comparing with a reference.
    Float,
}

/// What to do when loading.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where the tensors go.
    pub device: DeviceSpec,
    /// How products are computed.
    pub arithmetic: Arithmetic,
    /// How the KV cache will be stored.
    pub cache_type: CacheType,
    /// A context length below the model's own.
    pub context_length: Option<usize>,
}

/// What the model's files say about generating with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GenerationDefaults {
    /// Tokens that end an answer: end of text, end of turn.
    pub end_token_ids: Vec<u32>,
    /// Suggested temperature.
    pub temperature: Option<f32>,
    /// Suggested nucleus.
    pub top_p: Option<f32>,
    /// Suggested number of candidates.
    pub top_k: Option<u32>,
    /// Suggested repetition penalty.
    pub repetition_penalty: Option<f32>,
}

/// The loaded model by what it does.
pub enum LoadedModel {
    /// Continues text.
    Causal(Box<dyn Model>),
    /// Turns a text into a vector.
    Embedder(Box<dyn Embedder>),
    /// Scores a pair of texts.
    CrossEncoder(Box<dyn CrossEncoder>),
}

/// Everything that a model's files hold, ready to run.
pub struct Loaded {
    /// The model.
    pub model: LoadedModel,
    /// Its shape.
    pub spec: ModelSpec,
    /// Text ↔ token ids.
    pub tokenizer: Tokenizer,
    /// The conversation format; none for encoders and base models without one.
    pub chat_template: Option<ChatTemplate>,
    /// What the files suggest for sampling and stopping.
    pub defaults: GenerationDefaults,
}

/// Loads a model.
///
/// # Errors
/// [`Error::InvalidFile`], [`Error::UnsupportedArchitecture`], [`Error::MissingTensor`], [`Error::Shape`],
/// [`Error::Tokenizer`] for what is wrong with the files; [`Error::Device`] for the device.
pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Loaded, Error> {
    let _ = (files, options);
    todo!("models helper")
}
