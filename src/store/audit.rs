//! The audit: rows that are only added, each carrying the hash of the one before, so that a change shows.
//!
//! There is no update and no delete here, on purpose.

use sha2::{Digest, Sha256};
use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::store::list::{Bind, ListQuery, Row};
use crate::store::pool::{execute, on};
use crate::store::{ListRequest, Page, PageError, StoreError, Tx};

/// What happened, before it has its place in the chain.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// `user`, `api_key`, `system`, `anonymous`.
    pub actor_kind: &'static str,
    /// Who, if known.
    pub actor_id: Option<String>,
    /// Their name as it was then.
    pub actor_name: String,
    /// Such as `user.create`.
    pub action: &'static str,
    /// Such as `user`.
    pub target_kind: &'static str,
    /// Of what.
    pub target_id: Option<String>,
    /// `done` or `refused`.
    pub outcome: &'static str,
    /// JSON, secrets masked.
    pub before: Option<serde_json::Value>,
    /// JSON, secrets masked.
    pub after: Option<serde_json::Value>,
    /// Where from.
    pub address: String,
    /// In which request.
    pub request_id: String,
}

/// A link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AuditRow {
    /// From 1, without gaps.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// `user`, `api_key`, `system`, `anonymous`.
    pub actor_kind: String,
    /// Who, if known.
    pub actor_id: Option<String>,
    /// Their name as it was then.
    pub actor_name: String,
    /// Such as `user.create`.
    pub action: String,
    /// Such as `user`.
    pub target_kind: String,
    /// Of what.
    pub target_id: Option<String>,
    /// `done` or `refused`.
    pub outcome: String,
    /// JSON text.
    pub before: Option<String>,
    /// JSON text.
    pub after: Option<String>,
    /// Where from.
    pub address: String,
    /// In which request.
    pub request_id: String,
    /// Of the row before; empty for the first.
    pub previous_hash: String,
    /// SHA-256 over everything above, in hexadecimal digits.
    pub hash: String,
}

impl AuditRow {
    /// What [`AuditRow::hash`] must be: each part with its length before it, so that no two rows have the same bytes.
    pub fn expected_hash(&self) -> String {
        let mut digest = Sha256::new();
        let mut part = |present: bool, bytes: &[u8]| {
            digest.update([u8::from(present)]);
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(true, &self.seq.to_be_bytes());
        part(true, &self.at.millis().to_be_bytes());
        for text in [
            Some(&self.previous_hash),
            Some(&self.actor_kind),
            self.actor_id.as_ref(),
            Some(&self.actor_name),
            Some(&self.action),
            Some(&self.target_kind),
            self.target_id.as_ref(),
            Some(&self.outcome),
            self.before.as_ref(),
            self.after.as_ref(),
            Some(&self.address),
            Some(&self.request_id),
        ] {
            part(text.is_some(), text.map_or(&[][..], |text| text.as_bytes()));
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Row for AuditRow {
    fn id(&self) -> Bind {
        self.seq.into()
    }

    fn sort_key(&self, _column: &str) -> Bind {
        self.seq.into()
    }
}

/// Which rows a list shows.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// By this user or key.
    pub actor_id: Option<String>,
    /// This action.
    pub action: Option<String>,
    /// On this.
    pub target_id: Option<String>,
    /// `done` or `refused`.
    pub outcome: Option<String>,
    /// In this request.
    pub request_id: Option<String>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

/// Columns that a list may be sorted by; the first is the usual.
pub const SORTS: &[&str] = &["seq"];

const HEAD: &str = "SELECT seq, hash FROM audit_head WHERE id = 1";

/// The end of the chain: number and hash of its last row.
///
/// # Errors
/// [`StoreError`].
pub async fn head(tx: &mut Tx) -> Result<(i64, String), StoreError> {
    Ok(on!(tx, connection => sqlx::query_as(HEAD).fetch_one(connection))?)
}

/// The end of the chain; none if somebody took away what is kept of it.
///
/// # Errors
/// [`StoreError`].
pub async fn head_if_any(tx: &mut Tx) -> Result<Option<(i64, String)>, StoreError> {
    Ok(on!(tx, connection => sqlx::query_as(HEAD).fetch_optional(connection))?)
}

/// Adds a row at the end. The transaction must be one of [`Store::write`](crate::store::Store::write).
///
/// # Errors
/// [`StoreError`].
pub async fn append(tx: &mut Tx, event: AuditEvent) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO audit (seq, at, actor_kind, actor_id, actor_name, action, target_kind, \
        target_id, outcome, before, after, address, request_id, previous_hash, hash) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    const MOVE: &str = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1 AND seq = $1 - 1";
    let (seq, previous_hash) = head(tx).await?;
    // What no column can hold is not worth losing the row for.
    let clean = |text: String| text.replace('\0', "\u{fffd}");
    let mut row = AuditRow {
        seq: seq + 1,
        at: event.at,
        actor_kind: event.actor_kind.to_owned(),
        actor_id: event.actor_id.map(clean),
        actor_name: clean(event.actor_name),
        action: event.action.to_owned(),
        target_kind: event.target_kind.to_owned(),
        target_id: event.target_id.map(clean),
        outcome: event.outcome.to_owned(),
        before: event.before.map(|json| json.to_string()),
        after: event.after.map(|json| json.to_string()),
        address: event.address,
        request_id: clean(event.request_id),
        previous_hash,
        hash: String::new(),
    };
    row.hash = row.expected_hash();
    execute!(
        tx,
        sqlx::query(SQL)
            .bind(row.seq)
            .bind(row.at)
            .bind(&row.actor_kind)
            .bind(&row.actor_id)
            .bind(&row.actor_name)
            .bind(&row.action)
            .bind(&row.target_kind)
            .bind(&row.target_id)
            .bind(&row.outcome)
            .bind(&row.before)
            .bind(&row.after)
            .bind(&row.address)
            .bind(&row.request_id)
            .bind(&row.previous_hash)
            .bind(&row.hash)
    )?;
    execute!(tx, sqlx::query(MOVE).bind(row.seq).bind(&row.hash))?;
    Ok(())
}

/// One page.
///
/// # Errors
/// [`PageError`].
pub async fn list(
    tx: &mut Tx,
    filter: &AuditFilter,
    request: &ListRequest,
) -> Result<Page<AuditRow>, PageError> {
    ListQuery::new("SELECT * FROM audit WHERE 1 = 1", "seq")
        .filter("actor_id = ?", filter.actor_id.as_deref())
        .filter("action = ?", filter.action.as_deref())
        .filter("target_id = ?", filter.target_id.as_deref())
        .filter("outcome = ?", filter.outcome.as_deref())
        .filter("request_id = ?", filter.request_id.as_deref())
        .filter("at >= ?", filter.since)
        .filter("at < ?", filter.until)
        .page(tx, request)
        .await
}

/// So many rows after a number, in order: for reading the whole chain.
///
/// # Errors
/// [`StoreError`]; [`StoreError::Damaged`] if one of them holds what no row can hold.
pub async fn after(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
    const SQL: &str = "SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
    let rows = on!(tx, connection => sqlx::query_as(SQL).bind(seq).bind(limit).fetch_all(connection));
    rows.map_err(|error| match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Damaged { table: "audit", reason: error.to_string() }
        }
        other => other.into(),
    })
}
