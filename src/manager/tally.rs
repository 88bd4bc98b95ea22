//! Counts what a download has brought, and tells the sink a few times a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::manager::Progress;
use crate::manager::pace::Pace;
use crate::manager::progress::ProgressSink;

const EVERY: Duration = Duration::from_millis(100);

/// The progress of one model from one source.
pub(crate) struct Tally {
    sink: Arc<dyn ProgressSink>,
    model: String,
    progress: Progress,
    /// Bytes of the files before the present one.
    before: u64,
    told: Option<Instant>,
    pace: Pace,
    /// Whether nothing of the present file was reported yet: what is reported first was here before.
    is_fresh: bool,
}

impl Tally {
    pub(crate) fn new(sink: Arc<dyn ProgressSink>, model: &str, source: &str) -> Self {
        let progress = Progress { source: source.to_owned(), ..Progress::default() };
        let (told, pace) = (None, Pace::default());
        Self { sink, model: model.to_owned(), progress, before: 0, told, pace, is_fresh: true }
    }

    /// How much there is in all.
    pub(crate) fn expect(&mut self, files: usize, bytes: Option<u64>) {
        self.progress.files = files;
        self.progress.total_bytes = bytes;
        self.tell();
    }

    /// The next file begins.
    pub(crate) fn file(&mut self, name: &str) {
        self.before = self.progress.bytes;
        self.progress.file = name.to_owned();
        self.progress.file_number += 1;
        self.is_fresh = true;
        self.tell();
    }

    /// So much of the present file is here.
    pub(crate) fn at(&mut self, bytes: u64) {
        let is_first = bytes > 0 && self.progress.bytes == self.before;
        // Sizes that others announce are rounded, and pip keeps two copies for a moment.
        let most = self.progress.total_bytes.unwrap_or(u64::MAX);
        let now = self.before.saturating_add(bytes).min(most).max(self.progress.bytes);
        let before = std::mem::replace(&mut self.progress.bytes, now);
        if std::mem::take(&mut self.is_fresh) {
            self.pace.skip(self.progress.bytes.saturating_sub(before));
        }
        self.pace.look(Instant::now(), self.progress.bytes);
        if is_first || self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.tell();
        }
    }

    /// The size of the only file has become known.
    pub(crate) fn learn_total(&mut self, bytes: u64) {
        if self.progress.files == 1 && self.progress.total_bytes.is_none() {
            self.progress.total_bytes = Some(bytes);
        }
    }

    pub(crate) fn notice(&self, text: &str) {
        self.sink.notice(&self.model, text);
    }

    fn tell(&mut self) {
        self.told = Some(Instant::now());
        let left = self.progress.total_bytes.map(|total| total.saturating_sub(self.progress.bytes));
        self.progress.eta_seconds = left.and_then(|left| self.pace.seconds_for(left));
        self.sink.progress(&self.model, &self.progress);
    }
}
