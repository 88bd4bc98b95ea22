//! The catalogue: names for models, where each can be had, and what its files must be.
//!
//! Built in (`models/catalog.toml`), with the operator's entries before it. Nothing is fetched here.

use std::path::Path;

use sconce_models::ModelKind;
use serde::Deserialize;

use crate::config::is_model_id;
use crate::manager::file_name::FileName;
use crate::manager::sampling::SamplingDefaults;
use crate::manager::source::{Source, is_sha256};

const BUILT_IN: &str = include_str!("../../models/catalog.toml");

/// A file that a model consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedFile {
    /// Its name inside the model.
    pub path: FileName,
    /// Its size, if that is known too.
    pub bytes: Option<u64>,
    /// SHA-256 of its content, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl PinnedFile {
    /// Checks the words for a pin.
    ///
    /// # Errors
    /// In words, if the name is no plain file name or the digest no SHA-256.
    pub fn new(path: &str, bytes: Option<u64>, sha256: &str) -> Result<Self, String> {
        let sha256 = sha256.to_ascii_lowercase();
        if !is_sha256(&sha256) {
            let shown: String = sha256.chars().take(80).flat_map(char::escape_default).collect();
            return Err(format!("`{shown}` is not a SHA-256"));
        }
        Ok(Self { path: path.parse()?, bytes, sha256 })
    }
}

/// A model that has a name.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogEntry {
    /// The name clients ask for.
    pub id: String,
    /// Names its place on disk, whatever it is served as.
    pub key: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What it does, if that is known before it is loaded.
    pub kind: Option<ModelKind>,
    /// Whether it is served when nobody names a model.
    pub is_default: bool,
    /// One line for people.
    pub description: String,
    /// Licence of the weights.
    pub license: String,
    /// Where to get it, tried in this order.
    pub sources: Vec<Source>,
    /// What its files must be; empty if that is not known.
    pub files: Vec<PinnedFile>,
    /// How to sample where neither the request nor the model's files say.
    pub sampling: SamplingDefaults,
    /// Whether its sources were given over the network: then local paths must lie below the operator's model roots.
    pub is_confined: bool,
}

impl CatalogEntry {
    /// An entry for something that is in no catalogue.
    pub fn of_source(id: String, source: Source) -> Self {
        Self::of_sources(id, vec![source], Vec::new())
    }

    /// The same with several sources, and what the files must be.
    pub fn of_sources(id: String, sources: Vec<Source>, files: Vec<PinnedFile>) -> Self {
        Self {
            id,
            key: key(&sources, &files),
            aliases: Vec::new(),
            kind: None,
            is_default: false,
            description: String::new(),
            license: String::new(),
            sources,
            files,
            sampling: SamplingDefaults::default(),
            is_confined: false,
        }
    }

    /// Bytes of all its files, if they are known.
    pub fn bytes(&self) -> Option<u64> {
        if self.files.is_empty() {
            return None;
        }
        self.files.iter().try_fold(0_u64, |sum, file| Some(sum.saturating_add(file.bytes?)))
    }
}

/// A place on disk of its own for each set of sources and pins; the same for the same.
fn key(sources: &[Source], files: &[PinnedFile]) -> String {
    let pins = files.iter().map(|file| format!("{} {}", file.sha256, file.path));
    let text: Vec<_> = sources.iter().map(ToString::to_string).chain(pins).collect();
    let digest = blake3::hash(text.join("\n").as_bytes()).to_hex();
    let name = sources.first().map(Source::default_id).unwrap_or_default();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
    format!("source-{}-{}", &digest[..12], &name[..name.len().min(80)])
}

/// All named models.
#[derive(Debug, Clone)]
pub struct Catalog {
    entries: Vec<CatalogEntry>,
}

impl Catalog {
    /// The built-in catalogue, with the operator's file before it: an entry of the same name replaces ours.
    ///
    /// # Errors
    /// What is wrong with the operator's file, in words.
    pub fn open(extra: Option<&Path>) -> Result<Self, String> {
        let mut entries = Vec::new();
        if let Some(path) = extra {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            entries = parse(&text).map_err(|reason| format!("{}: {reason}", path.display()))?;
        }
        for entry in parse(BUILT_IN).map_err(|reason| format!("the built-in catalogue: {reason}"))? {
            if !entries.iter().any(|own: &CatalogEntry| own.id == entry.id) {
                entries.push(entry);
            }
        }
        Ok(Self { entries })
    }

    /// All entries, the operator's first.
    pub fn entries(&self) -> &[CatalogEntry] {
        &self.entries
    }

