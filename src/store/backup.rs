//! A SQLite database copied whole while it is in use, and a copy put in its place while it is not. PostgreSQL has its own
//! tools for both.
//!
//! The one thing to know: nothing is lost on the way. A backup gets its name when it is on the disk, whole; what it
//! replaces stays beside it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use sqlx::sqlite::SqliteJournalMode;
use sqlx::{Connection, SqliteConnection};

use crate::store::pool::{Database, sqlite_file, sqlite_options};
use crate::store::{ServingLock, Store, StoreError};

/// How long the database may be in use by somebody before it is not replaced.
const PATIENCE: Duration = Duration::from_secs(2);

/// What SQLite keeps beside a database.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Why a database was not copied, or not replaced.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Not for this program to do.
    #[error(
        "this is for SQLite; PostgreSQL has its own: `pg_dump --format=custom --file=FILE URL` makes a backup, \
         `pg_restore --clean --if-exists --dbname=URL FILE` puts it back, all servers stopped"
    )]
    NotSqlite,
    /// Nothing is overwritten.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not a backup, or not a good one.
    #[error("{} cannot be restored: {reason}", path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody works with the database.
    #[error("the database {} is in use; end what uses it first", .0.display())]
    InUse(PathBuf),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

impl Store {
    /// Copies the database as it is at one moment into a new file, which nobody else may read. Others go on writing.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn backup(&self, file: &Path) -> Result<(), BackupError> {
        let Database::Sqlite { lanes, .. } = &*self.database else { return Err(BackupError::NotSqlite) };
        // Takes the name, so that it is nobody else's meanwhile.
        new_file(file).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(file.to_owned()),
            _ => BackupError::File { path: file.to_owned(), source },
        })?;
        let partial = beside(file, ".partial");
        let copied = async {
            let _ = std::fs::remove_file(&partial);
            new_file(&partial).map_err(at(&partial))?;
            let target =
                partial.to_str().ok_or_else(|| at(&partial)(io::ErrorKind::InvalidFilename.into()))?;
            let copies = sqlx::query("VACUUM INTO $1").bind(target).execute(&lanes.long.pool);
            copies.await.map_err(StoreError::from)?;
            sync(&partial)?;
            std::fs::rename(&partial, file).map_err(at(file))?;
            sync_folder(file)
        };
        let copied = copied.await;
        if copied.is_err() {
            let _ = (std::fs::remove_file(&partial), std::fs::remove_file(file));
        }
        copied
    }
}

/// A backup that was copied beside the database, checked, and brought to this version's schema; not yet in its place.
/// Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct Replacement {
    target: PathBuf,
    copy: PathBuf,
    store: Store,
    /// No server starts meanwhile.
    _lock: ServingLock,
}

impl Drop for Replacement {
    fn drop(&mut self) {
        remove_database(&self.copy);
    }
}

