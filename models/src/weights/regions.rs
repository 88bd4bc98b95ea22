//! Bytes of tensors in open files: reading them, and naming a set of them by a hash. Not their element types.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Most bytes of tensor data that the hash reads.
const MAX_HASHED_BYTES: u64 = 128 << 20;
/// How much is read at a time for the hash.
const HASH_CHUNK: u64 = 1 << 20;
/// Length of one sample where not everything is hashed.
const SAMPLE_BYTES: u64 = 64 << 10;

/// An open file and its path, for errors.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl OpenFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Reads `length` bytes at `offset`. The range was checked against the file's length when its header was read; if
    /// the file has shrunk since, this is an error.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length as usize];
        self.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|source| Error::Read { path: self.path.clone(), source })
    }
}

/// One tensor's data, with what the hash should know of it besides its bytes.
pub(crate) struct Region<'a> {
    pub(crate) file: &'a OpenFile,
    pub(crate) label: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Hashes labels and data of the regions, sorted by label.
pub(crate) fn content_hash(mut regions: Vec<Region<'_>>) -> Result<String, Error> {
    regions.sort_by(|left, right| left.label.cmp(&right.label));
    let total: u64 = regions.iter().map(|region| region.bytes).sum();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASH_CHUNK as usize];
    for region in &regions {
        hasher.update(&(region.label.len() as u64).to_le_bytes());
        hasher.update(region.label.as_bytes());
        for (offset, length) in chunks(region.bytes, total) {
            let chunk = &mut buffer[..length as usize];
            region.file.read_into(region.offset + offset, chunk)?;
            hasher.update(chunk);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The parts of a region of `bytes` that are hashed if the whole model has `total` bytes: (offset, length).
fn chunks(bytes: u64, total: u64) -> impl Iterator<Item = (u64, u64)> {
    let (length, step) = if total <= MAX_HASHED_BYTES {
        (HASH_CHUNK, HASH_CHUNK)
    } else {
        (SAMPLE_BYTES, SAMPLE_BYTES.saturating_mul(total.div_ceil(MAX_HASHED_BYTES)))
    };
    (0..bytes).step_by(step as usize).map(move |offset| (offset, length.min(bytes - offset)))
}

#[cfg(test)]
mod tests {
    use super::{MAX_HASHED_BYTES, chunks};

    #[test]
    fn a_small_model_is_hashed_whole() {
        let parts: Vec<_> = chunks(3 << 20 | 5, 4 << 20).collect();
        assert_eq!(parts, [(0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 1 << 20), (3 << 20, 5)]);
    }

    #[test]
    fn samples_of_a_large_model_are_bounded() {
        for total in [MAX_HASHED_BYTES + 1, MAX_HASHED_BYTES * 7, 1 << 40] {
            let hashed: u64 = chunks(total, total).map(|(_, length)| length).sum();
            assert!(hashed > 0 && hashed <= MAX_HASHED_BYTES, "{total}: {hashed}");
        }
    }
}
