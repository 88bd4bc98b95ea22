//! Which files make up a model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::Error;
use crate::weights::read_json;

/// Most entries of a folder that are looked at.
const MAX_FOLDER_ENTRIES: usize = 10_000;

/// A model on disk, recognised by what lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// A GGUF file, or the first of its shards (`…-00001-of-0000N.gguf`) with all of them in order.
    Gguf {
        /// All shards in order; one path for an unsharded file.
        shards: Vec<PathBuf>,
        /// A `tokenizer.json` beside it, preferred over the file's own metadata.
        tokenizer: Option<PathBuf>,
    },
    /// A folder with `config.json` and one or more `*.safetensors`.
    Safetensors {
        /// The folder.
        folder: PathBuf,
        /// The weight files in order.
        shards: Vec<PathBuf>,
    },
}

impl ModelFiles {
    /// Recognises what lies at `path`: a `.gguf` file, or a folder that holds one GGUF model or a safetensors model.
    ///
    /// # Errors
    /// [`Error::NoModel`] if it is neither, or a shard is missing; [`Error::Read`] if it cannot be looked at.
    pub fn find(path: &Path) -> Result<Self, Error> {
        let attributes =
            std::fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if attributes.is_dir() {
            return find_in_folder(path);
        }
        if !attributes.is_file() {
            // A pipe, say, that nobody writes to would be waited for while it is opened.
            return Err(no_model(path, "it is neither a folder nor a plain file"));
        }
        if !has_extension(path, "gguf") {
            return Err(no_model(path, "it is neither a folder nor a .gguf file"));
        }
        gguf(path)
    }
}

fn no_model(path: &Path, reason: impl Into<String>) -> Error {
    Error::NoModel { path: path.to_owned(), reason: reason.into() }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

fn find_in_folder(folder: &Path) -> Result<ModelFiles, Error> {
    let files = list(folder)?;
    let safetensors: Vec<&PathBuf> = files.iter().filter(|path| has_extension(path, "safetensors")).collect();
    if !safetensors.is_empty() && folder.join("config.json").is_file() {
        let shards = safetensors_shards(folder, &safetensors)?;
        return Ok(ModelFiles::Safetensors { folder: folder.to_owned(), shards });
    }
    let mut models: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for path in files.iter().filter(|path| has_extension(path, "gguf")) {
        let name = file_name(path);
        // The vision part of a model lies in a file of its own, which is no model.
        if !name.starts_with("mmproj") {
            models.entry(ShardName::parse(&name).map_or(name, |shard| shard.stem)).or_insert(path);
        }
    }
    let mut paths = models.into_values();
    match (paths.next(), paths.next()) {
        (Some(path), None) => gguf(path),
        (Some(_), Some(_)) => Err(no_model(folder, "it holds several GGUF models; name one file")),
        (None, _) if !safetensors.is_empty() => Err(no_model(folder, "config.json is missing")),
        (None, _) => Err(no_model(folder, "there is no .gguf file, and no config.json with *.safetensors")),
    }
}

/// The files of a folder, sorted by name.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let cannot_read = |source| Error::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_read)? {
        if files.len() == MAX_FOLDER_ENTRIES {
            return Err(no_model(folder, format!("it has more than {MAX_FOLDER_ENTRIES} entries")));
        }
        files.push(entry.map_err(cannot_read)?.path());
    }
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A name of the form `stem-00002-of-00005.ext`.
struct ShardName {
    stem: String,
    count: usize,
    extension: String,
}

impl ShardName {
    fn parse(name: &str) -> Option<Self> {
        let (rest, extension) = name.rsplit_once('.')?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(count) || !is_number(number) {
            return None;
        }
        Some(Self { stem: stem.to_owned(), count: count.parse().ok()?, extension: extension.to_owned() })
    }

    /// All shards of the set, in order; each must be there.
    fn all(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut shards = Vec::new();
        for number in 1..=self.count {
            let name = format!("{}-{number:05}-of-{:05}.{}", self.stem, self.count, self.extension);
            let path = folder.join(&name);
            if !path.is_file() {
                return Err(no_model(folder, format!("{name} is missing")));
            }
            shards.push(path);
        }
        Ok(shards)
    }
}

fn gguf(path: &Path) -> Result<ModelFiles, Error> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let shards = match ShardName::parse(&file_name(path)) {
        Some(shard) if shard.count > 0 => shard.all(folder)?,
        _ => vec![path.to_owned()],
    };
    let tokenizer = Some(folder.join("tokenizer.json")).filter(|path| path.is_file());
    Ok(ModelFiles::Gguf { shards, tokenizer })
}

fn safetensors_shards(folder: &Path, found: &[&PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let whole = folder.join("model.safetensors");
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        return indexed_shards(folder, &index);
    }
    match ShardName::parse(&file_name(found[0])) {
        Some(shard) if shard.count == found.len() => shard.all(folder),
        _ if found.len() == 1 => Ok(vec![found[0].clone()]),
        _ => Err(no_model(folder, "it has several *.safetensors and no model.safetensors.index.json")),
    }
}

/// The files that an index names: plain names within the folder, each there.
fn indexed_shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, Error> {
    let format = "safetensors index";
    let invalid = |reason: String| Error::InvalidFile { path: index.to_owned(), format, reason };
    let value = read_json(index, format)?;
    let map = value.get("weight_map").and_then(|map| map.as_object());
    let map = map.filter(|map| !map.is_empty()).ok_or_else(|| invalid("`weight_map` is missing".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().ok_or_else(|| invalid(format!("the file of `{tensor}` is not a text")))?;
        names.insert(name);
    }
    let mut shards = Vec::new();
    for name in names {
        let mut parts = Path::new(name).components();
        let is_plain =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
        if !is_plain || !has_extension(Path::new(name), "safetensors") {
            return Err(invalid(format!(
                "`{}` is not the name of a safetensors file beside it",
                name.escape_debug()
            )));
        }
        let path = folder.join(name);
        if !path.is_file() {
            return Err(no_model(folder, format!("{name} is missing")));
        }
        shards.push(path);
    }
    Ok(shards)
}
