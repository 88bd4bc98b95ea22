//! Reading a model's `config.json`: parsing, bounds, and the settings that all decoders share.
//!
//! Not an architecture. A configuration comes from strangers: every number is checked here before anything is allocated
//! or divided by it, and a setting that would change results and is not known is refused by its name.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::layers::attention::AttentionConfig;
use crate::layers::decoder::DecoderConfig;
use crate::layers::mlp::MlpConfig;
use crate::layers::rotary::{RotaryConfig, RotarySettings};

/// Bounds no published model comes near; they keep a hostile file from asking for absurd amounts.
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 4096;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCABULARY: usize = 1 << 24;
const MAX_CONTEXT: usize = 1 << 28;

/// Reads a configuration into its own type.
///
/// # Errors
/// [`Error::Config`] naming the setting that is missing or of the wrong type.
pub fn parse<T: DeserializeOwned>(config: &Value) -> Result<T, Error> {
    T::deserialize(config).map_err(|error| Error::Config(error.to_string()))
}

/// Checks that a size is at least 1 and at most `limit`.
///
/// # Errors
/// [`Error::Config`] otherwise.
pub fn bounded(name: &str, value: usize, limit: usize) -> Result<usize, Error> {
    if value == 0 || value > limit {
        return Err(Error::Config(format!("{name} is {value}; it must be from 1 to {limit}")));
    }
    Ok(value)
}

/// Checks a count of layers.
///
/// # Errors
/// [`Error::Config`] if it is 0 or absurd.
pub fn layers(name: &str, value: usize) -> Result<usize, Error> {
    bounded(name, value, MAX_LAYERS)
}

/// Checks a count of attention heads.
///
/// # Errors
/// [`Error::Config`] if it is 0 or absurd.
pub fn heads(name: &str, value: usize) -> Result<usize, Error> {
    bounded(name, value, MAX_HEADS)
}

/// Checks the width of a layer.
///
/// # Errors
/// [`Error::Config`] if it is 0 or absurd.
pub fn width(name: &str, value: usize) -> Result<usize, Error> {
    bounded(name, value, MAX_WIDTH)
}

/// Checks the size of a vocabulary.
///
/// # Errors
/// [`Error::Config`] if it is 0 or absurd.
pub fn vocabulary(value: usize) -> Result<usize, Error> {
    bounded("vocab_size", value, MAX_VOCABULARY)
}

/// Checks the number of positions.
///
/// # Errors
/// [`Error::Config`] if it is 0 or absurd.
pub fn context(value: usize) -> Result<usize, Error> {
    bounded("max_position_embeddings", value, MAX_CONTEXT)
}

/// Checks the small number that keeps a normalisation from dividing by 0.
///
/// # Errors
/// [`Error::Config`] if it is not a positive number below 1.
pub fn epsilon(name: &str, value: f64) -> Result<f32, Error> {
    let single = value as f32;
    // Written so that NaN fails it too.
    if !(single > 0.0 && single < 1.0) {
        return Err(Error::Config(format!("{name} is {value}; it must lie between 0 and 1")));
    }
    Ok(single)
}

/// Refuses weights that were quantised in a scheme of `transformers` (GPTQ, AWQ, FP8, …): their tensors mean something else.
///
/// # Errors
/// [`Error::Unsupported`] with the scheme's name.
pub fn refuse_quantisation(config: &Value) -> Result<(), Error> {
    let Some(quantisation) = config.get("quantization_config").filter(|value| !value.is_null()) else {
        return Ok(());
    };
    let method = quantisation.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
    Err(Error::Unsupported { what: "quantization_config", value: method.to_owned() })
}

/// What the configurations of Llama and its descendants have in common.
#[derive(Debug, Clone, Deserialize)]
pub struct DecoderSettings {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    rotary: RotarySettings,
}

impl DecoderSettings {
    /// Checks the settings and lays out a plain decoder: no biases, no head norms, every layer attends to everything.
    ///
    /// # Errors
    /// [`Error::Config`] for an impossible number, [`Error::Unsupported`] for another activation than SiLU or an unknown
    /// kind of rotary scaling.
    pub fn plain_decoder(&self, architecture: &'static str) -> Result<DecoderConfig, Error> {
        refuse_other_activation(self.hidden_act.as_deref())?;
        let hidden_size = width("hidden_size", self.hidden_size)?;
        let attention = self.attention(hidden_size)?;
        let context_length = context(self.max_position_embeddings)?;
        let layers = layers("num_hidden_layers", self.num_hidden_layers)?;
        Ok(DecoderConfig {
            architecture,
            hidden_size,
            vocab_size: vocabulary(self.vocab_size)?,
            norm_eps: epsilon("rms_norm_eps", self.rms_norm_eps)?,
            tied_head: self.tie_word_embeddings.unwrap_or(false),
            rotary: RotaryConfig::new(&self.rotary, attention.head_dim, context_length)?,
            attention,
            mlp: MlpConfig {
                hidden_size,
                intermediate_size: width("intermediate_size", self.intermediate_size)?,
                bias: false,
            },
            windows: vec![None; layers],
            context_length,
        })
    }

    fn attention(&self, hidden_size: usize) -> Result<AttentionConfig, Error> {
        let heads_q = heads("num_attention_heads", self.num_attention_heads)?;
        let kv_heads = heads("num_key_value_heads", self.num_key_value_heads.unwrap_or(heads_q))?;
        if !heads_q.is_multiple_of(kv_heads) {
            return Err(Error::Config(format!(
                "{heads_q} attention heads cannot share {kv_heads} key/value heads"
            )));
        }
        let head_dim = match self.head_dim {
            Some(stated) => width("head_dim", stated)?,
            None => even_share(hidden_size, heads_q)?,
        };
        width("num_attention_heads × head_dim", heads_q * head_dim)?;
        Ok(AttentionConfig {
            hidden_size,
            heads: heads_q,
            kv_heads,
            head_dim,
            qkv_bias: false,
            output_bias: false,
            head_norm_eps: None,
        })
    }
}

