//! From what was asked for to what is served: `--model` arguments and the catalogue become named models.

use std::path::Path;

use crate::config::{ModelArgument, is_model_id};
use crate::manager::ManagerError;
use crate::manager::catalog::{Catalog, CatalogEntry};
use crate::manager::source::Source;

/// A model of this server.
#[derive(Debug, Clone)]
pub(super) struct KnownModel {
    /// Names, sources, pins.
    pub entry: CatalogEntry,
    /// Whether a request may have it fetched. Only what the operator named and the catalogue's defaults: a client must
    /// not be able to fill the disk by naming models. Others are served once their files are here.
    pub may_fetch: bool,
    /// Whether it is loaded at start.
    pub preload: bool,
}

/// The models of this server, in the order in which they are listed.
///
/// With `--model` exactly those that were named, all loaded at start; without, the catalogue's first default (loaded at
/// start), its other defaults (fetched and loaded on first use) and whatever else of it is on this machine.
pub(super) fn known_models(
    arguments: &[ModelArgument],
    catalog: &Catalog,
) -> Result<Vec<KnownModel>, ManagerError> {
    let mut known: Vec<KnownModel> = Vec::new();
    for argument in arguments {
        let entry = resolve(argument, catalog).map_err(|reason| ManagerError::Setup { reason })?;
        if known.iter().any(|other| other.entry.id == entry.id) {
            let reason = format!("two models are named `{}`; name one with ID=…", entry.id);
            return Err(ManagerError::Setup { reason });
        }
        known.push(KnownModel { entry, may_fetch: true, preload: true });
    }
    if arguments.is_empty() {
        let (defaults, others): (Vec<_>, Vec<_>) =
            catalog.entries().iter().partition(|entry| entry.is_default);
        for (number, entry) in defaults.into_iter().enumerate() {
            known.push(KnownModel { entry: entry.clone(), may_fetch: true, preload: number == 0 });
        }
        for entry in others {
            known.push(KnownModel { entry: entry.clone(), may_fetch: false, preload: false });
        }
    }
    Ok(known)
}

/// What a `NAME`, `PATH` or `SOURCE` means: a catalogue name before a path, a path before nothing.
///
/// # Errors
/// In words, when it is none of the three.
pub fn resolve(argument: &ModelArgument, catalog: &Catalog) -> Result<CatalogEntry, String> {
    let target = argument.target.as_str();
    if let Some(entry) = catalog.find(target) {
        let mut entry = entry.clone();
        if let Some(id) = &argument.id {
            entry.id = id.clone();
            entry.aliases.clear();
        }
        return Ok(entry);
    }
    if !Source::has_prefix(target) && !Path::new(target).exists() {
        return Err(unknown(target, catalog));
    }
    let source: Source = target.parse()?;
    let id = argument.id.clone().unwrap_or_else(|| source.default_id());
    if !is_model_id(&id) {
        return Err(format!("`{id}` cannot be a model's name; name it with ID={target}"));
    }
    let mut entry = CatalogEntry::of_source(id, source);
    if argument.id.is_none() {
        entry.aliases = full_name(target).filter(|name| *name != entry.id).into_iter().collect();
    }
    Ok(entry)
}

/// A file is served under its name without the extension; its whole name is understood as well.
fn full_name(target: &str) -> Option<String> {
    let name = target.trim_end_matches('/').rsplit(['/', '\\']).next()?;
    is_model_id(name).then(|| name.to_owned())
}

fn unknown(target: &str, catalog: &Catalog) -> String {
    let names: Vec<_> = catalog.entries().iter().map(|entry| entry.id.as_str()).collect();
    let hint = match target.split('/').count() {
        2 if is_model_id(target) => format!("; for a repository of the hub write hf:{target}"),
        _ => String::new(),
    };
    format!(
        "`{target}` is no file or folder here, no source (hf:, modelscope:, https:, pip:), and not in the catalogue ({}){hint}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str]) -> Result<Vec<String>, String> {
        let catalog = Catalog::open(None).unwrap();
        let arguments: Vec<_> = arguments.iter().map(|text| text.parse().unwrap()).collect();
        match known_models(&arguments, &catalog) {
            Ok(known) => Ok(known.into_iter().map(|model| model.entry.id).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn without_arguments_the_catalogue_is_served_and_only_defaults_may_be_fetched() {
        let catalog = Catalog::open(None).unwrap();
        let known = known_models(&[], &catalog).unwrap();
        assert_eq!(known[0].entry.id, "smollm2-135m-instruct");
        assert!(known[0].preload && known[0].may_fetch);
        assert_eq!(known[1].entry.id, "all-minilm-l6-v2");
        assert!(!known[1].preload && known[1].may_fetch);
        assert!(known[2..].iter().all(|model| !model.may_fetch && !model.preload));
    }

    #[test]
    fn a_path_is_served_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tiny.Q8_0.gguf");
        std::fs::write(&file, "").unwrap();
        let model = folder.path().join("Some-Model");
        std::fs::create_dir(&model).unwrap();
        let (file, model) = (file.to_str().unwrap(), model.to_str().unwrap());
        assert_eq!(names(&[file, model]).unwrap(), ["tiny.Q8_0", "Some-Model"]);
        assert_eq!(names(&[&format!("one={file}"), &format!("two={file}")]).unwrap(), ["one", "two"]);
        assert!(names(&[file, file]).unwrap_err().contains("two models are named"));

        let catalog = Catalog::open(None).unwrap();
        let entry = resolve(&file.parse().unwrap(), &catalog).unwrap();
        assert_eq!(entry.aliases, ["tiny.Q8_0.gguf"]);
    }

    #[test]
    fn what_nobody_knows_is_refused_with_a_hint() {
        let reason = names(&["owner/model"]).unwrap_err();
        assert!(reason.contains("hf:owner/model") && reason.contains("smollm2-135m-instruct"), "{reason}");
        assert_eq!(names(&["mini=all-minilm-l6-v2"]).unwrap(), ["mini"]);
    }
}
