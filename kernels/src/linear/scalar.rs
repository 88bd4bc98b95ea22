//! The reference kernel of quantised products, in plain Rust. Slow; it says which operations the fast ones
//! must do.
//!
//! Per output element: for each block, for each half block, `total = fma(integer dot, d · activation scale,
//! total)`, then `total = fma(m, activation scale · sum, total)` for types with a minimum. Integer parts are
//! exact, so only this order counts.

use super::activations::Activations;
use super::format::{BLOCK, Kind};
use super::panels::{ROWS, code, scale_and_minimum};

/// Products of one panel with one row of activations.
pub(super) fn panel<K: Kind>(panel: &[u8], activations: &Activations, token: usize) -> [f32; ROWS] {
    let blocks_per_row = activations.blocks_per_row;
    let mut totals = [0f32; ROWS];
    for (group, bytes) in panel.chunks_exact(K::GROUP_BYTES).take(blocks_per_row / K::BLOCKS).enumerate() {
        let (header, blocks) = bytes.split_at(K::HEADER_BYTES);
        for (block, bytes) in blocks.chunks_exact(K::BLOCK_BYTES).enumerate() {
            let (scales, lines) = bytes.split_at(K::SCALE_BYTES);
            let at = token * blocks_per_row + group * K::BLOCKS + block;
            let place = activations.place(token, group * K::BLOCKS + block);
            let codes = &activations.codes[at * BLOCK..(at + 1) * BLOCK];
            for half in 0..K::HALVES {
                let (negated_sum, scaled_sum) = activations.part(place, K::HALVES, half);
                let span = half * BLOCK / K::HALVES..(half + 1) * BLOCK / K::HALVES;
                for (row, total) in totals.iter_mut().enumerate() {
                    let dot: i32 = span
                        .clone()
                        .map(|index| i32::from(code::<K>(lines, row, index)) * i32::from(codes[index]))
                        .sum();
                    let (scale, minimum) = scale_and_minimum::<K>(header, scales, row, half);
                    *total = ((dot + K::OFFSET * negated_sum) as f32)
                        .mul_add(scale * activations.scales[place], *total);
                    if K::HAS_MINIMUM {
                        *total = minimum.mul_add(scaled_sum, *total);
                    }
                }
            }
        }
    }
    totals
}
