//! What was done and what was used, for those who may read it. Nothing is written here.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::{AuthError, Capability, ChainReport, Checkpoint, Flaw, Permission, Permit};
use crate::clock::Timestamp;
use crate::store::audit::{AuditFilter, AuditRow};
use crate::store::usage::{Grouping, UsageFilter, UsageRow, UsageTotal};
use crate::store::{ListRequest, Order, Page, audit, usage};

pub use crate::store::usage::SORTS as USAGE_SORTS;

/// Most sums in one answer.
const MOST_TOTALS: i64 = 1000;

/// Rows read at once for an export.
const EXPORT_STEP: u32 = 1000;

/// A day, in milliseconds.
const DAY: i64 = 24 * 3600 * 1000;

/// A row of the audit.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its number: from 1, without gaps.
    #[schema(example = 42)]
    pub seq: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who acted: `user`, `api_key`, `system` or `anonymous`.
    #[schema(example = "user")]
    pub actor_kind: String,
    /// The user's or the key's id, if known.
    pub actor_id: Option<String>,
    /// The actor's name as it was then.
    #[schema(example = "ada")]
    pub actor_name: String,
    /// What was done.
    #[schema(example = "user.create")]
    pub action: String,
    /// What it was done to.
    #[schema(example = "user")]
    pub target_kind: String,
    /// Its id.
    pub target_id: Option<String>,
    /// `done` or `refused`.
    #[schema(example = "done")]
    pub outcome: String,
    /// As it was; secrets masked.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// As it was then; secrets masked.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
    /// Where the request came from.
    #[schema(example = "192.0.2.7")]
    pub address: String,
    /// The request, as in its answer's `x-request-id`.
    pub request_id: String,
    /// The hash of the row before; empty for the first.
    pub previous_hash: String,
    /// SHA-256 over all of the above.
    pub hash: String,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        // What is not JSON was not written by us: it is shown as it stands.
        let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            seq: row.seq,
            at: row.at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            outcome: row.outcome,
            before: row.before.map(read),
            after: row.after.map(read),
            address: row.address,
            request_id: row.request_id,
            previous_hash: row.previous_hash,
            hash: row.hash,
        }
    }
}

/// What looking at the whole audit gave.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditVerdict {
    /// How many rows are as they were written, from the first on.
    #[schema(example = 42)]
    pub rows: i64,
    /// Whether those are all.
    #[schema(example = true)]
    pub is_intact: bool,
    /// The first that is not as it was written.
    pub first_bad: Option<BadRow>,
    /// The hash of the last good row.
    pub head_hash: Option<String>,
    /// The last good row as `SEQ:HASH`. Noted elsewhere, and given to a later look, it shows whether the chain was made anew
    /// or its end cut off.
    #[schema(example = "42:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub checkpoint: Option<String>,
}

/// A row of the audit that is not as it was written.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BadRow {
    /// Its number.
    #[schema(example = 17)]
    pub seq: i64,
    /// What is wrong with it, for programs.
    #[schema(value_type = String, example = "changed")]
    pub flaw: Flaw,
    /// What is wrong with it.
    #[schema(example = "was changed after it was written")]
    pub reason: &'static str,
}

impl From<ChainReport> for AuditVerdict {
    fn from(report: ChainReport) -> Self {
        let bad = |broken: &crate::auth::Break| BadRow {
            seq: broken.seq,
            flaw: broken.flaw,
            reason: broken.flaw.text(),
        };
        Self {
            rows: report.sound,
            is_intact: report.broken.is_none(),
            first_bad: report.broken.as_ref().map(bad),
            checkpoint: report.end.as_ref().map(Checkpoint::to_string),
            head_hash: report.end.map(|end| end.hash),
        }
    }
}

/// May read the audit.
pub struct AuditReader(Permit);

impl Capability for AuditReader {
    const PERMISSION: Permission = Permission::AuditRead;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl AuditReader {
    /// One page of the audit.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(
        &self,
        filter: &AuditFilter,
        request: &ListRequest,
    ) -> Result<Page<AuditEntry>, AuthError> {
        let mut tx = self.0.store().read_long().await?;
        Ok(audit::list(&mut tx, filter, request).await?.map(AuditEntry::from))
    }

