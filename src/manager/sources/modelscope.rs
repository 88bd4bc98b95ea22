//! ModelScope, through its plain REST interface: a list of files, and one address per file. No login, no library.

use serde::Deserialize;

use crate::manager::catalog::CatalogEntry;
use crate::manager::file_name::FileName;
use crate::manager::source::{Repository, is_sha256};
use crate::manager::sources::client::{HttpClient, Relation};
use crate::manager::sources::download::address;
use crate::manager::sources::hub::json;
use crate::manager::sources::{Listed, RemoteFile, SourceError, choose, shards_with_pins};

/// The files that make up the model.
///
/// # Errors
/// [`SourceError`] if the repository cannot be listed or holds no model.
pub(crate) async fn files(
    endpoint: &str,
    repository: &Repository,
    entry: &CatalogEntry,
    client: &HttpClient,
    relation: &Relation,
) -> Result<Vec<RemoteFile>, SourceError> {
    let remote = |there: &FileName, here: FileName, bytes: Option<u64>, sha256: Option<String>| {
        let mut url = address(endpoint, &format!("api/v1/models/{}/repo", repository.name))?;
        url.query_pairs_mut()
            .append_pair("Revision", &repository.revision)
            .append_pair("FilePath", there.as_str());
        Ok(RemoteFile { name: here, url, bytes, sha256 })
    };
    if let Some(file) = &repository.file {
        let shards = shards_with_pins(file, &entry.files)?;
        return shards
            .into_iter()
            .map(|file| {
                let (bytes, sha256) = file.pinned();
                remote(&file.there, file.here, bytes, sha256)
            })
            .collect();
    }
    if !entry.files.is_empty() {
        let pins = entry.files.iter();
        return pins
            .map(|pin| remote(&pin.path, pin.path.clone(), pin.bytes, Some(pin.sha256.clone())))
            .collect();
    }
    let chosen = choose(list(endpoint, repository, client, relation).await?)?;
    chosen.into_iter().map(|file| remote(&file.name, file.name.clone(), file.bytes, file.sha256)).collect()
}

async fn list(
    endpoint: &str,
    repository: &Repository,
    client: &HttpClient,
    relation: &Relation,
) -> Result<Vec<Listed>, SourceError> {
    let mut url = address(endpoint, &format!("api/v1/models/{}/repo/files", repository.name))?;
    url.query_pairs_mut().append_pair("Revision", &repository.revision).append_pair("Recursive", "true");
    let answer: Answer = json(client, &url, relation).await?;
    let files = answer.data.files.into_iter().filter(|file| file.kind == "blob").filter_map(|file| {
        // A name that is no plain file name is nothing a model needs.
        let name = file.path.parse().ok()?;
        Some(Listed { name, bytes: file.size, sha256: file.sha256.filter(|text| is_sha256(text)) })
    });
    Ok(files.collect())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "Files")]
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Size")]
    size: Option<u64>,
    #[serde(rename = "Sha256")]
    sha256: Option<String>,
}
