//! Loading: files → a model that can run, its tokenizer and its chat template.

use std::cell::Cell;

use candle_core::quantized::GgmlDType;
use sconce_kernels::Rounding;
use serde::Serialize;
use serde_json::Value;

use crate::layers::source::Source;
use crate::plan::Plan;
use crate::tokenizer::end_token_ids;
use crate::weights::read_json;
use crate::{
    CacheType, ChatTemplate, CrossEncoder, Device, DeviceSpec, Embedder, Error, Features, Model, ModelFiles,
    ModelSpec, Tokenizer, sentence_transformers, weights,
};

/// How matrix products are computed on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// The faster way on this machine: bf16 where a processor multiplies it in tiles (AMX), but for weights of 8 bits, else integers.
    #[default]
    Auto,
    /// Quantised weights meet activations rounded to 8 bits, block by block: the same bits on every processor of an architecture.
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
    /// How it writes calls of functions, where that is said; files do not say it.
    pub tool_format: Option<String>,
}

impl GenerationDefaults {
    /// Reads what `generation_config.json` suggests for sampling. A suggestion that makes no sense is left out.
    pub(crate) fn read(files: &ModelFiles) -> Result<Self, Error> {
        let ModelFiles::Safetensors { folder, .. } = files else {
            return Ok(Self::default());
        };
        let path = folder.join("generation_config.json");
        if !path.exists() {
            return Ok(Self::default());
        }
        let config = read_json(&path, "generation_config.json")?;
        let number = |name: &str| config.get(name).and_then(Value::as_f64).map(|number| number as f32);
        Ok(Self {
            end_token_ids: Vec::new(),
            temperature: number("temperature").filter(|&value| value >= 0.0 && value.is_finite()),
            top_p: number("top_p").filter(|&value| value > 0.0 && value <= 1.0),
            top_k: config.get("top_k").and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok()),
            repetition_penalty: number("repetition_penalty")
                .filter(|&value| value > 0.0 && value.is_finite()),
            tool_format: None,
        })
    }
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

impl LoadedModel {
    /// The model's shape.
    pub fn spec(&self) -> &ModelSpec {
        match self {
            Self::Causal(model) => model.spec(),
            Self::Embedder(model) => model.spec(),
            Self::CrossEncoder(model) => model.spec(),
        }
    }
}

/// Everything that a model's files hold, ready to run.
pub struct Loaded {
    /// The model.
    pub model: LoadedModel,
    /// Its shape.
    pub spec: ModelSpec,
    /// Where its weights are, and where its cache must be: a device opened twice is two devices.
    pub device: Device,
    /// Text ↔ token ids.
    pub tokenizer: Tokenizer,
    /// The conversation format; none for encoders and base models without one.
    pub chat_template: Option<ChatTemplate>,
    /// What the files suggest for sampling and stopping.
    pub defaults: GenerationDefaults,
    /// What the files say of the model's use.
    pub features: Features,
    /// Most common weight type, by bytes: `Q4_1`, `F16`, …
    pub quantisation: String,
    /// How its keys and values are to be kept.
    pub cache_type: CacheType,
}

/// Loads a model.
///
/// # Errors
/// [`Error::InvalidFile`], [`Error::UnsupportedArchitecture`], [`Error::MissingTensor`], [`Error::Shape`],
/// [`Error::Tokenizer`], [`Error::Config`], [`Error::Unsupported`] for what is wrong with the files;
/// [`Error::Device`] for the device.
pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Loaded, Error> {
    let device = Device::open(options.device)?;
    options.cache_type.check(&device)?;
    let opened = weights::open(files, &device, options.arithmetic)?;
    let sentence = sentence_transformers::read(files)?;
    let plan = Plan::new(&opened.config, sentence)?;
    let plan = plan.limited(options.context_length.unwrap_or(usize::MAX));
    // Before the weights: whatever is wrong with these shows within a moment.
    let metadata = opened.metadata.as_ref();
    let tokenizer = Tokenizer::load(files, metadata, plan.spec().vocab_size)?;
    let chat_template = ChatTemplate::find(files, metadata)?;
    let end_token_ids = end_token_ids(files, &opened.config, metadata, &tokenizer)?;
    let defaults = GenerationDefaults { end_token_ids, ..GenerationDefaults::read(files)? };
    let embedding = sentence_transformers::embedding_use(files, &opened.config, sentence)?;
    let features = Features::read(&opened.config, metadata, &tokenizer, embedding)?;
    let quantisation = opened.weights.dominant_type();
    let is_quantised = !["F32", "F16", "BF16"].contains(&quantisation.as_str());
    let head_dim = plan.spec().head_dim;
    let cache_type = options.cache_type.settled(options.arithmetic, is_quantised, &device, head_dim);
    let fingerprint = fingerprint(&opened.weights.content_hash()?, options.arithmetic, cache_type, &device);
    let bytes = Cell::new(0);
    let root = Source::new(opened.weights.as_ref(), &bytes);
    let model = plan.build(&root, ModelSpec { fingerprint, ..plan.spec() }, &device)?;
    let spec = model.spec().clone();
    Ok(Loaded { model, spec, device, tokenizer, chat_template, defaults, features, quantisation, cache_type })
}

/// Everything that the bits of an answer depend on, but for the request.
fn fingerprint(content_hash: &str, arithmetic: Arithmetic, cache_type: CacheType, device: &Device) -> String {
    let mut hasher = blake3::Hasher::new();
    // Kernels give the same bits at every level of vector instructions, but not on another kind of processor, nor in bf16.
    let arithmetic = match arithmetic {
        Arithmetic::Auto if !device.is_cpu() || Rounding::best(GgmlDType::Q4_0) == Rounding::Bytes => {
            Arithmetic::Integer
        }
        arithmetic => arithmetic,
    };
    let place = (device.name(), std::env::consts::ARCH);
    let settings = format!("{arithmetic:?} {cache_type:?} {place:?}");
    for part in [content_hash, settings.as_str(), env!("CARGO_PKG_VERSION")] {
        // Lengths in between: no two lists of parts are one text.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("fp_{}", &hasher.finalize().to_hex()[..16])
}
