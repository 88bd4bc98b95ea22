//! What every room's error can say about itself. An error gets its [`Code`] where it is born and its shape at the edge.

mod code;

use std::time::Duration;

pub use code::Code;

/// An error that can be shown to a client.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// Which entry of the catalogue it is: status, number, and texts follow from it.
    fn code(&self) -> Code;

    /// The request field at fault, if one is.
    fn param(&self) -> Option<&str> {
        None
    }

    /// When trying again makes sense, for 429 and 503.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// What it says in Chinese, where that is more than the catalogue's text.
    fn chinese(&self) -> Option<String> {
        None
    }

    /// What a program can act on: the envelope's `data`.
    fn data(&self) -> Option<serde_json::Value> {
        None
    }
}
