//! The files that sentence-transformers keeps beside a model: which steps follow the last layer.
//!
//! Not the steps themselves (`layers/pooling.rs`). A step that is not known is refused by its name: leaving it out would
//! give other vectors than the model's makers meant.

use std::path::{Component, Path};

use serde_json::Value;

use crate::features::{Cuts, Prompts};
use crate::layers::pooling::{Pooling, SentenceConfig};
use crate::weights::{read_bounded, read_json};
use crate::{Error, ModelFiles};

/// Most bytes of one of these files.
const MAX_BYTES: u64 = 1 << 20;

/// Reads `modules.json` and what it names; none if the model has no such file.
///
/// # Errors
/// [`Error::InvalidFile`] for what is damaged, [`Error::Unsupported`] for a step or pooling that is not known.
pub fn read(files: &ModelFiles) -> Result<Option<SentenceConfig>, Error> {
    let ModelFiles::Safetensors { folder, .. } = files else {
        return Ok(None);
    };
    let path = folder.join("modules.json");
    if !path.exists() {
        return Ok(None);
    }
    let invalid = |reason: String| Error::InvalidFile { path: path.clone(), format: "modules.json", reason };
    let text = read_bounded(&path, "modules.json", MAX_BYTES)?;
    let modules: Vec<Value> = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let mut config = SentenceConfig { max_length: max_length(folder)?, ..SentenceConfig::default() };
    for module in &modules {
        let text = |name: &str| module.get(name).and_then(Value::as_str);
        let Some(kind) = text("type") else {
            return Err(invalid("a module has no type".into()));
        };
        match kind.rsplit('.').next().unwrap_or(kind) {
            "Transformer" => {}
            "Normalize" => config.normalise = true,
            "Pooling" => {
                let place = text("path").filter(|place| is_inside(place));
                let place = place.ok_or_else(|| invalid("a module's path leads out of the folder".into()))?;
                config.pooling =
                    pooling(&read_json(&folder.join(place).join("config.json"), "pooling config.json")?)?;
            }
            _ => {
                return Err(Error::Unsupported {
                    what: "sentence-transformers module",
                    value: kind.to_owned(),
                });
            }
        }
    }
    Ok(Some(config))
}

/// How a model's vectors are used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbeddingUse {
    /// `mean`, `first` or `last`: which hidden states become the vector.
    pub pooling: &'static str,
    /// Whether vectors are scaled to length 1.
    pub normalised: bool,
    /// To which lengths they may be cut.
    pub cuts: Cuts,
    /// Texts that stand before an input, by name (`query`, `document`, …).
    pub prompts: Prompts,
    /// The prompt that an input gets if nothing is said.
    pub default_prompt: Option<String>,
}

/// Most prompts of a model; all of them are shown to clients.
const MAX_PROMPTS: usize = 64;

/// What the files of an embedding model say of its vectors' use; `config` is `config.json`.
///
/// # Errors
/// [`Error::InvalidFile`] for what is damaged.
pub fn embedding_use(
    files: &ModelFiles,
    config: &Value,
    sentence: Option<SentenceConfig>,
) -> Result<EmbeddingUse, Error> {
    let sentence = sentence.unwrap_or_default();
    let mut found = EmbeddingUse {
        pooling: sentence.pooling.name(),
        normalised: sentence.normalise,
        cuts: Cuts::read(config),
        ..EmbeddingUse::default()
    };
    let ModelFiles::Safetensors { folder, .. } = files else { return Ok(found) };
    let path = folder.join("config_sentence_transformers.json");
    if !path.exists() || leaves_prompts_out(folder)? {
        return Ok(found);
    }
    let settings = read_json(&path, "config_sentence_transformers.json")?;
    let prompts = settings["prompts"].as_object().into_iter().flatten().take(MAX_PROMPTS);
    found.prompts =
        prompts.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect();
    let default = settings["default_prompt_name"].as_str().filter(|name| found.prompts.contains_key(*name));
    found.default_prompt = default.map(str::to_owned);
    Ok(found)
}

/// Whether a prompt's tokens are to be left out of the mean: such prompts are not offered, as no pass here knows them.
fn leaves_prompts_out(folder: &Path) -> Result<bool, Error> {
    let path = folder.join("1_Pooling/config.json");
    Ok(path.exists() && read_json(&path, "pooling config.json")?["include_prompt"] == Value::Bool(false))
}

fn is_inside(place: &str) -> bool {
    Path::new(place).components().all(|component| matches!(component, Component::Normal(_)))
}

/// The single pooling that is switched on.
fn pooling(config: &Value) -> Result<Pooling, Error> {
    let switched_on: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode.as_str()],
        Some(Value::Array(modes)) => modes.iter().filter_map(Value::as_str).collect(),
        _ => {
            let switches =
                config.as_object().into_iter().flatten().filter(|(_, value)| **value == Value::Bool(true));
            switches.filter_map(|(name, _)| name.strip_prefix("pooling_mode_")).collect()
        }
    };
    match switched_on.as_slice() {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::First),
        ["lasttoken"] => Ok(Pooling::Last),
        other => Err(Error::Unsupported { what: "pooling", value: other.join(" + ") }),
    }
}

/// `max_seq_length`, where the model has one.
fn max_length(folder: &Path) -> Result<Option<usize>, Error> {
    let path = folder.join("sentence_bert_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let config = read_json(&path, "sentence_bert_config.json")?;
    match config.get("max_seq_length") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(length) if length > 0 => Ok(Some(usize::try_from(length).unwrap_or(usize::MAX))),
            _ => Err(Error::Config(format!("max_seq_length is {value}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{pooling, read};
    use crate::ModelFiles;
    use crate::layers::pooling::{Pooling, SentenceConfig};
    use serde_json::json;

    #[test]
    fn one_known_pooling_is_taken() {
        let mean = json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true, "include_prompt": true});
        assert_eq!(pooling(&mean).unwrap(), Pooling::Mean);
        assert_eq!(pooling(&json!({"pooling_mode": "lasttoken"})).unwrap(), Pooling::Last);
        let two = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
        assert!(pooling(&two).unwrap_err().to_string().contains("cls_token + mean_tokens"));
        assert!(
            pooling(&json!({"pooling_mode_max_tokens": true}))
                .unwrap_err()
                .to_string()
                .contains("max_tokens")
        );
        assert!(pooling(&json!({})).is_err());
    }

    fn read_with(modules: &str) -> Result<Option<SentenceConfig>, crate::Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("modules.json"), modules).unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        std::fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode_cls_token": true}"#)
            .unwrap();
        std::fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 12}"#).unwrap();
        read(&ModelFiles::Safetensors { folder: folder.path().to_owned(), shards: Vec::new() })
    }

    #[test]
    fn the_steps_are_read_in_order_and_unknown_ones_refused() {
        let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
        let known =
            json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2")]);
        let expected = SentenceConfig { pooling: Pooling::First, normalise: true, max_length: Some(12) };
        assert_eq!(read_with(&known.to_string()).unwrap(), Some(expected));
        let dense = json!([module("Transformer", ""), module("Dense", "2_Dense")]);
        assert!(read_with(&dense.to_string()).unwrap_err().to_string().contains("Dense"));
        for hostile in ["../1_Pooling", "/etc", ".."] {
            assert!(read_with(&json!([module("Pooling", hostile)]).to_string()).is_err(), "{hostile}");
        }
        for damaged in ["", "{}", "[{}]", "[1]", "[[]]"] {
            assert!(read_with(damaged).is_err(), "{damaged}");
        }
    }
}
