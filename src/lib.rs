//! sconce: a local-inference server for large language models, with the platform round it.
//!
//! Two wings that do not know each other, and an edge where they meet:
//!
//! ```text
//!              main · cli · app
//!                  batch                  requests in a file, done while nobody waits
//!      api         admin      http            edge: HTTP words live here
//!   generate                  usage           text in, text out · what was used
//!   manager                   auth            which models, in what state · who may do what
//!   engine                    store           token ids in, token ids out · rows and queries
//!   ───── error language clock config telemetry shutdown ─────
//!   models (crate) · kernels (crate) · candle
//! ```
//!
//! Reading order for a newcomer: this file → [`app`] → `api/openai/chat.rs` → `generate/mod.rs` →
//! `engine/worker.rs` → `models/src/arch/llama.rs` → `kernels/src/attention/mod.rs`.

pub mod admin;
pub mod api;
pub mod app;
pub mod auth;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod generate;
pub mod http;
pub mod language;
pub mod manager;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod usage;
