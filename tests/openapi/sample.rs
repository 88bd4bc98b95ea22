//! A small API with every shape that handlers use, and a server for it that keeps all in memory.
//!
//! Not the real API: it stands for one, so that the document's way down and the checks in Python can be shown to work, and
//! to fail where they must ([`Fault`]).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::to_bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use sconce::error::Code;
use sconce::http::layers::{Neighbourhood, wrap};
use sconce::http::openapi::{Documents, routes as description};
use sconce::http::{ApiError, Envelope, Nothing, credential};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The token that may do everything.
pub const ADMIN: &str = "token-of-the-administrator";

/// Another's token, which may be lost.
pub const OTHER: &str = "token-of-another";

/// The id of the user that both tokens belong to.
const FIRST: &str = "user-0";

/// The one password.
pub const PASSWORD: &str = "correct horse";

/// The one model.
pub const MODEL: &str = "echo";

/// What is wrong with the server, to see it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answers with a status that no document knows.
    Teapot,
    /// Answers with a body that the schema does not allow.
    Shape,
    /// Cannot do it.
    Broken,
    /// Refuses without the number of the error.
    Header,
    /// Streams what is no event.
    Stream,
    /// Streams events that say too little.
    Event,
}

#[derive(Clone)]
pub struct Sample {
    fault: Fault,
    users: Arc<Mutex<BTreeMap<String, User>>>,
    tokens: Arc<Mutex<HashMap<String, String>>>,
}

impl Sample {
    fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.users.lock().expect("no handler panics")
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.tokens.lock().expect("no handler panics")
    }
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Role {
    Admin,
    User,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct User {
    id: String,
    username: String,
    role: Role,
    /// How the user wants to be called; null if nothing is known.
    display_name: Option<String>,
    /// The role the user had before.
    former_role: Option<Role>,
    /// Requests a minute, and tokens a minute.
    limits: (u32, f64),
    labels: BTreeMap<String, Option<String>>,
    home: Option<Source>,
}

/// Where something comes from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Source {
    /// A hub.
    Hub {
        #[schema(max_length = 100)]
        repository: String,
        revision: Option<String>,
    },
    /// A folder here.
    Local { path: String },
    /// Nowhere.
    Nothing,
}

/// One or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by serde, shown in the document")]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9_-]+$", example = "alice")]
    username: String,
    role: Option<Role>,
    #[schema(max_length = 200)]
    display_name: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    home: Option<Source>,
    #[schema(content_encoding = "base64", content_media_type = "image/png")]
    #[allow(dead_code, reason = "shown in the document")]
    picture: Option<String>,
    #[schema(exclusive_minimum = 0, maximum = 1000)]
    tokens_per_minute: Option<f64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    #[schema(example = "admin")]
    username: String,
    #[schema(format = Password)]
    password: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    access_token: String,
    refresh_token: String,
    expires_in: u32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    #[schema(max_length = 100, example = "laptop")]
    name: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct CreatedKey {
    /// Shown this once.
    key: String,
    name: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "shown in the document")]
struct Paging {
    /// At most so many.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    role: Option<Role>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}]}))]
struct ChatRequest {
    model: String,
    #[schema(min_items = 1)]
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    #[allow(dead_code, reason = "shown in the document")]
    stop: Option<Stop>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
struct Message {
    role: String,
    content: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatCompletion {
    id: String,
    #[schema(pattern = "^chat\\.completion$")]
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<Choice>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Choice {
    index: u32,
    message: Message,
    finish_reason: Option<String>,
}

/// Somebody known; the token.
struct Caller(String);

impl FromRequestParts<Sample> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, sample: &Sample) -> Result<Self, ApiError> {
        let token = credential(&parts.headers)?.ok_or(ApiError::of(Code::MissingCredentials))?;
        match sample.tokens().contains_key(token) {
            true => Ok(Self(token.to_owned())),
            false => Err(ApiError::of(Code::InvalidApiKey)),
        }
    }
}

struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<Sample> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Sample) -> Result<Self, ApiError> {
        let kind = request.headers().get("content-type");
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
            return Err(ApiError::of(Code::UnsupportedMediaType));
        }
        let body = to_bytes(request.into_body(), 1 << 20).await;
        let body = body.map_err(|_| ApiError::of(Code::RequestTooLarge))?;
        serde_json::from_slice(&body).map(Body).map_err(|_| ApiError::of(Code::InvalidJson))
    }
}

/// What a path or a query says, if it can be read.
fn read<T>(extracted: Result<T, impl std::error::Error>) -> Result<T, ApiError> {
    extracted.map_err(|_| ApiError::of(Code::InvalidValue))
}

/// Sign in.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", operation_id = "login", security(()),
    request_body = Credentials,
    responses((status = OK, body = Envelope<Tokens>), (status = UNAUTHORIZED, description = "Wrong name or password")))]
