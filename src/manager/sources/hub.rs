//! The Hugging Face hub, or a mirror of it, through its shared cache.
//!
//! The cache's layout (`models--OWNER--NAME/{blobs,refs,snapshots}`) is hf-hub's, so other programs find what sconce
//! fetched, and sconce what they did. The transfer is our own: hf-hub's neither verifies nor bounds what comes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::config::HubConfig;
use crate::manager::catalog::CatalogEntry;
use crate::manager::digest::sha256_of;
use crate::manager::file_name::FileName;
use crate::manager::shelf::{Manifest, ManifestFile, check_disk, lock_file, remove_all, sync_folder};
use crate::manager::source::{Repository, is_sha256};
use crate::manager::sources::address::TrustedHost;
use crate::manager::sources::client::{HttpClient, Relation};
use crate::manager::sources::download::{Downloaded, Downloader, address, linked_etag};
use crate::manager::sources::{
    LISTING_BYTES, LISTING_TIMEOUT, Listed, Means, RemoteFile, SourceError, choose, shards_with_pins,
};
use crate::manager::tally::Tally;

/// The hub and its cache.
pub(crate) struct Hub {
    endpoint: String,
    cache: Cache,
    offline: bool,
    relation: Relation,
}

/// A file to fetch, with its name in the repository.
struct Wanted {
    there: FileName,
    remote: RemoteFile,
}

impl Hub {
    /// `trusted` are the hosts that the operator vouches for; the endpoint's own is one of them.
    ///
    /// # Errors
    /// In words, if the endpoint is no address.
    pub(crate) fn new(config: &HubConfig, trusted: &[TrustedHost]) -> Result<Self, String> {
        let url: Url = config.endpoint.parse().map_err(|error| format!("`{}`: {error}", config.endpoint))?;
        let own = TrustedHost::of(&url).ok_or_else(|| format!("`{}` has no host", config.endpoint))?;
        let trusted = trusted.iter().cloned().chain([own]).collect();
        Ok(Self {
            endpoint: config.endpoint.clone(),
            cache: Cache::new(config.cache.clone()),
            offline: config.offline,
            relation: Relation { trusted, token: config.token.clone() },
        })
    }

