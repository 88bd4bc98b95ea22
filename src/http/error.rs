//! Errors at the edge: any room's [`Failure`] gets its status here, and its shape by the wrapper a handler returns.
//!
//! A failure of ours is logged here, once, with its causes, and its text is not sent.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{ErrorKind, Failure};

/// What a client learns when the fault is ours.
const INTERNAL_MESSAGE: &str =
    "internal error; the request id in the x-request-id header finds it in the server's log";

/// An error on its way to a client; not yet in any protocol's shape.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    param: Option<String>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// An error that belongs to HTTP itself.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after: None }
    }

    /// Our fault; the cause must be logged by the caller.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", INTERNAL_MESSAGE)
    }

    /// This replica is going away.
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down; try another replica, or again shortly";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(Duration::from_secs(5)), ..error }
    }

    /// Names the field at fault unless it is known already.
    #[must_use]
    pub fn or_param(mut self, param: &str) -> Self {
        if self.param.is_none() && self.status == StatusCode::BAD_REQUEST {
            self.param = Some(param.to_owned());
        }
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The number of the error in the catalogue: three digits of status, two of reason.
    pub fn number(&self) -> u32 {
        number(self.code, self.status)
    }
}

impl<E: Failure> From<E> for ApiError {
    fn from(error: E) -> Self {
        let kind = error.kind();
        let message = if kind == ErrorKind::Internal {
            log(&error);
            Cow::Borrowed(INTERNAL_MESSAGE)
        } else {
            Cow::Owned(error.to_string())
        };
        Self {
            status: status(kind),
            code: error.code(),
            message,
            param: error.param().map(str::to_owned),
            retry_after: error.retry_after(),
        }
    }
}

fn log<E: Failure>(error: &E) {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(source) = cause {
        causes.push(source.to_string());
        cause = source.source();
    }
    tracing::error!(code = error.code(), causes = causes.join(": "), details = ?error, "{error}");
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Numbers are added, never changed. The first three digits are the status, with one exception: 40001 is sent as 401.
const NUMBERS: &[(&str, u32)] = &[
    ("invalid_api_key", 40001),
    ("invalid_json", 40002),
    ("invalid_value", 40003),
    ("missing_required_parameter", 40003),
    ("unknown_parameter", 40004),
    ("context_length_exceeded", 40006),
    ("template_error", 40009),
    ("unsupported_parameter", 40010),
    ("unsupported_model", 40010),
    ("missing_api_key", 40101),
    ("not_found", 40401),
    ("model_not_found", 40402),
    ("method_not_allowed", 40501),
    ("request_timeout", 40801),
    ("request_too_large", 41301),
    ("too_many_items", 41302),
    ("unsupported_media_type", 41501),
    ("misdirected_request", 42101),
    ("model_overloaded", 42910),
    ("model_loading", 42911),
    ("model_out_of_memory", 42912),
    ("internal_error", 50001),
    ("engine_fault", 50002),
    ("engine_lost", 50003),
    ("unavailable", 50301),
    ("timeout", 50401),
];

fn number(code: &str, status: StatusCode) -> u32 {
    let known = NUMBERS.iter().find(|(name, _)| *name == code);
    known.map_or_else(|| u32::from(status.as_u16()) * 100, |(_, number)| *number)
}

/// An error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug, Clone)]
pub struct OpenAiError(ApiError);

impl<E: Failure> From<E> for OpenAiError {
    fn from(error: E) -> Self {
        Self::from(ApiError::from(error))
    }
}

impl From<ApiError> for OpenAiError {
    fn from(mut error: ApiError) -> Self {
        // Its clients try 409 again by themselves; what does not get better by that must not be 409.
        if error.status == StatusCode::CONFLICT {
            error.status = StatusCode::BAD_REQUEST;
        }
        Self(error)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl OpenAiError {
    /// What `error.type` says.
    fn kind(&self) -> &'static str {
        match self.0.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON text of the error, as bodies and event streams carry it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.body()).unwrap_or_default()
    }

    fn body(&self) -> Body<'_> {
        let error = &self.0;
        let (message, param) = (error.message.as_ref(), error.param.as_deref());
        Body { error: Inner { message, r#type: self.kind(), param, code: error.code } }
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert("x-error-code", HeaderValue::from(self.0.number()));
        if let Some(wait) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    let rounded = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    rounded.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk /dev/secret is gone")]
    struct Fault(ErrorKind);

    impl Failure for Fault {
        fn kind(&self) -> ErrorKind {
            self.0
        }

        fn code(&self) -> &'static str {
            "fault"
        }
    }

    #[test]
    fn our_own_faults_do_not_show_their_cause() {
        let shown = OpenAiError::from(Fault(ErrorKind::Internal)).to_json().to_string();
        assert!(!shown.contains("secret") && shown.contains("x-request-id"), "{shown}");
        let shown = OpenAiError::from(Fault(ErrorKind::InvalidRequest)).to_json().to_string();
        assert!(shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_conflict_is_not_sent_as_one_since_clients_would_try_again() {
        let response = OpenAiError::from(Fault(ErrorKind::Conflict)).into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn numbers_begin_with_their_status_except_the_one() {
        for (code, number) in NUMBERS {
            assert!((40000..60000).contains(number), "{code}");
            let names = NUMBERS.iter().filter(|(name, _)| name == code).count();
            assert_eq!(names, 1, "{code} stands twice");
        }
        let error = ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "");
        assert_eq!(error.number(), 40001);
        assert_eq!(ApiError::new(StatusCode::IM_A_TEAPOT, "unheard_of", "").number(), 41800);
    }

    #[test]
    fn waiting_times_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1200)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
    }
}
