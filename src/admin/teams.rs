//! `/api/v1/admin/teams`: teams, and who is in them. The rules are in `auth/teams.rs`.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::teams::{Member, Membership, NewTeam, Team, TeamAdmin, TeamChange, TeamReader};
use crate::http::{Envelope, EnvelopeError, Granted, Listed, Nothing, PageQuery, Paged, Path, Query, Typed};
use crate::store::teams::{MEMBER_SORTS, SORTS};

/// Which teams a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TeamQuery {
    /// With this text in name or description.
    #[param(max_length = 200)]
    search: Option<String>,
}

/// Lists the teams.
///
/// # Errors
/// 403 without `teams:read`.
#[utoipa::path(get, path = "/api/v1/admin/teams", operation_id = "listTeams", tag = "teams",
    params(PageQuery, TeamQuery),
    responses((status = 200, description = "A page of the teams", body = Envelope<Paged<Team>>)))]
pub async fn list(
    Granted(teams): Granted<TeamReader>,
    Listed { page, filter }: Listed<TeamQuery>,
) -> Result<Envelope<Paged<Team>>, EnvelopeError> {
    let request = page.request(SORTS)?;
    Ok(Envelope::of(teams.list(filter.search.as_deref(), &request).await?.into()))
}

/// Makes a team.
///
/// # Errors
/// 403 without `teams:manage`; 409 if the name is taken.
#[utoipa::path(post, path = "/api/v1/admin/teams", operation_id = "createTeam", tag = "teams",
    request_body = NewTeam,
    responses((status = 201, description = "The team", body = Envelope<Team>)))]
pub async fn create(
    Granted(teams): Granted<TeamAdmin>,
    Typed(new): Typed<NewTeam>,
) -> Result<(StatusCode, Envelope<Team>), EnvelopeError> {
    Ok(Envelope::created(teams.create(new).await?))
}

/// Shows a team.
///
/// # Errors
/// 403 without `teams:read`; 404.
#[utoipa::path(get, path = "/api/v1/admin/teams/{teamId}", operation_id = "getTeam", tag = "teams",
    params(("teamId" = String, Path, description = "The team's id")),
    responses((status = 200, description = "The team", body = Envelope<Team>)))]
pub async fn read(
    Granted(teams): Granted<TeamReader>,
    Path(id): Path<String>,
) -> Result<Envelope<Team>, EnvelopeError> {
    Ok(Envelope::of(teams.find(&id).await?))
}

/// Changes a team: what the body leaves out stays.
///
/// # Errors
/// 403 without `teams:manage`; 404; 409 if the name is taken.
#[utoipa::path(put, path = "/api/v1/admin/teams/{teamId}", operation_id = "updateTeam", tag = "teams",
    params(("teamId" = String, Path, description = "The team's id")),
    request_body = TeamChange,
    responses((status = 200, description = "The team as changed", body = Envelope<Team>)))]
pub async fn update(
    Granted(teams): Granted<TeamAdmin>,
    Path(id): Path<String>,
    Typed(change): Typed<TeamChange>,
) -> Result<Envelope<Team>, EnvelopeError> {
    Ok(Envelope::of(teams.update(&id, change).await?))
}

/// Deletes a team to which no key and no model is bound.
///
/// # Errors
/// 403 without `teams:manage`; 404; 409 while something is bound to it.
#[utoipa::path(delete, path = "/api/v1/admin/teams/{teamId}", operation_id = "deleteTeam", tag = "teams",
    params(("teamId" = String, Path, description = "The team's id")),
    responses((status = 200, description = "The team is deleted", body = Envelope<Nothing>)))]
pub async fn delete(
    Granted(teams): Granted<TeamAdmin>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    teams.delete(&id).await?;
    Ok(Envelope::of(Nothing))
}

/// Lists who is in a team.
///
/// # Errors
/// 403 without `teams:read`; 404.
#[utoipa::path(get, path = "/api/v1/admin/teams/{teamId}/members", operation_id = "listTeamMembers", tag = "teams",
    params(("teamId" = String, Path, description = "The team's id"), PageQuery),
    responses((status = 200, description = "A page of the members", body = Envelope<Paged<Member>>)))]
pub async fn members(
    Granted(teams): Granted<TeamReader>,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Envelope<Paged<Member>>, EnvelopeError> {
    Ok(Envelope::of(teams.members(&id, &page.request(MEMBER_SORTS)?).await?.into()))
}

/// Takes a user into a team; who is in stays in.
///
/// # Errors
/// 403 without `teams:manage`; 404.
#[utoipa::path(put, path = "/api/v1/admin/teams/{teamId}/members/{userId}", operation_id = "addTeamMember",
    tag = "teams",
    params(
        ("teamId" = String, Path, description = "The team's id"),
        ("userId" = String, Path, description = "The user's id")
    ),
    responses((status = 200, description = "The user is in the team", body = Envelope<Membership>)))]
pub async fn add_member(
    Granted(teams): Granted<TeamAdmin>,
    Path((id, user_id)): Path<(String, String)>,
) -> Result<Envelope<Membership>, EnvelopeError> {
    Ok(Envelope::of(teams.add_member(&id, &user_id).await?))
}

/// Takes a user out of a team. Their keys that work for it are refused from then on.
///
/// # Errors
/// 403 without `teams:manage`; 404.
#[utoipa::path(delete, path = "/api/v1/admin/teams/{teamId}/members/{userId}", operation_id = "removeTeamMember",
    tag = "teams",
    params(
        ("teamId" = String, Path, description = "The team's id"),
        ("userId" = String, Path, description = "The user's id")
    ),
    responses((status = 200, description = "The user is not in the team", body = Envelope<Nothing>)))]
pub async fn remove_member(
    Granted(teams): Granted<TeamAdmin>,
    Path((id, user_id)): Path<(String, String)>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    teams.remove_member(&id, &user_id).await?;
    Ok(Envelope::of(Nothing))
}
