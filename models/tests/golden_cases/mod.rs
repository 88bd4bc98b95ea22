//! The cases, by what they claim.

mod causal;
mod encoders;
mod gguf;
mod invariance;
mod loading;
mod real;
mod runner;
