//! The vocabulary the endpoints share: state, errors, bounded bodies, event streams, layers. No endpoint lives here.

pub mod background;
pub mod body;
pub mod context;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod form;
pub mod interruption;
pub mod json;
pub mod layers;
pub mod listen;
pub mod metered;
pub mod ndjson;
pub mod openapi;
pub mod paging;
pub mod pump;
pub mod registry;
pub mod sockets;
pub mod sse;
pub mod state;
pub mod strict;
mod wire;

pub use context::{RequestContext, Surface};
pub use envelope::{Envelope, Nothing};
pub use error::{AnthropicError, ApiError, EnvelopeError, OllamaError, OpenAiError};
pub use extract::{AnyJsonBody, Granted, JsonBody, Path, Query, Small, Typed, credential};
pub use form::{FormBody, FormPart};
pub use interruption::Interruption;
pub use listen::{Bounds, serve};
pub use paging::{Listed, PageQuery, Paged, QueryPart};
pub use registry::Registry;
pub use state::{AppState, EdgeSettings, ExplainedSettings, Handles};
