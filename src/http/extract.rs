//! What handlers take out of a request: who is calling, a bounded JSON body, a query that says nothing unknown.

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, ORIGIN,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::auth::{AuthError, Caller, Capability, Origin};
use crate::error::Code;
use crate::http::body::too_large;
use crate::http::strict::{LONGEST_NAME, Mistake, Strict};
use crate::http::{ApiError, AppState, RequestContext, Surface, json};

impl FromRequestParts<AppState> for Origin {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let context = RequestContext::current();
        let (address, request_id) = (context.address, context.id.clone());
        let (request, user_agent) = (context.request.clone(), context.user_agent.clone());
        Ok(Self { address, request, request_id, user_agent })
    }
}

/// Where Anthropic's clients show their key; looked at on the URLs of its protocol alone.
pub const API_KEY: &str = "x-api-key";

/// Who is calling, by the `Authorization` header, or by what stands for it in the request's protocol.
impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let origin = Origin::from_request_parts(parts, state).await?;
        let credential = match RequestContext::current().surface {
            Surface::Anthropic => of_either_header(&parts.headers)?,
            _ => credential(&parts.headers)?,
        };
        Ok(state.auth().authenticate(credential, origin).await?)
    }
}

/// What the one `Authorization` header shows; none if there is no such header.
///
/// # Errors
/// [`AuthError::MissingCredentials`] for several, for another scheme, and for an empty one; [`AuthError::InvalidApiKey`]
/// for one that is no text.
pub fn credential(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let only = match (all.next(), all.next()) {
        (None, _) => return Ok(None),
        (Some(only), None) => only,
        (Some(_), Some(_)) => return Err(AuthError::MissingCredentials),
    };
    let (scheme, token) = only.as_bytes().split_at_checked(7).ok_or(AuthError::MissingCredentials)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") || token.is_empty() {
        return Err(AuthError::MissingCredentials);
    }
    std::str::from_utf8(token).map(Some).map_err(|_| AuthError::InvalidApiKey)
}

/// What `Authorization` and `x-api-key` show. Both may be there if they show the same.
///
/// # Errors
/// As [`credential`], for either; [`AuthError::DifferentCredentials`] where they differ: which of them counts must not be a
/// matter of opinion.
fn of_either_header(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let bearer = credential(headers)?;
    let mut keys = headers.get_all(API_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Ok(bearer),
        (Some(only), None) => only,
        (Some(_), Some(_)) => return Err(AuthError::MissingCredentials),
    };
    let key = std::str::from_utf8(key.as_bytes()).map_err(|_| AuthError::InvalidApiKey)?;
    let is_other = bearer.is_some_and(|bearer| bearer != key);
    match (key.is_empty(), is_other) {
        (true, _) => Err(AuthError::MissingCredentials),
        (false, true) => Err(AuthError::DifferentCredentials),
        (false, false) => Ok(Some(key)),
    }
}

/// A JSON body within the server's limits of size, depth and time.
pub struct JsonBody(pub Value);

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        read_json(request, state, state.settings().max_body_bytes).await.map(Self)
    }
}

/// The same, whatever it is called: `curl -d` calls it a form. So does a page of another site that has a browser send one,
/// without asking: such pages are refused, by where they say that they are from.
pub struct AnyJsonBody(pub Value);

impl FromRequest<AppState> for AnyJsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.settings().max_body_bytes;
        refuse_foreign_pages(request.headers(), &state.settings().allowed_origins)?;
        check_size(request.headers(), limit)?;
        read(request, state, limit).await.map(Self)
    }
}

fn refuse_foreign_pages(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let is_ours = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let of_host = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
        (of_host.is_some() && of_host == host) || allowed.iter().any(|allowed| allowed.as_bytes() == origin)
    };
    // Browsers say at least one of the two.
    let is_foreign = !headers.get_all(ORIGIN).iter().all(is_ours)
        || (!headers.contains_key(ORIGIN)
            && headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none"));
    if is_foreign { Err(ApiError::of(Code::OriginNotAllowed)) } else { Ok(()) }
}

async fn read_json(request: Request, state: &AppState, limit: usize) -> Result<Value, ApiError> {
    check_kind(request.headers())?;
    check_size(request.headers(), limit)?;
    read(request, state, limit).await
}

async fn read(request: Request, state: &AppState, limit: usize) -> Result<Value, ApiError> {
    let body = state.bodies().read(request.into_body(), limit);
    let bytes = tokio::time::timeout(state.settings().body_timeout, body)
        .await
        .map_err(|_| ApiError::of(Code::RequestTimeout))??;
    json::parse(&bytes)
}

