//! GGUF files, whole or in shards, as [`Weights`]. The header is `gguf_header.rs`, the names are `gguf_names.rs`.
//!
//! One thing to know: for `llama`, the converter reorders the rows of the query and key projections so that pairs of a
//! rotation lie side by side. They are put back here as whole rows (quantised or not), and no one else need know.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::{DType, Tensor};
use sconce_kernels::{Linear, Rounding};
use serde_json::Value;

use super::Weights;
use super::gguf_config::{self, TensorFacts};
use super::gguf_header::{GgufHeader, TensorInfo};
use super::gguf_metadata::Metadata;
use super::gguf_names::hugging_face_name;
use super::regions::{OpenFile, Region, content_hash};
use crate::{Arithmetic, Device, Error};

/// Most shards of one model.
const MAX_SHARDS: usize = 1024;

/// An opened GGUF model: headers of all shards, checked.
#[derive(Debug)]
pub struct GgufFile {
    shards: Vec<OpenFile>,
    metadata: Metadata,
    tensors: HashMap<String, Located>,
}

#[derive(Debug)]
struct Located {
    shard: usize,
    info: TensorInfo,
}

impl GgufFile {
    /// Opens all shards of a model (one path for an unsharded file) and checks their headers.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if one is damaged or they do not belong together; [`Error::Unsupported`] for an element
    /// type we cannot compute with; [`Error::Read`].
    pub fn open(shards: &[PathBuf]) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut headers = Vec::new();
        if let Some(path) = shards.get(MAX_SHARDS) {
            return Err(Error::NoModel {
                path: path.clone(),
                reason: format!("there are more than {MAX_SHARDS} shards"),
            });
        }
        for path in shards {
            let file = OpenFile::open(path)?;
            headers.push(GgufHeader::read(path, &file.file)?);
            files.push(file);
        }
        check_split(&headers)?;
        let mut tensors = HashMap::new();
        let mut metadata = None;
        for (shard, header) in headers.into_iter().enumerate() {
            for info in header.tensors {
                let name = hugging_face_name(&info.name);
                if tensors.contains_key(&name) {
                    return Err(header.metadata.invalid(format!("tensor `{}` is there twice", info.name)));
                }
                tensors.insert(name, Located { shard, info });
            }
            metadata.get_or_insert(header.metadata);
        }
        let Some(metadata) = metadata else {
            return Err(Error::NoModel { path: PathBuf::new(), reason: "no GGUF file was given".into() });
        };
        Ok(Self { shards: files, metadata, tensors })
    }

    /// The metadata (of the first shard, which has all of it).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The `config.json` that the metadata stands for.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`], [`Error::Unsupported`], [`Error::InvalidFile`].
    pub fn config(&self) -> Result<Value, Error> {
        gguf_config::architecture(&self.metadata)?;
        let embedding = self.shape("model.embed_tokens.weight");
        let Some([vocabulary, _]) = embedding.as_deref() else {
            return Err(Error::MissingTensor { name: "token_embd.weight".into() });
        };
        let has = |name: &str| self.tensors.contains_key(name);
        let facts = TensorFacts {
            vocabulary: *vocabulary,
            has_output: has("lm_head.weight"),
            has_attention_bias: has("model.layers.0.self_attn.q_proj.bias"),
            has_mlp_bias: has("model.layers.0.mlp.gate_proj.bias"),
            has_rope_factors: has("rope_freqs.weight"),
        };
        gguf_config::config(&self.metadata, &facts)
    }

    /// The tensors, to be put on `device`.
    pub fn weights(self, device: &Device, arithmetic: Arithmetic) -> GgufWeights {
        GgufWeights { file: self, device: device.clone(), arithmetic }
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|located| located.info.shape.clone())
    }

    /// A tensor's bytes, rows in Hugging Face order.
    fn read(&self, name: &str, located: &Located) -> Result<Vec<u8>, Error> {
        let bytes = self.shards[located.shard].read(located.info.offset, located.info.bytes)?;
        match self.interleaved_heads(name)? {
            None => Ok(bytes),
            Some(heads) => {
                let rows = located.info.shape[0];
                if !rows.is_multiple_of(2 * heads) {
                    let reason = format!("tensor `{}` has {rows} rows for {heads} heads", located.info.name);
                    return Err(self.metadata.invalid(reason));
                }
                Ok(separate_halves(&bytes, rows, heads))
            }
        }
    }

    /// The number of heads whose rows the converter has interleaved, if it has.
    fn interleaved_heads(&self, name: &str) -> Result<Option<usize>, Error> {
        let is_query = name.contains(".self_attn.q_proj.");
        let is_key = name.contains(".self_attn.k_proj.");
        if !(is_query || is_key) || gguf_config::architecture(&self.metadata)? != "llama" {
            return Ok(None);
        }
        let (heads, kv_heads) = gguf_config::heads(&self.metadata)?;
        Ok(Some(if is_query { heads } else { kv_heads }))
    }
}

