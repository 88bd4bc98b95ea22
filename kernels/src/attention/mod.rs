//! Attention of packed queries: causal over the paged cache (prefill and decode in one call), or within
//! packed sequences.
//!
//! The one thing to know: a row walks its positions in tiles cut at absolute block positions. Tiles are gathered
//! into steps, whose softmax is taken at once, and steps into segments; both are cut at absolute positions too.
//! Chunks, threads and other rows never move a cut, so whole prefill, chunked prefill and decode give the same bits.

mod batch;
mod block;
mod cells;
pub mod composed;
mod cpu;
pub(crate) mod format;
mod pairs;
mod scratch;
mod softmax;
mod tile;

use candle_core::{CpuStorage, DType, Storage, Tensor};
use half::slice::HalfFloatSliceExt;

pub use batch::{PagedBatch, PagedParts};
pub use format::CacheFormat;

use crate::fresh::Fresh;
use crate::linear::{BLOCK, Linear, LinearInput, builder_for};
use crate::view::{is_cpu, with_f32};
use crate::{Cpu, Error, Result};
use batch::check_starts;
use cpu::{Cached, Call, Geometry, Outlet, Pages, Sequence};

/// Positions per tile where there is no block to say.
const PACKED_TILE: usize = 32;

/// How scores are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionOptions {
    /// Factor on `q · k`; usually `1/√d`.
    pub scale: f32,
    /// With a window `w`, position `i` sees `i - w < j ≤ i`.
    pub sliding_window: Option<usize>,
    /// With a cap `c`, a score `s` becomes `c · tanh(s / c)`.
    pub softcap: Option<f32>,
}

/// Causal attention of packed queries over the paged cache, into which their own keys and values are already
/// written.
///
/// `q [t, h, d]` f32 → `[t, h, d]` f32; `keys` and `values` as a [`CacheFormat`] says; `h` is a multiple of
/// `kv`. Softmax and sums are f32.
///
/// # Errors
/// [`Error::Shape`] if the tensors, or the batch and the cache, disagree on a size.
///
/// Source: Kwon et al. 2023, §4 <https://arxiv.org/abs/2309.06180>; online softmax, Milakov and Gimelshein
/// 2018 <https://arxiv.org/abs/1805.02867>; split over positions, Dao et al. 2023 (Flash-Decoding).
pub fn paged_attention(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    batch: &PagedBatch,
    options: &AttentionOptions,
) -> Result<Tensor> {
    if is_cpu(q) {
        return paged_attention_on(Cpu::host(), q, keys, values, batch, options);
    }
    check_paged(q, keys, values, batch, options)?;
    composed::paged_attention(q, keys, values, batch, options)
}

/// [`paged_attention`] on a chosen processor; the tensors are on the CPU.
///
/// # Errors
/// As [`paged_attention`].
pub fn paged_attention_on(
    cpu: Cpu,
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    batch: &PagedBatch,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let geometry = check_paged(q, keys, values, batch, options)?;
    attend(cpu, geometry, [q, keys, values], &paged(batch), options)
}

/// [`paged_attention`] as rows `[t, h · d]` that are made for the linear layer that reads them.
///
/// # Errors
/// As [`paged_attention`].
pub fn paged_attention_for(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    batch: &PagedBatch,
    options: &AttentionOptions,
    reader: &Linear,
) -> Result<LinearInput> {
    if is_cpu(q) {
        return paged_attention_for_on(Cpu::host(), [q, keys, values], batch, options, reader);
    }
    let attended = paged_attention(q, keys, values, batch, options)?;
    Ok(attended.flatten_from(1)?.into())
}