fn typed<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Strict(body)).map_err(|error| {
        let path = shown(error.path());
        mistaken(&path, &error.into_inner())
    })
}

/// `limits.max_tokens`, `sources[0]`; names that nobody would give are cut.
fn shown(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(name.chars().take(LONGEST_NAME));
            }
            Segment::Unknown => {}
        }
    }
    text
}

/// Says what is wrong, with the whole name of the field.
fn mistaken(path: &str, mistake: &Mistake) -> ApiError {
    let inner = |name: &str| match path {
        "" => name.to_owned(),
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    let (code, field) = match mistake {
        Mistake::Unknown(name) => (Code::UnknownParameter, inner(name)),
        Mistake::Missing(name) => (Code::MissingParameter, inner(name)),
        Mistake::Wrong(_) => (Code::InvalidValue, path.to_owned()),
    };
    if field.is_empty() {
        return ApiError::new(code, format!("the body {mistake}"));
    }
    ApiError::new(code, format!("`{field}` {mistake}")).or_param(&field)
}

/// What may be sent where no model is asked, in bytes.
const USUAL: usize = 1 << 20;

/// A JSON body of one type, of at most 1 MiB. What the type does not know is refused by name.
pub struct Typed<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Typed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = USUAL.min(state.settings().max_body_bytes);
        typed(read_json(request, state, limit).await?).map(Self)
    }
}

/// What somebody may send who has not yet shown who they are, in bytes.
const SMALL: usize = 16 * 1024;

/// As [`Typed`], of at most 16 KiB: for those who have not yet shown who they are. An `Option` of it may be absent or null.
pub struct Small<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Small<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = SMALL.min(state.settings().max_body_bytes);
        typed(read_json(request, state, limit).await?).map(Self)
    }
}

impl<T: DeserializeOwned> OptionalFromRequest<AppState> for Small<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, ApiError> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        let limit = SMALL.min(state.settings().max_body_bytes);
        match read_json(request, state, limit).await? {
            Value::Null => Ok(None),
            body => typed(body).map(|body| Some(Self(body))),
        }
    }
}

/// The query of one type. What the type does not know is refused by name.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Self::of_text(parts.uri.query().unwrap_or_default())
    }
}

impl<T: DeserializeOwned> Query<T> {
    /// Reads the text after the `?`.
    ///
    /// # Errors
    /// 400 `invalid_value` naming the parameter.
    pub fn of_text(text: &str) -> Result<Self, ApiError> {
        if text.contains("%00") {
            return Err(ApiError::new(Code::InvalidValue, "the query contains a character that no text has"));
        }
        let wrong = || ApiError::new(Code::InvalidValue, "the query cannot be read");
        let uri = Uri::builder().path_and_query(format!("/?{text}")).build().map_err(|_| wrong())?;
        axum::extract::Query::<T>::try_from_uri(&uri).map(|query| Self(query.0)).map_err(|error| {
            let text =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let (path, reason) = text.split_once(": ").unwrap_or(("", text.as_str()));
            refused(path, reason)
        })
    }
}

/// The variable parts of the path. What cannot be one is an id that nothing has.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let nothing = || ApiError::of(Code::NotFound);
        if parts.uri.path().contains("%00") {
            return Err(nothing());
        }
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|path| Self(path.0)).map_err(|_| nothing())
    }
}

/// What the caller was exchanged for. Stands before the body in a handler's signature, so that who may not do a thing
/// does not learn whether they said it right.
pub struct Granted<C>(pub C);

impl<C: Capability> FromRequestParts<AppState> for Granted<C> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        Ok(Self(caller.exchange(state.auth()).await?))
    }
}

/// What serde said of a query, with the parameter it said it of.
fn refused(path: &str, text: &str) -> ApiError {
    let is_of_another = text.starts_with("unknown field") || text.starts_with("missing field");
    let named = if is_of_another { text.split('`').nth(1).unwrap_or_default() } else { path };
    let code = if text.starts_with("missing field") { Code::MissingParameter } else { Code::InvalidValue };
    if named.is_empty() {
        return ApiError::new(code, text.to_owned());
    }
    ApiError::new(code, format!("`{named}`: {text}")).or_param(named)
}

fn check_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::of(Code::UnsupportedMediaType))
    }
}

fn check_size(headers: &HeaderMap, limit: usize) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(ApiError::new(Code::UnsupportedMediaType, "compressed bodies are not accepted"));
    }
    let announced = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    Ok(())
}
