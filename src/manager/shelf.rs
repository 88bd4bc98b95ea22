//! The data folder's layout: where verified models stand, where half files wait, and what is known of each.
//!
//! ```text
//! models/KEY/…            a complete, verified model, and its manifest.json
//! partial/KEY/…           half files; never looked at by a loader
//! quarantine/…            the last file whose content was not what it should be
//! locks/KEY.lock          held while a model is fetched, against other processes
//! ```
//!
//! A model stands in `models/` only after all its files were verified: the folder is renamed into place.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::Size;
use crate::manager::catalog::PinnedFile;

const MANIFEST: &str = "manifest.json";
/// Room that must remain on the disk beside a download.
const DISK_RESERVE: u64 = 64 << 20;

/// The data folder.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    root: PathBuf,
}

/// What is known of a model whose files have been verified.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Where it came from.
    pub source: String,
    /// What a loader is given: a file or folder. Relative to the model's folder, or absolute (in the hub's cache).
    pub model: PathBuf,
    /// Its files.
    pub files: Vec<ManifestFile>,
}

/// A file that was verified, and how it looked then: as long as it looks the same it is not read again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ManifestFile {
    /// Relative to the model's folder, or absolute.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: u64,
    /// Of its content.
    pub sha256: String,
}

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// What a loader is given: a file or folder.
    pub path: PathBuf,
    /// Bytes of its files, where they can be told.
    pub bytes: Option<u64>,
}

/// Held while a model is fetched.
#[derive(Debug)]
pub(super) struct FetchLock {
    _file: File,
}

impl Shelf {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        for folder in ["models", "partial", "locks"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root })
    }

    /// Where a complete model stands.
    pub(super) fn model_folder(&self, key: &str) -> PathBuf {
        self.root.join("models").join(key)
    }

    /// Where its half files wait.
    pub(super) fn partial_folder(&self, key: &str) -> PathBuf {
        self.root.join("partial").join(key)
    }

    /// What a loader may be given, if the model is here, has all of `pins`, and looks as it did when it was verified.
    pub(super) fn find(&self, key: &str, pins: &[PinnedFile]) -> Option<Standing> {
        let folder = self.model_folder(key);
        let text = std::fs::read(folder.join(MANIFEST)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        let has = |pin: &PinnedFile| manifest.files.iter().any(|file| file.sha256 == pin.sha256);
        let unchanged = |file: &ManifestFile| {
            look(&folder.join(&file.path)).is_ok_and(|now| now == (file.bytes, file.modified))
        };
        let whole = pins.iter().all(has) && manifest.files.iter().all(unchanged);
        let bytes = manifest.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        whole.then(|| Standing { path: below(&folder, &manifest.model), bytes: Some(bytes) })
    }

    /// Puts a verified folder in place of whatever stood there. `files` are relative to `folder`.
    pub(super) fn put(&self, key: &str, folder: &Path, manifest: &Manifest) -> io::Result<PathBuf> {
        let target = self.model_folder(key);
        write_synced(&folder.join(MANIFEST), &serde_json::to_vec_pretty(manifest)?)?;
        sync_folder(folder)?;
        if target.exists() {
            let old = self.partial_folder(&format!("{key}.old"));
            remove_all(&old)?;
            std::fs::rename(&target, &old)?;
            remove_all(&old)?;
        }
        std::fs::rename(folder, &target)?;
        sync_folder(&self.root.join("models"))?;
        Ok(below(&target, &manifest.model))
    }

    /// Notes a verified model that stands elsewhere.
    pub(super) fn note(&self, key: &str, manifest: &Manifest) -> io::Result<PathBuf> {
        let folder = self.partial_folder(&format!("{key}.note"));
        remove_all(&folder)?;
        std::fs::create_dir_all(&folder)?;
        self.put(key, &folder, manifest)
    }

    /// Moves a file whose content is wrong out of the way; only the last one is kept.
    pub(super) fn quarantine(&self, file: &Path) -> io::Result<()> {
        let folder = self.root.join("quarantine");
        remove_all(&folder)?;
        std::fs::create_dir_all(&folder)?;
        let name = file.file_name().unwrap_or_default();
        std::fs::rename(file, folder.join(name)).or_else(|_| std::fs::remove_file(file))
    }

    /// Waits until no other process fetches this model. `waiting` is called once if it must wait.
    pub(super) async fn lock(&self, key: &str, waiting: impl FnOnce()) -> io::Result<FetchLock> {
        lock_file(&self.root.join("locks").join(format!("{key}.lock")), waiting).await
    }
}

