//! Where the real models lie that some tests run; fetches them on first use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `SmolLM2-135M-Instruct.Q4_1.gguf` and `all-MiniLM-L6-v2/`.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = workspace.join("target/test-models");
        let fetched = Command::new("python3")
            .arg(workspace.join("scripts/fetch_test_models.py"))
            .arg(&folder)
            .output()
            .expect("python3 is needed to fetch the test models");
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        folder
    })
}

/// The chat model's file.
#[allow(dead_code, reason = "not every test binary that fetches the models runs this one")]
pub fn smollm2() -> PathBuf {
    folder().join("SmolLM2-135M-Instruct.Q4_1.gguf")
}
