//! The schema's steps (`migrations/`): which have been applied, and applying those that have not.

use secrecy::SecretString;
use sqlx::migrate::Migrator;

use crate::store::StoreError;
use crate::store::pool::{Database, Store, on};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// A step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
    /// Whether it has been applied.
    pub is_applied: bool,
}

impl Store {
    /// Brings the schema up to this version; gives the steps that were pending.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if the database was written by a newer version, or a step fails.
    pub async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        let pending = pending(self.migrations().await?);
        let done = match &*self.database {
            Database::Sqlite { lanes, .. } => SQLITE_MIGRATIONS.run(&lanes.write.pool).await,
            Database::Postgres(lanes) => POSTGRES_MIGRATIONS.run(&lanes.write.pool).await,
        };
        done.map_err(|error| StoreError::Schema(error.to_string()))?;
        Ok(pending)
    }

    /// All steps of the schema, and which of them have been applied.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if there are applied ones that this version does not know.
    pub async fn migrations(&self) -> Result<Vec<Migration>, StoreError> {
        const EXISTS_SQLITE: &str = "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
        const EXISTS_POSTGRES: &str = "SELECT COUNT(*) FROM pg_tables WHERE tablename = '_sqlx_migrations' AND schemaname = current_schema()";
        const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
        let (known, exists) = match &*self.database {
            Database::Sqlite { .. } => (&SQLITE_MIGRATIONS, EXISTS_SQLITE),
            Database::Postgres(_) => (&POSTGRES_MIGRATIONS, EXISTS_POSTGRES),
        };
        let mut tx = self.read().await?;
        let tables: i64 = on!(&mut tx, connection => sqlx::query_scalar(exists).fetch_one(connection))?;
        let applied: Vec<i64> = match tables {
            0 => Vec::new(),
            _ => on!(&mut tx, connection => sqlx::query_scalar(APPLIED).fetch_all(connection))?,
        };
        let newest = known.iter().map(|migration| migration.version).max().unwrap_or(0);
        if let Some(newer) = applied.iter().find(|version| **version > newest) {
            return Err(StoreError::Schema(format!(
                "it was written by a newer sconce (step {newer} is applied, and this version knows {newest}); use that \
                 version, or a backup from before it"
            )));
        }
        Ok(steps(known, &applied))
    }

    /// Makes sure that the schema is this version's, and changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Schema`].
    pub async fn require_current_schema(&self) -> Result<(), StoreError> {
        match pending(self.migrations().await?).len() {
            0 => Ok(()),
            steps => Err(StoreError::Schema(format!(
                "{steps} of its steps are not applied; start the server, or run `sconce migrate`"
            ))),
        }
    }

    /// The steps that are not applied to the database at this address. Changes nothing, and makes no file.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if there are applied ones that this version does not know.
    pub async fn pending_at(url: &SecretString) -> Result<Vec<Migration>, StoreError> {
        let store = match Self::open_existing(url).await {
            Ok(store) => store,
            Err(StoreError::Absent { .. }) => return Ok(steps(&SQLITE_MIGRATIONS, &[])),
            Err(error) => return Err(error),
        };
        let found = store.migrations().await;
        store.close().await;
        Ok(pending(found?))
    }
}

fn steps(known: &Migrator, applied: &[i64]) -> Vec<Migration> {
    let step = |migration: &sqlx::migrate::Migration| Migration {
        version: migration.version,
        description: migration.description.to_string(),
        is_applied: applied.contains(&migration.version),
    };
    known.iter().map(step).collect()
}

fn pending(steps: Vec<Migration>) -> Vec<Migration> {
    steps.into_iter().filter(|step| !step.is_applied).collect()
}