    /// The entry of exactly this name, or with it among its other names.
    pub fn find(&self, name: &str) -> Option<&CatalogEntry> {
        let named = self.entries.iter().find(|entry| entry.id == name);
        named.or_else(|| self.entries.iter().find(|entry| entry.aliases.iter().any(|alias| alias == name)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalog {
    #[serde(default)]
    model: Vec<RawEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    kind: Option<RawKind>,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    description: String,
    #[serde(default)]
    license: String,
    sources: Vec<String>,
    #[serde(default)]
    files: Vec<RawFile>,
    #[serde(default)]
    sampling: SamplingDefaults,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: String,
    bytes: u64,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawKind {
    Causal,
    Embedding,
    CrossEncoder,
}

fn parse(text: &str) -> Result<Vec<CatalogEntry>, String> {
    let raw: RawCatalog = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut entries: Vec<CatalogEntry> = Vec::new();
    for entry in raw.model {
        let id = entry.id.clone();
        let entry = check(entry).map_err(|reason| format!("model `{id}`: {reason}"))?;
        if entries.iter().any(|other| other.id == entry.id) {
            return Err(format!("model `{id}` is there twice"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn check(raw: RawEntry) -> Result<CatalogEntry, String> {
    if let Some(name) = std::iter::once(&raw.id).chain(&raw.aliases).find(|name| !is_model_id(name)) {
        return Err(format!("`{name}` cannot be a model's name"));
    }
    if raw.sources.is_empty() {
        return Err("it has no source".into());
    }
    raw.sampling.check().map_err(|(field, reason)| format!("its {field} {reason}"))?;
    let kind = raw.kind.map(|kind| match kind {
        RawKind::Causal => ModelKind::Causal,
        RawKind::Embedding => ModelKind::Embedding,
        RawKind::CrossEncoder => ModelKind::CrossEncoder,
    });
    Ok(CatalogEntry {
        key: raw.id.replace('/', "--"),
        id: raw.id,
        aliases: raw.aliases,
        kind,
        is_default: raw.default,
        description: raw.description,
        license: raw.license,
        sources: raw.sources.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        files: raw.files.into_iter().map(pinned).collect::<Result<_, _>>()?,
        sampling: raw.sampling,
        is_confined: false,
    })
}

fn pinned(raw: RawFile) -> Result<PinnedFile, String> {
    PinnedFile::new(&raw.path, Some(raw.bytes), &raw.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_sound() {
        let catalog = Catalog::open(None).unwrap();
        for entry in catalog.entries() {
            assert!(!entry.files.is_empty(), "{} is not pinned", entry.id);
            assert!(!entry.license.is_empty() && !entry.description.is_empty(), "{}", entry.id);
            assert!(entry.sources.iter().all(Source::is_remote), "{}", entry.id);
        }
        let defaults: Vec<_> = catalog.entries().iter().filter(|entry| entry.is_default).collect();
        assert_eq!(defaults[0].kind, Some(ModelKind::Causal));
        assert_eq!(defaults[1].kind, Some(ModelKind::Embedding));
        assert_eq!(defaults.len(), 2);
        assert_eq!(catalog.find("all-MiniLM-L6-v2").unwrap().id, "all-minilm-l6-v2");
        assert!(catalog.find("ALL-MINILM-L6-V2").is_none(), "names are matched exactly");
    }

    #[test]
    fn the_operators_entries_go_first_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.toml");
        let open = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Catalog::open(Some(&file))
        };
        let own = "[[model]]\nid = 'all-minilm-l6-v2'\nsources = ['/models/minilm']\n";
        let catalog = open(own).unwrap();
        assert_eq!(catalog.find("all-minilm-l6-v2").unwrap().sources.len(), 1);
        assert_eq!(catalog.entries().iter().filter(|entry| entry.id == "all-minilm-l6-v2").count(), 1);

        for (text, word) in [
            ("[[model]]\nid = 'a:b'\nsources = ['/x']", "a:b"),
            ("[[model]]\nid = 'a'\nsources = []", "no source"),
            ("[[model]]\nid = 'a'\nsources = ['hf:x']", "hf:x"),
            ("[[model]]\nid = 'a'\nsources = ['/x']\ncolour = 1", "colour"),
            (
                "[[model]]\nid = 'a'\nsources = ['/x']\nfiles = [{path = '../x', bytes = 1, sha256 = ''}]",
                "SHA-256",
            ),
            (&format!("{own}{own}"), "twice"),
            ("[[model]", "catalog.toml"),
        ] {
            let reason = open(text).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
