//! The uniform answer of `/api/v1`: `{"code": 0, "message": "Success", "data": …}`. Failures are
//! [`EnvelopeError`](crate::http::EnvelopeError). What the types here say of themselves stands in the API's description.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A successful answer.
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

/// `null`: the data of an answer that has none. (The description of the API cannot name `()`.)
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Nothing;

impl PartialSchema for Nothing {
    fn schema() -> RefOr<Schema> {
        Object::builder().schema_type(Type::Null).into()
    }
}

impl ToSchema for Nothing {}

impl<T: Serialize> IntoResponse for Envelope<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
