//! Who is told how a download goes: the manager's own state, and whoever watches a terminal.

use crate::manager::Progress;

/// Receives news of a download. Called from the task that downloads: must return quickly.
pub trait ProgressSink: Send + Sync {
    /// Something worth a line: a source that is passed over, a file that is resumed.
    fn notice(&self, model: &str, text: &str);

    /// Bytes have come in; called a few times a second.
    fn progress(&self, model: &str, progress: &Progress);

    /// No more progress will be reported for this model.
    fn end(&self, model: &str);
}

/// Writes notices to the log and shows no progress.
pub struct LogOnly;

impl ProgressSink for LogOnly {
    fn notice(&self, model: &str, text: &str) {
        tracing::info!(model, "{text}");
    }

    fn progress(&self, _model: &str, _progress: &Progress) {}

    fn end(&self, _model: &str) {}
}
