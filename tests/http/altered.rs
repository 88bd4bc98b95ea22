//! Golden models whose files say something more than they do: copies in a temporary folder.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::app::golden;

/// A copy of a golden model.
pub fn copied(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy(&golden(name), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("golden data are there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("it is new");
            copy(&entry.path(), &target);
        } else if entry.file_name() != "golden.json" {
            std::fs::copy(entry.path(), &target).expect("there is room");
        }
    }
}

/// A model that knows the marks of a gap to fill.
pub fn coder() -> TempDir {
    let coder = copied("qwen2");
    alter(&coder, "tokenizer.json", |tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().expect("tokens");
        for (id, name) in (512..).zip(["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]) {
            tokens.push(json!({"id": id, "content": name, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}));
        }
    });
    coder
}

/// Changes a JSON file of a copy; one that is not there begins as `null`.
pub fn alter(folder: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join(file);
    let mut value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).expect("it is JSON"),
        Err(_) => Value::Null,
    };
    change(&mut value);
    std::fs::write(&path, value.to_string()).expect("there is room");
}

/// The `--model` argument of a copy.
pub fn named(name: &str, folder: &TempDir) -> String {
    format!("{name}={}", folder.path().display())
}
