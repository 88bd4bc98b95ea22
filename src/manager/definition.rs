//! What an administrator says is to be true of a model: plain data, checked in itself.
//!
//! Not the making of it (that is `follow.rs`), nor whether its sources may be used here (`policy.rs`).

use crate::config::is_model_id;
use crate::error::{Code, Failure};
use crate::manager::catalog::PinnedFile;
use crate::manager::sampling::SamplingDefaults;
use crate::manager::source::Source;

/// Most other names of one model, sources, and pinned files.
const MOST_ALIASES: usize = 64;
pub(super) const MOST_SOURCES: usize = 16;
const MOST_FILES: usize = 1024;

/// A registered model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDefinition {
    /// The name clients ask for.
    pub id: String,
    /// Other names for it. One that is the name of another model leads to that other model.
    pub aliases: Vec<String>,
    /// Where to get it, tried in this order. With none, what the configuration or the catalogue says for this id.
    pub sources: Vec<Source>,
    /// What its files must be, if that is known.
    pub checksum: Option<Checksum>,
    /// A context length below the model's own.
    pub context_length: Option<usize>,
    /// What a request that says nothing gets; goes before what the model's files say.
    pub sampling: SamplingDefaults,
    /// Never unloaded to make room, or for being idle.
    pub pinned: bool,
    /// Whether clients may use it. A disabled model is not there for them.
    pub enabled: bool,
    /// Loaded as soon as it is registered, and at start.
    pub preload: bool,
    /// When it was registered, in seconds since 1970.
    pub created: u64,
}

/// What a model's files must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256 of its only file: 64 lower-case hexadecimal digits.
    OnlyFile(String),
    /// Each of its files. No other file is fetched.
    Files(Vec<PinnedFile>),
}

impl Checksum {
    /// The SHA-256 of the only file, as people write it: with or without `sha256:` before it.
    ///
    /// # Errors
    /// In words, if it is none.
    pub fn of_only_file(text: &str) -> Result<Self, String> {
        let digest = text.trim().strip_prefix("sha256:").unwrap_or(text.trim());
        PinnedFile::new("model", None, digest).map(|pin| Self::OnlyFile(pin.sha256))
    }

    /// The pins, for a model that comes from these sources.
    pub(super) fn pins(&self, sources: &[Source]) -> Vec<PinnedFile> {
        match self {
            Self::Files(files) => files.clone(),
            Self::OnlyFile(sha256) => {
                let path = sources.iter().find_map(Source::only_file);
                let pin = |path| PinnedFile { path, bytes: None, sha256: sha256.clone() };
                path.map(pin).into_iter().collect()
            }
        }
    }
}

/// What is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct InvalidDefinition {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Failure for InvalidDefinition {
    fn code(&self) -> Code {
        Code::InvalidValue
    }

    fn param(&self) -> Option<&str> {
        Some(self.field)
    }
}

impl ModelDefinition {
    /// A definition of this name that says nothing else: enabled, loaded when it is first asked for.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            aliases: Vec::new(),
            sources: Vec::new(),
            checksum: None,
            context_length: None,
            sampling: SamplingDefaults::default(),
            pinned: false,
            enabled: true,
            preload: false,
            created: 0,
        }
    }

    /// Whether it makes sense in itself.
    ///
    /// # Errors
    /// [`InvalidDefinition`] with the first field at fault.
    pub fn check(&self) -> Result<(), InvalidDefinition> {
        let wrong = |field, reason: String| Err(InvalidDefinition { field, reason });
        let no_name = |name: &str| {
            let shown: String = name.chars().take(128).flat_map(char::escape_default).collect();
            format!("cannot be `{shown}`: letters, digits and ._-/ make a model's name, 128 at most")
        };
        if !is_model_id(&self.id) {
            return wrong("id", no_name(&self.id));
        }
        if let Some(alias) = self.aliases.iter().find(|alias| !is_model_id(alias)) {
            return wrong("aliases", no_name(alias));
        }
        for (field, length, most) in
            [("aliases", self.aliases.len(), MOST_ALIASES), ("sources", self.sources.len(), MOST_SOURCES)]
        {
            if length > most {
                return wrong(field, format!("has {length} entries; {most} are the most"));
            }
        }
        if self.context_length == Some(0) {
            return wrong("context_length", "must be at least 1".into());
        }
        if let Err((field, reason)) = self.sampling.check() {
            return wrong(field, reason);
        }
        self.check_checksum().or_else(|reason| wrong("checksum", reason))
    }

    fn check_checksum(&self) -> Result<(), String> {
        match &self.checksum {
            None => Ok(()),
            Some(_) if self.sources.is_empty() => Err("needs a source that it is the checksum of".into()),
            Some(Checksum::OnlyFile(_)) => {
                let folder = self.sources.iter().find(|source| source.only_file().is_none());
                folder.map_or(Ok(()), |source| {
                    Err(format!("is of one file, but {} is not one file: name each file", source.shown()))
                })
            }
            Some(Checksum::Files(files)) if files.is_empty() || files.len() > MOST_FILES => {
                Err(format!("must name between 1 and {MOST_FILES} files"))
            }
            Some(Checksum::Files(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(change: impl FnOnce(&mut ModelDefinition)) -> &'static str {
        let mut definition = ModelDefinition::new("org/model");
        definition.sources.push("hf:owner/name@main/model.gguf".parse().unwrap());
        assert_eq!(definition.check(), Ok(()));
        change(&mut definition);
        definition.check().map_or_else(|error| error.field, |()| "none")
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        let digest = Checksum::of_only_file(&format!("sha256:{}", "A".repeat(64))).unwrap();
        assert_eq!(digest, Checksum::OnlyFile("a".repeat(64)));
        assert!(Checksum::of_only_file("sha256:12").is_err());

        assert_eq!(field(|definition| definition.id = "../x".into()), "id");
        assert_eq!(field(|definition| definition.id = "x\u{202e}y".into()), "id");
        assert_eq!(field(|definition| definition.aliases = vec!["a b".into()]), "aliases");
        assert_eq!(field(|definition| definition.aliases = vec!["a".into(); 65]), "aliases");
        assert_eq!(field(|definition| definition.context_length = Some(0)), "context_length");
        assert_eq!(field(|definition| definition.sampling.top_p = Some(2.0)), "top_p");
        assert_eq!(
            field(|definition| definition.sources = vec![definition.sources[0].clone(); 17]),
            "sources"
        );
        assert_eq!(field(|definition| definition.checksum = Some(digest.clone())), "none");
        assert_eq!(field(|definition| definition.checksum = Some(Checksum::Files(Vec::new()))), "checksum");
        let of_nothing = |definition: &mut ModelDefinition| {
            definition.checksum = Some(digest.clone());
            definition.sources.clear();
        };
        assert_eq!(field(of_nothing), "checksum");
        let of_many = |definition: &mut ModelDefinition| {
            definition.checksum = Some(digest.clone());
            definition.sources.push("hf:owner/name".parse().unwrap());
        };
        assert_eq!(field(of_many), "checksum");
    }

    #[test]
    fn a_checksum_becomes_the_pin_of_the_file_that_the_source_names() {
        let sources = ["hf:owner/name@main/deep/model.gguf".parse().unwrap()];
        let pins = Checksum::OnlyFile("a".repeat(64)).pins(&sources);
        assert_eq!((pins[0].path.as_str(), pins[0].bytes), ("model.gguf", None));
    }
}
