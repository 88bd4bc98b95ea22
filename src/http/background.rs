//! Work that goes on though its client has left: it is found again by its id, can be taken back, and may be followed.
//!
//! The one thing to know: the end of the server waits for it as for a request, and cuts it as one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::http::RequestContext;

/// Work that is over and can still be followed from its beginning, at most.
const MOST_REMEMBERED: usize = 64;

/// What goes on in the background. Clones speak of the same work.
#[derive(Clone, Default)]
pub struct Background(Arc<Inner>);

#[derive(Default)]
struct Inner {
    all: Mutex<All>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct All {
    running: HashMap<String, Work>,
    /// The latest is the last.
    over: VecDeque<Work>,
}

/// One piece of work. Clones speak of the same.
#[derive(Clone)]
pub struct Work(Arc<Piece>);

struct Piece {
    id: String,
    cancelled: CancellationToken,
    over: CancellationToken,
    /// None: it cannot be followed.
    said: Option<watch::Sender<Vec<Arc<str>>>>,
}

impl Background {
    /// Begins a piece of work, in a task of its own. What it says is kept if it can be followed.
    pub fn begin<F>(&self, id: &str, can_be_followed: bool, run: impl FnOnce(Work) -> F) -> Work
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = Work(Arc::new(Piece {
            id: id.to_owned(),
            cancelled: CancellationToken::new(),
            over: CancellationToken::new(),
            said: can_be_followed.then(watch::Sender::default),
        }));
        self.all().running.insert(id.to_owned(), work.clone());
        let ending = Ending { background: self.clone(), work: work.clone() };
        let running = run(work.clone());
        let task = async move {
            let _ending = ending;
            running.await;
        };
        self.0.tasks.spawn(RequestContext::current().scope(task.in_current_span()));
        work
    }

    /// Work that goes on here, or went on here lately.
    pub fn find(&self, id: &str) -> Option<Work> {
        let all = self.all();
        let over = all.over.iter().rev().find(|work| work.0.id == id);
        all.running.get(id).or(over).cloned()
    }

    /// The ids of all that goes on.
    pub fn running(&self) -> Vec<String> {
        self.all().running.keys().cloned().collect()
    }

    /// Forgets work that is over.
    pub fn forget(&self, id: &str) {
        self.all().over.retain(|work| work.0.id != id);
    }

    /// Waits until nothing goes on.
    pub async fn finished(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a piece of work, however it comes.
struct Ending {
    background: Background,
    work: Work,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut all = self.background.all();
        all.running.remove(&self.work.0.id);
        if self.work.0.said.is_some() {
            if all.over.len() >= MOST_REMEMBERED {
                all.over.pop_front();
            }
            all.over.push_back(self.work.clone());
        }
        drop(all);
        self.work.0.over.cancel();
    }
}

impl Work {
    /// Takes it back.
    pub fn cancel(&self) {
        self.0.cancelled.cancel();
    }

    /// Returns when it is taken back.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Returns when it is over.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// Whether what it says is kept.
    pub fn can_be_followed(&self) -> bool {
        self.0.said.is_some()
    }

    /// Says something to those who follow.
    pub fn say(&self, texts: impl IntoIterator<Item = String>) {
        if let Some(said) = &self.0.said {
            said.send_modify(|all| all.extend(texts.into_iter().map(Arc::from)));
        }
    }

    /// What it said and will say, without the first so many; ends with it.
    pub fn follow(&self, skipped: usize) -> impl Stream<Item = Arc<str>> + Send + 'static {
        let heard = self.0.said.as_ref().map(watch::Sender::subscribe);
        let work = self.clone();
        stream::unfold((heard, work, skipped), |(mut heard, work, next)| async move {
            let said = heard.as_mut()?;
            loop {
                let is_over = work.0.over.is_cancelled();
                let text = said.borrow_and_update().get(next).cloned();
                if let Some(text) = text {
                    return Some((text, (heard, work, next + 1)));
                }
                if is_over {
                    return None;
                }
                tokio::select! {
                    _ = said.changed() => {}
                    () = work.over() => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_found_followed_and_over() {
        let background = Background::default();
        let (more, go_on) = oneshot::channel::<()>();
        let work = background.begin("a", true, |work| async move {
            work.say(["1".to_owned(), "2".to_owned()]);
            go_on.await.expect("the test sends it");
            work.say(["3".to_owned()]);
        });
        let mut followed = Box::pin(background.find("a").expect("it goes on").follow(1));
        assert_eq!(followed.next().await.as_deref(), Some("2"));
        assert_eq!(background.running(), ["a"]);
        more.send(()).expect("it waits");
        assert_eq!(followed.next().await.as_deref(), Some("3"));
        assert_eq!(followed.next().await, None);
        work.over().await;
        assert!(background.running().is_empty());
        let again: Vec<_> = background.find("a").expect("it was here lately").follow(0).collect().await;
        assert_eq!(again.len(), 3);
        background.finished().await;
        background.forget("a");
        assert!(background.find("a").is_none());
    }

    #[tokio::test]
    async fn work_that_is_taken_back_or_panics_is_over() {
        let background = Background::default();
        let cancelled = background.begin("a", false, |work| async move { work.cancelled().await });
        cancelled.cancel();
        cancelled.over().await;
        let broken = background.begin("b", true, |_| async { panic!("forced by the test") });
        broken.over().await;
        assert!(background.find("a").is_none() && background.running().is_empty());
        assert_eq!(broken.follow(0).count().await, 0);
    }

    #[tokio::test]
    async fn only_the_latest_are_remembered() {
        let background = Background::default();
        for number in 0..=MOST_REMEMBERED {
            background.begin(&number.to_string(), true, |_| async {}).over().await;
        }
        assert!(background.find("0").is_none() && background.find("1").is_some());
    }
}
