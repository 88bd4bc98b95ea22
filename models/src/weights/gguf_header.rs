//! The header of a GGUF file: metadata and where each tensor lies. Not the tensors' data.
//!
//! Files come from strangers: each count and length is compared with what is left of the file before anything is
//! allocated for it, and what is held grows with the bytes that were really read. Format: versions 2 and 3,
//! little-endian <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::gguf_metadata::{Metadata, Value, ValueType};
use super::gguf_types::TensorType;
use crate::Error;

/// Most bytes of header: the largest vocabularies known take about 20 MiB.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Most key/value pairs.
const MAX_PAIRS: u64 = 1 << 16;
/// Most tensors in one file.
const MAX_TENSORS: u64 = 1 << 16;
/// Most elements of one metadata array.
const MAX_ARRAY_ELEMENTS: u64 = 1 << 21;
/// Most bytes of a key or a tensor's name.
const MAX_NAME_BYTES: u64 = 512;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment of the data: a page of 64 KiB.
const MAX_ALIGNMENT: u64 = 1 << 16;
/// Alignment of the data where the file does not name one.
const DEFAULT_ALIGNMENT: u64 = 32;
/// How much is read at a time.
const READ_AHEAD: u64 = 1 << 20;

/// Where one tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    /// Its name in the file's own convention.
    pub(crate) name: String,
    /// Its shape, slowest dimension first (the file has it the other way round).
    pub(crate) shape: Vec<usize>,
    /// The type of its elements.
    pub(crate) element: TensorType,
    /// Where its data starts, from the start of the file.
    pub(crate) offset: u64,
    /// Bytes of data.
    pub(crate) bytes: u64,
}

/// What the header says.
#[derive(Debug)]
pub(crate) struct GgufHeader {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

impl GgufHeader {
    /// Reads and checks the header of an open file.
    pub(crate) fn read(path: &Path, file: &File) -> Result<Self, Error> {
        let mut reader = Reader::new(path, file)?;
        let (tensor_count, pair_count) = reader.preamble()?;
        let values = reader.pairs(pair_count)?;
        let mut tensors = reader.tensors(tensor_count)?;
        let alignment = alignment(&values).map_err(|reason| reader.invalid(reason))?;
        reader.place(&mut tensors, alignment)?;
        Ok(Self { metadata: Metadata::new(path, reader.bytes, values), tensors })
    }
}

fn alignment(values: &HashMap<String, Value>) -> Result<u64, String> {
    match values.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(number)) if number.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(number) => {
            Ok(*number)
        }
        Some(Value::Unsigned(number)) => {
            Err(format!("alignment {number} is not a power of two from 8 to {MAX_ALIGNMENT}"))
        }
        Some(_) => Err("alignment is not an unsigned integer".into()),
    }
}

/// Reads forward through the header, keeping its bytes.
struct Reader<'a> {
    path: PathBuf,
    file: &'a File,
    file_bytes: u64,
    bytes: Vec<u8>,
    position: usize,
}

