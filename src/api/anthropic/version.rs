//! The `anthropic-version` header: which version of the protocol a client speaks.
//!
//! Anthropic wants it on every request. Here a request without it is taken to speak either version there is, for people who
//! type requests by hand: what is answered is the same in both. One that names another is refused, for it may not understand
//! the answer.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::anthropic::short;
use crate::error::Code;
use crate::http::context::ANTHROPIC_VERSION;
use crate::http::{ApiError, AppState};

/// The versions there are.
const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// The client speaks a version that is answered in.
pub struct ProtocolVersion;

impl FromRequestParts<AppState> for ProtocolVersion {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        for version in parts.headers.get_all(ANTHROPIC_VERSION) {
            if !VERSIONS.iter().any(|known| version.as_bytes() == known.as_bytes()) {
                let given = short(version.to_str().unwrap_or("?"));
                let message = format!(
                    "`{ANTHROPIC_VERSION}: {given}` is not known; send `{}`",
                    VERSIONS.join("` or `")
                );
                return Err(ApiError::new(Code::InvalidValue, message).or_param(ANTHROPIC_VERSION));
            }
        }
        Ok(Self)
    }
}
