//! Whether the audit is what was written: the chain of its rows, looked at link by link. Reads only.
//!
//! Each row carries the hash of the one before, and the end of the chain is kept apart from the rows. So a row that was
//! changed, taken out, moved or put in is found, and so is an end that was cut off. Somebody who can write to the database
//! can make all of it anew; that is found by a [`Checkpoint`] that was noted somewhere else before.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::store::audit::{self, AuditRow};
use crate::store::{Store, StoreError, Survey, Tx, users};

/// Rows read at once.
const STEP: i64 = 500;

/// A place in the chain that was noted earlier, written `SEQ:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The row.
    pub seq: i64,
    /// Its hash then.
    pub hash: String,
}

impl FromStr for Checkpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "must be SEQ:HASH, as verifying the audit gives it".to_owned();
        let (seq, hash) = text.split_once(':').ok_or_else(refused)?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seq = seq.parse().ok().filter(|seq| *seq > 0 && is_hash).ok_or_else(refused)?;
        Ok(Self { seq, hash: hash.to_ascii_lowercase() })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How the chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// What it says does not fit its hash.
    Changed,
    /// It does not follow the row before it.
    Unlinked,
    /// It is not there, and later ones are.
    Missing,
    /// It is not there, and none after it: the end was cut off.
    CutOff,
    /// It stands where no row can be, or behind the end of the chain.
    Inserted,
    /// It cannot be read.
    Unreadable,
    /// It is not the one that was noted earlier.
    Rewritten,
}

impl Flaw {
    /// What it means, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Changed => "was changed after it was written",
            Self::Unlinked => "does not follow the row before it: rows were exchanged",
            Self::Missing => "is missing",
            Self::CutOff => "and all after it are missing: the end was cut off",
            Self::Inserted => "was put in: the chain does not lead to it",
            Self::Unreadable => "cannot be read",
            Self::Rewritten => "is not the one that was noted earlier: the chain was made anew",
        }
    }
}

/// The first place where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// The number of the first row that is not as it was written.
    pub seq: i64,
    /// How.
    pub flaw: Flaw,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// How many rows are as they were written, from the first.
    pub sound: i64,
    /// The last of those; none if there is none. To be noted elsewhere.
    pub end: Option<Checkpoint>,
    /// Where it is broken, if it is.
    pub broken: Option<Break>,
}

/// Looks at the whole chain; rows that are added meanwhile are part of it. `earlier` is a place noted before.
///
/// # Errors
/// [`StoreError`] when the database cannot be read; a row that cannot be is part of the report.
pub async fn verify_chain(store: &Store, earlier: Option<&Checkpoint>) -> Result<ChainReport, StoreError> {
    let survey = store.survey().await?;
    let mut walk = Walk { survey: &survey, earlier, end: None };
    let broken = walk.whole().await?;
    let sound = walk.seq();
    Ok(ChainReport { sound, end: walk.end, broken })
}

/// A walk along the chain, as far as it is sound. Each step is a transaction of its own, so that a long walk keeps the
/// database from nothing.
struct Walk<'a> {
    survey: &'a Survey,
    earlier: Option<&'a Checkpoint>,
    end: Option<Checkpoint>,
}

impl Walk<'_> {
    /// The last row that is sound; 0 before the first.
    fn seq(&self) -> i64 {
        self.end.as_ref().map_or(0, |end| end.seq)
    }

    async fn whole(&mut self) -> Result<Option<Break>, StoreError> {
        let broken = self.walk_on().await?;
        if broken.is_some() {
            return Ok(broken);
        }
        // Read after the rows: at least all that were seen had been counted by then, and perhaps some more.
        let (mut seq, mut hash) = self.kept_end().await?;
        while seq > self.seq() {
            let before = self.seq();
            let broken = self.walk_on().await?;
            if broken.is_some() {
                return Ok(broken);
            }
            if self.seq() == before {
                return Ok(Some(Break { seq: before + 1, flaw: Flaw::CutOff }));
            }
            (seq, hash) = self.kept_end().await?;
        }
        if seq < self.seq() {
            return Ok(Some(Break { seq: seq + 1, flaw: Flaw::Inserted }));
        }
        if self.end.as_ref().map_or("", |end| end.hash.as_str()) != hash {
            return Ok(Some(Break { seq, flaw: Flaw::Changed }));
        }
        let beyond = self.earlier.filter(|earlier| earlier.seq > seq);
        Ok(beyond.map(|_| Break { seq: seq + 1, flaw: Flaw::CutOff }))
    }

    /// The end as it is kept apart from the rows. Where there ever was a user there was a first row.
    async fn kept_end(&self) -> Result<(i64, String), StoreError> {
        let mut tx = self.survey.step().await?;
        // Before the end: who is seen here was written with rows that are seen then.
        let has_begun = self.end.is_none() && users::count_ever(&mut tx).await? > 0;
        let (seq, hash) = audit::head_if_any(&mut tx).await?.unwrap_or_default();
        Ok((seq.max(i64::from(has_begun)), hash))
    }

    /// Goes on as long as there are rows.
    async fn walk_on(&mut self) -> Result<Option<Break>, StoreError> {
        loop {
            // Before the first, also what stands at numbers that no row has.
            let after = if self.end.is_none() { i64::MIN } else { self.seq() };
            let mut tx = self.survey.step().await?;
            let rows = match audit::after(&mut tx, after, STEP).await {
                Ok(rows) => rows,
                Err(StoreError::Damaged { .. }) => return self.walk_row_by_row(&mut tx, after).await,
                Err(error) => return Err(error),
            };
            drop(tx);
            if rows.is_empty() {
                return Ok(None);
            }
            for row in &rows {
                if let Err(broken) = self.step(row) {
                    return Ok(Some(broken));
                }
            }
        }
    }

    /// Row by row, to the one that cannot be read.
    async fn walk_row_by_row(&mut self, tx: &mut Tx, mut after: i64) -> Result<Option<Break>, StoreError> {
        loop {
            match audit::after(tx, after, 1).await {
                Ok(rows) => {
                    let Some(row) = rows.first() else { return Ok(None) };
                    if let Err(broken) = self.step(row) {
                        return Ok(Some(broken));
                    }
                    after = row.seq;
                }
                Err(StoreError::Damaged { .. }) => {
                    return Ok(Some(Break { seq: self.seq() + 1, flaw: Flaw::Unreadable }));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn step(&mut self, row: &AuditRow) -> Result<(), Break> {
        let expected = self.seq() + 1;
        let broken = |seq, flaw| Err(Break { seq, flaw });
        if row.seq < expected {
            return broken(row.seq, Flaw::Inserted);
        }
        if row.seq > expected {
            return broken(expected, Flaw::Missing);
        }
        if row.expected_hash() != row.hash {
            return broken(row.seq, Flaw::Changed);
        }
        if row.previous_hash != self.end.as_ref().map_or("", |end| end.hash.as_str()) {
            return broken(row.seq, Flaw::Unlinked);
        }
        if self.earlier.is_some_and(|earlier| earlier.seq == row.seq && earlier.hash != row.hash) {
            return broken(row.seq, Flaw::Rewritten);
        }
        self.end = Some(Checkpoint { seq: row.seq, hash: row.hash.clone() });
        Ok(())
    }
}
