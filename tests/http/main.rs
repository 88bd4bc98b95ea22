//! Black box: what clients see over HTTP, against the real server with tiny models on a free port.
//!
//! One binary, because linking costs more than running. Nothing here waits by the clock: tests wait for events.

#[path = "../common/app.rs"]
mod app;
mod auth;
mod cancellation;
#[path = "../database/mod.rs"]
mod database;
mod embeddings;
mod hostile_http;
mod metrics;
mod models_list;
mod openai_chat;
mod openai_completions;
mod overload;
mod parameters;
#[path = "../real_models/mod.rs"]
mod real_models;
mod shutdown;
mod structured;
mod tools;
mod tools_held;
mod wire;
