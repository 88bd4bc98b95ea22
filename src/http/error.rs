//! Errors at the edge: any room's [`Failure`] becomes an [`ApiError`], and gets its shape by the wrapper a handler
//! returns.
//!
//! A failure of ours is logged here, once, with its causes, and its text is not sent.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Code, Failure};
use crate::http::context::{RequestContext, Surface};
use crate::language::Language;

/// An error on its way to a client; not yet in any protocol's shape.
///
/// Boxed: it is the other half of every handler's result, and rarely there.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    english: Option<Cow<'static, str>>,
    chinese: Option<String>,
    param: Option<String>,
    retry_after: Option<Duration>,
    data: Option<Value>,
}

impl ApiError {
    /// An error that says what the catalogue says.
    pub fn of(code: Code) -> Self {
        let (english, chinese, param) = (None, None, None);
        Self(Box::new(Parts { code, english, chinese, param, retry_after: None, data: None }))
    }

    /// An error that says, in English, more than the catalogue.
    pub fn new(code: Code, english: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::of(code);
        error.0.english = Some(english.into());
        error
    }

    /// Our fault; the cause must be logged by the caller.
    pub fn internal() -> Self {
        Self::of(Code::Internal)
    }

    /// This replica is going away.
    pub fn shutting_down() -> Self {
        Self::of(Code::Unavailable).retry_after(Duration::from_secs(5))
    }

    /// Names the field at fault unless it is known already.
    #[must_use]
    pub fn or_param(mut self, param: &str) -> Self {
        if self.0.param.is_none() && self.0.code.status() == 400 {
            self.0.param = Some(param.to_owned());
        }
        self
    }

    /// Names the field at fault, whatever the status.
    #[must_use]
    pub fn about(mut self, param: &str) -> Self {
        self.0.param = Some(param.to_owned());
        self
    }

    /// The field at fault, if one is.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Its entry in the catalogue.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The number of the error in the catalogue.
    pub fn number(&self) -> u32 {
        self.0.code.number()
    }

    /// What it says to the client of the request being answered.
    pub fn message(&self) -> Cow<'_, str> {
        self.message_in(RequestContext::current().language)
    }

    /// What it says in a language.
    pub fn message_in(&self, language: Language) -> Cow<'_, str> {
        let text = self.0.code.text(language);
        match (language, &self.0.english, &self.0.chinese, &self.0.param) {
            (Language::English, Some(english), _, _) => Cow::Borrowed(english),
            (Language::English, None, _, _) => Cow::Borrowed(text),
            (Language::Chinese, _, Some(chinese), _) => Cow::Borrowed(chinese),
            (Language::Chinese, english, None, param) => {
                // The exact reason exists in English only; half of it is names and numbers anyway.
                let param = param.as_ref().map_or_else(String::new, |param| format!("（参数 `{param}`）"));
                let reason =
                    english.as_ref().filter(|reason| **reason != self.0.code.text(Language::English));
                let reason = reason.map_or_else(String::new, |reason| format!("：{reason}"));
                Cow::Owned(format!("{text}{param}{reason}"))
            }
        }
    }

    fn headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert("x-error-code", HeaderValue::from(self.number()));
        if let Some(wait) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
    }
}

impl<E: Failure> From<E> for ApiError {
    fn from(error: E) -> Self {
        let code = error.code();
        if code.is_internal() {
            log(&error);
            return Self::of(code);
        }
        Self(Box::new(Parts {
            code,
            english: Some(Cow::Owned(error.to_string())),
            chinese: error.chinese(),
            param: error.param().map(str::to_owned),
            retry_after: error.retry_after(),
            data: error.data(),
        }))
    }
}

fn log<E: Failure>(error: &E) {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(source) = cause {
        causes.push(source.to_string());
        cause = source.source();
    }
    tracing::error!(code = error.code().name(), causes = causes.join(": "), details = ?error, "{error}");
}

/// In the shape of the URLs that the request being answered is for.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match RequestContext::current().surface {
            Surface::OpenAi => OpenAiError(self).into_response(),
            Surface::Anthropic => AnthropicError(self).into_response(),
            Surface::Ollama => OllamaError(self).into_response(),
            Surface::Envelope => EnvelopeError(self).into_response(),
        }
    }
}

/// An error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug, Clone)]
pub struct OpenAiError(ApiError);

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(error: E) -> Self {
        Self(error.into())
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
        match self.0.code().status() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON text of the error, as bodies and event streams carry it.
    pub fn to_json(&self) -> Value {
        let (error, message) = (&self.0, self.0.message());
        let inner = Inner {
            message: &message,
            r#type: self.kind(),
            param: error.0.param.as_deref(),
            code: error.code().name(),
        };
        serde_json::to_value(Body { error: inner }).unwrap_or_default()
    }

    /// What is wrong, in no shape.
    pub fn into_inner(self) -> ApiError {
        self.0
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = (self.0.status(), Json(self.to_json())).into_response();
        self.0.headers(&mut response);
        response
    }
}

