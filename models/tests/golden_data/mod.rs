//! Where tests find their data: golden answers and tiny checkpoints in `tests/golden`, real models in `test-models`.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file or folder below `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    assert!(path.exists(), "golden data {} is missing", path.display());
    path
}

/// `golden.json` of a case.
pub fn answers(case: &str) -> Value {
    read_json(&golden(case).join("golden.json"))
}

/// A JSON file.
pub fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A real model's file or folder: below `$SCONCE_TEST_MODELS`, else below `test-models` in the build folder.
#[allow(clippy::disallowed_methods, reason = "tests have no configuration to ask")]
pub fn test_model(name: &str) -> PathBuf {
    let folder = std::env::var_os("SCONCE_TEST_MODELS").map(PathBuf::from).or_else(|| {
        let executable = std::env::current_exe().ok()?;
        executable.ancestors().map(|folder| folder.join("test-models")).find(|folder| folder.is_dir())
    });
    match folder.map(|folder| folder.join(name)) {
        Some(path) if path.exists() => path,
        _ => panic!("test model {name} is missing; run `make test-models`"),
    }
}