    /// Looks at all of it, whether it is as it was written, and goes on from a place that was noted earlier.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn verify(&self, earlier: Option<&Checkpoint>) -> Result<AuditVerdict, AuthError> {
        Ok(self.0.store().verify_chain(earlier).await?.into())
    }
}

/// What one request used.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageEntry {
    /// Its id.
    #[schema(example = "use_019aabcdef0123456789abcdef012345")]
    pub id: String,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The request, as in its answer's `x-request-id`.
    pub request_id: String,
    /// Whose it was; null for the key from the configuration.
    pub user_id: Option<String>,
    /// The key that was shown.
    pub key_id: Option<String>,
    /// The team it was for.
    pub team_id: Option<String>,
    /// The model that answered.
    #[schema(example = "qwen3-0.6b")]
    pub model: String,
    /// The name it was asked for by.
    #[schema(example = "gpt-4o")]
    pub asked_for: String,
    /// Which URL.
    #[schema(example = "/api/v1/chat/completions")]
    pub endpoint: String,
    /// Tokens of the prompt.
    pub prompt_tokens: i64,
    /// Those of them that were found in the cache.
    pub cached_tokens: i64,
    /// Tokens that were generated, delivered or not.
    pub completion_tokens: i64,
    /// How it ended: `stop`, `length`, `cancelled`, `failed` …
    #[schema(example = "stop")]
    pub outcome: String,
    /// From its arrival to its end.
    pub duration_ms: i64,
    /// Whom it was for, as the caller said (`user`, `safety_identifier`).
    #[schema(example = "user-1234")]
    pub end_user: Option<String>,
    /// What else the caller noted (`metadata`).
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

impl From<UsageRow> for UsageEntry {
    fn from(row: UsageRow) -> Self {
        Self {
            id: row.id,
            at: row.at,
            request_id: row.request_id,
            user_id: row.user_id,
            key_id: row.key_id,
            team_id: row.team_id,
            model: row.model,
            asked_for: row.asked_for,
            endpoint: row.endpoint,
            prompt_tokens: row.prompt_tokens,
            cached_tokens: row.cached_tokens,
            completion_tokens: row.completion_tokens,
            outcome: row.outcome,
            duration_ms: row.duration_ms,
            end_user: row.end_user,
            metadata: row.metadata.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }
}

/// What sums of usage are made by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageGrouping {
    /// The model that answered.
    #[default]
    Model,
    /// The user.
    User,
    /// The key.
    Key,
    /// The team.
    Team,
    /// The day, in UTC.
    Day,
}

impl From<UsageGrouping> for Grouping {
    fn from(by: UsageGrouping) -> Self {
        match by {
            UsageGrouping::Model => Self::Model,
            UsageGrouping::User => Self::User,
            UsageGrouping::Key => Self::Key,
            UsageGrouping::Team => Self::Team,
            UsageGrouping::Day => Self::Day,
        }
    }
}

/// Sums of usage.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageTotals {
    /// What they are made by.
    pub group_by: UsageGrouping,
    /// One for each model, user, key, team or day.
    pub items: Vec<UsageSum>,
    /// Whether these are all; if not, filter more.
    #[schema(example = true)]
    pub is_complete: bool,
}

/// What requests that have something in common used.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UsageSum {
    /// What they have in common: a model, an id, or a day such as `2030-01-31`; null where there is none.
    #[schema(example = "qwen3-0.6b")]
    pub subject: Option<String>,
    /// How many.
    pub requests: i64,
    /// Tokens of prompts.
    pub prompt_tokens: i64,
    /// Those of them that were found in the cache.
    pub cached_tokens: i64,
    /// Tokens generated.
    pub completion_tokens: i64,
    /// Tokens of prompts, and generated ones.
    pub total_tokens: i64,
}

impl UsageSum {
    fn of(total: UsageTotal, by: UsageGrouping) -> Self {
        let subject = match by {
            UsageGrouping::Day => total.subject.parse().map_or(total.subject, day),
            _ => total.subject,
        };
        Self {
            subject: Some(subject).filter(|subject| !subject.is_empty()),
            requests: total.requests,
            prompt_tokens: total.prompt_tokens,
            cached_tokens: total.cached_tokens,
            completion_tokens: total.completion_tokens,
            total_tokens: total.prompt_tokens.saturating_add(total.completion_tokens),
        }
    }
}