/// Checks that the shards say of themselves what their order says.
fn check_split(headers: &[GgufHeader]) -> Result<(), Error> {
    for (index, header) in headers.iter().enumerate() {
        let metadata = &header.metadata;
        let count = metadata.unsigned("split.count")?.unwrap_or(1);
        if count > 1 || headers.len() > 1 {
            let number = metadata.unsigned("split.no")?;
            if count != headers.len() as u64 || number != Some(index as u64) {
                let found =
                    number.map_or("without a number".into(), |number| format!("number {number} from 0"));
                let place = format!("it was given as number {index} of {}", headers.len());
                return Err(metadata.invalid(format!("it is the shard {found} of {count}; {place}")));
            }
        }
    }
    Ok(())
}

/// Puts rows `(head, pair, half)` into the order `(head, half, pair)`.
fn separate_halves(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row_bytes = bytes.len() / rows;
    let pairs = rows / heads / 2;
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for half in 0..2 {
            for pair in 0..pairs {
                let row = (head * pairs + pair) * 2 + half;
                ordered.extend_from_slice(&bytes[row * row_bytes..(row + 1) * row_bytes]);
            }
        }
    }
    ordered
}

/// The tensors of a GGUF model.
#[derive(Debug)]
pub struct GgufWeights {
    file: GgufFile,
    device: Device,
    arithmetic: Arithmetic,
}

impl GgufWeights {
    fn find(&self, name: &str, shape: &[usize]) -> Result<&Located, Error> {
        let located =
            self.file.tensors.get(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        if located.info.shape != shape {
            let found = located.info.shape.clone();
            return Err(Error::Shape { name: name.to_owned(), expected: shape.to_vec(), found });
        }
        Ok(located)
    }

    /// On the device, in its own type if that is dense, else as f32.
    fn dense(&self, name: &str, located: &Located) -> Result<Tensor, Error> {
        let bytes = self.file.read(name, located)?;
        let shape = located.info.shape.as_slice();
        let device = self.device.candle();
        let dtype = match located.info.element.ggml {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            quantised => {
                let cpu = candle_core::Device::Cpu;
                let tensor = qtensor_from_ggml(quantised, &bytes, shape.to_vec(), &cpu)?;
                return Ok(tensor.dequantize(&cpu)?.to_device(device)?);
            }
        };
        Ok(Tensor::from_raw_buffer(&bytes, dtype, shape, device)?)
    }
}

impl Weights for GgufWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let located = self.find(name, shape)?;
        Ok(self.dense(name, located)?.to_dtype(DType::F32)?)
    }

    fn linear(&self, name: &str, out: usize, inner: usize, bias: Option<&str>) -> Result<Linear, Error> {
        let located = self.find(name, &[out, inner])?;
        let bias = bias.map(|bias| self.tensor(bias, &[out])).transpose()?;
        let element = located.info.element;
        if element.is_dense() || self.arithmetic == Arithmetic::Float {
            return Ok(Linear::dense(&self.dense(name, located)?, bias.as_ref())?);
        }
        let blocks = self.file.read(name, located)?;
        let rounding = match self.arithmetic {
            Arithmetic::Auto => Rounding::best(element.ggml),
            Arithmetic::Integer | Arithmetic::Float => Rounding::Bytes,
        };
        let (size, device) = ((out, inner), self.device.candle());
        Ok(Linear::quantised_for(rounding, element.ggml, &blocks, size, bias.as_ref(), device)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.shape(name)
    }

    fn total_bytes(&self) -> u64 {
        self.file.tensors.values().map(|located| located.info.bytes).sum()
    }

    fn parameters(&self) -> u64 {
        super::parameters(self.file.tensors.values().map(|located| located.info.shape.as_slice()))
    }

    fn dominant_type(&self) -> String {
        let infos = self.file.tensors.values().map(|located| &located.info);
        super::dominant_type(infos.map(|info| (info.element.name, info.bytes)))
    }

    fn content_hash(&self) -> Result<String, Error> {
        let regions = self.file.tensors.values().map(|located| Region {
            file: &self.file.shards[located.shard],
            label: format!("{} {:?} {}", located.info.name, located.info.shape, located.info.element.name),
            offset: located.info.offset,
            bytes: located.info.bytes,
        });
        content_hash(regions.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::separate_halves;

    #[test]
    fn interleaved_rows_are_put_back() {
        // Two heads of width 4, two bytes a row: (head, pair, half) in, (head, half, pair) out.
        let interleaved: Vec<u8> = [0, 2, 1, 3, 4, 6, 5, 7].iter().flat_map(|row| [*row, *row]).collect();
        let rows: Vec<u8> = (0..8).flat_map(|row| [row, row]).collect();
        assert_eq!(separate_halves(&interleaved, 8, 2), rows);
    }
}
