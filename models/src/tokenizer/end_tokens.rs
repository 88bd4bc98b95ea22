//! Which tokens end an answer. Files disagree about where they say so; what any of them says counts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Tokenizer;
use crate::weights::{Metadata, read_json};
use crate::{Error, ModelFiles};

/// Tokens that end a turn or a text in the models that have them as special tokens. Chat models often name only one of
/// theirs in their files.
const WELL_KNOWN: [&str; 12] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<|EOT|>",
    "</s>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// The ids that end an answer, ascending: those that `generation_config.json`, `config.json`, `tokenizer_config.json` or
/// the GGUF metadata name, and the well-known ones that are special tokens of this tokenizer.
///
/// # Errors
/// [`Error::InvalidFile`] if one of the files is damaged; [`Error::Read`].
pub fn end_token_ids(
    files: &ModelFiles,
    config: &Value,
    metadata: Option<&Metadata>,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, Error> {
    let mut ids = BTreeSet::new();
    collect(&config["eos_token_id"], &mut ids);
    if let Some(metadata) = metadata {
        for name in ["eos", "eot", "eom"] {
            let id = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
            ids.extend(id.and_then(|id| u32::try_from(id).ok()));
        }
    }
    if let ModelFiles::Safetensors { folder, .. } = files {
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            collect(&read_json(&generation, "generation_config.json")?["eos_token_id"], &mut ids);
        }
        let settings = folder.join("tokenizer_config.json");
        if settings.is_file() {
            let settings = read_json(&settings, "tokenizer_config.json")?;
            let name = token_text(&settings["eos_token"]);
            ids.extend(name.and_then(|name| tokenizer.token_to_id(name)));
        }
    }
    let known = WELL_KNOWN.iter().filter_map(|name| tokenizer.token_to_id(name));
    ids.extend(known.filter(|id| tokenizer.is_special(*id)));
    Ok(ids.into_iter().filter(|id| (*id as usize) < tokenizer.inner.model_rows).collect())
}

/// A token as `tokenizer_config.json` writes it: a text, or an object with the text in `content`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// An id, or a list of ids.
fn collect(value: &Value, ids: &mut BTreeSet<u32>) {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    ids.extend(values.iter().filter_map(|value| u32::try_from(value.as_u64()?).ok()));
}