/// [`paged_attention_for`] of `[q, keys, values]` on a chosen processor; the tensors are on the CPU.
///
/// # Errors
/// As [`paged_attention_for`].
pub fn paged_attention_for_on(
    cpu: Cpu,
    [q, keys, values]: [&Tensor; 3],
    batch: &PagedBatch,
    options: &AttentionOptions,
    reader: &Linear,
) -> Result<LinearInput> {
    let geometry = check_paged(q, keys, values, batch, options)?;
    let (tokens, row) = (batch.tokens(), geometry.heads * geometry.width);
    let whole_blocks = geometry.width.is_multiple_of(BLOCK);
    match builder_for(q, &[reader], tokens, row).filter(|_| whole_blocks) {
        Some(builder) => {
            let out = Outlet::Rounded(&builder);
            attend_to(cpu, geometry, [q, keys, values], &paged(batch), options, out)?;
            // SAFETY: attention has written all rows and heads.
            Ok(LinearInput::rounded(tokens, row, unsafe { builder.finished() }))
        }
        None => Ok(paged_attention_on(cpu, q, keys, values, batch, options)?.flatten_from(1)?.into()),
    }
}

fn paged(batch: &PagedBatch) -> Vec<Sequence<'_>> {
    (0..batch.sequences())
        .map(|sequence| Sequence {
            rows: batch.rows(sequence),
            context: batch.context_len(sequence),
            positions: Some(&batch.positions()[batch.rows(sequence)]),
            pages: Pages::Table(batch.block_table(sequence)),
        })
        .collect()
}

/// Attention of every token to every token of its own packed sequence (encoders).
///
/// `q [t, h, d]`, `k` and `v` `[t, kv, d]`, all f32, `h` a multiple of `kv`; `starts [sequences + 1]`. → `[t,
/// h, d]`.
///
/// # Errors
/// [`Error::Shape`] if the tensors disagree on a size or `starts` does not cut `t`.
pub fn packed_attention(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[u32], scale: f32) -> Result<Tensor> {
    if is_cpu(q) {
        return packed_attention_on(Cpu::host(), q, k, v, starts, scale);
    }
    check_packed(q, k, v, starts)?;
    composed::packed_attention(q, k, v, starts, scale)
}

/// [`packed_attention`] on a chosen processor; the tensors are on the CPU.
///
/// # Errors
/// As [`packed_attention`].
pub fn packed_attention_on(
    cpu: Cpu,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: &[u32],
    scale: f32,
) -> Result<Tensor> {
    let geometry = check_packed(q, k, v, starts)?;
    let sequences: Vec<Sequence<'_>> = starts
        .windows(2)
        .map(|ends| {
            let rows = ends[0] as usize..ends[1] as usize;
            Sequence { context: rows.len(), positions: None, pages: Pages::From(rows.start), rows }
        })
        .collect();
    let options = AttentionOptions { scale, sliding_window: None, softcap: None };
    attend(cpu, geometry, [q, &k.contiguous()?, &v.contiguous()?], &sequences, &options)
}

fn attend(
    cpu: Cpu,
    geometry: Geometry,
    tensors: [&Tensor; 3],
    sequences: &[Sequence<'_>],
    options: &AttentionOptions,
) -> Result<Tensor> {
    let [q, ..] = tensors;
    let out = Fresh::new(q.elem_count());
    attend_to(cpu, geometry, tensors, sequences, options, Outlet::Plain(&out))?;
    // SAFETY: attention has written all rows and heads.
    Ok(Tensor::from_vec(unsafe { out.written() }, q.shape(), q.device())?)
}

fn attend_to(
    cpu: Cpu,
    geometry: Geometry,
    [q, keys, values]: [&Tensor; 3],
    sequences: &[Sequence<'_>],
    options: &AttentionOptions,
    out: Outlet<'_>,
) -> Result<()> {
    let (keys_guard, values_guard) = (keys.storage_and_layout().0, values.storage_and_layout().0);
    let (keys, values) = (cached(keys, &keys_guard)?, cached(values, &values_guard)?);
    with_f32("attention", q, |q| {
        cpu::attend(cpu, &Call { geometry, q, keys, values, sequences, options: *options }, out);
        Ok(())
    })
}

fn cached<'a>(tensor: &Tensor, storage: &'a Storage) -> Result<Cached<'a>> {
    let start = tensor.layout().start_offset();
    let range = start..start + tensor.elem_count();
    match storage {
        Storage::Cpu(CpuStorage::F16(cells)) => Ok(Cached::F16(&cells[range])),
        Storage::Cpu(CpuStorage::F32(cells)) => Ok(Cached::F32(&cells[range])),
        Storage::Cpu(CpuStorage::BF16(cells)) => Ok(Cached::Bf16(cells[range].reinterpret_cast())),
        Storage::Cpu(CpuStorage::I16(words)) => Ok(Cached::Q8(&words[range])),
        _ => Err(Error::element_type("attention", tensor.dtype())),
    }
}

