//! `/api/v1/admin/audit`: what was done, by whom. It is read here and cannot be changed, here or anywhere.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::auth::records::{AuditEntry, AuditReader, AuditVerdict};
use crate::clock::Timestamp;
use crate::http::{Envelope, EnvelopeError, Granted, Listed, PageQuery, Paged};
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

/// Looks at the whole audit, whether it is as it was written, and names the first row that is not.
///
/// # Errors
/// 403 without `audit:read`.
#[utoipa::path(get, path = "/api/v1/admin/audit/verify", operation_id = "verifyAudit", tag = "audit",
    responses((status = 200, description = "What was found", body = Envelope<AuditVerdict>)))]
pub async fn verify(Granted(audit): Granted<AuditReader>) -> Result<Envelope<AuditVerdict>, EnvelopeError> {
    Ok(Envelope::of(audit.verify().await?))
}
