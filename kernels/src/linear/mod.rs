//! A linear layer: a matrix in any GGUF or dense type, times packed rows of activations.
//!
//! Quantised weights are held once, packed ([`panels`]) for one of two ways of multiplying them ([`Rounding`]); activations are
//! rounded once per input, to bytes ([`activations`]) or to bf16 ([`narrowed`]). Work is cut over panels of sixteen output rows and over tiles of activation rows;
//! neither cut changes the order of additions within an output element.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bfloat;
pub mod composed;
mod dense;
mod format;
mod gated;
mod input;
pub(crate) mod narrowed;
mod panels;
mod product;
mod rounded;
mod rounding;
mod scalar;
mod slab;
mod target;
#[cfg(target_arch = "x86_64")]
mod tiled;
mod turned;

use std::fmt;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};

use crate::view::{is_cpu, to_f32_vec};
use crate::{Cpu, Error, Result};
use composed::ComposedLinear;
pub(crate) use format::BLOCK;
pub use gated::{gated, gated_on};
pub use input::LinearInput;
use input::Rows;
pub(crate) use input::builder_for;
use panels::Panels;
use product::{multiply_all, multiply_onto};
pub(crate) use rounded::Builder;
pub use rounding::Rounding;

/// `y = x · Wᵀ + b` for one matrix `W [out, in]`. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct Linear(Arc<Inner>);

struct Inner {
    weights: Weights,
    out: usize,
    inner: usize,
    /// `[out]`, on the CPU.
    bias: Option<Vec<f32>>,
    /// `[out]`, on the weights' device if that is not the CPU.
    device_bias: Option<Tensor>,
}

enum Weights {
    Packed(Panels),
    Dense(Tensor),
    Composed(ComposedLinear),
}

impl fmt::Debug for Linear {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0.weights {
            Weights::Packed(panels) => format!("{:?}", panels.dtype()),
            Weights::Dense(weight) => format!("{:?}", weight.dtype()),
            Weights::Composed(_) => "composed".to_owned(),
        };
        write!(formatter, "Linear([{}, {}], {kind})", self.0.out, self.0.inner)
    }
}

impl Linear {
    /// Over a matrix `weight [out, in]` f32, f16 or bf16, with `bias [out]`. The weight keeps its type; on
    /// the CPU its memory is shared with the tensor, not copied. Sums are f32.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes disagree, [`Error::ElementType`] for other types.
    pub fn dense(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let &[out, inner] = weight.dims() else {
            return Err(Error::shape("linear", format!("weight {:?} is not a matrix", weight.dims())));
        };
        if !matches!(weight.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            return Err(Error::element_type("linear", weight.dtype()));
        }
        let weights = if is_cpu(weight) {
            Weights::Dense(weight.contiguous()?)
        } else {
            Weights::Composed(ComposedLinear::dense(weight)?)
        };
        Self::new(weights, out, inner, bias)
    }

    /// Over raw GGUF `blocks` of a matrix `[out, inner]`, row after row, with `bias [out]`. The blocks are
    /// not kept.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of bytes does not fit, or `inner` is not a multiple of the type's
    /// block.
    pub fn quantised(
        dtype: GgmlDType,
        blocks: &[u8],
        out: usize,
        inner: usize,
        bias: Option<&Tensor>,
        device: &Device,
    ) -> Result<Self> {
        Self::quantised_for(Rounding::best(dtype), dtype, blocks, (out, inner), bias, device)
    }

    /// [`Linear::quantised`] with the rounding spelled out, which counts on the CPU.
    ///
    /// # Errors
    /// As [`Linear::quantised`].
    pub fn quantised_for(
        rounding: Rounding,
        dtype: GgmlDType,
        blocks: &[u8],
        (out, inner): (usize, usize),
        bias: Option<&Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let dense_type = match dtype {
            GgmlDType::F32 => Some(DType::F32),
            GgmlDType::F16 => Some(DType::F16),
            GgmlDType::BF16 => Some(DType::BF16),
            _ => None,
        };
        if let Some(dense_type) = dense_type {
            let bytes = out.checked_mul(inner).and_then(|count| count.checked_mul(dtype.type_size()));
            if bytes != Some(blocks.len()) {
                let reason = format!("{} bytes are not [{out}, {inner}] of {dtype:?}", blocks.len());
                return Err(Error::shape("linear", reason));
            }
            let weight = Tensor::from_raw_buffer(blocks, dense_type, &[out, inner], device)?;
            return Self::dense(&weight, bias);
        }
        let weights = match device {
            Device::Cpu => {
                let pool = Cpu::host().pool();
                Weights::Packed(Panels::pack(pool, rounding, dtype, blocks, (out, inner))?)
            }
            _ => Weights::Composed(ComposedLinear::quantised(dtype, blocks, out, inner, device)?),
        };
        Self::new(weights, out, inner, bias)
    }

