//! The architectures: a table from the `model_type` of a configuration to the file that understands it.
//!
//! Not the layers. An architecture file names neither a device nor a weight format: it reads its configuration and says
//! of which layers the model is made. A new architecture is a new file and one line in [`ARCHITECTURES`].

use serde_json::Value;

use crate::Error;
use crate::layers::decoder::DecoderConfig;
use crate::layers::encoder::EncoderConfig;

pub mod bert;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod qwen3;
pub mod settings;
pub mod xlm_roberta;

/// What a configuration describes, checked; no weights yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// Reads from left to right.
    Decoder(DecoderConfig),
    /// Reads all at once.
    Encoder(EncoderConfig),
}

type Describe = fn(&Value) -> Result<Architecture, Error>;

/// Every architecture: `model_type`, and what reads its configuration.
const ARCHITECTURES: &[(&str, Describe)] = &[
    ("bert", bert::describe),
    ("llama", llama::describe),
    ("mistral", mistral::describe),
    ("qwen2", qwen2::describe),
    ("qwen3", qwen3::describe),
    ("roberta", xlm_roberta::describe),
    ("xlm-roberta", xlm_roberta::describe),
];

/// Reads a configuration by its `model_type`.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`] if there is no such file here, [`Error::Config`] or [`Error::Unsupported`] for what
/// is wrong with a setting.
pub fn describe(config: &Value) -> Result<Architecture, Error> {
    let Some(name) = config.get("model_type").and_then(Value::as_str) else {
        return Err(Error::Config("model_type is missing".into()));
    };
    let Some((_, describe_it)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::UnsupportedArchitecture {
            name: name.chars().take(64).collect(),
            supported: supported(),
        });
    };
    settings::refuse_quantisation(config)?;
    describe_it(config)
}

/// Every supported `model_type`, comma-separated.
pub fn supported() -> String {
    let names: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{ARCHITECTURES, describe};
    use serde_json::json;

    #[test]
    fn an_unknown_architecture_is_told_which_are_known() {
        let message = describe(&json!({"model_type": "mamba"})).unwrap_err().to_string();
        for (name, _) in ARCHITECTURES {
            assert!(message.contains(name), "{message}");
        }
        assert!(message.contains("mamba"));
    }

    #[test]
    fn no_configuration_makes_it_panic() {
        for (name, _) in ARCHITECTURES {
            for config in [
                json!({"model_type": name}),
                json!({"model_type": name, "hidden_size": "64"}),
                json!({"model_type": name, "hidden_size": 64, "num_attention_heads": 0}),
            ] {
                assert!(describe(&config).is_err(), "{config}");
            }
        }
        for config in [json!(null), json!([]), json!("llama"), json!({"model_type": 3})] {
            assert!(describe(&config).is_err(), "{config}");
        }
    }

    #[test]
    fn weights_quantised_in_another_scheme_are_refused_by_name() {
        let config =
            json!({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}});
        assert!(describe(&config).unwrap_err().to_string().contains("gptq"));
    }
}
