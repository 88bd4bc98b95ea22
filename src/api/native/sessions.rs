//! `/api/v1/me/sessions`: where one is signed in.

use serde::Deserialize;

use crate::auth::sessions::{OwnSessions, SORTS, Session};
use crate::http::{Envelope, EnvelopeError, Granted, Listed, Nothing, PageQuery, Paged, Path};

/// One's sessions can be filtered by nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFilter {}

/// Lists one's own sessions that go on.
///
/// # Errors
/// 40003 for a wrong parameter.
#[utoipa::path(get, path = "/api/v1/me/sessions", operation_id = "listMySessions", tag = "me",
    params(PageQuery),
    responses((status = 200, description = "The sessions", body = Envelope<Paged<Session>>)))]
pub async fn list(
    Granted(sessions): Granted<OwnSessions>,
    query: Listed<NoFilter>,
) -> Result<Envelope<Paged<Session>>, EnvelopeError> {
    let page = sessions.list(&query.page.request(SORTS)?).await?;
    Ok(Envelope::of(page.into()))
}

/// Ends one of one's own sessions: its tokens are not accepted any more.
///
/// # Errors
/// 40401 if there is no such session, or it is somebody else's.
#[utoipa::path(delete, path = "/api/v1/me/sessions/{sessionId}", operation_id = "endMySession", tag = "me",
    params(("sessionId" = String, Path, description = "The session's id", example = "ses_0198c0ffee")),
    responses((status = 200, description = "Ended", body = Envelope<Nothing>)))]
pub async fn end(
    Granted(sessions): Granted<OwnSessions>,
    Path(id): Path<String>,
) -> Result<Envelope<Nothing>, EnvelopeError> {
    sessions.end(&id).await?;
    Ok(Envelope::of(Nothing))
}
