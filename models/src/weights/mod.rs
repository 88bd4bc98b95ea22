//! A model's tensors by name, whatever the file format; architectures see only [`Weights`].
//!
//! Tensors are read with positioned reads, not mapped: a file that shrinks while it is read gives an error instead of
//! killing the process. Names and shapes are those of Hugging Face checkpoints; `gguf_names.rs` translates.

pub mod gguf;
mod gguf_config;
mod gguf_header;
mod gguf_metadata;
mod gguf_names;
mod gguf_types;
mod regions;
pub mod safetensors;
mod safetensors_header;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use sconce_kernels::Linear;
use serde_json::Value;

use self::gguf::GgufFile;
pub use self::gguf_metadata::Metadata;
use self::safetensors::SafetensorsFiles;
use crate::{Arithmetic, Device, Error, ModelFiles};

/// Most bytes of a JSON file beside the weights that is not the tokenizer.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// A model's tensors by their Hugging Face names, whatever the file format.
pub trait Weights {
    /// A dense f32 tensor on the device; its shape must be `shape`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading the file gives.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error>;

    /// A matrix `[out, inner]` ready to multiply (quantised ones stay so), with the bias `[out]` of that name if given.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    fn linear(&self, name: &str, out: usize, inner: usize, bias: Option<&str>) -> Result<Linear, Error>;

    /// Whether the tensor is there.
    fn contains(&self, name: &str) -> bool;

    /// The tensor's shape, slowest dimension first.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Bytes of all tensors as they lie in the files.
    fn total_bytes(&self) -> u64;

    /// Numbers in all tensors.
    fn parameters(&self) -> u64;

    /// The element type that takes most bytes: `Q4_1`, `F16`, `BF16`, …
    fn dominant_type(&self) -> String;

    /// A name for these weights: a hash over all names, shapes and types, and over the data (all of it up to 128 MiB,
    /// evenly spread samples of as much in a larger model).
    ///
    /// # Errors
    /// [`Error::Read`] if the data cannot be read.
    fn content_hash(&self) -> Result<String, Error>;
}

/// An opened model: headers were read and checked, no tensor data yet.
pub struct Opened {
    /// The tensors.
    pub weights: Box<dyn Weights>,
    /// `config.json`, or what it would say for a GGUF file.
    pub config: Value,
    /// The metadata of a GGUF file: its tokenizer and chat template.
    pub metadata: Option<Metadata>,
}

/// Opens a model's files. Tensors asked for go to `device`; with [`Arithmetic::Float`], quantised matrices become f32.
///
/// # Errors
/// [`Error::InvalidFile`] for what is wrong with the files, [`Error::UnsupportedArchitecture`] or
/// [`Error::Unsupported`] for what a GGUF file needs and we lack, [`Error::Read`].
pub fn open(files: &ModelFiles, device: &Device, arithmetic: Arithmetic) -> Result<Opened, Error> {
    match files {
        ModelFiles::Gguf { shards, .. } => {
            let file = GgufFile::open(shards)?;
            let config = file.config()?;
            let metadata = file.metadata().clone();
            Ok(Opened {
                weights: Box::new(file.weights(device, arithmetic)),
                config,
                metadata: Some(metadata),
            })
        }
        ModelFiles::Safetensors { folder, shards } => {
            let config = read_json(&folder.join("config.json"), "config.json")?;
            let weights = SafetensorsFiles::open(shards)?.weights(device);
            Ok(Opened { weights: Box::new(weights), config, metadata: None })
        }
    }
}

/// Numbers in tensors of these shapes.
fn parameters<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> u64 {
    let numbers = |shape: &[usize]| {
        shape.iter().fold(1_u64, |product, dimension| product.saturating_mul(*dimension as u64))
    };
    shapes.map(numbers).fold(0, u64::saturating_add)
}

/// Of element types with the bytes that tensors take in them, the one that takes most.
fn dominant_type<'a>(tensors: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for (element, taken) in tensors {
        *bytes.entry(element).or_default() += taken;
    }
    let most = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    most.map_or_else(String::new, |(name, _)| name.to_owned())
}

/// Reads a JSON object of bounded size; `format` names the file in errors.
///
/// # Errors
/// [`Error::Read`]; [`Error::InvalidFile`] if it is too large, not JSON, or not an object.
pub(crate) fn read_json(path: &Path, format: &'static str) -> Result<Value, Error> {
    let text = read_bounded(path, format, MAX_JSON_BYTES)?;
    let invalid = |reason: String| Error::InvalidFile { path: path.to_owned(), format, reason };
    let value: Value = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(invalid("it is not a JSON object".into())),
    }
}

/// Reads a whole file of at most `most` bytes.
///
/// # Errors
/// [`Error::Read`]; [`Error::InvalidFile`] if it is too large.
pub(crate) fn read_bounded(path: &Path, format: &'static str, most: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read;

    let cannot_read = |source| Error::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(cannot_read)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > most {
        let reason = format!("it is longer than {most} bytes");
        return Err(Error::InvalidFile { path: path.to_owned(), format, reason });
    }
    Ok(bytes)
}
