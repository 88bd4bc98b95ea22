//! Writes new keys and values into their slots of the paged cache. In place: the cache tensors are shared by
//! all passes.

pub mod composed;

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};
use half::slice::HalfFloatSliceExt;

use crate::view::is_cpu;
use crate::{Error, PagedBatch, Result};

/// Writes `k` and `v` `[t, kv, d]` f32 to `batch`'s slots of `keys` and `values` `[blocks, block, kv, d]` f16
/// or f32.
///
/// # Errors
/// [`Error::Shape`] if the tensors, or the batch and the cache, disagree on a size.
pub fn write_cache(k: &Tensor, v: &Tensor, keys: &Tensor, values: &Tensor, batch: &PagedBatch) -> Result<()> {
    for (new, cache) in [(k, keys), (v, values)] {
        check(new, cache, batch)?;
    }
    if !is_cpu(keys) {
        return composed::write_cache(k, v, keys, values, batch);
    }
    for (new, cache) in [(k, keys), (v, values)] {
        cache.inplace_op2(&new.contiguous()?, &WriteRows { slots: batch.slots() })?;
    }
    Ok(())
}

fn check(new: &Tensor, cache: &Tensor, batch: &PagedBatch) -> Result<()> {
    let (&[tokens, kv_heads, width], &[blocks, block_size, cached_heads, cached_width]) =
        (new.dims(), cache.dims())
    else {
        let reason =
            format!("{:?} and {:?} are not [t, kv, d] and [blocks, block, kv, d]", new.dims(), cache.dims());
        return Err(Error::shape("write_cache", reason));
    };
    let fits = (kv_heads, width) == (cached_heads, cached_width)
        && tokens == batch.tokens()
        && (blocks, block_size) == (batch.blocks(), batch.block_size())
        && cache.is_contiguous();
    if !fits {
        let reason =
            format!("{:?} into {:?} for a batch of {} tokens", new.dims(), cache.dims(), batch.tokens());
        return Err(Error::shape("write_cache", reason));
    }
    Ok(())
}

struct WriteRows<'a> {
    slots: &'a [u32],
}

impl InplaceOp2 for WriteRows<'_> {
    fn name(&self) -> &'static str {
        "write_cache"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        to: &Layout,
        new: &CpuStorage,
        from: &Layout,
    ) -> candle_core::Result<()> {
        let CpuStorage::F32(rows) = new else {
            candle_core::bail!("write_cache: new rows are not f32");
        };
        let rows = &rows[from.start_offset()..from.start_offset() + from.shape().elem_count()];
        let cells = to.start_offset()..to.start_offset() + to.shape().elem_count();
        let width = rows.len() / self.slots.len().max(1);
        match cache {
            CpuStorage::F32(cache) => {
                for_each_slot(self.slots, rows, &mut cache[cells], width, |to, row| to.copy_from_slice(row));
            }
            CpuStorage::F16(cache) => {
                for_each_slot(self.slots, rows, &mut cache[cells], width, |to, row| {
                    to.convert_from_f32_slice(row)
                });
            }
            _ => candle_core::bail!("write_cache: the cache is neither f16 nor f32"),
        }
        Ok(())
    }
}

/// Slots lie in the cache: the batch was checked against its size.
fn for_each_slot<T>(
    slots: &[u32],
    rows: &[f32],
    cache: &mut [T],
    width: usize,
    write: impl Fn(&mut [T], &[f32]),
) {
    for (slot, row) in slots.iter().zip(rows.chunks_exact(width.max(1))) {
        let at = *slot as usize * width;
        write(&mut cache[at..at + width], row);
    }
}