impl<'a> Reader<'a> {
    fn new(path: &Path, file: &'a File) -> Result<Self, Error> {
        let attributes = file.metadata().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, file_bytes: attributes.len(), bytes: Vec::new(), position: 0 })
    }

    fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::InvalidFile { path: self.path.clone(), format: "GGUF", reason: reason.into() }
    }

    /// Takes the next `count` bytes, reading on where needed; `what` names them in the error.
    fn take(&mut self, count: u64, what: &str) -> Result<Range<usize>, Error> {
        let end = (self.position as u64).checked_add(count).filter(|end| *end <= self.file_bytes);
        let Some(end) = end else {
            return Err(self.invalid(format!("{what} runs past the end of the file")));
        };
        if end > MAX_HEADER_BYTES {
            return Err(self.invalid(format!("the header is longer than {MAX_HEADER_BYTES} bytes")));
        }
        if end > self.bytes.len() as u64 {
            self.fill(end)?;
        }
        let start = self.position;
        self.position = end as usize;
        Ok(start..self.position)
    }

    fn fill(&mut self, end: u64) -> Result<(), Error> {
        let have = self.bytes.len();
        let wanted =
            end.max(have as u64 * 2).max(READ_AHEAD).min(self.file_bytes).min(MAX_HEADER_BYTES) as usize;
        self.bytes.reserve_exact(wanted - have);
        self.bytes.resize(wanted, 0);
        self.file
            .read_exact_at(&mut self.bytes[have..], have as u64)
            .map_err(|source| Error::Read { path: self.path.clone(), source })
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        let range = self.take(4, what)?;
        let bytes = self.bytes[range].try_into().expect("four bytes were taken");
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Error> {
        let range = self.take(8, what)?;
        let bytes = self.bytes[range].try_into().expect("eight bytes were taken");
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self, what: &str) -> Result<Range<usize>, Error> {
        let length = self.u64(what)?;
        let range = self.take(length, what)?;
        if std::str::from_utf8(&self.bytes[range.clone()]).is_err() {
            return Err(self.invalid(format!("{what} is not UTF-8")));
        }
        Ok(range)
    }

    fn name(&mut self, what: &str) -> Result<String, Error> {
        let range = self.text(what)?;
        if range.is_empty() || range.len() as u64 > MAX_NAME_BYTES {
            return Err(
                self.invalid(format!("{what} has {} bytes; 1 to {MAX_NAME_BYTES} are allowed", range.len()))
            );
        }
        Ok(String::from_utf8_lossy(&self.bytes[range]).into_owned())
    }

    /// Magic, version, and the numbers of tensors and of pairs.
    fn preamble(&mut self) -> Result<(u64, u64), Error> {
        let magic = self.take(4, "the magic number")?;
        if self.bytes[magic] != *b"GGUF" {
            return Err(self.invalid("it does not start with `GGUF`"));
        }
        match self.u32("the version")? {
            2 | 3 => {}
            1 => return Err(self.invalid("version 1 is not supported; convert the model again")),
            number if matches!(number.swap_bytes(), 1..=3) => {
                return Err(self.invalid("it is big-endian, which is not supported"));
            }
            number => return Err(self.invalid(format!("version {number} is not supported"))),
        }
        let tensors = self.u64("the number of tensors")?;
        let pairs = self.u64("the number of metadata pairs")?;
        if tensors > MAX_TENSORS {
            return Err(self.invalid(format!("{tensors} tensors are more than {MAX_TENSORS}")));
        }
        if pairs > MAX_PAIRS {
            return Err(self.invalid(format!("{pairs} metadata pairs are more than {MAX_PAIRS}")));
        }
        Ok((tensors, pairs))
    }

    fn pairs(&mut self, count: u64) -> Result<HashMap<String, Value>, Error> {
        let mut values = HashMap::new();
        for _ in 0..count {
            let key = self.name("a metadata key")?;
            let value = self.value(&key)?;
            if values.contains_key(&key) {
                return Err(self.invalid(format!("metadata `{key}` is there twice")));
            }
            values.insert(key, value);
        }
        Ok(values)
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, Error> {
        let number = self.u32(key)?;
        ValueType::from_number(number)
            .ok_or_else(|| self.invalid(format!("metadata `{key}` has the unknown type {number}")))
    }

    fn value(&mut self, key: &str) -> Result<Value, Error> {
        match self.value_type(key)? {
            ValueType::Text => Ok(Value::Text(self.text(key)?)),
            ValueType::Array => self.array(key),
            scalar => {
                let width = scalar.width().expect("all but texts and arrays have a width");
                let range = self.take(width as u64, key)?;
                scalar
                    .scalar(&self.bytes[range])
                    .ok_or_else(|| self.invalid(format!("metadata `{key}` is neither true nor false")))
            }
        }
    }

    fn array(&mut self, key: &str) -> Result<Value, Error> {
        let element = self.value_type(key)?;
        let count = self.u64(key)?;
        if count > MAX_ARRAY_ELEMENTS {
            return Err(self
                .invalid(format!("metadata `{key}` has {count} elements, more than {MAX_ARRAY_ELEMENTS}")));
        }
        let bytes = match element {
            ValueType::Array => {
                return Err(
                    self.invalid(format!("metadata `{key}` is an array of arrays, which is not supported"))
                );
            }
            ValueType::Text => {
                let start = self.position;
                for _ in 0..count {
                    self.text(key)?;
                }
                start..self.position
            }
            scalar => {
                let width = scalar.width().expect("all but texts and arrays have a width") as u64;
                self.take(count * width, key)?
            }
        };
        Ok(Value::Array { element, count: count as usize, bytes })
    }

    fn tensors(&mut self, count: u64) -> Result<Vec<TensorInfo>, Error> {
        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..count {
            let info = self.tensor()?;
            if !names.insert(info.name.clone()) {
                return Err(self.invalid(format!("tensor `{}` is there twice", info.name)));
            }
            tensors.push(info);
        }
        Ok(tensors)
    }

    fn tensor(&mut self) -> Result<TensorInfo, Error> {
        let name = self.name("a tensor's name")?;
        let dimensions = self.u32(&name)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(
                self.invalid(format!("tensor `{name}` has {dimensions} dimensions; 1 to 4 are allowed"))
            );
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64(&name)?);
        }
        let number = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let element = TensorType::from_number(number).map_err(|value| Error::Unsupported {
            what: "tensor type",
            value: format!("{value} (of `{name}`)"),
        })?;
        let bytes = byte_length(&shape, element)
            .map_err(|reason| self.invalid(format!("tensor `{name}` of shape {shape:?}: {reason}")))?;
        let shape = shape.iter().rev().map(|length| *length as usize).collect();
        Ok(TensorInfo { name, shape, element, offset, bytes })
    }

    /// Turns offsets within the data into offsets within the file, and checks them.
    fn place(&self, tensors: &mut [TensorInfo], alignment: u64) -> Result<(), Error> {
        let data = (self.position as u64).next_multiple_of(alignment);
        for info in tensors.iter_mut() {
            if !info.offset.is_multiple_of(alignment) {
                return Err(
                    self.invalid(format!("tensor `{}` is not aligned to {alignment} bytes", info.name))
                );
            }
            let start = data.checked_add(info.offset);
            let end = start.and_then(|start| start.checked_add(info.bytes));
            let (Some(start), Some(_)) = (start, end.filter(|end| *end <= self.file_bytes)) else {
                return Err(self.invalid(format!("tensor `{}` runs past the end of the file", info.name)));
            };
            info.offset = start;
        }
        let mut order: Vec<&TensorInfo> = tensors.iter().collect();
        order.sort_by_key(|info| info.offset);
        for pair in order.windows(2) {
            if pair[0].offset + pair[0].bytes > pair[1].offset {
                return Err(
                    self.invalid(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name))
                );
            }
        }
        Ok(())
    }
}

/// Bytes of a tensor whose first dimension is `shape[0]`, the one that is contiguous.
fn byte_length(shape: &[u64], element: TensorType) -> Result<u64, &'static str> {
    if shape.contains(&0) {
        return Err("a dimension is 0");
    }
    if !shape[0].is_multiple_of(element.block) {
        return Err("a row is not a whole number of blocks");
    }
    let count = shape.iter().try_fold(1u64, |product, length| product.checked_mul(*length));
    let bytes = count.and_then(|count| (count / element.block).checked_mul(element.bytes));
    bytes.filter(|bytes| *bytes <= i64::MAX as u64).ok_or("its size overflows")
}
