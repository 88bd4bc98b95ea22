//! How many grammars are compiled at the same time, and how long anybody waits for one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::generate::GenerateError;

/// How long a constraint may wait for its turn, and how long it may be worked on before it counts as too complex.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The places where grammars are compiled. Cheap to clone.
#[derive(Clone)]
pub(super) struct Compilers {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Compilers {
    /// So many places.
    pub(super) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), patience: PATIENCE }
    }

    /// Works in a place, once there is one; none if the work takes too long.
    ///
    /// # Errors
    /// [`GenerateError::CompilersBusy`] if no place becomes free in time.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, GenerateError> {
        let busy = GenerateError::CompilersBusy { retry_after: self.patience };
        let place = timeout(self.patience, self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| busy)?.map_err(|_| GenerateError::Preparation)?;
        let working = spawn_blocking(move || {
            // What took too long still takes its place until it is done.
            let _place = place;
            work()
        });
        match timeout(self.patience, working).await {
            Ok(worked) => worked.map(Some).map_err(|_| GenerateError::Preparation),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::error::{Code, Failure};

    /// Takes a place until the sender is used or gone.
    async fn occupy(compilers: &Compilers) -> Sender<()> {
        let (release, released) = channel();
        let work = move || released.recv().unwrap_or_default();
        let impatient = Compilers { patience: Duration::ZERO, ..compilers.clone() };
        assert_eq!(impatient.work(work).await.expect("there is a place"), None, "it takes too long");
        release
    }

    #[tokio::test]
    async fn who_finds_no_place_in_time_is_sent_away_and_what_takes_too_long_keeps_its_place() {
        let compilers = Compilers::new(2);
        let impatient = Compilers { patience: Duration::ZERO, ..compilers.clone() };
        let (first, _second) = (occupy(&compilers).await, occupy(&compilers).await);
        // Nobody waits for either any more, and yet they take all there is.
        let refused = impatient.work(|| ()).await.expect_err("there is no place");
        assert!(matches!(refused, GenerateError::CompilersBusy { .. }), "{refused}");
        assert_eq!((refused.code(), refused.retry_after()), (Code::ModelOverloaded, Some(Duration::ZERO)));
        drop(first);
        assert_eq!(compilers.work(|| 7).await.expect("one becomes free"), Some(7));
    }
}
