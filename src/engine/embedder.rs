//! Encoders on a thread of their own: texts that arrive together are embedded together.
//!
//! No cache and no phases, so none of the scheduler either. A pass takes one sequence of each request in turn until it
//! is full: a request of thousands does not hold up a request of one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use sconce_models::{CrossEncoder, Embedder, ModelSpec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::engine::EngineError;
use crate::engine::drain::DrainRate;
use crate::engine::tab::{Bill, Tab};
use crate::engine::worker;

/// A running encoder. Cheap to clone; the thread ends once all handles are gone.
#[derive(Clone)]
pub struct EmbedderHandle {
    /// Handles send, the thread receives; when all handles are gone it finishes what it has and ends.
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    spec: ModelSpec,
    scores_pairs: bool,
    max_waiting: usize,
    /// One permit per sequence that may wait or run.
    places: Arc<Semaphore>,
    drain: Arc<DrainRate>,
    alive: watch::Receiver<()>,
}

/// The two kinds of encoder.
enum Encoder {
    Embedder(Box<dyn Embedder>),
    CrossEncoder(Box<dyn CrossEncoder>),
}

type Reply = Result<Vec<Vec<f32>>, EngineError>;

/// A token sequence and, for a cross-encoder, the type of each token.
type Input = (Vec<u32>, Vec<u32>);

/// One request.
struct Job {
    /// Not run yet, in order.
    inputs: VecDeque<Input>,
    /// Of those that have run, in order.
    outputs: Vec<Vec<f32>>,
    /// The thread sends once, the caller's future receives; dropping that future gives the request up.
    reply: oneshot::Sender<Reply>,
    /// Where its cost is counted.
    tab: Tab,
    /// Why it cannot be answered.
    failure: Option<String>,
    /// The pass it last had a part in, or during which it came.
    last_turn: u64,
    /// Places in the queue, given back when the job ends.
    places: OwnedSemaphorePermit,
}

impl EmbedderHandle {
    /// Starts the thread that owns `model`. `max_batch_tokens` bounds one pass (a longer sequence runs alone),
    /// `max_waiting` the queue, in sequences. A request with more sequences than that is taken when the queue is empty.
    ///
    /// # Errors
    /// [`EngineError::Failed`] if the thread cannot be started.
    pub fn spawn(
        model: Box<dyn Embedder>,
        max_batch_tokens: usize,
        max_waiting: usize,
    ) -> Result<Self, EngineError> {
        Self::start(Encoder::Embedder(model), max_batch_tokens, max_waiting)
    }

    /// The same for a cross-encoder.
    ///
    /// # Errors
    /// As [`EmbedderHandle::spawn`].
    pub fn spawn_cross_encoder(
        model: Box<dyn CrossEncoder>,
        max_batch_tokens: usize,
        max_waiting: usize,
    ) -> Result<Self, EngineError> {
        Self::start(Encoder::CrossEncoder(model), max_batch_tokens, max_waiting)
    }

    fn start(encoder: Encoder, max_batch_tokens: usize, max_waiting: usize) -> Result<Self, EngineError> {
        let max_waiting = max_waiting.clamp(1, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let (sender, jobs) = mpsc::channel(max_waiting);
        let drain = Arc::new(DrainRate::default());
        let (alive, sees) = watch::channel(());
        let shared = Shared {
            spec: encoder.spec().clone(),
            scores_pairs: matches!(encoder, Encoder::CrossEncoder(_)),
            max_waiting,
            places: Arc::new(Semaphore::new(max_waiting)),
            drain: drain.clone(),
            alive: sees,
        };
        let worker = Worker {
            encoder,
            max_batch_tokens,
            jobs,
            queue: VecDeque::new(),
            passes: 0,
            drain,
            _alive: alive,
        };
        worker::spawn("encoder", move || worker.run())?;
        Ok(Self { jobs: sender, shared: Arc::new(shared) })
    }

    /// The model's shape.
    pub fn spec(&self) -> &ModelSpec {
        &self.shared.spec
    }

    /// Closed once the thread has ended and the model's memory is free; nothing is ever sent.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.shared.alive.clone()
    }

