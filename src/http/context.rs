//! What is known of a request while it is answered: its id, its language, its family of URLs, where it comes from.
//!
//! Carried beside the request rather than through every signature, because an error's shape and language depend on it
//! wherever it is born. A task that is spawned for a request does not inherit it: take [`RequestContext::current`]
//! along.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::language::Language;

tokio::task_local! {
    static CONTEXT: Arc<RequestContext>;
}

/// A family of URLs: what errors look like there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `{"error": {…}}`
    OpenAi,
    /// `{"code": …, "message": …, "data": …}`
    Envelope,
}

impl Surface {
    /// That of a path.
    pub fn of_path(path: &str) -> Self {
        if path == "/api" || path.starts_with("/api/") { Self::Envelope } else { Self::OpenAi }
    }
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestContext {
    /// As in the `x-request-id` header of the answer.
    pub id: String,
    /// The client's language.
    pub language: Language,
    /// What errors look like.
    pub surface: Surface,
    /// Its method and path, with the names of the variable parts.
    pub request: String,
    /// The client's address: the peer's, or what a trusted proxy says; the unspecified one if that cannot be read.
    pub address: IpAddr,
    /// What the client calls itself, cut short.
    pub user_agent: String,
}

impl RequestContext {
    /// That of the request being answered; outside of one, a plain one.
    pub fn current() -> Arc<Self> {
        CONTEXT.try_with(Arc::clone).unwrap_or_else(|_| {
            Arc::new(Self {
                id: String::new(),
                language: Language::English,
                surface: Surface::OpenAi,
                request: String::new(),
                address: Ipv4Addr::LOCALHOST.into(),
                user_agent: String::new(),
            })
        })
    }

    /// Runs a future with this as the current one.
    pub async fn scope<F: Future>(self: Arc<Self>, future: F) -> F::Output {
        CONTEXT.scope(self, future).await
    }
}