async fn login(
    State(sample): State<Sample>,
    Body(credentials): Body<Credentials>,
) -> Result<Envelope<Tokens>, ApiError> {
    if credentials.password != PASSWORD {
        return Err(ApiError::of(Code::WrongPassword));
    }
    let access_token = format!("token-{}", sample.tokens().len());
    sample.tokens().insert(access_token.clone(), credentials.username);
    Ok(Envelope::of(Tokens { access_token, refresh_token: "none".to_owned(), expires_in: 900 }))
}

/// Sign out: the token is worth nothing afterwards.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", operation_id = "logout",
    responses((status = OK, body = Envelope<Nothing>)))]
async fn logout(State(sample): State<Sample>, caller: Caller) -> Envelope<Nothing> {
    sample.tokens().remove(&caller.0);
    Envelope::of(Nothing)
}

/// Who am I?
#[utoipa::path(get, path = "/api/v1/me", tag = "me", operation_id = "getMe",
    responses((status = OK, body = Envelope<User>)))]
async fn me(State(sample): State<Sample>, _: Caller) -> Result<Envelope<User>, ApiError> {
    let user = sample.users().get(FIRST).cloned();
    Ok(Envelope::of(user.ok_or(ApiError::of(Code::AccountDisabled))?))
}

/// Make a key of one's own.
#[utoipa::path(post, path = "/api/v1/me/keys", tag = "me", operation_id = "createMyKey", request_body = NewKey,
    responses((status = CREATED, body = Envelope<CreatedKey>)))]
async fn create_my_key(
    State(sample): State<Sample>,
    _: Caller,
    Body(new): Body<NewKey>,
) -> (StatusCode, Envelope<CreatedKey>) {
    let key = format!("sk-sconce-{}", sample.tokens().len());
    sample.tokens().insert(key.clone(), new.name.clone());
    Envelope::created(CreatedKey { key, name: new.name })
}

/// All users.
#[utoipa::path(get, path = "/api/v1/admin/users", tag = "users", operation_id = "listUsers", params(Paging),
    responses((status = OK, body = Envelope<Vec<User>>)))]
async fn list_users(
    State(sample): State<Sample>,
    _: Caller,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(paging) = read(paging)?;
    let limit = paging.limit.unwrap_or(20) as usize;
    if !(1..=100).contains(&limit) {
        return Err(ApiError::of(Code::OutOfRange));
    }
    let users: Vec<User> = sample.users().values().take(limit).cloned().collect();
    Ok(match sample.fault {
        Fault::None | Fault::Stream | Fault::Event => Envelope::of(users).into_response(),
        Fault::Teapot => StatusCode::IM_A_TEAPOT.into_response(),
        Fault::Broken => ApiError::internal().into_response(),
        Fault::Shape => Json(json!({"code": 0, "message": "Success", "data": null})).into_response(),
        Fault::Header => {
            let mut response = ApiError::of(Code::PermissionMissing).into_response();
            response.headers_mut().remove("x-error-code");
            response
        }
    })
}

/// A new user.
#[utoipa::path(post, path = "/api/v1/admin/users", tag = "users", operation_id = "createUser", request_body = NewUser,
    responses((status = CREATED, body = Envelope<User>)))]
async fn create_user(
    State(sample): State<Sample>,
    _: Caller,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Envelope<User>), ApiError> {
    let mut users = sample.users();
    if users.values().any(|user| user.username == new.username) {
        return Err(ApiError::of(Code::AlreadyExists));
    }
    let user = user(&format!("user-{}", uuid::Uuid::now_v7().simple()), new);
    users.insert(user.id.clone(), user.clone());
    Ok(Envelope::created(user))
}

/// One user.
#[utoipa::path(get, path = "/api/v1/admin/users/{userId}", tag = "users", operation_id = "getUser",
    params(("userId" = String, Path, description = "The id of the user")),
    responses((status = OK, body = Envelope<User>)))]
async fn get_user(
    State(sample): State<Sample>,
    _: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Envelope<User>, ApiError> {
    let Path(id) = read(id)?;
    let user = sample.users().get(&id).cloned();
    Ok(Envelope::of(user.ok_or(ApiError::of(Code::NotFound))?))
}

/// Take a user away.
#[utoipa::path(delete, path = "/api/v1/admin/users/{userId}", tag = "users", operation_id = "deleteUser",
    params(("userId" = String, Path, description = "The id of the user")),
    responses((status = OK, body = Envelope<Nothing>)))]
async fn delete_user(
    State(sample): State<Sample>,
    _: Caller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Envelope<Nothing>, ApiError> {
    let Path(id) = read(id)?;
    sample.users().remove(&id).ok_or(ApiError::of(Code::NotFound))?;
    Ok(Envelope::of(Nothing))
}

/// Chat, enveloped.
#[utoipa::path(post, path = "/api/v1/chat/completions", tag = "chat", operation_id = "createChatCompletion",
    request_body = ChatRequest,
    responses((status = OK, content((Envelope<ChatCompletion> = "application/json"), (ChatCompletion = "text/event-stream")))))]
async fn chat(
    State(sample): State<Sample>,
    _: Caller,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    Ok(match request.stream {
        true if sample.fault == Fault::Stream => streamed(&["nonsense"]),
        true if sample.fault == Fault::Event => streamed(&["{}", "[DONE]"]),
        true => streamed(&[&json!(answer(request)?).to_string(), "[DONE]"]),
        false => Envelope::of(answer(request)?).into_response(),
    })
}

