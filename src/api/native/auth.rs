//! `/api/v1/auth`: sign in, refresh, sign out. The only routes besides the health checks that ask for no credential,
//! because one gets them here; so bodies are small.

use axum::extract::State;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Caller, Origin, SignOut, SignedIn};
use crate::http::{ApiError, AppState, Envelope, EnvelopeError, Small};

/// Who one is, and what proves it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The name of the user; upper and lower case are the same.
    #[schema(example = "ada")]
    username: String,
    /// The password.
    #[schema(example = "tidal-mosaic-quarry-41", format = Password)]
    password: String,
}

/// The token to exchange.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// As it was given out with the last access token.
    #[schema(example = "rt-3q2-7wEBAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs")]
    refresh_token: String,
}

/// What to end.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogoutRequest {
    /// The session to end, where no access token is shown or it has expired.
    #[schema(example = "rt-3q2-7wEBAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs")]
    refresh_token: Option<String>,
    /// Ends all sessions of the user, on every device.
    #[serde(default)]
    everywhere: bool,
}

/// What somebody who signed in gets.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// A JSON Web Token: `Authorization: Bearer …`.
    #[schema(example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiIsImtpZCI6InNpZ18xIn0.e30.c2ln")]
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that the access token is accepted for. A WebSocket that was opened with it, or with a ticket got by it, is
    /// closed then with 4401, though the session was refreshed: open it again with the next one.
    #[schema(example = 900)]
    expires_in: u64,
    /// Exchanged, once, for the next pair of tokens.
    #[schema(example = "rt-3q2-7wEBAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs")]
    refresh_token: String,
    /// Seconds that the refresh token is accepted for.
    #[schema(example = 2_592_000)]
    refresh_expires_in: u64,
    /// Who signed in.
    user: TokensUser,
}

/// Who signed in.
#[derive(Serialize, ToSchema)]
pub struct TokensUser {
    /// The user's id.
    #[schema(example = "usr_0198c0ffee")]
    id: String,
    /// What one signs in with.
    #[schema(example = "ada")]
    username: String,
    /// What people call them.
    #[schema(example = "Ada Lovelace")]
    display_name: String,
    /// Where they can be reached.
    #[schema(example = "ada@example.org")]
    email: Option<String>,
    /// `owner`, `admin`, `operator`, `auditor` or `user`.
    #[schema(example = "user")]
    role: String,
    /// Nothing else is accepted before the password is changed.
    #[schema(example = false)]
    must_change_password: bool,
}

/// What was ended.
#[derive(Serialize, ToSchema)]
pub struct LoggedOut {
    /// How many sessions.
    #[schema(example = 1)]
    sessions_ended: u64,
}

impl From<SignedIn> for Tokens {
    fn from(signed_in: SignedIn) -> Self {
        let user = signed_in.user;
        Self {
            access_token: signed_in.access_token.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: signed_in.access_lifetime.as_secs(),
            refresh_token: signed_in.refresh_token.reveal().to_owned(),
            refresh_expires_in: signed_in.refresh_lifetime.as_secs(),
            user: TokensUser {
                id: user.id,
                username: user.username,
                display_name: user.display_name,
                email: user.email,
                role: user.role.to_string(),
                must_change_password: user.must_change_password,
            },
        }
    }
}

/// Signs in by user name and password.
///
/// # Errors
/// 40102 for a wrong name or password, 42904 after too many of them, 40305 for a disabled account.
#[utoipa::path(post, path = "/api/v1/auth/login", operation_id = "login", tag = "auth", security(()),
    request_body = LoginRequest,
    responses((status = 200, description = "Signed in", body = Envelope<Tokens>),
        (status = 401, description = "The user name or the password is wrong"),
        (status = 403, description = "The account is disabled")))]
pub async fn login(
    State(state): State<AppState>,
    origin: Origin,
    Small(body): Small<LoginRequest>,
) -> Result<Envelope<Tokens>, EnvelopeError> {
    let password = SecretString::from(body.password);
    let signed_in = state.auth().sign_in(&body.username, password, &origin).await?;
    Ok(Envelope::of(signed_in.into()))
}

/// Exchanges a refresh token for new tokens.
///
/// Each refresh token can be exchanged once. Asked again within ten seconds, because the answer was lost, the server
/// gives the same refresh token again; later it ends the session, because somebody has a copy.
///
/// # Errors
/// 40105 for a token that is not known or has expired, 40106 for one that was used before.
#[utoipa::path(post, path = "/api/v1/auth/refresh", operation_id = "refresh", tag = "auth", security(()),
    request_body = RefreshRequest,
    responses((status = 200, description = "New tokens", body = Envelope<Tokens>),
        (status = 401, description = "The refresh token is not known, too old, or was used before")))]
pub async fn refresh(
    State(state): State<AppState>,
    origin: Origin,
    Small(body): Small<RefreshRequest>,
) -> Result<Envelope<Tokens>, EnvelopeError> {
    let signed_in = state.auth().refresh(&body.refresh_token, &origin).await?;
    Ok(Envelope::of(signed_in.into()))
}

/// Ends the session of the access token, or of the refresh token in the body.
///
/// # Errors
/// 401 without a good token, 40902 for an API key, which has no session.
#[utoipa::path(post, path = "/api/v1/auth/logout", operation_id = "logout", tag = "auth",
    request_body = Option<LogoutRequest>,
    responses((status = 200, description = "Signed out", body = Envelope<LoggedOut>)))]
pub async fn logout(
    State(state): State<AppState>,
    origin: Origin,
    caller: Result<Caller, ApiError>,
    body: Option<Small<LogoutRequest>>,
) -> Result<Envelope<LoggedOut>, EnvelopeError> {
    let Small(body) = body.unwrap_or(Small(LogoutRequest::default()));
    let caller = match (caller, &body.refresh_token) {
        (Err(error), None) => return Err(error.into()),
        (caller, _) => caller.ok(),
    };
    let request = SignOut {
        caller: caller.as_ref(),
        refresh_token: body.refresh_token.as_deref(),
        everywhere: body.everywhere,
    };
    let sessions_ended = state.auth().sign_out(request, &origin).await?;
    Ok(Envelope::of(LoggedOut { sessions_ended }))
}

/// A ticket.
#[derive(Serialize, ToSchema)]
pub struct TicketAnswer {
    /// To be shown as `?ticket=` when a WebSocket is opened.
    #[schema(example = "tk-3q2-7wEBAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs")]
    ticket: String,
    /// Seconds that it is good for.
    #[schema(example = 30)]
    expires_in: u64,
}

/// Gives a ticket that opens one WebSocket, for browsers, which can send no header there.
///
/// # Errors
/// 40301 or 40302 without the permission `inference`.
#[utoipa::path(post, path = "/api/v1/auth/ticket", operation_id = "createTicket", tag = "auth",
    responses((status = 200, description = "A ticket", body = Envelope<TicketAnswer>)))]
pub async fn ticket(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Envelope<TicketAnswer>, EnvelopeError> {
    let ticket = state.auth().issue_ticket(&caller).await?;
    let (ticket, expires_in) = (ticket.token.reveal().to_owned(), ticket.lifetime.as_secs());
    Ok(Envelope::of(TicketAnswer { ticket, expires_in }))
}
