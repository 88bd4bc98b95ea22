//! Safetensors files, whole or in shards, as [`Weights`]. The header is `safetensors_header.rs`.
//!
//! Which files belong together is decided by [`crate::ModelFiles::find`]; here they are opened and read.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Tensor};
use sconce_kernels::Linear;

use super::Weights;
use super::regions::{OpenFile, Region, content_hash};
use super::safetensors_header::{self, TensorEntry};
use crate::{Device, Error};

/// The opened files of a model: headers checked.
#[derive(Debug)]
pub struct SafetensorsFiles {
    files: Vec<OpenFile>,
    tensors: HashMap<String, (usize, TensorEntry)>,
}

impl SafetensorsFiles {
    /// Opens all files of a model and checks their headers.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if one is damaged or two hold the same tensor; [`Error::Read`].
    pub fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut tensors = HashMap::new();
        for (number, path) in paths.iter().enumerate() {
            let file = OpenFile::open(path)?;
            for entry in safetensors_header::read(path, &file.file)? {
                if tensors.contains_key(&entry.name) {
                    let reason = format!("tensor `{}` is in another file as well", entry.name);
                    return Err(Error::InvalidFile { path: path.clone(), format: "safetensors", reason });
                }
                tensors.insert(entry.name.clone(), (number, entry));
            }
            files.push(file);
        }
        Ok(Self { files, tensors })
    }

    /// The tensors, to be put on `device`.
    pub fn weights(self, device: &Device) -> SafetensorsWeights {
        SafetensorsWeights { files: self, device: device.clone() }
    }
}

/// The tensors of a safetensors model.
#[derive(Debug)]
pub struct SafetensorsWeights {
    files: SafetensorsFiles,
    device: Device,
}

impl SafetensorsWeights {
    /// On the device, in its own type.
    fn load(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let found =
            self.files.tensors.get(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let (file, entry) = found;
        if entry.shape != shape {
            let found = entry.shape.clone();
            return Err(Error::Shape { name: name.to_owned(), expected: shape.to_vec(), found });
        }
        let dtype = match entry.element {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => {
                return Err(Error::Unsupported {
                    what: "tensor type",
                    value: format!("{other} (of `{name}`)"),
                });
            }
        };
        let bytes = self.files.files[*file].read(entry.offset, entry.bytes)?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, shape, self.device.candle())?)
    }

    fn entries(&self) -> impl Iterator<Item = &(usize, TensorEntry)> {
        self.files.tensors.values()
    }
}

impl Weights for SafetensorsWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(self.load(name, shape)?.to_dtype(DType::F32)?)
    }

    fn linear(&self, name: &str, out: usize, inner: usize, bias: Option<&str>) -> Result<Linear, Error> {
        let weight = self.load(name, &[out, inner])?;
        let bias = bias.map(|bias| self.tensor(bias, &[out])).transpose()?;
        Ok(Linear::dense(&weight, bias.as_ref())?)
    }

    fn contains(&self, name: &str) -> bool {
        self.files.tensors.contains_key(name)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.files.tensors.get(name).map(|(_, entry)| entry.shape.clone())
    }

    fn total_bytes(&self) -> u64 {
        self.entries().map(|(_, entry)| entry.bytes).sum()
    }

    fn parameters(&self) -> u64 {
        super::parameters(self.entries().map(|(_, entry)| entry.shape.as_slice()))
    }

    fn dominant_type(&self) -> String {
        super::dominant_type(self.entries().map(|(_, entry)| (entry.element, entry.bytes)))
    }

    fn content_hash(&self) -> Result<String, Error> {
        let regions = self.entries().map(|(file, entry)| Region {
            file: &self.files.files[*file],
            label: format!("{} {:?} {}", entry.name, entry.shape, entry.element),
            offset: entry.offset,
            bytes: entry.bytes,
        });
        content_hash(regions.collect())
    }
}