    /// Embeds sequences, in their order. Dropping the future gives up those not yet run.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] and [`EngineError::TooLong`] for a sequence that cannot be run,
    /// [`EngineError::QueueFull`], [`EngineError::Failed`], [`EngineError::Lost`].
    pub async fn embed(&self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.embed_billed(sequences).1.await
    }

    /// The same, with what it costs.
    pub fn embed_billed(
        &self,
        sequences: Vec<Vec<u32>>,
    ) -> (Bill, impl Future<Output = Result<Vec<Vec<f32>>, EngineError>>) {
        let (tab, bill) = Tab::open();
        let embedding = async move {
            if self.shared.scores_pairs {
                return Err(EngineError::Invalid {
                    param: "model",
                    reason: "the model scores pairs of texts".into(),
                });
            }
            self.run(sequences.into_iter().map(|ids| (ids, Vec::new())).collect(), tab).await
        };
        (bill, embedding)
    }

    /// Scores pairs, in their order: (ids, type ids) each.
    ///
    /// # Errors
    /// As [`EmbedderHandle::embed`].
    pub async fn score(&self, pairs: Vec<(Vec<u32>, Vec<u32>)>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.score_billed(pairs).1.await
    }

    /// The same, with what it costs.
    pub fn score_billed(
        &self,
        pairs: Vec<(Vec<u32>, Vec<u32>)>,
    ) -> (Bill, impl Future<Output = Result<Vec<Vec<f32>>, EngineError>>) {
        let (tab, bill) = Tab::open();
        let scoring = async move {
            let invalid = |param, reason: &str| Err(EngineError::Invalid { param, reason: reason.into() });
            if !self.shared.scores_pairs {
                return invalid("model", "the model does not score pairs of texts");
            }
            if pairs.iter().any(|(ids, types)| ids.len() != types.len()) {
                return invalid("input", "each token needs a type");
            }
            self.run(pairs.into(), tab).await
        };
        (bill, scoring)
    }