/// Width of one head where the configuration does not state it.
///
/// # Errors
/// [`Error::Config`] if the heads do not divide the width.
pub fn even_share(hidden_size: usize, heads: usize) -> Result<usize, Error> {
    if !hidden_size.is_multiple_of(heads) {
        return Err(Error::Config(format!(
            "{heads} attention heads do not divide hidden_size {hidden_size}"
        )));
    }
    Ok(hidden_size / heads)
}

fn refuse_other_activation(name: Option<&str>) -> Result<(), Error> {
    match name {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => Err(Error::Unsupported { what: "hidden_act", value: other.to_owned() }),
    }
}

/// Checks the size of a sliding window, where there is one.
///
/// # Errors
/// [`Error::Config`] if it is 0 or absurd.
pub fn window(size: Option<usize>) -> Result<Option<usize>, Error> {
    size.map(|size| bounded("sliding_window", size, MAX_CONTEXT)).transpose()
}

/// Settings of models that may confine some layers to a sliding window (Qwen 2 and 3).
#[derive(Debug, Clone, Deserialize)]
pub struct WindowSettings {
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

impl WindowSettings {
    /// The window of each layer: as `layer_types` says where it is given, else from layer `max_window_layers` on.
    ///
    /// # Errors
    /// [`Error::Config`] if window and layers contradict each other, [`Error::Unsupported`] for an unknown layer type.
    pub fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>, Error> {
        let window = if self.use_sliding_window { window(self.sliding_window)? } else { None };
        match &self.layer_types {
            Some(types) => windows_by_type(types, window, layers),
            None => {
                let full = self.max_window_layers.unwrap_or(layers);
                Ok((0..layers).map(|layer| window.filter(|_| layer >= full)).collect())
            }
        }
    }
}

fn windows_by_type(
    types: &[String],
    window: Option<usize>,
    layers: usize,
) -> Result<Vec<Option<usize>>, Error> {
    if types.len() != layers {
        return Err(Error::Config(format!("layer_types names {} layers of {layers}", types.len())));
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" if window.is_some() => Ok(window),
            "sliding_attention" => {
                Err(Error::Config("layer_types asks for a window, sliding_window is not set".into()))
            }
            other => Err(Error::Unsupported { what: "layer_types", value: other.to_owned() }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{DecoderSettings, WindowSettings, parse};
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0
        })
    }

    fn refusal(change: Value) -> String {
        let mut config = config();
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        match parse::<DecoderSettings>(&config).and_then(|settings| settings.plain_decoder("llama")) {
            Ok(_) => panic!("{change} was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_plain_configuration_is_laid_out() {
        let decoder = parse::<DecoderSettings>(&config()).unwrap().plain_decoder("llama").unwrap();
        assert_eq!(decoder.attention.head_dim, 16);
        assert_eq!(decoder.windows, vec![None; 3]);
        assert!(!decoder.tied_head);
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        for (change, named) in [
            (json!({"num_attention_heads": 0}), "num_attention_heads"),
            (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
            (json!({"num_key_value_heads": 3}), "key/value heads"),
            (json!({"num_attention_heads": 5, "num_key_value_heads": 5}), "do not divide"),
            (json!({"hidden_size": 0}), "hidden_size"),
            (json!({"hidden_size": 1u64 << 40}), "hidden_size"),
            (json!({"intermediate_size": 0}), "intermediate_size"),
            (json!({"num_hidden_layers": 0}), "num_hidden_layers"),
            (json!({"num_hidden_layers": 1_000_000}), "num_hidden_layers"),
            (json!({"vocab_size": 0}), "vocab_size"),
            (json!({"max_position_embeddings": 0}), "max_position_embeddings"),
            (json!({"rms_norm_eps": 0.0}), "rms_norm_eps"),
            (json!({"rms_norm_eps": -1e-6}), "rms_norm_eps"),
            (json!({"rms_norm_eps": 1e300}), "rms_norm_eps"),
            (json!({"rope_theta": 0.0}), "rope_theta"),
            (json!({"head_dim": 15}), "odd"),
            (json!({"head_dim": 0}), "head_dim"),
            (json!({"head_dim": 1 << 20}), "head_dim"),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (json!({"hidden_size": -64}), "64"),
        ] {
            let message = refusal(change.clone());
            assert!(message.contains(named), "{change}: {message}");
        }
    }

    #[test]
    fn windows_follow_layer_types_or_the_first_windowed_layer() {
        let windows = |value: Value| parse::<WindowSettings>(&value).and_then(|settings| settings.windows(3));
        let off = json!({"sliding_window": 8, "use_sliding_window": false, "max_window_layers": 1});
        assert_eq!(windows(off).unwrap(), vec![None; 3]);
        let on = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1});
        assert_eq!(windows(on).unwrap(), vec![None, Some(8), Some(8)]);
        let types = json!({"sliding_window": 8, "use_sliding_window": true,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]});
        assert_eq!(windows(types).unwrap(), vec![Some(8), None, Some(8)]);
        let unknown = json!({"layer_types": ["linear_attention", "full_attention", "full_attention"]});
        assert!(windows(unknown).unwrap_err().to_string().contains("linear_attention"));
        let short = json!({"layer_types": ["full_attention"]});
        assert!(windows(short).is_err());
    }
}
