//! Black box: what clients see over HTTP, against the real server with tiny models on a free port.
//!
//! One binary, because linking costs more than running. Nothing here waits by the clock: tests wait for events.

mod altered;
mod anthropic;
#[path = "../common/api.rs"]
mod api;
#[path = "../common/app.rs"]
mod app;
mod auth;
mod cancellation;
mod capabilities;
#[path = "../database/mod.rs"]
mod database;
mod embeddings;
mod hostile_http;
mod metrics;
mod models_list;
mod ollama;
mod ollama_models;
mod openai_chat;
mod openai_completions;
mod overload;
mod parameter_table;
mod parameters;
mod ranking;
#[path = "../real_models/mod.rs"]
mod real_models;
#[path = "../common/shape.rs"]
mod shape;
mod shutdown;
mod structured;
mod tokenize;
mod tools;
mod tools_held;
mod wire;
