//! The vocabulary the endpoints share: state, errors, bounded bodies, event streams, layers. No endpoint lives here.

pub mod error;
pub mod extract;
pub mod json;
pub mod layers;
pub mod listen;
pub mod sse;
pub mod state;

pub use error::{ApiError, OpenAiError};
pub use extract::{Caller, JsonBody};
pub use listen::{Bounds, serve};
pub use state::{AppState, EdgeSettings};
