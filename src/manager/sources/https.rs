//! A file at an address. Public addresses over https, and hosts that the operator named; nothing else is asked.

use reqwest::Url;

use crate::manager::catalog::CatalogEntry;
use crate::manager::file_name::FileName;
use crate::manager::sources::{RemoteFile, SourceError, shards_with_pins};

/// The file, or all shards of it: their addresses differ in the number alone.
///
/// # Errors
/// [`SourceError::Refused`] if the address ends in no plain file name.
pub(crate) fn files(
    url: &Url,
    sha256: Option<&str>,
    entry: &CatalogEntry,
) -> Result<Vec<RemoteFile>, SourceError> {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let name: FileName = last.parse().map_err(SourceError::Refused)?;
    let shards = shards_with_pins(&name, &entry.files)?;
    let is_only = shards.len() == 1;
    shards
        .into_iter()
        .map(|file| {
            let mut url = url.clone();
            if let Ok(mut parts) = url.path_segments_mut() {
                parts.pop().push(file.there.as_str());
            }
            let (bytes, pin) = file.pinned();
            let sha256 = sha256.filter(|_| is_only).map(str::to_owned).or(pin);
            Ok(RemoteFile { name: file.here, url, bytes, sha256 })
        })
        .collect()
}
