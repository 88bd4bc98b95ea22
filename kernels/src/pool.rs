//! A persistent pool of worker threads for the kernels: a short spin, then sleep. Not a general executor.
//!
//! One job runs at a time, cut into numbered tasks which workers and the caller take from one counter; a
//! caller that finds the pool busy (or is itself a task) does its tasks alone, so nothing ever waits for
//! another model's work. A job allocates nothing. Which thread runs a task must not matter to the result.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::freed_memory;

/// How long a thread spins before it sleeps: longer than what a pass does between two jobs, much shorter than what a
/// neighbour would notice. To sleep and to be woken takes about as long as a small job.
const PATIENCE: Duration = Duration::from_micros(100);

/// Worker threads that share the tasks of one job at a time.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

/// The running job: what a thread may read once it holds a ticket.
#[derive(Clone, Copy)]
struct Job {
    /// Points into the frame of [`Pool::run`], which does not return before every task is done.
    body: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

struct Shared {
    /// Epoch in the upper half, tasks not yet taken in the lower half.
    tickets: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    done: AtomicUsize,
    panicked: AtomicBool,
    /// Held by the caller whose job runs.
    busy: Mutex<()>,
    asleep: AtomicUsize,
    caller_waits: AtomicBool,
    closed: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the holder of `busy` while no ticket of the previous job is open or
// running, and read only by threads that hold a ticket of the current one; `tickets` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a `Sync` closure; it is used only while its owner waits.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// The pool of this process: one thread per physical core it may use, the caller included.
    pub fn global() -> &'static Pool {
        static GLOBAL: OnceLock<Pool> = OnceLock::new();
        GLOBAL.get_or_init(|| {
            freed_memory::keep();
            Pool::new(available_cores())
        })
    }

