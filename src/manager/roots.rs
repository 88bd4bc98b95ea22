//! The folders below which a path that came over the network must lie.
//!
//! A path is judged twice: as it is written, before the disk is touched, so that nobody learns what lies elsewhere; and
//! as it is, with every link followed. What is handed on is the path without links; it is judged again after it was
//! read, since the disk may have changed in between.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sconce_models::ModelFiles;

use crate::manager::file_name::FileName;

/// Most entries of a model's folder, those of its folders included.
const MOST_ENTRIES: usize = 10_000;

/// Where local models may lie.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    folders: Vec<PathBuf>,
}

impl Roots {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders: folders
                .into_iter()
                .map(|folder| std::path::absolute(&folder).unwrap_or(folder))
                .collect(),
        }
    }

    /// The path without links, if it and everything a loader reads with it lie below the roots.
    ///
    /// # Errors
    /// In words that do not tell what lies elsewhere.
    pub(super) fn admit(&self, path: &Path) -> Result<PathBuf, String> {
        let real_roots: Vec<_> = self.folders.iter().filter_map(|root| root.canonicalize().ok()).collect();
        let rest = self.folders.iter().chain(&real_roots).find_map(|root| path.strip_prefix(root).ok());
        let rest = rest.ok_or_else(|| {
            let names: Vec<_> = self.folders.iter().map(|root| root.display().to_string()).collect();
            format!("it does not lie below {} (`model-root` names these folders)", names.join(" or "))
        })?;
        let text = rest.to_str().ok_or("its name is not UTF-8")?;
        text.parse::<FileName>()?;
        let real =
            path.canonicalize().map_err(|_| "there is no such file or folder, or it cannot be read")?;
        let is_inside = |path: &Path| real_roots.iter().any(|root| path.starts_with(root) && path != root);
        if !is_inside(&real) {
            return Err(LEADS_OUT.into());
        }
        if real.is_dir() {
            check_folder(&real, is_inside)?
        } else {
            check_beside(&real, is_inside)?
        }
        Ok(real)
    }
}

const LEADS_OUT: &str = "a link of it leads out of the folders that models may lie in";

/// A GGUF file is read with its other shards and the tokenizer beside it.
fn check_beside(file: &Path, is_inside: impl Fn(&Path) -> bool) -> Result<(), String> {
    // What is no model is for the loader to say.
    let Ok(ModelFiles::Gguf { shards, tokenizer }) = ModelFiles::find(file) else { return Ok(()) };
    for path in shards.into_iter().chain(tokenizer) {
        if !path.canonicalize().is_ok_and(|real| is_inside(&real)) {
            return Err(LEADS_OUT.into());
        }
    }
    Ok(())
}

/// Of a folder, anything may be read.
fn check_folder(folder: &Path, is_inside: impl Fn(&Path) -> bool) -> Result<(), String> {
    let mut seen = BTreeSet::from([folder.to_owned()]);
    let mut open = vec![folder.to_owned()];
    let mut entries = 0;
    while let Some(folder) = open.pop() {
        let listed = std::fs::read_dir(&folder).map_err(|_| "a folder in it cannot be read")?;
        for entry in listed {
            entries += 1;
            if entries > MOST_ENTRIES {
                return Err(format!("it has more than {MOST_ENTRIES} files"));
            }
            let path = entry.map_err(|_| "a folder in it cannot be read")?.path();
            let real = path.canonicalize().map_err(|_| "a link in it leads nowhere")?;
            if !is_inside(&real) {
                return Err(LEADS_OUT.into());
            }
            if real.is_dir() && seen.insert(real.clone()) {
                open.push(real);
            }
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_lies_below_a_root_is_given_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let root = folder.join("root");
        std::fs::create_dir_all(root.join("model/1_Pooling")).unwrap();
        std::fs::write(root.join("model/config.json"), "{}").unwrap();
        std::fs::write(root.join("a.gguf"), "").unwrap();
        symlink("a.gguf", root.join("link.gguf")).unwrap();
        symlink(&root, folder.join("other-name")).unwrap();
        let roots = Roots::new(vec![folder.join("other-name")]);
        assert_eq!(roots.admit(&folder.join("other-name/link.gguf")), Ok(root.join("a.gguf")));
        assert_eq!(
            roots.admit(&root.join("model")),
            Ok(root.join("model")),
            "by the root's real name as well"
        );
        assert!(roots.admit(&root).is_err(), "the root itself is no model");
        assert!(roots.admit(&folder.join("other-name")).is_err());
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("model/a")).unwrap();
        symlink("..", root.join("model/a/up")).unwrap();
        assert_eq!(Roots::new(vec![root.clone()]).admit(&root.join("model")), Ok(root.join("model")));
    }
}