fn check_paged(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    batch: &PagedBatch,
    options: &AttentionOptions,
) -> Result<Geometry> {
    if options.sliding_window == Some(0) {
        return Err(Error::shape("attention", "a window of 0 positions sees nothing"));
    }
    let (&[tokens, heads, width], &[_, second, third, _]) = (q.dims(), keys.dims()) else {
        let reason = format!("q {:?} is not [t, h, d], or keys {:?} no cache", q.dims(), keys.dims());
        return Err(Error::shape("attention", reason));
    };
    let tile = batch.block_size();
    let kv_heads = if is_cpu(keys) { second } else { third };
    let format = format_on("attention", keys)?;
    let shapes = format.shapes(keys.device(), batch.blocks(), tile, kv_heads, width);
    let fits = [keys.dims(), values.dims()] == shapes.each_ref().map(<[usize; 4]>::as_slice)
        && keys.dtype() == values.dtype()
        && keys.is_contiguous()
        && values.is_contiguous()
        && tokens == batch.tokens();
    if !fits {
        let reason = format!(
            "q {:?}, keys {:?} and values {:?} do not fit each other or a batch of {} tokens over {} blocks of {tile}",
            q.dims(),
            keys.dims(),
            values.dims(),
            batch.tokens(),
            batch.blocks(),
        );
        return Err(Error::shape("attention", reason));
    }
    check_heads(Geometry { heads, kv_heads, width, tile })
}

/// The format of a cache's tensor, if it is known where the tensor is.
pub(crate) fn format_on(operation: &'static str, cache: &Tensor) -> Result<CacheFormat> {
    CacheFormat::of(cache.dtype())
        .filter(|format| matches!(format, CacheFormat::F16 | CacheFormat::F32) || is_cpu(cache))
        .ok_or_else(|| Error::element_type(operation, cache.dtype()))
}

fn check_packed(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[u32]) -> Result<Geometry> {
    let (&[tokens, heads, width], &[cached_tokens, kv_heads, cached_width]) = (q.dims(), k.dims()) else {
        let reason = format!("q {:?} and k {:?} are not [t, h, d] and [t, kv, d]", q.dims(), k.dims());
        return Err(Error::shape("attention", reason));
    };
    if k.dims() != v.dims() || (cached_tokens, cached_width) != (tokens, width) {
        let reason = format!("q {:?}, k {:?}, v {:?} do not fit each other", q.dims(), k.dims(), v.dims());
        return Err(Error::shape("attention", reason));
    }
    if let Some(other) = [k, v].into_iter().find(|tensor| tensor.dtype() != DType::F32) {
        return Err(Error::element_type("attention", other.dtype()));
    }
    check_starts("attention", starts, tokens)?;
    check_heads(Geometry { heads, kv_heads, width, tile: PACKED_TILE })
}

fn check_heads(geometry: Geometry) -> Result<Geometry> {
    let Geometry { heads, kv_heads, width, .. } = geometry;
    if kv_heads == 0 || width == 0 || heads == 0 || heads % kv_heads != 0 {
        let reason = format!("{heads} heads over {kv_heads} kv heads of width {width}");
        return Err(Error::shape("attention", reason));
    }
    Ok(geometry)
}
