//! The models against what Hugging Face transformers computed: logits, continuations, embeddings and scores.
//!
//! Not a test of speed. Tolerances are in standard deviations of the logits, as `tests/golden/README.md` explains; tests
//! of the real models need `make test-models` once.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod golden_cases;
mod golden_data;
