//! Writes new keys and values into their slots of the paged cache. In place: the cache tensors are shared by
//! all passes.

pub mod composed;

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};
use half::slice::HalfFloatSliceExt;

use crate::attention::format::{GROUP, piece_mut, piece_words, round};
use crate::attention::format_on;
use crate::linear::narrowed::narrow;
use crate::pool::SharedSlice;
use crate::view::is_cpu;
use crate::{Cpu, Error, PagedBatch, Result};

/// Writes `k` and `v` `[t, kv, d]` f32 to `batch`'s slots of `keys` and `values`, which are as a
/// [`CacheFormat`](crate::CacheFormat) says.
///
/// # Errors
/// [`Error::Shape`] if the tensors, or the batch and the cache, disagree on a size; [`Error::ElementType`] if the cache
/// has a format that is not written on its device.
pub fn write_cache(k: &Tensor, v: &Tensor, keys: &Tensor, values: &Tensor, batch: &PagedBatch) -> Result<()> {
    check([k, v], [keys, values], batch)?;
    if !is_cpu(keys) {
        return composed::write_cache(k, v, keys, values, batch);
    }
    let (_, kv_heads, width) = k.dims3()?;
    let rows = Rows { slots: batch.slots(), block_size: batch.block_size(), kv_heads, width, turned: false };
    keys.inplace_op2(&k.contiguous()?, &Rows { turned: true, ..rows })?;
    values.inplace_op2(&v.contiguous()?, &rows)?;
    Ok(())
}

fn check(new: [&Tensor; 2], cache: [&Tensor; 2], batch: &PagedBatch) -> Result<()> {
    let &[tokens, kv_heads, width] = new[0].dims() else {
        return Err(Error::shape("write_cache", format!("{:?} is not [t, kv, d]", new[0].dims())));
    };
    let format = format_on("write_cache", cache[0])?;
    let shapes = format.shapes(cache[0].device(), batch.blocks(), batch.block_size(), kv_heads, width);
    let fits = new[1].dims() == new[0].dims()
        && cache.map(Tensor::dims) == shapes.each_ref().map(<[usize; 4]>::as_slice)
        && cache.iter().all(|tensor| tensor.is_contiguous() && tensor.dtype() == format.dtype())
        && tokens == batch.tokens();
    if !fits {
        let (new, cache) = (new.map(Tensor::dims), cache.map(Tensor::dims));
        let reason = format!("{new:?} into {cache:?} for a batch of {} tokens", batch.tokens());
        return Err(Error::shape("write_cache", reason));
    }
    Ok(())
}

/// Fewer rows than this are not worth a task of their own.
const FEWEST: usize = 4;

/// Where new rows go.
#[derive(Clone, Copy)]
struct Rows<'a> {
    slots: &'a [u32],
    block_size: usize,
    kv_heads: usize,
    width: usize,
    /// A block holds `[d, block]` of each kv head, not `[block, d]`.
    turned: bool,
}

impl InplaceOp2 for Rows<'_> {
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
        match cache {
            CpuStorage::F32(cache) => self.write(rows, &mut cache[cells], |to, row| to.copy_from_slice(row)),
            CpuStorage::F16(cache) => {
                self.write(rows, &mut cache[cells], |to, row| to.convert_from_f32_slice(row));
            }
            CpuStorage::BF16(cache) => self.write_pairs(rows, cache[cells].reinterpret_cast_mut()),
            CpuStorage::I16(cache) => self.write_codes(rows, &mut cache[cells]),
            _ => candle_core::bail!("write_cache: the cache is not f16, bf16, f32 or q8_0"),
        }
        Ok(())
    }
}

