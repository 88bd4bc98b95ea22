//! The reference kernel of products in bf16, in plain Rust. Slow; it says which operations those with tiles do.
//!
//! Per output element and block of 32: two chains of fused additions from zero, one of the even elements and one of the odd; their
//! sum is added to the total. A result below the smallest normal number is zero; so is, in tiles alone, one that only rounding makes
//! that number.

use super::format::{BLOCK, Kind};
use super::narrowed::{Narrowed, flushed, to_bf16};
use super::panels::{ROWS, code_of_row, scale_and_minimum};

/// Products of one panel with one row of activations.
pub(super) fn panel<K: Kind>(panel: &[u8], x: &Narrowed, token: usize) -> [f32; ROWS] {
    let mut totals = [0f32; ROWS];
    for (group, bytes) in panel.chunks_exact(K::GROUP_BYTES).take(x.blocks() / K::BLOCKS).enumerate() {
        let (header, blocks) = bytes.split_at(K::HEADER_BYTES);
        for (nth, bytes) in blocks.chunks_exact(K::BLOCK_BYTES).enumerate() {
            let (scales, lines) = bytes.split_at(K::SCALE_BYTES);
            let first = (group * K::BLOCKS + nth) * BLOCK;
            for (row, total) in totals.iter_mut().enumerate() {
                let mut chains = [0f32; 2];
                for index in 0..BLOCK {
                    let (scale, minimum) =
                        scale_and_minimum::<K>(header, scales, row, index * K::HALVES / BLOCK);
                    let code = i32::from(code_of_row::<K>(lines, row, index)) - K::OFFSET;
                    let weight = to_bf16((code as f32).mul_add(scale, minimum));
                    let weight = f32::from_bits(u32::from(weight) << 16);
                    let chain = &mut chains[index % 2];
                    *chain = flushed(weight.mul_add(x.element(token, first + index), *chain));
                }
                *total = flushed(*total + flushed(chains[0] + chains[1]));
            }
        }
    }
    totals
}
