//! What requests used: one row each, and sums over them.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row};
use crate::store::pool::execute;
use crate::store::{ListRequest, Page, PageError, StoreError, Tx};

/// The select list of sums.
macro_rules! total_by {
    ($subject:literal) => {
        concat!(
            "SELECT ",
            $subject,
            " AS subject, COUNT(*) AS requests, CAST(COALESCE(SUM(prompt_tokens), 0) AS BIGINT) AS prompt_tokens, \
             CAST(COALESCE(SUM(cached_tokens), 0) AS BIGINT) AS cached_tokens, \
             CAST(COALESCE(SUM(completion_tokens), 0) AS BIGINT) AS completion_tokens \
             FROM usage_records WHERE 1 = 1"
        )
    };
}

/// What one request used.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UsageRow {
    /// `use_…`
    pub id: String,
    /// When it ended.
    pub at: Timestamp,
    /// As in the answer's `x-request-id`.
    pub request_id: String,
    /// Whose request it was.
    pub user_id: Option<String>,
    /// With which key.
    pub key_id: Option<String>,
    /// For which team.
    pub team_id: Option<String>,
    /// The model that answered.
    pub model: String,
    /// The name it was asked for by.
    pub asked_for: String,
    /// Which URL.
    pub endpoint: String,
    /// Tokens of the prompt.
    pub prompt_tokens: i64,
    /// Those of them that were found in the cache.
    pub cached_tokens: i64,
    /// Tokens that were generated, delivered or not.
    pub completion_tokens: i64,
    /// `stop`, `length`, `cancelled`, `failed` …
    pub outcome: String,
    /// From its arrival to its end.
    pub duration_ms: i64,
    /// Whom it was for, as the caller said.
    pub end_user: Option<String>,
    /// What else the caller noted: a JSON object of texts.
    pub metadata: Option<String>,
}

impl Row for UsageRow {
    fn id(&self) -> Bind {
        self.id.as_str().into()
    }

    fn sort_key(&self, _column: &str) -> Bind {
        self.at.into()
    }
}

/// Which rows are meant.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// Of this user.
    pub user_id: Option<String>,
    /// Of this key.
    pub key_id: Option<String>,
    /// Of this team.
    pub team_id: Option<String>,
    /// Answered by this model.
    pub model: Option<String>,
    /// Of this request.
    pub request_id: Option<String>,
    /// For this user of the caller's.
    pub end_user: Option<String>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

/// Sums over rows.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UsageTotal {
    /// What they have in common.
    pub subject: String,
    /// How many.
    pub requests: i64,
    /// Tokens of prompts.
    pub prompt_tokens: i64,
    /// Those of them that were found in the cache.
    pub cached_tokens: i64,
    /// Tokens generated.
    pub completion_tokens: i64,
}

impl Row for UsageTotal {
    fn id(&self) -> Bind {
        self.subject.as_str().into()
    }

    fn sort_key(&self, _column: &str) -> Bind {
        self.subject.as_str().into()
    }
}

/// What sums are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// The model that answered.
    Model,
    /// The user.
    User,
    /// The key.
    Key,
    /// The team.
    Team,
    /// The day, in UTC, as days since 1970.
    Day,
}

/// Columns that a list may be sorted by; the first is the usual.
pub const SORTS: &[&str] = &["at"];

/// Adds rows; one that is there already (written twice after a lost answer) is left.
///
/// # Errors
/// [`StoreError`].
pub async fn insert(tx: &mut Tx, rows: &[UsageRow]) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO usage_records (id, at, request_id, user_id, key_id, team_id, model, asked_for, \
        endpoint, prompt_tokens, cached_tokens, completion_tokens, outcome, duration_ms, \
        end_user, metadata) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT (id) DO NOTHING";
    for row in rows {
        execute!(
            tx,
            sqlx::query(SQL)
                .bind(&row.id)
                .bind(row.at)
                .bind(&row.request_id)
                .bind(&row.user_id)
                .bind(&row.key_id)
                .bind(&row.team_id)
                .bind(&row.model)
                .bind(&row.asked_for)
                .bind(&row.endpoint)
                .bind(row.prompt_tokens)
                .bind(row.cached_tokens)
                .bind(row.completion_tokens)
                .bind(&row.outcome)
                .bind(row.duration_ms)
                .bind(&row.end_user)
                .bind(&row.metadata)
        )?;
    }
    Ok(())
}

fn filtered(query: ListQuery, filter: &UsageFilter) -> ListQuery {
    query
        .filter("user_id = ?", filter.user_id.as_deref())
        .filter("key_id = ?", filter.key_id.as_deref())
        .filter("team_id = ?", filter.team_id.as_deref())
        .filter("model = ?", filter.model.as_deref())
        .filter("request_id = ?", filter.request_id.as_deref())
        .filter("end_user = ?", filter.end_user.as_deref())
        .filter("at >= ?", filter.since)
        .filter("at < ?", filter.until)
}

/// One page.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    filter: &UsageFilter,
    request: &ListRequest,
) -> Result<Page<UsageRow>, PageError> {
    filtered(ListQuery::new("SELECT * FROM usage_records WHERE 1 = 1", "id"), filter).page(tx, request).await
}

/// Sums by model, user, key, team or day: at most the first `limit` in the alphabet's order.
///
/// # Errors
/// [`StoreError`].
pub async fn totals(
    tx: &mut Tx,
    filter: &UsageFilter,
    by: Grouping,
    limit: i64,
) -> Result<Vec<UsageTotal>, StoreError> {
    let select = match by {
        Grouping::Model => total_by!("model"),
        Grouping::User => total_by!("COALESCE(user_id, '')"),
        Grouping::Key => total_by!("COALESCE(key_id, '')"),
        Grouping::Team => total_by!("COALESCE(team_id, '')"),
        Grouping::Day => total_by!("CAST(at / 86400000 AS TEXT)"),
    };
    Ok(filtered(ListQuery::new(select, "id"), filter).sums(tx, limit).await?)
}
