//! The thread that works out what grammars allow next, while the engine's thread runs the model.
//!
//! It is lent one [`Guide`] after the other and gives each back as soon as it is done with it. Who has had least of it
//! goes first: a tenant before another, and within a tenant an answer before another; so a grammar that takes long holds up
//! its own answer most. Whether one is late changes when tokens come and never which.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::engine::grammar::Guide;
use crate::engine::worker;

/// Which answer a guide belongs to: (number of its request, choice).
pub(super) type Owner = (u64, u32);

/// A guide that is away from its sequence.
pub(super) struct Lent {
    pub(super) owner: Owner,
    pub(super) tenant: u64,
    pub(super) guide: Box<Guide>,
    /// The guesses of the step.
    pub(super) guesses: Vec<u32>,
    /// Other answers of its request that begin after the step.
    pub(super) siblings: usize,
    /// Dead once the request is gone.
    pub(super) request: Weak<()>,
}

impl Lent {
    pub(super) fn prepare(&mut self) {
        let prepared = catch_unwind(AssertUnwindSafe(|| {
            let prepared = self.guide.prepare(&self.guesses);
            self.guide.copy_ahead(self.siblings);
            prepared
        }));
        if prepared.is_err() {
            self.guide.break_it();
        }
        // An error shows again when the guide is asked.
    }

    fn is_wanted(&self) -> bool {
        self.request.strong_count() > 0
    }
}

/// Works out what may come next.
pub(super) struct MaskThread {
    /// The engine sends what is to be worked out; each running answer at most once, so it is bounded by those. The thread
    /// ends when it is dropped.
    jobs: Sender<Lent>,
    /// The thread sends it back.
    done: Receiver<Lent>,
}

impl MaskThread {
    /// Starts it; none if there can be no thread.
    pub(super) fn spawn() -> Option<Self> {
        let (jobs, received) = channel();
        let (sender, done) = channel();
        worker::spawn("masks", move || run(&received, &sender)).ok().map(|()| Self { jobs, done })
    }

    /// Begins to work; gives it back if nobody can.
    pub(super) fn begin(&self, lent: Lent) -> Result<(), Lent> {
        self.jobs.send(lent).map_err(|error| error.0)
    }

    /// What is done next, or none within this time; without one, waits as long as it takes.
    ///
    /// # Errors
    /// [`ThreadGone`] if nothing will come.
    pub(super) fn next(&self, patience: Option<Duration>) -> Result<Option<Lent>, ThreadGone> {
        let Some(patience) = patience else { return self.done.recv().map(Some).map_err(|_| ThreadGone) };
        match self.done.recv_timeout(patience) {
            Ok(lent) => Ok(Some(lent)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ThreadGone),
        }
    }
}

/// The thread has ended, with what it had.
#[derive(Debug)]
pub(super) struct ThreadGone;

fn run(jobs: &Receiver<Lent>, done: &Sender<Lent>) {
    let mut line = Line::default();
    loop {
        if line.waiting.is_empty() {
            let Ok(lent) = jobs.recv() else { return };
            line.add(lent);
        }
        jobs.try_iter().for_each(|lent| line.add(lent));
        let Some(mut lent) = line.take() else { continue };
        let started = Instant::now();
        lent.prepare();
        line.charge(&lent, started.elapsed());
        if done.send(lent).is_err() {
            return;
        }
    }
}

/// Who waits, and what each has had.
#[derive(Default)]
struct Line {
    waiting: Vec<Lent>,
    tenants: HashMap<u64, Duration>,
    answers: HashMap<Owner, Duration>,
    /// What the one served last had had: who comes anew is taken to have had as much, not to have saved up.
    level: Duration,
}

impl Line {
    fn add(&mut self, lent: Lent) {
        let is_new = self.waiting.iter().all(|other| other.tenant != lent.tenant);
        let had = self.tenants.entry(lent.tenant).or_default();
        if is_new {
            *had = (*had).max(self.level);
        }
        self.waiting.push(lent);
    }

    /// The one whose turn it is; those that nobody wants any more are let go.
    fn take(&mut self) -> Option<Lent> {
        self.waiting.retain(Lent::is_wanted);
        let had = |lent: &Lent| {
            let of = |had: Option<&Duration>| had.copied().unwrap_or_default();
            (of(self.tenants.get(&lent.tenant)), of(self.answers.get(&lent.owner)))
        };
        let (index, _) = self.waiting.iter().enumerate().min_by_key(|(_, lent)| had(lent))?;
        self.level = had(&self.waiting[index]).0;
        Some(self.waiting.remove(index))
    }

    fn charge(&mut self, lent: &Lent, took: Duration) {
        *self.tenants.entry(lent.tenant).or_default() += took;
        *self.answers.entry(lent.owner).or_default() += took;
        // Whoever has not been seen for long is forgotten.
        const MOST: usize = 4_096;
        if self.answers.len() > MOST {
            self.answers.clear();
        }
        if self.tenants.len() > MOST {
            let level = self.level;
            self.tenants.retain(|_, had| *had > level);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sconce_models::Tokenizer;
    use sconce_models::grammar::{Grammars, Language};

    use super::*;

    fn lent(grammars: &Grammars, owner: Owner, tenant: u64, request: &Arc<()>) -> Lent {
        let matcher = grammars.compile(&Language::Regex("[a-z]+".to_owned()), None).expect("it is sound");
        let guide = Box::new(Guide::new(matcher));
        Lent { owner, tenant, guide, guesses: Vec::new(), siblings: 0, request: Arc::downgrade(request) }
    }

    #[test]
    fn who_has_had_least_goes_first_and_who_left_not_at_all() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden");
        let tokenizer = Tokenizer::from_file(&golden.join("llama/tokenizer.json"), 512).expect("it is sound");
        let grammars = Grammars::new(tokenizer, vec![2]);
        let (request, gone) = (Arc::new(()), Arc::new(()));
        let mut line = Line::default();
        // The first tenant's first answer takes long, again and again; everybody comes back at once.
        for (owner, tenant) in [((1, 0), 1), ((1, 1), 1), ((2, 0), 2)] {
            line.add(lent(&grammars, owner, tenant, &request));
        }
        line.add(lent(&grammars, (3, 0), 3, &gone));
        drop(gone);
        let mut turns = Vec::new();
        for _ in 0..12 {
            let next = line.take().expect("somebody waits");
            turns.push(next.owner);
            line.charge(&next, Duration::from_millis(if next.owner == (1, 0) { 9 } else { 1 }));
            line.add(next);
        }
        let of = |owner: Owner| turns.iter().filter(|turn| **turn == owner).count();
        assert_eq!(of((3, 0)), 0);
        assert_eq!(turns[..3], [(1, 0), (2, 0), (2, 0)]);
        assert!(of((2, 0)) > of((1, 0)) + of((1, 1)), "{turns:?}");
        assert!(of((1, 1)) >= of((1, 0)), "{turns:?}");
    }
}
