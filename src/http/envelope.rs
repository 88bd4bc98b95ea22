//! The uniform answer of `/api/v1`: `{"code": 0, "message": "Success", "data": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A successful answer. Failures are [`EnvelopeError`](crate::http::EnvelopeError).
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Always 0.
    #[schema(example = 0)]
    code: u32,
    /// Always `Success`.
    #[schema(example = "Success")]
    message: &'static str,
    /// What was asked for.
    data: T,
}

impl<T> Envelope<T> {
    /// Wraps an answer.
    pub fn of(data: T) -> Self {
        Self { code: 0, message: "Success", data }
    }

    /// Wraps what was made: 201.
    pub fn created(data: T) -> (StatusCode, Self) {
        (StatusCode::CREATED, Self::of(data))
    }

    /// Wraps what was begun: 202.
    pub fn accepted(data: T) -> (StatusCode, Self) {
        (StatusCode::ACCEPTED, Self::of(data))
    }
}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