    async fn run(&self, inputs: VecDeque<Input>, tab: Tab) -> Reply {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.check(&inputs)?;
        let waiting = inputs.len().min(self.shared.max_waiting) as u32;
        let places = self.shared.places.clone().try_acquire_many_owned(waiting);
        let Ok(places) = places else { return Err(self.shared.queue_full()) };
        let (reply, answer) = oneshot::channel();
        let outputs = Vec::with_capacity(inputs.len());
        let job = Job { inputs, outputs, reply, tab, failure: None, last_turn: 0, places };
        match self.jobs.try_send(job) {
            Ok(()) => answer.await.unwrap_or(Err(EngineError::Lost)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(self.shared.queue_full()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(EngineError::Lost),
        }
    }
}

impl Shared {
    fn check(&self, inputs: &VecDeque<Input>) -> Result<(), EngineError> {
        let available = self.spec.context_length;
        for (ids, _) in inputs {
            if ids.is_empty() {
                return Err(EngineError::Invalid { param: "input", reason: "an input has no tokens".into() });
            }
            if ids.len() > available {
                return Err(EngineError::TooLong { needed: ids.len(), available });
            }
            if let Some(id) = ids.iter().find(|&&id| id as usize >= self.spec.vocab_size) {
                let reason = format!("token id {id} is not below {}", self.spec.vocab_size);
                return Err(EngineError::Invalid { param: "input", reason });
            }
        }
        Ok(())
    }

    fn queue_full(&self) -> EngineError {
        let waiting = self.max_waiting - self.places.available_permits();
        EngineError::QueueFull { waiting, retry_after: self.drain.retry_after(waiting) }
    }
}

impl Encoder {
    fn spec(&self) -> &ModelSpec {
        match self {
            Self::Embedder(model) => model.spec(),
            Self::CrossEncoder(model) => model.spec(),
        }
    }

    fn run(&self, ids: &[Vec<u32>], types: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, String> {
        let outputs = worker::guarded(|| match self {
            Self::Embedder(model) => model.embed(ids),
            Self::CrossEncoder(model) => model.score(ids, types),
        })?;
        if outputs.len() != ids.len() {
            return Err(format!("{} outputs for {} inputs", outputs.len(), ids.len()));
        }
        Ok(outputs)
    }
}

/// What the thread owns.
struct Worker {
    encoder: Encoder,
    max_batch_tokens: usize,
    jobs: mpsc::Receiver<Job>,
    /// Whose turn it is, first in front.
    queue: VecDeque<Job>,
    passes: u64,
    drain: Arc<DrainRate>,
    /// Dropped last: when handles see it closed, the model's memory is free.
    _alive: watch::Sender<()>,
}

impl Worker {
    /// Runs until every handle is gone and every job is done.
    fn run(mut self) {
        while self.accept_jobs() {
            self.queue.retain(|job| !job.reply.is_closed());
            self.run_pass();
        }
    }

    /// Takes what has been submitted; waits for it only when there is nothing to do. False if nothing will come.
    fn accept_jobs(&mut self) -> bool {
        if self.queue.is_empty() {
            let Some(job) = self.jobs.blocking_recv() else { return false };
            self.enqueue(job);
        }
        while let Ok(job) = self.jobs.try_recv() {
            self.enqueue(job);
        }
        true
    }

    fn enqueue(&mut self, job: Job) {
        self.queue.push_back(Job { last_turn: self.passes, ..job });
    }

    fn run_pass(&mut self) {
        let (takers, ids, types) = self.take_inputs();
        if ids.is_empty() {
            return;
        }
        let start = Instant::now();
        let outputs = self.encoder.run(&ids, &types);
        self.drain.record(start.elapsed() / takers.len() as u32);
        match outputs {
            Ok(outputs) => {
                for (&taker, output) in takers.iter().zip(outputs) {
                    self.queue[taker].push(output);
                }
            }
            Err(reason) => {
                tracing::error!(reason, sequences = ids.len(), "a pass of the encoder failed");
                takers.iter().for_each(|&taker| self.queue[taker].fail(&reason));
            }
        }
        self.answer_complete();
    }

    /// One input of each job in turn, until the pass is full: (whose, ids, types).
    fn take_inputs(&mut self) -> (Vec<usize>, Vec<Vec<u32>>, Vec<Vec<u32>>) {
        self.passes += 1;
        let (mut takers, mut ids, mut types) = (Vec::new(), Vec::new(), Vec::new());
        let mut tokens = 0;
        loop {
            let before = ids.len();
            for (index, job) in self.queue.iter_mut().enumerate() {
                let Some((input, input_types)) = job.inputs.pop_front() else { continue };
                if !ids.is_empty() && tokens + input.len() > self.max_batch_tokens {
                    // The next pass begins with it, so that a long input is not passed over for ever.
                    job.inputs.push_front((input, input_types));
                    return (takers, ids, types);
                }
                tokens += input.len();
                job.tab.prompt(input.len(), 0);
                job.last_turn = self.passes;
                takers.push(index);
                ids.push(input);
                types.push(input_types);
            }
            if ids.len() == before {
                return (takers, ids, types);
            }
        }
    }

    /// Answers the jobs that are complete; of the others, those go first that were longest without a turn.
    fn answer_complete(&mut self) {
        let jobs = std::mem::take(&mut self.queue);
        let (complete, open): (VecDeque<Job>, VecDeque<Job>) =
            jobs.into_iter().partition(|job| job.inputs.is_empty());
        complete.into_iter().for_each(Job::answer);
        self.queue = open;
        self.queue.make_contiguous().sort_by_key(|job| job.last_turn);
    }
}

impl Job {
    fn push(&mut self, output: Vec<f32>) {
        if output.iter().all(|value| value.is_finite()) {
            self.outputs.push(output);
        } else {
            self.fail("the model's output holds values that are not numbers");
        }
    }

    fn fail(&mut self, reason: &str) {
        self.failure.get_or_insert_with(|| reason.to_owned());
        self.inputs.clear();
    }

    fn answer(self) {
        let answer = match self.failure {
            Some(reason) => Err(EngineError::Failed { reason }),
            None => Ok(self.outputs),
        };
        // Its place is free before it learns so: it may ask again at once.
        drop(self.places);
        // A caller that has gone needs no answer.
        let _ = self.reply.send(answer);
    }
}
