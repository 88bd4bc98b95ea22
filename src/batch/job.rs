//! One batch, from where it stands to its end, or to where another goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::files::FileReader;
use crate::auth::{AuthError, Deferral};
use crate::batch::line::{Common, LineEnd, LineResult};
use crate::batch::runner::{HOLD, Runner};
use crate::batch::splitter::{RawLine, Splitter};
use crate::batch::validate::{self, Findings};
use crate::clock::{Clock, Timestamp};
use crate::http::ApiError;
use crate::language::Language;
use crate::store::batches::{self, BatchError, BatchRow, BatchStatus, LineRow, Progress};
use crate::store::{JsonText, Store, StoreError, Tx, files, usage};
use crate::telemetry::metrics::BATCH_LINES;
use crate::usage::Unwritten;

/// How often the holder says that it goes on; and looks whether it is to.
const HEARTBEAT: Duration = Duration::from_secs(4);

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);

/// Before the database is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Lines that are looked up at once.
const LOOKED_UP: i64 = 64;

/// Lines that are forgotten at once.
const FORGOTTEN: i64 = 500;

/// Longest line, unless bodies are shorter than that.
const LONGEST_LINE: usize = 8 << 20;

/// Why the work on a batch stops before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// Another holds it, or it is deleted.
    Lost,
    /// The server ends.
    Draining,
    /// The database, or what is in it.
    Failed(AuthError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<AuthError> for Stop {
    fn from(error: AuthError) -> Self {
        Self::Failed(error)
    }
}

/// Why no more lines are begun.
enum NoMore {
    /// All are done.
    Done,
    Expired,
    Cancelled,
    Draining,
    Revoked(ApiError),
}

/// Works on one batch.
pub(super) struct Job {
    runner: Arc<Runner>,
    batch: BatchRow,
    /// By what name it is held.
    holder: String,
    /// As it was found last.
    status: watch::Sender<BatchStatus>,
}

impl Job {
    pub(super) fn new(runner: Arc<Runner>, batch: BatchRow, holder: String) -> Self {
        let status = watch::Sender::new(batch.status);
        Self { runner, batch, holder, status }
    }

    pub(super) fn batch(&self) -> &BatchRow {
        &self.batch
    }

    pub(super) fn store(&self) -> &Store {
        self.runner.store()
    }

    pub(super) fn clock(&self) -> &Clock {
        self.runner.clock()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock().now()
    }

    /// A transaction of the holder's, who has done this since the last. What is in it happens only as long as nobody else
    /// holds the batch.
    pub(super) async fn write(&self, done: Progress) -> Result<Tx, Stop> {
        let mut tx = self.store().append().await?;
        let until = self.now().after(HOLD);
        let held = (self.batch.id.as_str(), self.holder.as_str());
        let status = batches::hold(&mut tx, held, done, until).await?.ok_or(Stop::Lost)?;
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
        Ok(tx)
    }

    /// Works until the end, or until it must stop.
    pub(super) async fn work(mut self) {
        tracing::info!(batch = self.batch.id, status = self.batch.status.name(), "works on a batch");
        let (runner, id, holder) = (Arc::clone(&self.runner), self.batch.id.clone(), self.holder.clone());
        let stopped = {
            let heart = Heart {
                runner: Arc::clone(&runner),
                id: id.clone(),
                holder: holder.clone(),
                status: self.status.clone(),
            };
            tokio::select! {
                ended = self.go_on() => ended,
                lost = heart.beat() => Err(lost),
            }
        };
        match stopped {
            Ok(()) => return,
            Err(Stop::Lost) => return tracing::warn!(batch = id, "a batch is another's now, or deleted"),
            Err(Stop::Draining) => tracing::info!(batch = id, "a batch goes on after the next start"),
            Err(Stop::Failed(error)) => {
                tracing::warn!(batch = id, %error, details = ?error, "a batch cannot go on now; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        if let Err(error) = release(&runner, &id, &holder).await {
            tracing::debug!(%error, "a batch is free when its time is over");
        }
    }

    async fn go_on(&mut self) -> Result<(), Stop> {
        loop {
            let row = batches::find(&mut self.store().read().await?, &self.batch.id).await?;
            self.batch = row.ok_or(Stop::Lost)?;
            match (self.batch.status, self.batch.ending) {
                (_, Some(ending)) => return self.write_files(ending).await,
                (BatchStatus::Validating, None) => self.validate().await?,
                (BatchStatus::InProgress, None) => self.run_lines().await?,
                (BatchStatus::Cancelling, None) => {
                    self.begin_to_end(BatchStatus::Cancelled, Vec::new()).await?;
                }
                _ => return Err(Stop::Lost),
            }
        }
    }

    async fn begin_to_end(&self, ending: BatchStatus, errors: Vec<BatchError>) -> Result<(), Stop> {
        let errors = (!errors.is_empty()).then_some(JsonText(errors));
        let mut tx = self.write(Progress::default()).await?;
        batches::begin_to_end(&mut tx, &self.batch.id, ending, errors.as_ref(), self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Whether the batch is not to go on as it was.
    fn is_over(&self) -> Option<NoMore> {
        if self.runner.app().shutdown().is_draining() {
            return Some(NoMore::Draining);
        }
        if *self.status.borrow() == BatchStatus::Cancelling {
            return Some(NoMore::Cancelled);
        }
        (self.now() >= self.batch.times.expires_at).then_some(NoMore::Expired)
    }

    /// Finds the lines of the batch, or what is wrong with them.
    async fn validate(&self) -> Result<(), Stop> {
        loop {
            // Of an attempt that was broken off.
            let mut tx = self.write(Progress::default()).await?;
            let gone = batches::forget_lines(&mut tx, &self.batch.id, FORGOTTEN).await?;
            tx.commit().await?;
            if gone < FORGOTTEN.unsigned_abs() {
                break;
            }
        }
        let mut findings = Findings::default();
        let file =
            files::find(&mut self.store().read().await?, &self.batch.order.input_file_id, self.now()).await?;
        match file {
            Some(file) => {
                let reader = FileReader::new(self.store().clone(), file);
                if let Some(over) = self.find_lines(reader, &mut findings).await? {
                    return self.stop_validating(over).await;
                }
            }
            None => {
                let message = "the input file is not there any more".to_owned();
                findings.errors.push(validate::error(
                    "input_file_missing",
                    message,
                    Some("input_file_id"),
                    None,
                ));
            }
        }
        findings.finish();
        if !findings.errors.is_empty() {
            return self.begin_to_end(BatchStatus::Failed, findings.errors).await;
        }
        let mut tx = self.write(Progress::default()).await?;
        let found = (findings.lines as i64, findings.model());
        batches::begin(&mut tx, &self.batch.id, found, self.now()).await?;
        Ok(tx.commit().await?)
    }

    async fn stop_validating(&self, over: NoMore) -> Result<(), Stop> {
        match over {
            NoMore::Draining => Err(Stop::Draining),
            NoMore::Expired => self.begin_to_end(BatchStatus::Expired, Vec::new()).await,
            _ => self.begin_to_end(BatchStatus::Cancelled, Vec::new()).await,
        }
    }

    /// Reads the file and writes down its lines; something if the batch is over before that is.
    async fn find_lines(
        &self,
        mut reader: FileReader,
        findings: &mut Findings,
    ) -> Result<Option<NoMore>, Stop> {
        let longest = LONGEST_LINE.min(self.runner.app().settings().max_body_bytes);
        let mut splitter = Splitter::new(longest);
        while let Some(bytes) = reader.read().await? {
            match splitter.push(&bytes) {
                Ok(lines) => self.add_lines(lines, findings).await?,
                Err(too_long) => {
                    findings.too_long(too_long, longest);
                    return Ok(None);
                }
            }
            if findings.are_enough() {
                return Ok(None);
            }
            if let Some(over) = self.is_over() {
                return Ok(Some(over));
            }
        }
        let last = splitter.finish().into_iter().collect();
        self.add_lines(last, findings).await?;
        Ok(None)
    }

    async fn add_lines(&self, lines: Vec<RawLine>, findings: &mut Findings) -> Result<(), Stop> {
        if lines.is_empty() {
            return Ok(());
        }
        let endpoint = self.batch.order.endpoint.clone();
        // They may be long: others' requests are not to wait for that.
        let checked = tokio::task::spawn_blocking(move || validate::check(&lines, &endpoint)).await;
        let found = checked.map_err(|_| Stop::Draining)?;
        let right = findings.add(found);
        if !findings.errors.is_empty() {
            return Ok(());
        }
        let mut tx = self.write(Progress::default()).await?;
        for line in &right {
            batches::insert_line(&mut tx, &self.batch.id, line).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Has the lines answered that have no result, several at a time.
    async fn run_lines(&self) -> Result<(), Stop> {
        let deferral = serde_json::from_value::<Deferral>(self.batch.order.credential.0.clone());
        let deferral =
            deferral.map_err(|error| StoreError::Damaged { table: "batches", reason: error.to_string() })?;
        let common = Arc::new(Common {
            runner: Arc::clone(&self.runner),
            batch_id: self.batch.id.clone(),
            input_file_id: self.batch.order.input_file_id.clone(),
            endpoint: self.batch.order.endpoint.clone(),
            deferral,
            ending: CancellationToken::new(),
            stopping: CancellationToken::new(),
        });
        let over =
            Lines { job: self, common, running: JoinSet::new(), next: VecDeque::new(), after: 0 }.run();
        match over.await? {
            NoMore::Done => self.begin_to_end(BatchStatus::Completed, Vec::new()).await,
            NoMore::Expired => self.begin_to_end(BatchStatus::Expired, Vec::new()).await,
            NoMore::Cancelled => self.begin_to_end(BatchStatus::Cancelled, Vec::new()).await,
            NoMore::Draining => Err(Stop::Draining),
            NoMore::Revoked(error) => {
                let message = format!(
                    "the credential that made this batch may not go on with it: {}",
                    error.message_in(Language::English)
                );
                let error = validate::error(error.code().name(), message, None, None);
                self.begin_to_end(BatchStatus::Failed, vec![error]).await
            }
        }
    }

    /// Writes down the result of a line, and what it used: both or neither. Tries until the database takes it.
    async fn record(&self, number: i64, result: LineResult) -> Result<(), Stop> {
        let outcome = if result.status == 200 { "answered" } else { "refused" };
        loop {
            match self.try_record(number, &result).await {
                Err(Stop::Failed(AuthError::Store(error))) if error.is_passing() => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(()) => {
                    counter!(BATCH_LINES, "outcome" => outcome).increment(1);
                    return Ok(());
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    async fn try_record(&self, number: i64, result: &LineResult) -> Result<(), Stop> {
        let mut tx = self.write(result.progress()).await?;
        let found = (i64::from(result.status), result.output.as_str());
        if !batches::set_result(&mut tx, &self.batch.id, number, found).await? {
            // It was written, and the answer to that was lost.
            return Ok(());
        }
        usage::insert(&mut tx, &result.used.rows).await?;
        Ok(tx.commit().await?)
    }
}

async fn release(runner: &Runner, id: &str, holder: &str) -> Result<(), StoreError> {
    let mut tx = runner.store().append().await?;
    batches::release(&mut tx, id, holder).await?;
    tx.commit().await
}

/// The lines of a batch that are being answered.
struct Lines<'a> {
    job: &'a Job,
    common: Arc<Common>,
    running: JoinSet<(i64, LineEnd)>,
    /// Looked up, and not begun.
    next: VecDeque<LineRow>,
    /// The last that was looked up.
    after: i64,
}

impl Lines<'_> {
    /// Goes on until all are done, or the batch is over and those that were begun have ended: by themselves where it goes on
    /// elsewhere, else at once.
    async fn run(mut self) -> Result<NoMore, Stop> {
        let mut over: Option<NoMore> = None;
        let mut ticks = tokio::time::interval(TICK);
        let mut status = self.job.status.subscribe();
        loop {
            if over.is_none() {
                over = self.job.is_over();
            }
            match &over {
                None => self.begin_more().await?,
                Some(over) => {
                    self.common.ending.cancel();
                    if matches!(over, NoMore::Cancelled | NoMore::Expired) {
                        self.common.stopping.cancel();
                    }
                }
            }
            if self.running.is_empty() {
                return Ok(over.unwrap_or(NoMore::Done));
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => {
                    // Of a task that was cut off with the server nothing is known.
                    let Ok((number, end)) = ended else { return Err(Stop::Draining) };
                    if let Some(revoked) = self.note(number, end).await? {
                        over = Some(revoked);
                    }
                }
                _ = status.changed() => {}
                _ = ticks.tick() => {}
            }
        }
    }

    /// Begins as many as may run at the same time.
    async fn begin_more(&mut self) -> Result<(), Stop> {
        let most = self.job.runner.app().settings().batch.running;
        while self.running.len() < most {
            if self.next.is_empty() {
                let mut tx = self.job.store().read().await?;
                let id = &self.job.batch.id;
                self.next = batches::lines_to_do(&mut tx, id, self.after, LOOKED_UP).await?.into();
            }
            let Some(line) = self.next.pop_front() else { return Ok(()) };
            self.after = line.number;
            let common = Arc::clone(&self.common);
            self.running.spawn(async move { (line.number, common.answer(line).await) });
        }
        Ok(())
    }

    /// Writes down what has become of a line; why no more are begun, if that follows from it.
    async fn note(&self, number: i64, end: LineEnd) -> Result<Option<NoMore>, Stop> {
        match end {
            LineEnd::Done(result) => {
                self.job.record(number, result).await?;
                Ok(None)
            }
            LineEnd::Undone => Ok(None),
            LineEnd::Stopped(used) => {
                self.note_used(&used).await?;
                Ok(None)
            }
            LineEnd::Revoked(error, used) => {
                self.note_used(&used).await?;
                Ok(Some(NoMore::Revoked(error)))
            }
        }
    }

    /// Writes down what a line used that has no result.
    async fn note_used(&self, used: &Unwritten) -> Result<(), Stop> {
        let mut tx = self.job.write(used.into()).await?;
        usage::insert(&mut tx, &used.rows).await?;
        Ok(tx.commit().await?)
    }
}

/// Says again and again that a batch is held.
struct Heart {
    runner: Arc<Runner>,
    id: String,
    holder: String,
    status: watch::Sender<BatchStatus>,
}

impl Heart {
    /// Returns when the batch is not held any more.
    async fn beat(self) -> Stop {
        let mut asked = self.runner.asked();
        let mut silent_since = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(HEARTBEAT) => {}
                // The sender is the runner's.
                _ = asked.changed() => {}
            }
            match self.once().await {
                Ok(Some(status)) => {
                    silent_since = tokio::time::Instant::now();
                    self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
                }
                Ok(None) => return Stop::Lost,
                Err(_) if silent_since.elapsed() > HOLD => return Stop::Lost,
                Err(error) => tracing::debug!(%error, "a batch cannot be held on to now; it is tried again"),
            }
        }
    }

    async fn once(&self) -> Result<Option<BatchStatus>, StoreError> {
        let until = self.runner.clock().now().after(HOLD);
        let mut tx = self.runner.store().append().await?;
        let held = (self.id.as_str(), self.holder.as_str());
        let status = batches::hold(&mut tx, held, Progress::default(), until).await?;
        tx.commit().await?;
        Ok(status)
    }
}
