//! One server to a SQLite file. Several would wait for each other at every write; they are what PostgreSQL is for.
//!
//! A lock on a file beside the database, held by the open file: it ends with the process, however that ends. Commands that
//! work beside a server do not take it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::store::{Store, StoreError};

/// Held as long as a server uses the database, or somebody replaces it.
#[derive(Debug)]
pub struct ServingLock {
    _file: File,
}

impl Store {
    /// Takes the database for this server alone, where it cannot be shared; on PostgreSQL there is nothing to take.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another server has it.
    pub fn lock_for_serving(&self) -> Result<Option<ServingLock>, StoreError> {
        self.file().map(ServingLock::take).transpose()
    }
}

impl ServingLock {
    /// Takes the lock of a database's file.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        // Whatever links lead to it.
        let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
        let refused = |error: std::io::Error| {
            StoreError::Url(format!("({}) cannot be locked: {error}", database.display()))
        };
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(lock_file(&database)).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::InUse { path: database, process: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(refused)?;
        writeln!(file, "{}", std::process::id()).map_err(refused)?;
        Ok(Self { _file: file })
    }
}

fn lock_file(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("a.db");
        std::fs::write(&database, "").expect("a file");
        let linked = folder.path().join("b.db");
        std::os::unix::fs::symlink(&database, &linked).expect("a link");
        let first = ServingLock::take(&database).expect("it is free");
        let Err(StoreError::InUse { process, .. }) = ServingLock::take(&linked) else {
            panic!("taken twice")
        };
        assert_eq!(process, Some(std::process::id()));
        drop(first);
        assert!(ServingLock::take(&database).is_ok());
    }
}