/// `folder/model`, or `folder` itself for an empty name.
fn below(folder: &Path, model: &Path) -> PathBuf {
    if model.as_os_str().is_empty() { folder.to_owned() } else { folder.join(model) }
}

/// Locks a file against other processes; the lock ends with the value, or with the process.
pub(super) async fn lock_file(path: &Path, waiting: impl FnOnce()) -> io::Result<FetchLock> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let mut waiting = Some(waiting);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(FetchLock { _file: file }),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {
                if let Some(tell) = waiting.take() {
                    tell();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

impl ManifestFile {
    /// Notes a file whose digest is known already.
    pub(super) fn verified(path: PathBuf, at: &Path, sha256: String) -> io::Result<Self> {
        let (bytes, modified) = look(at)?;
        Ok(Self { path, bytes, modified, sha256 })
    }
}

fn look(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    std::fs::write(path, content)?;
    File::open(path)?.sync_all()
}

/// Makes renames and new files in a folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a folder and what is in it, if it is there.
pub(super) fn remove_all(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes that can be written to the disk that `folder` is on; none where it cannot be told.
pub fn free_disk(folder: &Path) -> Option<u64> {
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Refuses to begin what cannot end.
pub(super) fn check_disk(folder: &Path, bytes: u64) -> Result<(), String> {
    let Some(free) = free_disk(folder) else { return Ok(()) };
    if free >= bytes.saturating_add(DISK_RESERVE) {
        return Ok(());
    }
    Err(format!(
        "the disk has {} left, {} more are needed",
        Size(free),
        Size(bytes.saturating_add(DISK_RESERVE))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(shelf: &Shelf, content: &str) -> PathBuf {
        let partial = shelf.partial_folder("m");
        std::fs::create_dir_all(&partial).unwrap();
        let file = partial.join("a.gguf");
        std::fs::write(&file, content).unwrap();
        let sha256 = crate::manager::digest::read_and_hash(&file).unwrap();
        let files = vec![ManifestFile::verified("a.gguf".into(), &file, sha256).unwrap()];
        shelf.put("m", &partial, &Manifest { source: "test".into(), model: "a.gguf".into(), files }).unwrap()
    }

    #[test]
    fn a_model_is_found_while_it_looks_as_it_did_when_it_was_verified() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        assert_eq!(shelf.find("m", &[]), None);
        let model = stand(&shelf, "one");
        let standing = Standing { path: model.clone(), bytes: Some(3) };
        assert_eq!(shelf.find("m", &[]), Some(standing));
        assert!(!shelf.partial_folder("m").exists());

        let pin = |sha256: &str| PinnedFile {
            path: "a.gguf".parse().unwrap(),
            bytes: Some(3),
            sha256: sha256.into(),
        };
        let right = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
        assert!(shelf.find("m", &[pin(right)]).is_some());
        assert!(shelf.find("m", &[pin(&"0".repeat(64))]).is_none());

        std::fs::write(&model, "changed").unwrap();
        assert_eq!(shelf.find("m", &[]), None);
        assert_eq!(shelf.find("m", &[]), None);
        stand(&shelf, "two");
        assert!(shelf.find("m", &[]).is_some());
        std::fs::remove_file(&model).unwrap();
        assert_eq!(shelf.find("m", &[]), None);
    }

    #[test]
    fn a_full_disk_is_seen_before_the_download() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_disk(folder.path(), 1).is_ok());
        let reason = check_disk(&folder.path().join("not/there/yet"), u64::MAX / 2).unwrap_err();
        assert!(reason.contains("the disk has"), "{reason}");
    }

    #[tokio::test]
    async fn two_fetchers_of_one_model_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        let first = shelf.lock("m", || panic!("nobody else is there")).await.unwrap();
        let (told, hears) = tokio::sync::oneshot::channel();
        let second = tokio::spawn({
            let shelf = shelf.clone();
            async move { shelf.lock("m", || told.send(()).unwrap()).await.map(drop) }
        });
        hears.await.unwrap();
        drop(first);
        second.await.unwrap().unwrap();
    }
}
