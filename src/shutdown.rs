//! The end of the program as a value one holds and awaits.
//!
//! It comes in two steps: *draining* (finish what runs, take nothing new) and *ending* (whatever still runs is cut).

use tokio_util::sync::CancellationToken;

/// Tells everyone that the end is near. Clones speak of the same end.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    ending: CancellationToken,
}

impl Shutdown {
    /// An end that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end: what runs may finish.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Ends at once what still runs.
    pub fn end(&self) {
        self.draining.cancel();
        self.ending.cancel();
    }

    /// Whether the end has been asked for.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the end is asked for.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until what still runs is to be cut.
    pub async fn ended(&self) {
        self.ending.cancelled().await;
    }

    /// Follows the process's signals: the first Ctrl-C (or SIGTERM) drains, the second ends.
    pub fn follow_signals(&self) {
        let shutdown = self.clone();
        tokio::spawn(async move {
            wait_for_signal().await;
            shutdown.drain();
            tracing::info!("draining; once more ends at once");
            wait_for_signal().await;
            shutdown.end();
        });
    }
}

#[cfg(unix)]
async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() {
    let _ = tokio::signal::ctrl_c().await;
}

#[cfg(test)]
mod tests {
    use super::Shutdown;

    #[tokio::test]
    async fn ending_drains_too_and_all_clones_hear_it() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        assert!(!other.is_draining());
        shutdown.end();
        other.drained().await;
        other.ended().await;
        assert!(other.is_draining());
    }
}