    /// A pool in which `threads` threads work, the caller of [`Pool::run`] being one of them. A worker that
    /// cannot be started is done without.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            tickets: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            busy: Mutex::new(()),
            asleep: AtomicUsize::new(0),
            caller_waits: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let started = (1..threads)
            .filter(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name(format!("kernel-{index}")).spawn(move || shared.work()).is_ok()
            })
            .count();
        Self { shared, threads: started + 1 }
    }

    /// Threads that work on a job, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `body(0)` … `body(tasks - 1)`, each once, on any thread and in any order, and returns when all
    /// are done.
    ///
    /// # Panics
    /// If a task panicked, once all are done.
    pub fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let free = if self.threads > 1 && tasks > 1 && u32::try_from(tasks).is_ok() {
            self.shared.try_begin()
        } else {
            None
        };
        let Some(busy) = free else {
            (0..tasks).for_each(body);
            return;
        };
        self.shared.publish(tasks, body);
        while self.shared.take_and_run() {}
        self.shared.wait_until_done(tasks);
        let panicked = self.shared.panicked.swap(false, Ordering::Relaxed);
        drop(busy);
        if panicked {
            resume_unwind(Box::new("a kernel task panicked"));
        }
    }

    /// Cuts `0..length` into ranges of about equal size, several per thread, and runs `body` on each.
    pub fn for_each_chunk(
        &self,
        length: usize,
        smallest: usize,
        body: &(dyn Fn(std::ops::Range<usize>) + Sync),
    ) {
        let wanted = if self.threads == 1 { 1 } else { self.threads * 4 };
        let chunk = length.div_ceil(wanted).max(smallest).max(1);
        self.run(length.div_ceil(chunk), &|task| body(task * chunk..((task + 1) * chunk).min(length)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.wake_all();
    }
}

impl Shared {
    fn try_begin(&self) -> Option<MutexGuard<'_, ()>> {
        match self.busy.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Opens the tickets of a new job. The caller holds `busy`.
    fn publish(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime is widened; `Pool::run` keeps `body` alive until every task is done.
        let body: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(body) };
        self.done.store(0, Ordering::Relaxed);
        // SAFETY: all tickets of the last job are taken and done, so no thread reads `job` now.
        unsafe { *self.job.get() = Some(Job { body, tasks }) };
        let epoch = (self.tickets.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.tickets.store((epoch << 32) | tasks as u64, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }

    /// Takes one ticket and runs its task; false if there is none.
    fn take_and_run(&self) -> bool {
        let mut seen = self.tickets.load(Ordering::Acquire);
        loop {
            if seen & 0xffff_ffff == 0 {
                return false;
            }
            match self.tickets.compare_exchange_weak(seen, seen - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // SAFETY: this thread holds a ticket of the current job, which therefore cannot end or be replaced.
        let job = unsafe { *self.job.get() }.expect("a ticket is open only after its job was written");
        let index = job.tasks - (seen & 0xffff_ffff) as usize;
        // SAFETY: as above, the closure's owner still waits for this task.
        let body = unsafe { &*job.body };
        if catch_unwind(AssertUnwindSafe(|| body(index))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        if self.done.fetch_add(1, Ordering::SeqCst) + 1 == job.tasks
            && self.caller_waits.load(Ordering::SeqCst)
        {
            self.wake_all();
        }
        true
    }

    fn wait_until_done(&self, tasks: usize) {
        if spins_until(|| self.done.load(Ordering::Acquire) == tasks) {
            return;
        }
        let mut guard = self.lock_sleep();
        self.caller_waits.store(true, Ordering::SeqCst);
        while self.done.load(Ordering::SeqCst) != tasks {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_waits.store(false, Ordering::SeqCst);
    }

    /// A worker's life.
    fn work(&self) {
        while !self.closed.load(Ordering::Acquire) {
            if !self.take_and_run() {
                self.wait_for_tickets();
            }
        }
    }

    fn wait_for_tickets(&self) {
        if spins_until(|| self.tickets.load(Ordering::Acquire) & 0xffff_ffff != 0) {
            return;
        }
        let mut guard = self.lock_sleep();
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while self.tickets.load(Ordering::SeqCst) & 0xffff_ffff == 0 && !self.closed.load(Ordering::SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        let _guard = self.lock_sleep();
        self.wake.notify_all();
    }

    fn lock_sleep(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spins until `done` says so; false if that took too long.
fn spins_until(done: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    loop {
        // The clock is read now and then only.
        for _ in 0..32 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if started.elapsed() >= PATIENCE {
            return false;
        }
    }
}

/// Physical cores within the affinity mask and the control group's quota. Two hardware threads of one core
/// share its vector units, so counting both would only add waiting.
fn available_cores() -> usize {
    let logical = thread::available_parallelism().map_or(1, usize::from);
    physical_cores().map_or(logical, |physical| physical.clamp(1, logical))
}

#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for cpu in allowed_cpus() {
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let package = std::fs::read_to_string(format!("{topology}/physical_package_id")).ok()?;
        let core = std::fs::read_to_string(format!("{topology}/core_id")).ok()?;
        cores.insert((package, core));
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(target_os = "linux")]
fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero mask is a valid value of this plain struct.
    let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the mask is writable and its true size is given; 0 means this thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut mask) };
    if status != 0 {
        return Vec::new();
    }
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: every index is below the number of bits in the mask.
    (0..bits).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &mask) }).collect()
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

/// A slice that tasks write to in parallel, each its own elements.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    length: usize,
    owner: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access is only through `range`, whose callers promise disjoint ranges.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), owner: std::marker::PhantomData }
    }

    /// Elements `start..start + length`.
    ///
    /// # Safety
    /// No other live reference may cover any of these elements.
    #[allow(clippy::mut_from_ref)] // The very purpose: disjoint parts from a shared handle.
    pub(crate) unsafe fn range(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start, "a task left its slice");
        // SAFETY: in bounds by the check above; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Pool;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_callers_and_nested_calls_end() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(8, &|_| {
                            pool.run(3, &|_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            })
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 200 * 8 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(4, &|task| assert_ne!(task, 2, "wanted"));
        }));
        assert!(outcome.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(4, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 4);
    }
}
