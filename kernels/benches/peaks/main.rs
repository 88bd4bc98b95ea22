//! What this machine can do at most: reading memory, multiplying and adding floats, and multiplying bytes, by all its cores.
//! The other benches' figures are set beside these. One binary; each instruction set is tried where the machine has it.

#![allow(unsafe_code)] // Vector instructions and large pages; each block says why it is sound.

#[cfg(target_arch = "x86_64")]
mod amx;
mod arithmetic;
mod memory;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use arithmetic::Measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memory::Memory;

const MEGABYTE: usize = 1_000_000;

/// Hardware threads that this process may use.
fn all_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How long `work(thread)` takes on so many threads at once: from the first start to the last end.
fn time(threads: usize, work: &(dyn Fn(usize) + Sync)) -> Duration {
    let barrier = Barrier::new(threads);
    let run = &|index| {
        barrier.wait();
        let start = Instant::now();
        work(index);
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|index| scope.spawn(move || run(index))).collect();
        started.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let start = spans.iter().map(|span| span.0).min().expect("there is a thread");
    let end = spans.iter().map(|span| span.1).max().expect("there is a thread");
    end - start
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peak");
    let threads = all_threads();
    for (name, bytes, threads) in [
        ("read 1 MB", MEGABYTE, threads),
        ("read 16 MB", 16 * MEGABYTE, threads),
        ("read 100 MB", 100 * MEGABYTE, threads),
        ("read 1 GiB", 1 << 30, threads),
        ("read 100 MB, one thread", 100 * MEGABYTE, 1),
    ] {
        let memory = Memory::new(bytes, threads);
        group.throughput(Throughput::Bytes(memory.bytes() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| time(threads, &|thread| memory.read(thread, times)));
        });
    }
    group.finish();
}

fn computing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peak");
    let threads = all_threads();
    for Measure { name, operations, run } in arithmetic::measures() {
        group.throughput(Throughput::Elements(operations * threads as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| time(threads, &|_| run(times)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = reading, computing
}
criterion_main!(benches);
