//! Where a model's chat template lies: `chat_template.jinja`, `tokenizer_config.json`, or a GGUF file's metadata.

use std::path::Path;

use serde_json::Value;

use super::ChatTemplate;
use crate::tokenizer::token_text;
use crate::weights::{Metadata, read_bounded, read_json};
use crate::{Error, ModelFiles};

/// Most bytes of a `chat_template.jinja` that are read; what is longer than a template may be is refused later.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl ChatTemplate {
    /// The model's template; none if its files have none.
    ///
    /// # Errors
    /// [`Error::Template`] if it does not compile; [`Error::InvalidFile`] if a file is damaged; [`Error::Read`].
    pub fn find(files: &ModelFiles, metadata: Option<&Metadata>) -> Result<Option<Self>, Error> {
        match (files, metadata) {
            (ModelFiles::Safetensors { folder, .. }, _) => in_folder(folder),
            (ModelFiles::Gguf { .. }, Some(metadata)) => in_metadata(metadata),
            (ModelFiles::Gguf { .. }, None) => Ok(None),
        }
    }
}

fn in_folder(folder: &Path) -> Result<Option<ChatTemplate>, Error> {
    let path = folder.join("tokenizer_config.json");
    let config = if path.is_file() { read_json(&path, "tokenizer_config.json")? } else { Value::Null };
    let file = folder.join("chat_template.jinja");
    let source = if file.is_file() {
        let bytes = read_bounded(&file, "chat template", MAX_FILE_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::Template("it is not UTF-8".into()))?;
        Some(text)
    } else {
        named_or_only(&config["chat_template"]).map(str::to_owned)
    };
    let Some(source) = source else { return Ok(None) };
    ChatTemplate::new(&source, token_text(&config["bos_token"]), token_text(&config["eos_token"])).map(Some)
}

/// The template: a text, or a list of `{"name", "template"}` of which `default` is meant.
fn named_or_only(value: &Value) -> Option<&str> {
    if let Some(text) = value.as_str() {
        return Some(text);
    }
    let named = value.as_array()?;
    named.iter().find(|entry| entry["name"] == "default")?["template"].as_str()
}

fn in_metadata(metadata: &Metadata) -> Result<Option<ChatTemplate>, Error> {
    let Some(source) = metadata.text("tokenizer.chat_template")? else { return Ok(None) };
    let tokens = metadata.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let token = |name: &str| -> Result<Option<&str>, Error> {
        let id = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
        Ok(id.and_then(|id| tokens.get(usize::try_from(id).ok()?).copied()))
    };
    ChatTemplate::new(source, token("bos")?, token("eos")?).map(Some)
}
