//! Reading memory once, front to back, each thread its own part. In large pages where the system gives them: this is to
//! be a peak.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::hint::black_box;

/// The size of large pages.
const PAGE: usize = 2 << 20;
/// Words of a step: eight registers of 64 bytes.
const STEP: usize = 64;

/// Some memory, cut into parts.
pub struct Memory {
    start: *mut u64,
    /// Words of a part.
    part: usize,
    layout: Layout,
}

// SAFETY: once made, it is only read.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(bytes: usize, parts: usize) -> Self {
        let part = bytes / 8 / parts / STEP * STEP;
        let layout = Layout::from_size_align(part * parts * 8, PAGE).expect("a size of this machine");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) }.cast::<u64>();
        if start.is_null() {
            handle_alloc_error(layout);
        }
        #[cfg(target_os = "linux")]
        // SAFETY: the memory is ours; this is advice about its pages, not their content.
        unsafe {
            libc::madvise(start.cast(), layout.size(), libc::MADV_HUGEPAGE);
        }
        for word in 0..part * parts {
            // SAFETY: within the allocation.
            unsafe { start.add(word).write(word as u64) };
        }
        Self { start, part, layout }
    }

    pub fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Reads a part so many times.
    pub fn read(&self, part: usize, times: u64) {
        // SAFETY: the part lies within the allocation, and all of that was written.
        let words = unsafe { std::slice::from_raw_parts(self.start.add(part * self.part), self.part) };
        for _ in 0..times {
            black_box(sum(black_box(words)));
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not used any more.
        unsafe { dealloc(self.start.cast(), self.layout) };
    }
}

fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(words: &[u64]) -> u64 {
            sum_of_lanes(words)
        }
        #[target_feature(enable = "avx512f")]
        fn avx512(words: &[u64]) -> u64 {
            sum_of_lanes(words)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has it, as just seen.
            return unsafe { avx512(words) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(words) };
        }
    }
    sum_of_lanes(words)
}

#[inline(always)]
fn sum_of_lanes(words: &[u64]) -> u64 {
    let mut sums = [0u64; STEP];
    for step in words.as_chunks::<STEP>().0 {
        for (sum, word) in sums.iter_mut().zip(step) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