/// A day, from how many there were since 1970.
fn day(number: i64) -> String {
    let midnight = Timestamp::from_millis(number.saturating_mul(DAY));
    midnight.to_string().split('T').next().unwrap_or_default().to_owned()
}

/// Reads usage within a filter that cannot be widened.
struct Usage(Permit);

impl Usage {
    async fn list(&self, filter: &UsageFilter, request: &ListRequest) -> Result<Page<UsageEntry>, AuthError> {
        let mut tx = self.0.store().read_long().await?;
        Ok(usage::list(&mut tx, filter, request).await?.map(UsageEntry::from))
    }

    async fn totals(&self, filter: &UsageFilter, by: UsageGrouping) -> Result<UsageTotals, AuthError> {
        let mut tx = self.0.store().read_long().await?;
        let mut sums = usage::totals(&mut tx, filter, by.into(), MOST_TOTALS + 1).await?;
        let is_complete = sums.len() <= MOST_TOTALS as usize;
        sums.truncate(MOST_TOTALS as usize);
        let items = sums.into_iter().map(|total| UsageSum::of(total, by)).collect();
        Ok(UsageTotals { group_by: by, items, is_complete })
    }
}

/// May read what everybody used.
pub struct UsageReader(Usage);

impl Capability for UsageReader {
    const PERMISSION: Permission = Permission::UsageRead;

    fn of(permit: Permit) -> Self {
        Self(Usage(permit))
    }
}

impl UsageReader {
    /// One page of what was used.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(
        &self,
        filter: &UsageFilter,
        request: &ListRequest,
    ) -> Result<Page<UsageEntry>, AuthError> {
        self.0.list(filter, request).await
    }

    /// Sums of it.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn totals(&self, filter: &UsageFilter, by: UsageGrouping) -> Result<UsageTotals, AuthError> {
        self.0.totals(filter, by).await
    }

    /// The next rows of an export, oldest first. It ends with what there was when it began.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn export(
        &self,
        filter: &mut UsageFilter,
        cursor: Option<String>,
    ) -> Result<Page<UsageEntry>, AuthError> {
        filter.until.get_or_insert(self.0.0.now());
        let request =
            ListRequest { limit: EXPORT_STEP, cursor, sort: USAGE_SORTS[0], order: Order::Ascending };
        self.0.list(filter, &request).await
    }
}

/// May read what they used themselves.
pub struct OwnUsage(Usage);

impl Capability for OwnUsage {
    const PERMISSION: Permission = Permission::Account;

    fn of(permit: Permit) -> Self {
        Self(Usage(permit))
    }
}

/// Which of one's own usage is meant.
#[derive(Debug, Clone, Default)]
pub struct OwnUsageFilter {
    /// By this key.
    pub key_id: Option<String>,
    /// For this team.
    pub team_id: Option<String>,
    /// Answered by this model.
    pub model: Option<String>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

impl OwnUsage {
    /// One page of what one used.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(
        &self,
        filter: OwnUsageFilter,
        request: &ListRequest,
    ) -> Result<Page<UsageEntry>, AuthError> {
        self.0.list(&self.only_own(filter)?, request).await
    }

    /// Sums of it.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn totals(&self, filter: OwnUsageFilter, by: UsageGrouping) -> Result<UsageTotals, AuthError> {
        self.0.totals(&self.only_own(filter)?, by).await
    }

    fn only_own(&self, filter: OwnUsageFilter) -> Result<UsageFilter, AuthError> {
        let OwnUsageFilter { key_id, team_id, model, since, until } = filter;
        let user = self.0.0.caller().user().ok_or(AuthError::PermissionMissing(Permission::Account))?;
        Ok(UsageFilter {
            user_id: Some(user.id.clone()),
            key_id,
            team_id,
            model,
            request_id: None,
            end_user: None,
            since,
            until,
        })
    }
}

/// May see how the server is set up.
pub struct SettingsReader(Permit);

impl Capability for SettingsReader {
    const PERMISSION: Permission = Permission::SettingsRead;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl SettingsReader {
    /// The kind of database: `sqlite` or `postgres`.
    pub fn database(&self) -> &'static str {
        self.0.store().kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_dates() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(19_675), "2023-11-14");
    }
}