impl Replacement {
    /// Copies and checks a backup. The database it is for need not be there.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn prepare(url: &SecretString, file: &Path) -> Result<Self, BackupError> {
        let target = sqlite_file(url)?.ok_or(BackupError::NotSqlite)?;
        let not_a_backup = |reason: String| BackupError::NotABackup { path: file.to_owned(), reason };
        let is_torn = |companion: &str| beside(file, companion).metadata().is_ok_and(|found| found.len() > 0);
        if let Some(companion) = COMPANIONS.iter().find(|companion| is_torn(companion)) {
            return Err(not_a_backup(format!(
                "beside it lies a file that ends in `{companion}`: it is a database in use, or was copied while it was. \
                 `sconce backup` makes copies that are whole"
            )));
        }
        if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let lock = ServingLock::take(&target)?;
        let copy = beside(&target, ".restoring");
        remove_database(&copy);
        let checked = async {
            copy_file(file, &copy)?;
            let complaint = complaint(&copy).await.map_err(|error| not_a_backup(error.to_string()))?;
            if let Some(complaint) = complaint {
                return Err(not_a_backup(complaint));
            }
            let url = SecretString::from(format!("sqlite://{}", copy.display()));
            let store = Store::open(&url).await?;
            store.migrate().await.map_err(|error| not_a_backup(error.to_string()))?;
            Ok(store)
        };
        match checked.await {
            Ok(store) => Ok(Self { target, copy, store, _lock: lock }),
            Err(error) => {
                remove_database(&copy);
                Err(error)
            }
        }
    }

    /// The copy, for what is to be noted in it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The database that is going to be replaced, if there is one that can be read.
    pub async fn replaced(&self) -> Option<Store> {
        let url = SecretString::from(format!("sqlite://{}", self.target.display()));
        let store = Store::open_existing(&url).await.ok()?;
        if store.require_current_schema().await.is_ok() {
            return Some(store);
        }
        store.close().await;
        None
    }

    /// Puts the copy in the database's place; gives where the old one now is.
    ///
    /// # Errors
    /// [`BackupError::InUse`], [`BackupError::File`]; then the old one is in its place.
    pub async fn install(self) -> Result<Option<PathBuf>, BackupError> {
        self.store.close().await;
        // All is in the one file now: the last connection took the rest into it.
        sync(&self.copy)?;
        let old = if self.target.exists() { Some(self.set_aside().await?) } else { None };
        std::fs::rename(&self.copy, &self.target).map_err(at(&self.target))?;
        sync_folder(&self.target)?;
        Ok(old)
    }

    /// Gives the old database a second name, once nobody uses it.
    async fn set_aside(&self) -> Result<PathBuf, BackupError> {
        let kept = free_name(&beside(&self.target, ".before-restore"));
        let Some(held) = hold(&self.target).await? else {
            // It cannot be read any more: what lies beside it may be of use to somebody.
            for companion in COMPANIONS {
                let (from, to) = (beside(&self.target, companion), beside(&kept, companion));
                if from.exists() {
                    std::fs::rename(&from, to).map_err(at(&from))?;
                }
            }
            self.name_too(&kept)?;
            return Ok(kept);
        };
        self.name_too(&kept)?;
        // All is in the one file now. What lies beside it says nothing, and would make it look like half a database.
        for companion in COMPANIONS {
            let _ = std::fs::remove_file(beside(&self.target, companion));
        }
        held.close().await.map_err(StoreError::from)?;
        Ok(kept)
    }

    /// Gives the old database this name too: where a file can have two, there is at no time none. A server that starts then
    /// would make a new database.
    fn name_too(&self, kept: &Path) -> Result<(), BackupError> {
        if std::fs::hard_link(&self.target, kept).is_err() {
            std::fs::rename(&self.target, kept).map_err(at(&self.target))?;
        }
        Ok(())
    }
}

/// Holds a database that nobody else has open, and has all of it in its one file. None for one that cannot be read.
async fn hold(path: &Path) -> Result<Option<SqliteConnection>, BackupError> {
    let options = sqlite_options(path).busy_timeout(PATIENCE).pragma("locking_mode", "EXCLUSIVE");
    // It can only be changed by whoever is alone.
    let options = options.journal_mode(SqliteJournalMode::Delete);
    let in_use = || BackupError::InUse(path.to_owned());
    let held = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await?;
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await?;
        Ok((connection, mode))
    };
    match held.await.map_err(|error: sqlx::Error| StoreError::from(error)) {
        Ok((connection, mode)) if mode == "delete" => Ok(Some(connection)),
        Ok(_) | Err(StoreError::Busy) => Err(in_use()),
        Err(_) => Ok(None),
    }
}

/// What is wrong with a database's file; none if it is whole.
async fn complaint(path: &Path) -> Result<Option<String>, StoreError> {
    let options = sqlite_options(path).pragma("trusted_schema", "OFF");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let check: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
    if check != "ok" {
        return Ok(Some(format!("it is damaged: {check}")));
    }
    let loose = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut connection).await?;
    if loose.is_some() {
        return Ok(Some("it is damaged: a row belongs to one that is not there".into()));
    }
    const OURS: &str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name IN ('_sqlx_migrations', 'audit_head', 'users')";
    let ours: i64 = sqlx::query_scalar(OURS).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok((ours != 3).then(|| "it is no database of sconce's".to_owned()))
}

/// Makes an empty file that nobody else may read, if there is none of that name.
fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn copy_file(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut source = File::open(from).map_err(at(from))?;
    let mut target = new_file(to).map_err(at(to))?;
    io::copy(&mut source, &mut target).map_err(at(to))?;
    Ok(())
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}

/// Makes a rename last.
fn sync_folder(of: &Path) -> Result<(), BackupError> {
    let folder = match of.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    sync(folder)
}

fn remove_database(path: &Path) {
    let _ = std::fs::remove_file(path);
    for companion in COMPANIONS {
        let _ = std::fs::remove_file(beside(path, companion));
    }
}

/// The path with something added to the name.
fn beside(path: &Path, added: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(added);
    PathBuf::from(name)
}

/// This name, or the first with a number that is free.
fn free_name(path: &Path) -> PathBuf {
    let numbered = (2..).map(|number| beside(path, &format!(".{number}")));
    let mut names = std::iter::once(path.to_owned()).chain(numbered);
    names.find(|name| !name.exists()).unwrap_or_else(|| path.to_owned())
}
