//! Attention out of candle's operations, for any device: a sequence's pages are gathered, then masked softmax
//! over them.
//!
//! Not for speed: it makes the scores of a whole sequence at once.

use candle_core::{D, DType, Tensor};

use super::{AttentionOptions, PagedBatch};
use crate::Result;

/// As [`paged_attention`](crate::paged_attention()), on any device, for tensors that fit; the cache is `[blocks, block, kv, d]`.
///
/// # Errors
/// Those of candle.
pub fn paged_attention(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    batch: &PagedBatch,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(batch.sequences());
    for sequence in 0..batch.sequences() {
        let rows = batch.rows(sequence);
        if rows.is_empty() {
            continue;
        }
        let context = batch.context_len(sequence);
        let blocks = &batch.block_table(sequence)[..context.div_ceil(batch.block_size())];
        let blocks = Tensor::new(blocks, q.device())?;
        let gather = |cache: &Tensor| -> Result<Tensor> {
            Ok(cache.index_select(&blocks, 0)?.flatten(0, 1)?.narrow(0, 0, context)?)
        };
        let mask = causal_mask(&batch.positions()[rows.clone()], context, options.sliding_window);
        let mask = Tensor::from_vec(mask, (rows.len(), context), q.device())?;
        let q = q.narrow(0, rows.start, rows.len())?;
        parts.push(attend(&q, &gather(keys)?, &gather(values)?, Some(&mask), options)?);
    }
    join(parts, q)
}

/// As [`packed_attention`](crate::packed_attention()), on any device, for tensors that fit.
///
/// # Errors
/// Those of candle.
pub fn packed_attention(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[u32], scale: f32) -> Result<Tensor> {
    let options = AttentionOptions { scale, sliding_window: None, softcap: None };
    let mut parts = Vec::with_capacity(starts.len());
    for ends in starts.windows(2) {
        let (start, length) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
        if length == 0 {
            continue;
        }
        let [q, k, v] = [q, k, v].map(|tensor| tensor.narrow(0, start, length));
        parts.push(attend(&q?, &k?, &v?, None, &options)?);
    }
    join(parts, q)
}

fn join(parts: Vec<Tensor>, q: &Tensor) -> Result<Tensor> {
    if parts.is_empty() { Ok(q.zeros_like()?) } else { Ok(Tensor::cat(&parts, 0)?) }
}

/// `[rows, context]`: 0 where a row sees a position, else minus infinity.
fn causal_mask(positions: &[u32], context: usize, window: Option<usize>) -> Vec<f32> {
    let row = |position: &u32| {
        let end = *position as usize + 1;
        let seen = end.saturating_sub(window.unwrap_or(end))..end;
        (0..context).map(move |position| if seen.contains(&position) { 0.0 } else { f32::NEG_INFINITY })
    };
    positions.iter().flat_map(row).collect()
}

/// `q [r, h, d]`, `k` and `v` `[c, kv, d]`, `mask [r, c]` → `[r, h, d]`.
fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let (rows, heads, width) = q.dims3()?;
    let (context, kv_heads, _) = k.dims3()?;
    let group = heads / kv_heads;
    // Grouped queries: the rows of a group's heads lie one after another over their one kv head.
    let q = q.reshape((rows, kv_heads, group, width))?.permute((1, 2, 0, 3))?.contiguous()?;
    let q = q.reshape((kv_heads, group * rows, width))?;
    let k = k.to_dtype(DType::F32)?.permute((1, 2, 0))?.contiguous()?; // [kv, d, c]
    let v = v.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()?; // [kv, c, d]
    let mut scores = (q.matmul(&k)? * f64::from(options.scale))?;
    if let Some(cap) = options.softcap {
        scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
    }
    if let Some(mask) = mask {
        let grouped = scores.reshape((kv_heads, group, rows, context))?;
        scores = grouped.broadcast_add(mask)?.reshape((kv_heads, group * rows, context))?;
    }
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    let out = weights.matmul(&v)?.reshape((kv_heads, group, rows, width))?;
    Ok(out.permute((2, 0, 1, 3))?.contiguous()?.reshape((rows, heads, width))?)
}
