//! The engine thread: accept, plan, forward, sample, commit.
//!
//! It owns everything that changes with a model, so nothing here is locked. A fault of the model, error or panic, ends
//! the requests of that step and no others; the thread goes on with the weights it has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use sconce_models::{KvCache, Model};
use tokio::sync::{mpsc, watch};

use crate::engine::masks::{MaskThread, ThreadGone};
use crate::engine::pace::Pace;
use crate::engine::sampler::Sampler;
use crate::engine::scheduler::{Scheduler, Step};
use crate::engine::sequence::Submission;
use crate::engine::{EngineError, EngineStats};

/// Grammars are walked on these threads, as deep as they could be compiled. What is not used takes no memory.
const STACK_BYTES: usize = 64 << 20;
/// How long a step waits for grammars that are not ready when its pass is through: this much, or this share of the pass.
const LEAST_PATIENCE: Duration = Duration::from_millis(2);
const PATIENCE_SHARE: u32 = 4;

/// What the engine thread owns. Fields are dropped in this order: the memory is free before `stats` says that the
/// thread has ended.
pub(super) struct Worker {
    pub(super) model: Box<dyn Model>,
    pub(super) cache: KvCache,
    pub(super) scheduler: Scheduler,
    pub(super) sampler: Sampler,
    pub(super) pace: Pace,
    /// Started with the first answer that has a grammar.
    pub(super) masks: Option<MaskThread>,
    /// Handles send, this thread receives; when all handles are gone it finishes what it has and ends.
    pub(super) submissions: mpsc::Receiver<Submission>,
    /// This thread sends, handles receive; dropped when the thread has ended.
    pub(super) stats: watch::Sender<EngineStats>,
}

impl Worker {
    /// Runs until every handle is gone and every sequence is finished.
    pub(super) fn run(mut self) {
        while self.accept_requests() {
            let now = Instant::now();
            self.scheduler.release_abandoned();
            self.scheduler.expire(now);
            while self.return_guide(Some(Duration::ZERO)) {}
            if self.masks.is_none() {
                self.scheduler.lose_guides();
            }
            match self.scheduler.plan(now) {
                Some(step) => self.run_step(&step),
                // All there is waits for a grammar.
                None if self.scheduler.has_guides_away() => drop(self.return_guide(None)),
                None => {}
            }
            self.stats.send_replace(self.scheduler.stats());
        }
    }

    /// Takes what has been submitted; waits for it only when there is nothing to do. False if nothing will come.
    fn accept_requests(&mut self) -> bool {
        if self.scheduler.is_idle() {
            let Some(submission) = self.submissions.blocking_recv() else { return false };
            self.scheduler.accept(submission);
        }
        while let Ok(submission) = self.submissions.try_recv() {
            self.scheduler.accept(submission);
        }
        true
    }

    fn run_step(&mut self, step: &Step) {
        let started = Instant::now();
        self.begin_masks(step);
        let outcome = forward(self.model.as_ref(), &mut self.cache, step);
        self.await_masks(step, started.elapsed());
        match outcome {
            Ok((vocab, mut logits)) => self.scheduler.commit(step, &mut logits, vocab, &mut self.sampler),
            Err(reason) => {
                tracing::error!(reason, tokens = step.batch.tokens(), "a forward pass failed");
                self.scheduler.fail_step(&reason);
            }
        }
        let took = started.elapsed();
        self.scheduler.observe(step, took);
        if step.is_mixed() {
            self.pace.observe(step.prefill_tokens, took);
            self.scheduler.limit_prefill(self.pace.chunk());
        }
    }
}

impl Worker {
    /// Has the grammars of the step worked on beside the pass.
    fn begin_masks(&mut self, step: &Step) {
        for lent in self.scheduler.lend_guides(step) {
            self.masks = self.masks.take().or_else(MaskThread::spawn);
            let begun = match &self.masks {
                Some(masks) => masks.begin(lent),
                None => Err(lent),
            };
            // What cannot be worked on beside the pass is worked on after it.
            if let Err(lent) = begun {
                self.scheduler.return_guide(lent);
            }
        }
    }

    /// Waits for the grammars of a step, for a short while where others can go on without them.
    fn await_masks(&mut self, step: &Step, passed: Duration) {
        let until = Instant::now() + LEAST_PATIENCE.max(passed / PATIENCE_SHARE);
        while self.scheduler.misses_guides(step) {
            let patience = until.saturating_duration_since(Instant::now());
            let has_others = self.scheduler.has_others(step);
            if !self.return_guide(has_others.then_some(patience)) {
                return;
            }
        }
    }

    /// Takes a grammar back that has been worked on; whether there was one.
    fn return_guide(&mut self, patience: Option<Duration>) -> bool {
        let Some(masks) = &self.masks else { return false };
        match masks.next(patience) {
            Ok(Some(lent)) => {
                self.scheduler.return_guide(lent);
                true
            }
            Ok(None) => false,
            Err(ThreadGone) => {
                self.masks = None;
                false
            }
        }
    }
}

/// Runs the pass; gives the width of the rows and the rows.
fn forward(model: &dyn Model, cache: &mut KvCache, step: &Step) -> Result<(usize, Vec<f32>), String> {
    let wanted = step.batch.sample_rows.len();
    guarded(|| {
        for &(from, to) in &step.copies {
            cache.copy_block(from, to)?;
        }
        let logits = model.forward(&step.batch, cache)?;
        let (rows, vocab) = (logits.rows(), logits.vocab());
        if rows != wanted || vocab == 0 {
            let found = format!("{rows} rows of {vocab} logits for {wanted} tokens");
            return Err(sconce_models::Error::Compute(found));
        }
        Ok((vocab, logits.into_host()?))
    })
}

/// Calls into a model; a panic becomes an error.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, sconce_models::Error>) -> Result<T, String> {
    // The model is behind a shared reference, and whatever a panic left half written in the cache belongs to the
    // sequences of the pass, which fail.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(format!("panic: {}", text.unwrap_or("without a message")))
        }
    }
}

/// Starts a named thread.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(body);
    spawned.map(drop).map_err(|error| EngineError::Failed { reason: format!("no thread: {error}") })
}