/// An error in Anthropic's shape: `{"type": "error", "error": {"type", "message"}, "request_id"}`, with its statuses.
#[derive(Debug, Clone)]
pub struct AnthropicError(ApiError);

impl<E: Into<ApiError>> From<E> for AnthropicError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl AnthropicError {
    /// The status that Anthropic's clients expect: 529 where there is too much to do, or nobody to do it, just now.
    pub fn status_of(code: Code) -> u16 {
        match code {
            Code::ModelOverloaded | Code::ModelLoading | Code::ModelOutOfMemory | Code::DatabaseBusy => 529,
            other if other.status() == 503 => 529,
            other => other.status(),
        }
    }

    /// What `error.type` says.
    fn kind(&self) -> &'static str {
        match Self::status_of(self.0.code()) {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON text of the error, as bodies and event streams carry it.
    pub fn to_json(&self) -> Value {
        let error = json!({"type": self.kind(), "message": self.0.message()});
        json!({"type": "error", "error": error, "request_id": RequestContext::current().id})
    }
}

impl IntoResponse for AnthropicError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(Self::status_of(self.0.code()));
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.to_json())).into_response();
        self.0.headers(&mut response);
        response
    }
}

/// An error in Ollama's shape: `{"error": …}`, a text.
#[derive(Debug, Clone)]
pub struct OllamaError(ApiError);

impl<E: Into<ApiError>> From<E> for OllamaError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl OllamaError {
    /// The JSON text of the error, as bodies and the last lines of streams carry it.
    pub fn to_json(&self) -> Value {
        json!({"error": self.0.message()})
    }
}

impl IntoResponse for OllamaError {
    fn into_response(self) -> Response {
        let mut response = (self.0.status(), Json(self.to_json())).into_response();
        self.0.headers(&mut response);
        response
    }
}

/// An error in the envelope: `{"code": 40001, "message": …, "data": null}`.
#[derive(Debug, Clone)]
pub struct EnvelopeError(ApiError);

impl<E: Into<ApiError>> From<E> for EnvelopeError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl EnvelopeError {
    /// The JSON text of the error.
    pub fn to_json(&self) -> Value {
        let error = &self.0;
        let field = || {
            let rule = error.message_in(Language::English);
            error.0.param.as_ref().map(|field| json!({"errors": [{"field": field, "rule": rule}]}))
        };
        let wait = || error.0.retry_after.map(|wait| json!({"retry_after_ms": wait.as_millis() as u64}));
        let data = error.0.data.clone().or_else(field).or_else(wait);
        json!({"code": error.number(), "message": error.message(), "data": data})
    }

    /// What is wrong, in no shape.
    pub fn into_inner(self) -> ApiError {
        self.0
    }
}

impl IntoResponse for EnvelopeError {
    fn into_response(self) -> Response {
        let mut response = (self.0.status(), Json(self.to_json())).into_response();
        self.0.headers(&mut response);
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
    struct Fault(Code);

    impl Failure for Fault {
        fn code(&self) -> Code {
            self.0
        }
    }

    #[test]
    fn our_own_faults_do_not_show_their_cause() {
        let shown = OpenAiError::from(Fault(Code::Internal)).to_json().to_string();
        assert!(!shown.contains("secret") && shown.contains("request id"), "{shown}");
        let shown = OpenAiError::from(Fault(Code::InvalidValue)).to_json().to_string();
        assert!(shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_envelope_is_the_specifications() {
        let error = EnvelopeError::from(ApiError::of(Code::InvalidApiKey));
        assert_eq!(error.to_json().to_string(), r#"{"code":40001,"message":"Invalid API Key","data":null}"#);
        assert_eq!(error.into_response().status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_field_at_fault_is_named_in_data() {
        let error = EnvelopeError::from(ApiError::new(Code::InvalidValue, "too long").or_param("name"));
        assert_eq!(error.to_json()["data"]["errors"][0]["field"], "name");
        assert_eq!(error.0.message_in(Language::Chinese), "参数值无效（参数 `name`）：too long");
    }

    #[test]
    fn anthropics_clients_are_told_that_it_is_too_much_by_their_own_status() {
        for (code, status, kind) in [
            (Code::MissingParameter, 400, "invalid_request_error"),
            (Code::InvalidApiKey, 401, "authentication_error"),
            (Code::MethodNotAllowed, 405, "invalid_request_error"),
            (Code::RequestTooLarge, 413, "request_too_large"),
            (Code::RateLimited, 429, "rate_limit_error"),
            (Code::ModelOverloaded, 529, "overloaded_error"),
            (Code::Unavailable, 529, "overloaded_error"),
            (Code::Timeout, 504, "timeout_error"),
            (Code::EngineFault, 500, "api_error"),
        ] {
            let error = AnthropicError::from(ApiError::of(code));
            assert_eq!(error.to_json()["error"]["type"], kind, "{code:?}");
            assert_eq!(error.into_response().status().as_u16(), status, "{code:?}");
        }
    }

    #[test]
    fn waiting_times_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1200)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
    }
}
