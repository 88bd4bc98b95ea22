//! The write out of candle's operations, for any device.

use candle_core::Tensor;

use crate::{PagedBatch, Result};

/// As [`write_cache`](crate::write_cache()), on any device, for tensors that fit; the cache is `[blocks, block, kv, d]`.
///
/// # Errors
/// Those of candle.
pub fn write_cache(k: &Tensor, v: &Tensor, keys: &Tensor, values: &Tensor, batch: &PagedBatch) -> Result<()> {
    if batch.tokens() == 0 {
        return Ok(());
    }
    let (tokens, kv_heads, width) = k.dims3()?;
    let row = kv_heads * width;
    let slots = Tensor::new(batch.slots(), keys.device())?.unsqueeze(1)?; // [t, 1]
    let slots = slots.broadcast_as((tokens, row))?.contiguous()?;
    for (new, cache) in [(k, keys), (v, values)] {
        let cells = cache.reshape((batch.blocks() * batch.block_size(), row))?; // Shares the cache's memory.
        let new = new.reshape((tokens, row))?.to_dtype(cache.dtype())?.contiguous()?;
        cells.scatter_set(&slots, &new, 0)?;
    }
    Ok(())
}
