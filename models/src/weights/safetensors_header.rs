//! The header of a safetensors file: which tensor lies where. Not the tensors' data.
//!
//! Stricter than a reader for trusted files needs to be: names must be unique, data must lie end to end without holes,
//! and shape, type and extent must agree. Format: <https://github.com/huggingface/safetensors#format>.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::Error;

/// Most bytes of header, as the format's own reader has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most tensors in one file.
const MAX_TENSORS: usize = 1 << 16;
/// Most bytes of a tensor's name.
const MAX_NAME_BYTES: usize = 512;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// Element types of the format and their width in bytes.
const ELEMENT_TYPES: [(&str, u64); 16] = [
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F64", 8),
    ("I64", 8),
    ("U64", 8),
    ("I32", 4),
    ("U32", 4),
    ("I16", 2),
    ("U16", 2),
    ("I8", 1),
    ("U8", 1),
    ("BOOL", 1),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("F8_E8M0", 1),
];

/// Where one tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorEntry {
    /// Its name.
    pub(crate) name: String,
    /// The type of its elements, as the format calls it.
    pub(crate) element: &'static str,
    /// Its shape, slowest dimension first.
    pub(crate) shape: Vec<usize>,
    /// Where its data starts, from the start of the file.
    pub(crate) offset: u64,
    /// Bytes of data.
    pub(crate) bytes: u64,
}

/// Reads and checks the header of an open file.
pub(crate) fn read(path: &Path, file: &File) -> Result<Vec<TensorEntry>, Error> {
    let invalid =
        |reason: String| Error::InvalidFile { path: path.to_owned(), format: "safetensors", reason };
    let cannot_read = |source| Error::Read { path: path.to_owned(), source };
    let file_bytes = file.metadata().map_err(cannot_read)?.len();
    if file_bytes < 8 {
        return Err(invalid("it is shorter than 8 bytes".into()));
    }
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(cannot_read)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!("a header of {length} bytes is longer than {MAX_HEADER_BYTES}")));
    }
    if length > file_bytes - 8 {
        return Err(invalid(format!("a header of {length} bytes runs past the end of the file")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 8).map_err(cannot_read)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the header is not UTF-8".into()))?;
    if !text.starts_with('{') {
        return Err(invalid("the header does not start with `{`".into()));
    }
    let header: Header = serde_json::from_str(text).map_err(|e| invalid(format!("the header: {e}")))?;
    place(header.0, 8 + length, file_bytes).map_err(invalid)
}

/// Checks that the tensors' data fill the file from the header's end on, and gives offsets from the file's start.
fn place(mut entries: Vec<TensorEntry>, data: u64, file_bytes: u64) -> Result<Vec<TensorEntry>, String> {
    entries.sort_by_key(|entry| (entry.offset, entry.bytes));
    let available = file_bytes - data;
    let mut position = 0;
    for entry in &mut entries {
        if entry.offset != position {
            return Err(format!("the data of `{}` leave a hole or overlap others", entry.name));
        }
        if entry.bytes > available - position {
            return Err(format!("the data of `{}` run past the end of the file", entry.name));
        }
        position += entry.bytes;
        entry.offset += data;
    }
    if position != available {
        return Err(format!("the tensors take {position} bytes, and the file has {available} for them"));
    }
    Ok(entries)
}

/// All tensors of the header; refuses a name that comes twice, which a plain map would hide.
struct Header(Vec<TensorEntry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries: HashMap<String, TensorEntry> = HashMap::new();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" && !has_metadata {
                has_metadata = true;
                map.next_value::<HashMap<String, String>>()?;
                continue;
            }
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return Err(A::Error::custom(format!("a tensor's name has {} bytes", name.len())));
            }
            if entries.contains_key(&name) || name == "__metadata__" {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("there are more than {MAX_TENSORS} tensors")));
            }
            let declared: Declared = map.next_value()?;
            let entry = declared.check(name.clone()).map_err(A::Error::custom)?;
            entries.insert(name, entry);
        }
        Ok(Header(entries.into_values().collect()))
    }
}

/// One tensor as the header declares it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Declared {
    fn check(self, name: String) -> Result<TensorEntry, String> {
        let Some((element, width)) = ELEMENT_TYPES.iter().find(|(element, _)| *element == self.dtype) else {
            return Err(format!("tensor `{name}` has the unknown type `{}`", self.dtype.escape_debug()));
        };
        if self.shape.len() > MAX_DIMENSIONS {
            return Err(format!("tensor `{name}` has {} dimensions", self.shape.len()));
        }
        let [start, end] = self.data_offsets;
        let Some(bytes) = end.checked_sub(start) else {
            return Err(format!("the data of `{name}` end before they start"));
        };
        let expected = self.shape.iter().try_fold(*width, |product, length| product.checked_mul(*length));
        if expected != Some(bytes) {
            return Err(format!(
                "tensor `{name}` of shape {:?} in {element} does not take {bytes} bytes",
                self.shape
            ));
        }
        let shape = self.shape.iter().map(|length| *length as usize).collect();
        Ok(TensorEntry { name, element, shape, offset: start, bytes })
    }
}