    /// Its address.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether a path lies in the cache.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        path.starts_with(self.cache.path())
    }

    fn repo(&self, repository: &Repository) -> (Repo, CacheRepo) {
        let repo = Repo::with_revision(repository.name.clone(), RepoType::Model, repository.revision.clone());
        (repo.clone(), self.cache.repo(repo))
    }

    /// The model from the cache, if all its files are there and have their pins.
    ///
    /// # Errors
    /// [`SourceError::Wrong`] if a file there is not what it should be, [`SourceError::Disk`].
    pub(crate) async fn cached(
        &self,
        repository: &Repository,
        entry: &CatalogEntry,
    ) -> Result<Option<Manifest>, SourceError> {
        let Some(snapshot) = self.snapshot(repository) else { return Ok(None) };
        let names = match (&repository.file, entry.files.as_slice()) {
            (Some(file), pins) => {
                shards_with_pins(file, pins)?.into_iter().map(|file| (file.there, file.pin)).collect()
            }
            (None, []) => match list_folder(&snapshot) {
                Some(files) => files.into_iter().map(|name| (name, None)).collect(),
                None => return Ok(None),
            },
            (None, pins) => pins.iter().map(|pin| (pin.path.clone(), Some(pin))).collect::<Vec<_>>(),
        };
        let mut files = Vec::new();
        for (name, pin) in names {
            let path = snapshot.join(name.to_path());
            if !path.is_file() {
                return Ok(None);
            }
            let sha256 = sha256_of(&path).await.map_err(SourceError::disk(path.display().to_string()))?;
            if let Some(pin) = pin.filter(|pin| pin.sha256 != sha256) {
                let reason =
                    format!("{name} in the hub's cache: its SHA-256 is {sha256}, not {}", pin.sha256);
                return Err(SourceError::Wrong(reason));
            }
            files.push(
                ManifestFile::verified(path.clone(), &path, sha256).map_err(SourceError::disk("cache"))?,
            );
        }
        Ok(Some(manifest(repository, snapshot, files)))
    }

    /// The folder of the revision, if the cache knows it.
    fn snapshot(&self, repository: &Repository) -> Option<PathBuf> {
        let (_, cache) = self.repo(repository);
        let direct = cache.pointer_path(&repository.revision);
        if is_commit(&repository.revision) && direct.is_dir() {
            return Some(direct);
        }
        let reference = self.folder(repository).join("refs").join(&repository.revision);
        let commit = std::fs::read_to_string(reference).ok()?;
        let commit = Some(commit.trim()).filter(|commit| is_commit(commit))?;
        Some(cache.pointer_path(commit)).filter(|path| path.is_dir())
    }

    fn folder(&self, repository: &Repository) -> PathBuf {
        let (repo, _) = self.repo(repository);
        self.cache.path().join(repo.folder_name())
    }

    /// Fetches the model into the cache.
    ///
    /// # Errors
    /// [`SourceError`] of every kind.
    pub(crate) async fn fetch(
        &self,
        repository: &Repository,
        entry: &CatalogEntry,
        means: &Means<'_>,
        tally: &mut Tally,
    ) -> Result<Manifest, SourceError> {
        if self.offline {
            return Err(SourceError::Offline);
        }
        let wanted = self.wanted(repository, entry, means.client).await?;
        let total = wanted.iter().map(|file| file.remote.bytes).sum::<Option<u64>>();
        let folder = self.folder(repository);
        let partial = folder.join(".sconce-partial");
        std::fs::create_dir_all(&partial).map_err(SourceError::disk(partial.display().to_string()))?;
        let _lock =
            lock_file(&partial.join("lock"), || tally.notice("another process is fetching it; waiting"))
                .await
                .map_err(SourceError::disk("lock"))?;
        if total.is_some_and(|bytes| bytes > means.max_bytes) {
            return Err(SourceError::Refused("it is larger than `max-download`".into()));
        }
        tally.expect(wanted.len(), total);
        let downloader = Downloader { means, relation: &self.relation, etag_is_sha256: true };
        let mut missing = total;
        let mut files = Vec::new();
        let mut snapshot = None;
        for file in &wanted {
            tally.file(file.there.as_str());
            let (folder, path, sha256) = match self.already(repository, file).await {
                Some(there) => there,
                None => {
                    if let Some(bytes) = missing {
                        check_disk(&partial, bytes.saturating_sub(folder_bytes(&partial)))
                            .map_err(SourceError::NoRoom)?;
                    }
                    let half = partial.join(&repository.revision);
                    let downloaded = downloader.fetch(&file.remote, &half, tally).await?;
                    let commit = commit_of(&downloaded.headers, repository)?;
                    let (folder, path) = self.place(repository, &commit, &file.there, &downloaded)?;
                    (folder, path, downloaded.sha256)
                }
            };
            let noted =
                ManifestFile::verified(path.clone(), &path, sha256).map_err(SourceError::disk("cache"))?;
            tally.at(noted.bytes);
            missing = missing.map(|missing| missing.saturating_sub(noted.bytes));
            files.push(noted);
            if *snapshot.get_or_insert_with(|| folder.clone()) != folder {
                return Err(SourceError::Wrong("the revision moved while it was fetched; try again".into()));
            }
        }
        remove_all(&partial.join(&repository.revision)).map_err(SourceError::disk("half files"))?;
        let snapshot = snapshot.ok_or_else(|| SourceError::Refused("it has no files".into()))?;
        Ok(manifest(repository, snapshot, files))
    }

    /// A file that an earlier try, or another program, put into the cache: its snapshot, its path and its SHA-256, if
    /// that is what it must be.
    async fn already(&self, repository: &Repository, file: &Wanted) -> Option<(PathBuf, PathBuf, String)> {
        let expected = file.remote.sha256.as_ref()?;
        let snapshot = self.snapshot(repository)?;
        let path = snapshot.join(file.there.to_path());
        let sha256 = sha256_of(&path).await.ok().filter(|sha256| sha256 == expected)?;
        Some((snapshot, path, sha256))
    }

    /// Which files make up the model, and where they are.
    async fn wanted(
        &self,
        repository: &Repository,
        entry: &CatalogEntry,
        client: &HttpClient,
    ) -> Result<Vec<Wanted>, SourceError> {
        let remote = |there: FileName, bytes: Option<u64>, sha256: Option<String>| {
            let (repo, _) = self.repo(repository);
            let path = format!("{}/resolve/{}/{}", repo.url(), repo.url_revision(), escape(there.as_str()));
            let url = address(&self.endpoint, &path)?;
            Ok(Wanted { remote: RemoteFile { name: there.clone(), url, bytes, sha256 }, there })
        };
        if let Some(file) = &repository.file {
            let shards = shards_with_pins(file, &entry.files)?;
            return shards
                .into_iter()
                .map(|file| {
                    let (bytes, sha256) = file.pinned();
                    remote(file.there, bytes, sha256)
                })
                .collect();
        }
        if !entry.files.is_empty() {
            let pins = entry.files.iter();
            return pins.map(|pin| remote(pin.path.clone(), pin.bytes, Some(pin.sha256.clone()))).collect();
        }
        let chosen = choose(self.list(repository, client).await?)?;
        chosen.into_iter().map(|file| remote(file.name, file.bytes, file.sha256)).collect()
    }

    async fn list(&self, repository: &Repository, client: &HttpClient) -> Result<Vec<Listed>, SourceError> {
        let (repo, _) = self.repo(repository);
        let mut url = address(&self.endpoint, &format!("api/{}", repo.api_url()))?;
        url.query_pairs_mut().append_pair("blobs", "true");
        let info: Info = json(client, &url, &self.relation).await?;
        let files = info.siblings.into_iter().filter_map(|sibling| {
            // A name that is no plain file name is nothing a model needs.
            let name = sibling.rfilename.parse().ok()?;
            let (lfs_bytes, sha256) = sibling.lfs.map_or((None, None), |lfs| (lfs.size, lfs.sha256));
            Some(Listed {
                name,
                bytes: lfs_bytes.or(sibling.size),
                sha256: sha256.filter(|text| is_sha256(text)),
            })
        });
        Ok(files.collect())
    }

    /// Puts a verified file into the cache: content under its name, a link to it in the snapshot.
    fn place(
        &self,
        repository: &Repository,
        commit: &str,
        name: &FileName,
        downloaded: &Downloaded,
    ) -> Result<(PathBuf, PathBuf), SourceError> {
        let (_, cache) = self.repo(repository);
        let etag = linked_etag(&downloaded.headers).unwrap_or_else(|| downloaded.sha256.clone());
        let snapshot = cache.pointer_path(commit);
        let place = || {
            let blob = cache.blob_path(&etag);
            let pointer = snapshot.join(name.to_path());
            let blobs = blob.parent().unwrap_or(&blob);
            let beside = pointer.parent().unwrap_or(&pointer);
            std::fs::create_dir_all(blobs)?;
            std::fs::create_dir_all(beside)?;
            std::fs::rename(&downloaded.path, &blob)?;
            if std::fs::symlink_metadata(&pointer).is_ok() {
                std::fs::remove_file(&pointer)?;
            }
            link(&blob, &pointer, name.as_str().split('/').count(), &etag)?;
            sync_folder(blobs)?;
            if !is_commit(&repository.revision) {
                cache.create_ref(commit)?;
            }
            Ok(pointer)
        };
        let pointer = place().map_err(SourceError::disk(snapshot.display().to_string()))?;
        Ok((snapshot, pointer))
    }
}

