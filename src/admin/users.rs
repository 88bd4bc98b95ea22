//! `/api/v1/admin/users`: who may sign in, and as what. The rules are in `auth/users.rs`.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::Role;
use crate::auth::sessions::{SORTS as SESSION_SORTS, Session};
use crate::auth::users::{
    EndedSessions, NewUser, User, UserAdmin, UserChange, UserReader, UserStatus, UserWithPassword,
};
use crate::http::{Envelope, EnvelopeError, Granted, Listed, Nothing, PageQuery, Paged, Path, Query, Typed};
use crate::store::users::{SORTS, UserFilter};

/// Which users a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UserQuery {
    /// Of this role.
    role: Option<Role>,
    /// Of this status.
    status: Option<UserStatus>,
    /// Members of this team.
    team_id: Option<String>,
    /// With this text in user name, display name or e-mail address.
    #[param(max_length = 200)]
    search: Option<String>,
}

/// Lists the users.
///
/// # Errors
/// 403 without `users:read`.
#[utoipa::path(get, path = "/api/v1/admin/users", operation_id = "listUsers", tag = "users",
    params(PageQuery, UserQuery),
    responses((status = 200, description = "A page of the users", body = Envelope<Paged<User>>)))]
pub async fn list(
    Granted(users): Granted<UserReader>,
    Listed { page, filter }: Listed<UserQuery>,
) -> Result<Envelope<Paged<User>>, EnvelopeError> {
    let request = page.request(SORTS)?;
    let filter = UserFilter {
        role: filter.role.map(|role| role.name().to_owned()),
        status: filter.status.map(|status| status.name().to_owned()),
        team_id: filter.team_id,
        search: filter.search,
    };
    Ok(Envelope::of(users.list(&filter, &request).await?.into()))
}

/// Makes a user. Without a password one is made, and shown in this answer alone.
///
/// # Errors
/// 403 without `users:manage`, or for a role that is not the caller's to give; 409 if the name is taken.
#[utoipa::path(post, path = "/api/v1/admin/users", operation_id = "createUser", tag = "users",
    request_body = NewUser,
    responses((status = 201, description = "The user", body = Envelope<UserWithPassword>)))]
pub async fn create(
    Granted(users): Granted<UserAdmin>,
    Typed(new): Typed<NewUser>,
) -> Result<(StatusCode, Envelope<UserWithPassword>), EnvelopeError> {
    Ok(Envelope::created(users.create(new).await?))
}

/// Shows a user.
///
/// # Errors
/// 403 without `users:read`; 404.
#[utoipa::path(get, path = "/api/v1/admin/users/{userId}", operation_id = "getUser", tag = "users",
    params(("userId" = String, Path, description = "The user's id")),
    responses((status = 200, description = "The user", body = Envelope<User>)))]
pub async fn read(
    Granted(users): Granted<UserReader>,
    Path(id): Path<String>,
) -> Result<Envelope<User>, EnvelopeError> {
    Ok(Envelope::of(users.find(&id).await?))
}

/// Changes a user: what the body leaves out stays. Another role, a new password, or disabling ends the user's sessions.
///
/// # Errors
/// 403 without `users:manage`, and for users who may do as much as the caller; 404; 409 for the last owner.
#[utoipa::path(put, path = "/api/v1/admin/users/{userId}", operation_id = "updateUser", tag = "users",
    params(("userId" = String, Path, description = "The user's id")),
    request_body = UserChange,
    responses((status = 200, description = "The user as changed", body = Envelope<UserWithPassword>)))]
pub async fn update(
    Granted(users): Granted<UserAdmin>,
    Path(id): Path<String>,
    Typed(change): Typed<UserChange>,
) -> Result<Envelope<UserWithPassword>, EnvelopeError> {
    Ok(Envelope::of(users.update(&id, change).await?))
}

/// Deletes a user. The name is free again, the keys are deleted, the sessions end; records stay.
///
/// # Errors
/// As for changing.
#[utoipa::path(delete, path = "/api/v1/admin/users/{userId}", operation_id = "deleteUser", tag = "users",
    params(("userId" = String, Path, description = "The user's id")),
    responses((status = 200, description = "The user is deleted", body = Envelope<Nothing>)))]
pub async fn delete(
    Granted(users): Granted<UserAdmin>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    users.delete(&id).await?;
    Ok(Envelope::of(Nothing))
}

/// Lists a user's sessions that go on.
///
/// # Errors
/// 403 without `users:read`; 404.
#[utoipa::path(get, path = "/api/v1/admin/users/{userId}/sessions", operation_id = "listUserSessions",
    tag = "sessions",
    params(("userId" = String, Path, description = "The user's id"), PageQuery),
    responses((status = 200, description = "A page of the sessions", body = Envelope<Paged<Session>>)))]
pub async fn sessions(
    Granted(users): Granted<UserReader>,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Envelope<Paged<Session>>, EnvelopeError> {
    Ok(Envelope::of(users.sessions(&id, &page.request(SESSION_SORTS)?).await?.into()))
}

/// Ends all of a user's sessions: their tokens are not accepted any more.
///
/// # Errors
/// 403 without `users:manage`, and for users who may do as much as the caller; 404.
#[utoipa::path(delete, path = "/api/v1/admin/users/{userId}/sessions", operation_id = "endUserSessions",
    tag = "sessions",
    params(("userId" = String, Path, description = "The user's id")),
    responses((status = 200, description = "The sessions are ended", body = Envelope<EndedSessions>)))]
pub async fn end_sessions(
    Granted(users): Granted<UserAdmin>,
    Path(id): Path<String>,
) -> Result<Envelope<EndedSessions>, EnvelopeError> {
    Ok(Envelope::of(users.end_sessions(&id).await?))
}

/// Ends one of a user's sessions.
///
/// # Errors
/// 403 without `users:manage`, and for users who may do as much as the caller; 404.
#[utoipa::path(delete, path = "/api/v1/admin/users/{userId}/sessions/{sessionId}", operation_id = "endUserSession",
    tag = "sessions",
    params(
        ("userId" = String, Path, description = "The user's id"),
        ("sessionId" = String, Path, description = "The session's id")
    ),
    responses((status = 200, description = "The session is ended", body = Envelope<Nothing>)))]
pub async fn end_session(
    Granted(users): Granted<UserAdmin>,
    Path((id, session_id)): Path<(String, String)>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    users.end_session(&id, &session_id).await?;
    Ok(Envelope::of(Nothing))
}