impl Rows<'_> {
    /// Slots lie in the cache, and no two are the same: the batch was checked.
    fn write<T: Copy + Default + Send>(
        &self,
        rows: &[f32],
        cache: &mut [T],
        convert: impl Fn(&mut [T], &[f32]) + Sync,
    ) {
        let &Self { block_size, kv_heads, width, .. } = self;
        let row = kv_heads * width;
        let cache = SharedSlice::new(cache);
        // What is written lies scattered: the threads wait for memory side by side.
        Cpu::host().pool().for_each_chunk(self.slots.len(), FEWEST, &|tokens| {
            let mut converted = vec![T::default(); row];
            for (slot, values) in
                self.slots[tokens.clone()].iter().zip(rows[tokens.start * row..].chunks(row))
            {
                convert(&mut converted, values);
                let (block, position) = (*slot as usize / block_size, *slot as usize % block_size);
                for (head, values) in converted.chunks_exact(width).enumerate() {
                    let cells = (block * kv_heads + head) * block_size * width;
                    if self.turned {
                        for (dimension, value) in values.iter().enumerate() {
                            // SAFETY: a slot's cells belong to the one task that has the slot.
                            let cell = unsafe { cache.range(cells + dimension * block_size + position, 1) };
                            cell[0] = *value;
                        }
                    } else {
                        // SAFETY: as above.
                        let row = unsafe { cache.range(cells + position * width, width) };
                        row.copy_from_slice(values);
                    }
                }
            }
        });
    }

    /// As [`Rows::write`], in pairs of dimensions or positions.
    fn write_pairs(&self, rows: &[f32], cache: &mut [u16]) {
        let &Self { block_size, kv_heads, width, .. } = self;
        let row = kv_heads * width;
        // Of a kv head's piece of a block.
        let cells =
            if self.turned { width.div_ceil(2) * 2 * block_size } else { block_size.div_ceil(2) * 2 * width };
        let cache = SharedSlice::new(cache);
        let cpu = Cpu::host();
        cpu.pool().for_each_chunk(self.slots.len(), FEWEST, &|tokens| {
            let mut narrowed = vec![0u16; row];
            for (slot, values) in
                self.slots[tokens.clone()].iter().zip(rows[tokens.start * row..].chunks(row))
            {
                narrow(cpu.level(), values, &mut narrowed);
                let (block, position) = (*slot as usize / block_size, *slot as usize % block_size);
                for (head, values) in narrowed.chunks_exact(width).enumerate() {
                    let first = (block * kv_heads + head) * cells;
                    for (dimension, value) in values.iter().enumerate() {
                        let at = if self.turned {
                            dimension / 2 * 2 * block_size + 2 * position + dimension % 2
                        } else {
                            position / 2 * 2 * width + 2 * dimension + position % 2
                        };
                        // SAFETY: a slot's cells belong to the one task that has the slot.
                        let cell = unsafe { cache.range(first + at, 1) };
                        cell[0] = *value;
                    }
                }
            }
        });
    }

    /// As [`Rows::write`], rounded to codes.
    fn write_codes(&self, rows: &[f32], cache: &mut [i16]) {
        let &Self { block_size, kv_heads, width, .. } = self;
        let words = piece_words(width, block_size);
        let mut rounded = [0i8; GROUP];
        for (slot, row) in self.slots.iter().zip(rows.chunks_exact(kv_heads * width)) {
            let (block, position) = (*slot as usize / block_size, *slot as usize % block_size);
            let pieces = cache[block * kv_heads * words..].chunks_exact_mut(words);
            for (piece, head) in pieces.zip(row.chunks_exact(width)) {
                let (scales, codes) = piece_mut(piece, width, block_size);
                for (group, values) in head.chunks(GROUP).enumerate() {
                    let rounded = &mut rounded[..values.len()];
                    scales[group * block_size + position] = round(values, rounded);
                    let first = group * GROUP;
                    if self.turned {
                        let column = codes[first * block_size + position..].iter_mut().step_by(block_size);
                        column.zip(rounded).for_each(|(to, code)| *to = *code);
                    } else {
                        codes[position * width + first..][..rounded.len()].copy_from_slice(rounded);
                    }
                }
            }
        }
    }
}