/// A link as the hub's own clients make it: relative, from `snapshots/COMMIT/…` to `blobs/`.
fn link(blob: &Path, pointer: &Path, depth: usize, etag: &str) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let _ = blob;
        let up = "../".repeat(depth + 1);
        std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), pointer)
    }
    #[cfg(not(unix))]
    {
        let _ = (depth, etag);
        std::fs::hard_link(blob, pointer)
    }
}

fn manifest(repository: &Repository, snapshot: PathBuf, files: Vec<ManifestFile>) -> Manifest {
    let model = match &repository.file {
        Some(file) => snapshot.join(file.shards().first().unwrap_or(file).to_path()),
        None => snapshot,
    };
    Manifest { source: format!("hf:{repository}"), model, files }
}

/// The commit that a file came from; it must be the one that was asked for, if one was.
fn commit_of(headers: &HeaderMap, repository: &Repository) -> Result<String, SourceError> {
    let named =
        headers.get("x-repo-commit").and_then(|value| value.to_str().ok()).filter(|text| is_commit(text));
    match named {
        Some(commit) if is_commit(&repository.revision) && commit != repository.revision => {
            Err(SourceError::Wrong(format!("it sent revision {commit}")))
        }
        Some(commit) => Ok(commit.to_owned()),
        None if is_commit(&repository.revision) => Ok(repository.revision.clone()),
        None => Err(SourceError::Refused("it does not say which revision it sent: is it a hub?".into())),
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Percent-encodes what may not stand in the path of an address.
fn escape(path: &str) -> String {
    use std::fmt::Write;
    path.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// The files of a cached snapshot that make up a model.
fn list_folder(snapshot: &Path) -> Option<Vec<FileName>> {
    let mut listing = Vec::new();
    let folders = std::iter::once(snapshot.to_owned()).chain(
        std::fs::read_dir(snapshot)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir()),
    );
    for folder in folders {
        for entry in std::fs::read_dir(folder).ok()? {
            let path = entry.ok()?.path();
            let relative = path.strip_prefix(snapshot).ok()?.to_string_lossy().replace('\\', "/");
            if let (true, Ok(name)) = (path.is_file(), relative.parse()) {
                listing.push(Listed { name, bytes: None, sha256: None });
            }
        }
    }
    let has = |name: &str| listing.iter().any(|file| file.name.as_str() == name);
    let is_whole =
        has("config.json") && has("tokenizer.json") && indexed(snapshot)?.iter().all(|name| has(name));
    let chosen = choose(listing).ok().filter(|_| is_whole)?;
    Some(chosen.into_iter().map(|file| file.name).collect())
}

/// The weight files that a sharded model's index names; other programs may have fetched some of them only.
fn indexed(snapshot: &Path) -> Option<Vec<String>> {
    let path = snapshot.join("model.safetensors.index.json");
    if !path.exists() {
        return Some(Vec::new());
    }
    let is_small = std::fs::metadata(&path).ok()?.len() <= LISTING_BYTES as u64;
    if !is_small {
        return None;
    }
    let index: Index = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    Some(index.weight_map.into_values().collect())
}

/// Bytes of all files below a folder.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { folder_bytes(&entry.path()) } else { metadata.len() })
    });
    sizes.fold(0, u64::saturating_add)
}

/// Asks for a small JSON document.
pub(crate) async fn json<T: for<'a> Deserialize<'a>>(
    client: &HttpClient,
    url: &Url,
    relation: &Relation,
) -> Result<T, SourceError> {
    let ask = async {
        let mut response = client.get(url, &HeaderMap::new(), relation).await?.response;
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| SourceError::Unreachable(super::client::cause(&error)))?
        {
            if body.len() + chunk.len() > LISTING_BYTES {
                return Err(SourceError::Refused("its list of files is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body)
            .map_err(|error| SourceError::Refused(format!("its list of files is damaged: {error}")))
    };
    match tokio::time::timeout(LISTING_TIMEOUT, ask).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(SourceError::Unreachable(format!("no list of files within {} s", LISTING_TIMEOUT.as_secs())))
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Info {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}
