//! Lists that are read page by page: filters, a search, one order, and a cursor that says where the last page ended.
//!
//! Pages follow a key (the column sorted by, then the id), so rows added meanwhile shift nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow};

use crate::clock::Timestamp;
use crate::error::{Code, Failure};
use crate::store::pool::on;
use crate::store::{StoreError, Tx};

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest, oldest, first in the alphabet first.
    Ascending,
    /// The other way round.
    Descending,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// Most rows.
    pub limit: u32,
    /// Where the page before ended, as it was given out with it.
    pub cursor: Option<String>,
    /// One of the columns the list may be sorted by.
    pub sort: &'static str,
    /// Which way.
    pub order: Order,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// To be sent as the cursor of the next page; none at the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn map<U>(self, each: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(each).collect(), next: self.next }
    }
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The cursor is not one of this list.
    #[error("`cursor` is not one that this list gave out with this order")]
    Cursor,
    /// What is looked for is too long.
    #[error("`search` must have at most {LONGEST_SEARCH} characters")]
    Search,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure for PageError {
    fn code(&self) -> Code {
        match self {
            Self::Cursor | Self::Search => Code::InvalidValue,
            Self::Store(error) => error.code(),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Cursor => Some("cursor"),
            Self::Search => Some("search"),
            Self::Store(_) => None,
        }
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Cursor | Self::Search => None,
            Self::Store(error) => error.retry_after(),
        }
    }
}

/// A value in a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Bind {
    Integer(i64),
    Text(String),
}

impl Bind {
    /// Whether a column can hold it: times and numbers of rows are numbers, all else is text, without NUL.
    fn fits(&self, column: &str) -> bool {
        let is_numeric = column.ends_with("at") || column.ends_with("seq");
        match self {
            Self::Integer(_) => is_numeric,
            Self::Text(text) => !is_numeric && !text.contains('\0'),
        }
    }
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Timestamp> for Bind {
    fn from(moment: Timestamp) -> Self {
        Self::Integer(moment.millis())
    }
}

/// A row that both databases can give.
pub(super) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
    /// The id that makes the order total.
    fn id(&self) -> Bind;

    /// The value of the column sorted by.
    fn sort_key(&self, column: &str) -> Bind;
}

/// A list being put together. The texts are ours; what comes from a client is bound.
pub(super) struct ListQuery {
    sql: String,
    binds: Vec<Bind>,
    search: Option<Search>,
    id_column: &'static str,
}

/// Most rows that one page of a search looks at: so that no search, of whatever, keeps the database busy for long.
const SEARCHED: i64 = 20_000;

/// Most characters that are looked for: databases refuse patterns that are very long.
const LONGEST_SEARCH: usize = 200;

/// A text, and the columns it is looked for in.
struct Search {
    columns: &'static [&'static str],
    text: String,
}

impl Search {
    fn condition(&self, query: &mut ListQuery) -> String {
        let place = query.bind(pattern(&self.text).as_str());
        let any = self.columns.iter().map(|column| format!("LOWER({column}) LIKE LOWER({place}) ESCAPE '!'"));
        any.collect::<Vec<_>>().join(" OR ")
    }
}

/// What `LIKE` finds a text by.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if "%_!".contains(character) {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

impl ListQuery {
    /// `select` ends in a `WHERE` with at least one condition.
    pub(super) fn new(select: &'static str, id_column: &'static str) -> Self {
        Self { sql: select.to_owned(), binds: Vec::new(), search: None, id_column }
    }

    fn bind(&mut self, value: impl Into<Bind>) -> String {
        self.binds.push(value.into());
        format!("${}", self.binds.len())
    }

    /// `condition` is such as `role = ?`; without a value it is left out.
    pub(super) fn filter(mut self, condition: &'static str, value: Option<impl Into<Bind>>) -> Self {
        if let Some(value) = value {
            let place = self.bind(value);
            self.sql.push_str(&format!(" AND {}", condition.replacen('?', &place, 1)));
        }
        self
    }

