//! What a GGUF file's metadata says of the architecture, as the `config.json` it was converted from would say it.
//!
//! A setting that would change results and has no counterpart here is refused rather than ignored.

use serde_json::{Map, Value, json};

use super::gguf_metadata::Metadata;
use crate::Error;

/// GGUF architectures that can be loaded. Mistral models are written as `llama`.
const SUPPORTED: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// Keys below the architecture's name that change results in ways these architectures do not have.
const REFUSED: [&str; 8] = [
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
];

/// What has to be known of the tensors.
pub(crate) struct TensorFacts {
    /// Rows of the embedding.
    pub(crate) vocabulary: usize,
    /// Whether there is an output matrix of its own.
    pub(crate) has_output: bool,
    /// Whether the query projection has a bias.
    pub(crate) has_attention_bias: bool,
    /// Whether the feed-forward projections have a bias.
    pub(crate) has_mlp_bias: bool,
    /// Whether there is `rope_freqs.weight`.
    pub(crate) has_rope_factors: bool,
}

/// Reads values below the architecture's name.
struct Settings<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Settings<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, Error> {
        let key = self.key(name);
        if self.metadata.array_length(&key).is_some() {
            return Err(Error::Unsupported { what: "setting per layer", value: key });
        }
        match self.metadata.unsigned(&key)? {
            None => Ok(None),
            Some(number @ 1..=0x7fff_ffff) => Ok(Some(number as usize)),
            Some(number) => Err(self.metadata.invalid(format!("metadata `{key}` is {number}"))),
        }
    }

    fn required_count(&self, name: &str) -> Result<usize, Error> {
        self.count(name)?
            .ok_or_else(|| self.metadata.invalid(format!("metadata `{}` is missing", self.key(name))))
    }

    fn positive(&self, name: &str) -> Result<Option<f64>, Error> {
        let key = self.key(name);
        match self.metadata.float(&key)? {
            Some(number) if number <= 0.0 => {
                Err(self.metadata.invalid(format!("metadata `{key}` is {number}")))
            }
            found => Ok(found),
        }
    }
}

/// The architecture of the file, if it can be loaded.
pub(crate) fn architecture(metadata: &Metadata) -> Result<&str, Error> {
    let name = metadata
        .text("general.architecture")?
        .ok_or_else(|| metadata.invalid("metadata `general.architecture` is missing"))?;
    if SUPPORTED.contains(&name) {
        return Ok(name);
    }
    Err(Error::UnsupportedArchitecture { name: name.to_owned(), supported: SUPPORTED.join(", ") })
}

/// Query and key/value heads.
pub(crate) fn heads(metadata: &Metadata) -> Result<(usize, usize), Error> {
    let settings = Settings { metadata, architecture: architecture(metadata)? };
    let heads = settings.required_count("attention.head_count")?;
    Ok((heads, settings.count("attention.head_count_kv")?.unwrap_or(heads)))
}

