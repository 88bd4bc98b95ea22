//! `/api/v1/me/usage`: what one used oneself. That of others is not there, whoever asks.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::records::{OwnUsage, OwnUsageFilter, USAGE_SORTS, UsageEntry, UsageGrouping, UsageTotals};
use crate::clock::Timestamp;
use crate::http::{Envelope, EnvelopeError, Granted, Listed, PageQuery, Paged, QueryPart};

/// Which usage is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OwnUsageQuery {
    /// By this key.
    key_id: Option<String>,
    /// For this team.
    team_id: Option<String>,
    /// Answered by this model.
    model: Option<String>,
    /// From then on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl From<OwnUsageQuery> for OwnUsageFilter {
    fn from(query: OwnUsageQuery) -> Self {
        let OwnUsageQuery { key_id, team_id, model, since, until } = query;
        Self { key_id, team_id, model, since, until }
    }
}

/// What sums are made by.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OwnGroupingQuery {
    /// What the sums are made by: `model` if it is left out.
    #[serde(default)]
    #[param(inline)]
    group_by: UsageGrouping,
}

impl QueryPart for OwnGroupingQuery {
    const NAMES: &'static [&'static str] = &["group_by"];
}

/// Lists what one used, request by request, the newest first.
///
/// # Errors
/// 403 without `account`.
#[utoipa::path(get, path = "/api/v1/me/usage", operation_id = "listMyUsage", tag = "me",
    params(PageQuery, OwnUsageQuery),
    responses((status = 200, description = "A page of what one used", body = Envelope<Paged<UsageEntry>>)))]
pub async fn list(
    Granted(usage): Granted<OwnUsage>,
    Listed { page, filter }: Listed<OwnUsageQuery>,
) -> Result<Envelope<Paged<UsageEntry>>, EnvelopeError> {
    let request = page.request(USAGE_SORTS)?;
    Ok(Envelope::of(usage.list(filter.into(), &request).await?.into()))
}

/// Sums up what one used, by model, key, team or day.
///
/// # Errors
/// 403 without `account`.
#[utoipa::path(get, path = "/api/v1/me/usage/totals", operation_id = "getMyUsageTotals", tag = "me",
    params(OwnGroupingQuery, OwnUsageQuery),
    responses((status = 200, description = "The sums", body = Envelope<UsageTotals>)))]
pub async fn totals(
    Granted(usage): Granted<OwnUsage>,
    Listed { page, filter }: Listed<OwnUsageQuery, OwnGroupingQuery>,
) -> Result<Envelope<UsageTotals>, EnvelopeError> {
    Ok(Envelope::of(usage.totals(filter.into(), page.group_by).await?))
}