    fn new(weights: Weights, out: usize, inner: usize, bias: Option<&Tensor>) -> Result<Self> {
        if inner == 0 || out == 0 {
            return Err(Error::shape("linear", format!("a matrix [{out}, {inner}] is empty")));
        }
        if let Some(bias) = bias
            && bias.dims() != [out]
        {
            return Err(Error::shape("linear", format!("bias {:?} against {out} rows", bias.dims())));
        }
        let composed = matches!(weights, Weights::Composed(_));
        let device_bias = bias.filter(|_| composed).map(|bias| bias.to_dtype(DType::F32)).transpose()?;
        let bias = bias.filter(|_| !composed).map(to_f32_vec).transpose()?;
        Ok(Self(Arc::new(Inner { weights, out, inner, bias, device_bias })))
    }

    /// `x [t, in]` f32 → `[t, out]` f32. A row of the result depends on that row of `x` alone.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not `[t, in]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut results = Self::forward_all(&[self], x)?;
        results.pop().ok_or_else(|| Error::shape("linear", "no result"))
    }

    /// [`Linear::forward`], its result on the host: `[t · out]`. On the CPU nothing is copied.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_to_host(&self, x: &Tensor) -> Result<Vec<f32>> {
        if self.is_composed() {
            return Ok(self.forward_composed(x)?.flatten_all()?.to_vec1()?);
        }
        let cpu = Cpu::host();
        let x = LinearInput::from(x.clone());
        let mut results = x.lend(cpu, &[self], |rows| multiply_all(cpu, &[self], rows))?;
        results.pop().ok_or_else(|| Error::shape("linear", "no result"))
    }

    /// Several matrices over one input (q, k and v; gate and up): the input is rounded once, and one parallel
    /// region covers them all. The results are those of [`Linear::forward`].
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_all(linears: &[&Self], x: &Tensor) -> Result<Vec<Tensor>> {
        Self::forward_all_on(Cpu::host(), linears, x)
    }

    /// [`Linear::forward_all`] with the processor spelled out, for CPU tensors.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_all_on(cpu: Cpu, linears: &[&Self], x: &Tensor) -> Result<Vec<Tensor>> {
        Self::forward_input_on(cpu, linears, &x.clone().into())
    }

    /// [`Linear::forward_all`] over rows that were made for these layers.
    ///
    /// # Errors
    /// As [`Linear::forward`]; [`Error::Shape`], too, if the rows were made for other layers.
    pub fn forward_input(linears: &[&Self], x: &LinearInput) -> Result<Vec<Tensor>> {
        Self::forward_input_on(Cpu::host(), linears, x)
    }

    /// [`Linear::forward_input`] with the processor spelled out, for CPU tensors.
    ///
    /// # Errors
    /// As [`Linear::forward_input`].
    pub fn forward_input_on(cpu: Cpu, linears: &[&Self], x: &LinearInput) -> Result<Vec<Tensor>> {
        let (tokens, _) = x.dims()?;
        if linears.iter().any(|linear| linear.is_composed()) {
            let x = x.tensor()?;
            return linears.iter().map(|linear| linear.forward_composed(x)).collect();
        }
        x.lend(cpu, linears, |rows| multiply_all(cpu, linears, rows))?
            .into_iter()
            .zip(linears)
            .map(|(values, linear)| Ok(Tensor::from_vec(values, (tokens, linear.0.out), &Device::Cpu)?))
            .collect()
    }

    /// Rows `x [t, in]` and `onto [t, out]` f32 → `onto` and the product, added: the end of a block that has a residual
    /// stream. The result is that of [`Linear::forward`] and an addition; on the CPU it is made in `onto`'s memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not `[t, in]`, or `onto` not `[t, out]`.
    pub fn forward_onto(&self, x: &LinearInput, onto: Tensor) -> Result<Tensor> {
        self.forward_onto_on(Cpu::host(), x, onto)
    }

    /// [`Linear::forward_onto`] with the processor spelled out, for CPU tensors.
    ///
    /// # Errors
    /// As [`Linear::forward_onto`].
    pub fn forward_onto_on(&self, cpu: Cpu, x: &LinearInput, onto: Tensor) -> Result<Tensor> {
        let (tokens, inner) = x.dims()?;
        if inner != self.0.inner || onto.dims() != [tokens, self.0.out] {
            let reason = format!("x [{tokens}, {inner}] onto {:?} against {self:?}", onto.dims());
            return Err(Error::shape("linear", reason));
        }
        if self.is_composed() {
            return Ok((onto + self.forward_composed(x.tensor()?)?)?);
        }
        let onto = onto.contiguous()?;
        x.lend(cpu, &[self], |rows| Ok(onto.inplace_op1(&AddProduct { cpu, linear: self, rows })?))?;
        Ok(onto)
    }

    fn is_composed(&self) -> bool {
        matches!(self.0.weights, Weights::Composed(_))
    }

    fn forward_composed(&self, x: &Tensor) -> Result<Tensor> {
        let Weights::Composed(composed) = &self.0.weights else {
            return Err(Error::shape("linear", "weights on different devices"));
        };
        let product = composed.forward(x)?;
        match &self.0.device_bias {
            Some(bias) => Ok(product.broadcast_add(bias)?),
            None => Ok(product),
        }
    }

    /// Rows of the matrix as f32 `[ids, in]`: an embedding table, or a head tied to one.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if an id is not a row.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.0.out) {
            return Err(Error::OutOfRange {
                operation: "embed",
                what: "row",
                index: *id as usize,
                count: self.0.out,
            });
        }
        let inner = self.0.inner;
        match &self.0.weights {
            Weights::Packed(panels) => {
                let mut rows = vec![0f32; ids.len() * inner];
                for (id, row) in ids.iter().zip(rows.chunks_exact_mut(inner)) {
                    panels.read_row(*id as usize, row);
                }
                Ok(Tensor::from_vec(rows, (ids.len(), inner), &Device::Cpu)?)
            }
            Weights::Dense(weight) => {
                let ids = Tensor::new(ids, &Device::Cpu)?;
                Ok(weight.index_select(&ids, 0)?.to_dtype(DType::F32)?)
            }
            Weights::Composed(composed) => composed.embed(&Tensor::new(ids, &composed.device())?),
        }
    }

    /// Bytes the weights and the bias take.
    pub fn memory_bytes(&self) -> u64 {
        let weights = match &self.0.weights {
            Weights::Packed(panels) => panels.memory_bytes(),
            Weights::Dense(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
            Weights::Composed(composed) => composed.memory_bytes(),
        };
        let bias = if self.0.bias.is_some() || self.0.device_bias.is_some() { 4 * self.0.out } else { 0 };
        (weights + bias) as u64
    }

    /// Rows of the matrix.
    pub fn out_features(&self) -> usize {
        self.0.out
    }

    /// Columns of the matrix.
    pub fn in_features(&self) -> usize {
        self.0.inner
    }
}

/// Adds a product to a tensor in its place.
struct AddProduct<'a> {
    cpu: Cpu,
    linear: &'a Linear,
    rows: &'a Rows<'a>,
}

impl InplaceOp1 for AddProduct<'_> {
    fn name(&self) -> &'static str {
        "add_product"
    }

    fn cpu_fwd(&self, onto: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(cells) = onto else {
            candle_core::bail!("add_product: the residual stream is not f32");
        };
        let cells = &mut cells[layout.start_offset()..layout.start_offset() + layout.shape().elem_count()];
        multiply_onto(self.cpu, self.linear, self.rows, cells).map_err(candle_core::Error::wrap)
    }
}