/// Builds the configuration.
pub(crate) fn config(metadata: &Metadata, facts: &TensorFacts) -> Result<Value, Error> {
    let architecture = architecture(metadata)?;
    let settings = Settings { metadata, architecture };
    refuse(&settings)?;
    let (heads, kv_heads) = heads(metadata)?;
    let hidden = settings.required_count("embedding_length")?;
    let head_dim = head_dim(&settings, hidden, heads)?;
    check_vocabulary(metadata, facts.vocabulary)?;
    let mut config = json!({
        "model_type": architecture,
        "hidden_size": hidden,
        "intermediate_size": settings.required_count("feed_forward_length")?,
        "num_hidden_layers": settings.required_count("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": settings.required_count("context_length")?,
        "rms_norm_eps": settings.positive("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
        "rope_theta": settings.positive("rope.freq_base")?.unwrap_or(10_000.0),
        "rope_scaling": rope_scaling(&settings, facts)?,
        "hidden_act": "silu",
        "vocab_size": facts.vocabulary,
        "tie_word_embeddings": !facts.has_output,
        "attention_bias": facts.has_attention_bias,
        "mlp_bias": facts.has_mlp_bias,
    });
    if let Some(object) = config.as_object_mut() {
        window(&settings, object)?;
        special_token_ids(metadata, object)?;
    }
    Ok(config)
}

fn refuse(settings: &Settings<'_>) -> Result<(), Error> {
    if settings.count("expert_count").is_ok_and(|count| count.is_some()) {
        let name = format!("{} with experts", settings.architecture);
        return Err(Error::UnsupportedArchitecture { name, supported: SUPPORTED.join(", ") });
    }
    for name in REFUSED {
        let key = settings.key(name);
        if let Some(number) = settings.metadata.float(&key)?.filter(|number| *number != 0.0 && *number != 1.0)
        {
            return Err(Error::Unsupported { what: "GGUF setting", value: format!("{key} = {number}") });
        }
    }
    Ok(())
}

fn head_dim(settings: &Settings<'_>, hidden: usize, heads: usize) -> Result<usize, Error> {
    let head_dim = match settings.count("attention.key_length")? {
        Some(length) => length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(settings
                .metadata
                .invalid(format!("{heads} heads do not divide a width of {hidden}")));
        }
    };
    if let Some(values) = settings.count("attention.value_length")?.filter(|length| *length != head_dim) {
        return Err(Error::Unsupported {
            what: "width of values",
            value: format!("{values} beside {head_dim} of keys"),
        });
    }
    if let Some(rotated) = settings.count("rope.dimension_count")?.filter(|count| *count != head_dim) {
        return Err(Error::Unsupported { what: "rotated width", value: format!("{rotated} of {head_dim}") });
    }
    Ok(head_dim)
}

/// Tokens without a row in the embedding would read past its end.
fn check_vocabulary(metadata: &Metadata, rows: usize) -> Result<(), Error> {
    match metadata.array_length("tokenizer.ggml.tokens") {
        Some(tokens) if tokens > rows => {
            Err(metadata.invalid(format!("it has {tokens} tokens and embeddings for {rows}")))
        }
        _ => Ok(()),
    }
}

/// Scaling of rotary frequencies. Llama 3's is written as a tensor of factors: `rope_type` is then `factors`, and the
/// tensor `rope_freqs.weight` `[head_dim / 2]` divides the frequencies.
fn rope_scaling(settings: &Settings<'_>, facts: &TensorFacts) -> Result<Value, Error> {
    let metadata = settings.metadata;
    let kind = metadata.text(&settings.key("rope.scaling.type"))?.unwrap_or("none");
    let factor = match settings.positive("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => settings.positive("rope.scale_linear")?,
    };
    match kind {
        "none" if facts.has_rope_factors => Ok(json!({ "rope_type": "factors" })),
        "none" => match factor {
            Some(factor) if factor != 1.0 => Ok(json!({ "rope_type": "linear", "factor": factor })),
            _ => Ok(Value::Null),
        },
        _ if facts.has_rope_factors => {
            Err(Error::Unsupported { what: "rotary scaling", value: format!("{kind} with factors") })
        }
        "linear" => Ok(json!({ "rope_type": "linear", "factor": factor.unwrap_or(1.0) })),
        "yarn" => yarn(settings, factor.unwrap_or(1.0)),
        other => Err(Error::Unsupported { what: "rotary scaling", value: other.to_owned() }),
    }
}

fn yarn(settings: &Settings<'_>, factor: f64) -> Result<Value, Error> {
    let mut scaling = json!({ "rope_type": "yarn", "factor": factor });
    let optional = [
        (
            "original_max_position_embeddings",
            settings.count("rope.scaling.original_context_length")?.map(Value::from),
        ),
        ("attention_factor", settings.positive("rope.scaling.attn_factor")?.map(Value::from)),
        ("beta_fast", settings.positive("rope.scaling.yarn_beta_fast")?.map(Value::from)),
        ("beta_slow", settings.positive("rope.scaling.yarn_beta_slow")?.map(Value::from)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            scaling[name] = value;
        }
    }
    Ok(scaling)
}

fn window(settings: &Settings<'_>, config: &mut Map<String, Value>) -> Result<(), Error> {
    if let Some(window) =
        settings.metadata.unsigned(&settings.key("attention.sliding_window"))?.filter(|w| *w > 0)
    {
        config.insert("sliding_window".into(), window.into());
        config.insert("use_sliding_window".into(), true.into());
    }
    Ok(())
}

fn special_token_ids(metadata: &Metadata, config: &mut Map<String, Value>) -> Result<(), Error> {
    for (key, name) in [("bos", "bos_token_id"), ("eos", "eos_token_id")] {
        if let Some(id) = metadata.unsigned(&format!("tokenizer.ggml.{key}_token_id"))? {
            config.insert(name.into(), id.into());
        }
    }
    Ok(())
}
