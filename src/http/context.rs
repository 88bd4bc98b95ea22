//! What is known of a request while it is answered: its id, its language, its family of URLs, where it comes from.
//!
//! Carried beside the request rather than through every signature, because an error's shape and language depend on it
//! wherever it is born. A task that is spawned for a request does not inherit it: take [`RequestContext::current`]
//! along.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::http::HeaderMap;

use crate::language::Language;

tokio::task_local! {
    static CONTEXT: Arc<RequestContext>;
}

/// What Anthropic's clients say that they speak.
pub const ANTHROPIC_VERSION: &str = "anthropic-version";

/// The URLs below `/api/` that Ollama has, and we have not.
const OLLAMA: [&str; 14] = [
    "blobs",
    "chat",
    "copy",
    "create",
    "delete",
    "embed",
    "embeddings",
    "generate",
    "ps",
    "pull",
    "push",
    "show",
    "tags",
    "version",
];

/// A family of URLs: what errors look like there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `{"error": {…}}`
    OpenAi,
    /// `{"type": "error", "error": {…}, "request_id": …}`
    Anthropic,
    /// `{"error": …}`
    Ollama,
    /// `{"code": …, "message": …, "data": …}`
    Envelope,
}

impl Surface {
    /// That of a path.
    pub fn of_path(path: &str) -> Self {
        let is_or_is_below = |parent: &str| {
            path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let below_api = path.strip_prefix("/api/").and_then(|rest| rest.split('/').next());
        match below_api {
            Some(name) if OLLAMA.contains(&name) => Self::Ollama,
            Some(_) => Self::Envelope,
            None if path == "/api" => Self::Envelope,
            None if is_or_is_below("/v1/messages") => Self::Anthropic,
            None => Self::OpenAi,
        }
    }

    /// That of a request: models are listed in Anthropic's shape for those who say that they speak its protocol.
    pub fn of(path: &str, headers: &HeaderMap) -> Self {
        let lists_models = path == "/v1/models" || path.starts_with("/v1/models/");
        if lists_models && headers.contains_key(ANTHROPIC_VERSION) {
            return Self::Anthropic;
        }
        Self::of_path(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_the_shape_of_its_protocol() {
        for (path, surface) in [
            ("/v1/chat/completions", Surface::OpenAi),
            ("/v1/messages", Surface::Anthropic),
            ("/v1/messages/count_tokens", Surface::Anthropic),
            ("/v1/messagesque", Surface::OpenAi),
            ("/api/chat", Surface::Ollama),
            ("/api/blobs/sha256:00", Surface::Ollama),
            ("/api/v1/chat/completions", Surface::Envelope),
            ("/api/chats", Surface::Envelope),
            ("/api", Surface::Envelope),
            ("/apis", Surface::OpenAi),
        ] {
            assert_eq!(Surface::of_path(path), surface, "{path}");
        }
    }
}
