//! The key/value pairs of a GGUF file, read in place: texts and arrays stay in the header's bytes, so that a hostile
//! file cannot make us hold more than it is long. Not their meaning: see `gguf_config.rs` and the tokenizer.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::Error;

/// Most bytes of a text that is shown.
const LONGEST_SHOWN: usize = 1024;

/// The type of a value, by its number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The type of this number.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        const BY_NUMBER: [ValueType; 13] = [
            ValueType::U8,
            ValueType::I8,
            ValueType::U16,
            ValueType::I16,
            ValueType::U32,
            ValueType::I32,
            ValueType::F32,
            ValueType::Bool,
            ValueType::Text,
            ValueType::Array,
            ValueType::U64,
            ValueType::I64,
            ValueType::F64,
        ];
        BY_NUMBER.get(usize::try_from(number).ok()?).copied()
    }

    /// Bytes of one value; none for texts and arrays.
    pub(crate) fn width(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }

    /// Reads one number or truth value from exactly [`Self::width`] bytes.
    pub(crate) fn scalar(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::U8 => Value::Unsigned(u8::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::I8 => Value::Signed(i8::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::U16 => Value::Unsigned(u16::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::I16 => Value::Signed(i16::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::U32 => Value::Unsigned(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::I32 => Value::Signed(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::U64 => Value::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
            Self::I64 => Value::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
            Self::F32 => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::F64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Bool => match bytes {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            Self::Text | Self::Array => return None,
        })
    }
}

/// A value; texts and arrays as ranges of the header's bytes, checked when the header was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array { element: ValueType, count: usize, bytes: Range<usize> },
}

/// The key/value pairs of a GGUF file.
#[derive(Clone)]
pub struct Metadata {
    path: PathBuf,
    bytes: Vec<u8>,
    values: HashMap<String, Value>,
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("path", &self.path)
            .field("keys", &self.values.len())
            .finish_non_exhaustive()
    }
}

impl Metadata {
    /// `values` hold ranges into `bytes` that were found to be valid texts and arrays.
    pub(crate) fn new(path: &Path, bytes: Vec<u8>, values: HashMap<String, Value>) -> Self {
        Self { path: path.to_owned(), bytes, values }
    }

    /// The file they come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A text.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => Ok(Some(self.str_at(range.clone()))),
            Some(_) => Err(self.wrong_type(key, "a text")),
        }
    }

    /// An integer that is not negative, whatever its width.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type or is negative.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(number)) => Ok(Some(*number)),
            Some(Value::Signed(number)) if *number >= 0 => Ok(Some(number.unsigned_abs())),
            Some(_) => Err(self.wrong_type(key, "an integer of at least 0")),
        }
    }

    /// A floating-point number that is finite.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type, is infinite or not a number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(*number)),
            Some(_) => Err(self.wrong_type(key, "a finite floating-point number")),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(_) => Err(self.wrong_type(key, "a truth value")),
        }
    }

    /// An array of texts, in order.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Error> {
        let Some((count, bytes)) = self.array(key, &[ValueType::Text], "an array of texts")? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(count);
        let mut position = bytes.start;
        for _ in 0..count {
            let length = self.u64_at(position) as usize;
            texts.push(self.str_at(position + 8..position + 8 + length));
            position += 8 + length;
        }
        Ok(Some(texts))
    }

    /// An array of 32-bit floating-point numbers.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        let found = self.array(key, &[ValueType::F32], "an array of 32-bit floating-point numbers")?;
        let Some((_, bytes)) = found else { return Ok(None) };
        Ok(Some(self.words(bytes).map(f32::from_le_bytes).collect()))
    }

    /// An array of 32-bit integers, signed or not.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the value has another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        let found = self.array(key, &[ValueType::I32, ValueType::U32], "an array of 32-bit integers")?;
        let Some((_, bytes)) = found else { return Ok(None) };
        Ok(Some(self.words(bytes).map(i32::from_le_bytes).collect()))
    }

    /// What is no list and no long text, by name, in the order of the names.
    pub(crate) fn short_values(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut found = serde_json::Map::new();
        for (key, value) in &self.values {
            let shown = match value {
                Value::Unsigned(number) => (*number).into(),
                Value::Signed(number) => (*number).into(),
                Value::Float(number) => shortest(*number).into(),
                Value::Bool(truth) => (*truth).into(),
                Value::Text(range) if range.len() <= LONGEST_SHOWN => self.str_at(range.clone()).into(),
                Value::Text(_) | Value::Array { .. } => continue,
            };
            found.insert(key.clone(), shown);
        }
        found.sort_keys();
        found
    }

    /// The number of elements of an array, whatever its type.
    pub(crate) fn array_length(&self, key: &str) -> Option<usize> {
        match self.values.get(key) {
            Some(Value::Array { count, .. }) => Some(*count),
            _ => None,
        }
    }

    /// An error about this file.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::InvalidFile { path: self.path.clone(), format: "GGUF", reason: reason.into() }
    }

    fn array(
        &self,
        key: &str,
        wanted: &[ValueType],
        words: &str,
    ) -> Result<Option<(usize, Range<usize>)>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { element, count, bytes }) if wanted.contains(element) => {
                Ok(Some((*count, bytes.clone())))
            }
            Some(_) => Err(self.wrong_type(key, words)),
        }
    }

    fn words(&self, range: Range<usize>) -> impl Iterator<Item = [u8; 4]> + '_ {
        self.bytes[range].as_chunks::<4>().0.iter().copied()
    }

    fn u64_at(&self, position: usize) -> u64 {
        let bytes =
            self.bytes[position..position + 8].try_into().expect("a range of eight bytes has eight bytes");
        u64::from_le_bytes(bytes)
    }

    fn str_at(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(&self.bytes[range]).expect("texts were checked when the header was read")
    }

    fn wrong_type(&self, key: &str, wanted: &str) -> Error {
        self.invalid(format!("metadata `{key}` is not {wanted}"))
    }
}

/// A number that was one of 32 bits, in as few digits as tell it from others of them: `1e-5`, not `9.999999747378752e-6`.
fn shortest(number: f64) -> f64 {
    let narrow = number as f32;
    if f64::from(narrow) == number { narrow.to_string().parse().unwrap_or(number) } else { number }
}
