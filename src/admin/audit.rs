//! `/api/v1/admin/audit`: what was done, by whom. It is read here and cannot be changed, here or anywhere.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Checkpoint;
use crate::auth::records::{AuditEntry, AuditReader, AuditVerdict};
use crate::clock::Timestamp;
use crate::http::{Envelope, EnvelopeError, Granted, Listed, PageQuery, Paged, Query};
use crate::store::audit::{AuditFilter, SORTS};

/// How it went.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// Which rows a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// By this user or key.
    actor_id: Option<String>,
    /// This action, such as `user.create`.
    action: Option<String>,
    /// Done to this.
    target_id: Option<String>,
    /// That went so.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// In this request.
    request_id: Option<String>,
    /// From then on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl From<AuditQuery> for AuditFilter {
    fn from(query: AuditQuery) -> Self {
        let AuditQuery { actor_id, action, target_id, outcome, request_id, since, until } = query;
        let outcome = outcome.map(|outcome| outcome.name().to_owned());
        Self { actor_id, action, target_id, outcome, request_id, since, until }
    }
}

/// Lists what was done, the newest first.
///
/// # Errors
/// 403 without `audit:read`.
#[utoipa::path(get, path = "/api/v1/admin/audit", operation_id = "listAudit", tag = "audit",
    params(PageQuery, AuditQuery),
    responses((status = 200, description = "A page of the audit", body = Envelope<Paged<AuditEntry>>)))]
pub async fn list(
    Granted(audit): Granted<AuditReader>,
    Listed { page, filter }: Listed<AuditQuery>,
) -> Result<Envelope<Paged<AuditEntry>>, EnvelopeError> {
    let request = page.request(SORTS)?;
    Ok(Envelope::of(audit.list(&filter.into(), &request).await?.into()))
}

/// What the audit is held against.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VerifyQuery {
    /// A place in the chain that was noted earlier: `checkpoint` of an earlier answer, or what `sconce audit verify` printed.
    /// An end that was cut off since then, and rows that were made anew, can be seen by nothing else.
    #[param(value_type = Option<String>, pattern = "^[1-9][0-9]{0,17}:[0-9A-Fa-f]{64}$",
        example = "42:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    checkpoint: Option<Checkpoint>,
}

/// Looks at the whole audit, whether it is as it was written, and names the first row that is not. One such look happens at
/// a time.
///
/// # Errors
/// 403 without `audit:read`, 429 while another look goes on.
#[utoipa::path(get, path = "/api/v1/admin/audit/verify", operation_id = "verifyAudit", tag = "audit",
    params(VerifyQuery),
    responses((status = 200, description = "What was found", body = Envelope<AuditVerdict>)))]
pub async fn verify(
    Granted(audit): Granted<AuditReader>,
    Query(query): Query<VerifyQuery>,
) -> Result<Envelope<AuditVerdict>, EnvelopeError> {
    Ok(Envelope::of(audit.verify(query.checkpoint.as_ref()).await?))
}