/// Chat over a WebSocket.
#[utoipa::path(get, path = "/api/v1/chat/stream", tag = "chat", operation_id = "openChatStream",
    responses((status = SWITCHING_PROTOCOLS, description = "The socket is open"),
        (status = BAD_REQUEST, description = "No WebSocket was asked for")))]
async fn chat_stream(_: Caller) -> ApiError {
    ApiError::new(Code::InvalidValue, "ask for a WebSocket")
}

/// Chat as OpenAI's clients do.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", operation_id = "openaiCreateChatCompletion",
    request_body = ChatRequest,
    responses((status = OK, content((ChatCompletion = "application/json"), (ChatCompletion = "text/event-stream")))))]
async fn openai_chat(_: Caller, Body(request): Body<ChatRequest>) -> Result<Response, ApiError> {
    Ok(match request.stream {
        true => streamed(&[&json!(answer(request)?).to_string(), "[DONE]"]),
        false => Json(answer(request)?).into_response(),
    })
}

fn streamed(events: &[&str]) -> Response {
    let text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    ([("content-type", "text/event-stream")], text).into_response()
}

fn answer(request: ChatRequest) -> Result<ChatCompletion, ApiError> {
    if request.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return Err(ApiError::of(Code::OutOfRange));
    }
    if request.model != MODEL {
        return Err(ApiError::of(Code::ModelNotFound));
    }
    let said = request.messages.into_iter().next_back().ok_or(ApiError::of(Code::InvalidValue))?;
    let message = Message { role: "assistant".to_owned(), content: format!("You said: {}", said.content) };
    let choice = Choice { index: 0, message, finish_reason: Some("stop".to_owned()) };
    let id = "chatcmpl-1".to_owned();
    Ok(ChatCompletion {
        id,
        object: "chat.completion",
        created: 1,
        model: request.model,
        choices: vec![choice],
    })
}

/// All models.
#[utoipa::path(get, path = "/v1/models", tag = "openai", operation_id = "openaiListModels",
    responses((status = OK, body = Object)))]
async fn openai_models(_: Caller) -> Json<Value> {
    Json(json!({"data": [{"id": MODEL, "kind": "causal"}]}))
}

/// One model; its id may hold slashes.
#[utoipa::path(get, path = "/v1/models/{*id}", tag = "openai", operation_id = "openaiGetModel",
    params(("id" = String, Path, description = "The id of the model")),
    responses((status = OK, body = Object)))]
async fn openai_model(_: Caller, id: Result<Path<String>, PathRejection>) -> Result<Json<Value>, ApiError> {
    match read(id)? {
        Path(id) if id == MODEL => Ok(Json(json!({"id": id}))),
        Path(_) => Err(ApiError::of(Code::ModelNotFound)),
    }
}

fn user(id: &str, new: NewUser) -> User {
    User {
        id: id.to_owned(),
        username: new.username,
        role: new.role.unwrap_or(Role::User),
        display_name: new.display_name,
        former_role: (id == FIRST).then_some(Role::User),
        limits: (60, new.tokens_per_minute.unwrap_or(1.5)),
        labels: new.labels,
        home: new.home,
    }
}

#[derive(OpenApi)]
#[openapi(info(title = "sample", version = "1", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    tags((name = "users", description = "Who may ask")))]
struct Api;

fn collected() -> (Router<Sample>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(create_my_key))
        .routes(routes!(list_users, create_user))
        .routes(routes!(get_user, delete_user))
        .routes(routes!(chat))
        .routes(routes!(chat_stream))
        .routes(routes!(openai_chat))
        .routes(routes!(openai_models))
        .routes(routes!(openai_model))
        .split_for_parts()
}

/// What `utoipa` says of it, untouched.
pub fn untouched() -> Value {
    serde_json::to_value(collected().1).expect("it is JSON")
}

/// What is served of it.
pub fn documents() -> Documents {
    Documents::new(&collected().1)
}

/// The server of it.
pub fn app(fault: Fault) -> Router {
    let new = |name: &str| NewUser {
        username: name.to_owned(),
        role: Some(Role::Admin),
        display_name: None,
        labels: BTreeMap::from([("team".to_owned(), None)]),
        home: Some(Source::Nothing),
        picture: None,
        tokens_per_minute: None,
    };
    let first = user(FIRST, new("admin"));
    let tokens = [ADMIN, OTHER].map(|token| (token.to_owned(), "admin".to_owned()));
    let sample = Sample {
        fault,
        users: Arc::new(Mutex::new(BTreeMap::from([(first.id.clone(), first)]))),
        tokens: Arc::new(Mutex::new(HashMap::from(tokens))),
    };
    let routes = collected().0.merge(description(documents()));
    let address = IpAddr::from([127, 0, 0, 1]);
    wrap(routes, Neighbourhood { address, trusted_proxies: Arc::from([]), allowed_origins: Arc::from([]) })
        .with_state(sample)
}