    /// Rows of which one of the columns contains the text, whatever its case (on SQLite, the case of ASCII letters alone);
    /// `%` and `_` are ordinary characters.
    pub(super) fn search(mut self, columns: &'static [&'static str], text: Option<&str>) -> Self {
        self.search = text.map(|text| Search { columns, text: text.to_owned() });
        self
    }

    /// Reads one page. For a search it looks at no more than [`SEARCHED`] rows; where that was not enough the page is
    /// short, and the next goes on from there.
    pub(super) async fn page<T: Row>(
        mut self,
        tx: &mut Tx,
        request: &ListRequest,
    ) -> Result<Page<T>, PageError> {
        let (comparison, direction) = match request.order {
            Order::Ascending => (">", "ASC"),
            Order::Descending => ("<", "DESC"),
        };
        let (column, id_column) = (request.sort, self.id_column);
        if self.search.as_ref().is_some_and(|search| search.text.chars().count() > LONGEST_SEARCH) {
            return Err(PageError::Search);
        }
        if let Some(cursor) = &request.cursor {
            let (key, id) = read_cursor(cursor, column, id_column)?;
            let (key, id) = (self.bind(key), self.bind(id));
            self.sql.push_str(&format!(" AND ({column}, {id_column}) {comparison} ({key}, {id})"));
        }
        self.sql.push_str(&format!(" ORDER BY {column} {direction}, {id_column} {direction}"));
        let last_searched = self.search.is_some().then(|| self.last_searched());
        if let Some(search) = self.search.take() {
            let condition = search.condition(&mut self);
            let order = format!("ORDER BY {column} {direction}, {id_column} {direction}");
            self.sql = format!(
                "SELECT * FROM ({} LIMIT {SEARCHED}) AS searched WHERE ({condition}) {order}",
                self.sql
            );
        }
        // One more than asked for, to know whether there is a next page.
        let limit = self.bind(i64::from(request.limit) + 1);
        self.sql.push_str(&format!(" LIMIT {limit}"));
        let mut items: Vec<T> = self.fetch(tx).await.map_err(StoreError::from)?;
        let more = items.len() > request.limit as usize;
        items.truncate(request.limit as usize);
        let cursor = |row: &T| cursor_after(column, row);
        let next = match last_searched {
            Some(query) if !more => query.fetch(tx).await.map_err(StoreError::from)?.first().map(cursor),
            _ => items.last().filter(|_| more).map(cursor),
        };
        Ok(Page { items, next })
    }

    /// The row at which a search ends though the list goes on; none if it does not.
    fn last_searched(&self) -> Self {
        let sql = format!("{} LIMIT 1 OFFSET {}", self.sql, SEARCHED - 1);
        Self { sql, binds: self.binds.clone(), search: None, id_column: self.id_column }
    }

    /// Reads sums: groups by the select list's `subject`.
    pub(super) async fn sums<T: Row>(mut self, tx: &mut Tx, limit: i64) -> Result<Vec<T>, sqlx::Error> {
        let limit = self.bind(limit);
        self.sql.push_str(&format!(" GROUP BY subject ORDER BY subject LIMIT {limit}"));
        self.fetch(tx).await
    }

    async fn fetch<T: Row>(&self, tx: &mut Tx) -> Result<Vec<T>, sqlx::Error> {
        on!(tx, connection => {
            let mut query = sqlx::query_as::<_, T>(AssertSqlSafe(self.sql.clone()));
            for bind in &self.binds {
                query = match bind {
                    Bind::Integer(number) => query.bind(*number),
                    Bind::Text(text) => query.bind(text.clone()),
                };
            }
            query.fetch_all(connection)
        })
    }
}

fn write_cursor(column: &str, key: &Bind, id: &Bind) -> String {
    let text = serde_json::to_string(&(column, key, id)).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(text)
}

/// The cursor of the page that begins after a row.
pub(super) fn cursor_after<T: Row>(column: &str, row: &T) -> String {
    write_cursor(column, &row.sort_key(column), &row.id())
}

/// The key and the id of a cursor. It comes from a client: whether it is one of ours is for it to show.
fn read_cursor(cursor: &str, column: &str, id_column: &str) -> Result<(Bind, Bind), PageError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| PageError::Cursor)?;
    let (of, key, id): (String, Bind, Bind) =
        serde_json::from_slice(&bytes).map_err(|_| PageError::Cursor)?;
    if of != column || !key.fits(column) || !id.fits(id_column) {
        return Err(PageError::Cursor);
    }
    Ok((key, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_serves_only_the_order_it_was_made_for() {
        let cursor = write_cursor("created_at", &Bind::Integer(7), &Bind::Text("usr_1".into()));
        assert_eq!(
            read_cursor(&cursor, "created_at", "id").expect("its own"),
            (Bind::Integer(7), Bind::Text("usr_1".into()))
        );
        assert!(read_cursor(&cursor, "username", "id").is_err());
        for text in ["", "x", "bnVsbA", "W10"] {
            assert!(read_cursor(text, "created_at", "id").is_err(), "{text}");
        }
        let (number, text, nul) = (Bind::Integer(7), Bind::Text("x".into()), Bind::Text("\0".into()));
        for (column, key, id_column, id) in [
            ("created_at", &text, "id", &text),
            ("created_at", &number, "id", &number),
            ("created_at", &number, "id", &nul),
            ("username", &number, "id", &text),
            ("username", &nul, "id", &text),
            ("seq", &number, "seq", &text),
        ] {
            let wrong = write_cursor(column, key, id);
            assert!(read_cursor(&wrong, column, id_column).is_err(), "{column} {key:?} {id:?}");
        }
        let of_numbers = write_cursor("seq", &number, &number);
        assert!(read_cursor(&of_numbers, "seq", "seq").is_ok());
    }
}
