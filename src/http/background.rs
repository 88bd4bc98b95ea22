//! Work that goes on though its client has left: it is found again by its id, can be taken back, and may be followed.
//!
//! The one thing to know: the end of the server waits for it as for a request, and cuts it as one. One owner has only so
//! much of it, so that there is room for others', and only so many bytes of what it said are remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::Code;
use crate::http::{ApiError, RequestContext};

/// Work that is over and can still be followed from its beginning, at most.
const MOST_REMEMBERED: usize = 64;

/// When to come back if there is no place.
const LATER: Duration = Duration::from_secs(5);

/// How much of it there may be.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Pieces of work that go on: of one owner, and of all together.
    running: (usize, usize),
    /// Bytes of what was said and can be heard again: of one owner, and of all together.
    bytes: (usize, usize),
}

/// Of all work one owner has at most one part of so many.
const PARTS: usize = 4;

/// Bytes of what was said: of one owner, and of all together.
const MOST_BYTES: (usize, usize) = (32 << 20, 256 << 20);

/// What goes on in the background. Clones speak of the same work.
#[derive(Clone)]
pub struct Background(Arc<Inner>);

struct Inner {
    bounds: Bounds,
    all: Mutex<All>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct All {
    /// How many places each owner has.
    places: HashMap<String, usize>,
    running: HashMap<String, Work>,
    /// The latest is the last.
    over: VecDeque<Work>,
}

impl All {
    /// The bytes of what was said by all work, or by one owner's.
    fn bytes(&self, owner: Option<&str>) -> usize {
        let all = self.running.values().chain(&self.over);
        let of_owner = all.filter(|work| owner.is_none_or(|owner| work.0.owner == owner));
        of_owner.map(Work::bytes).sum()
    }

    /// Forgets work that is over until there is no more than may be: first the owner's who has too much.
    fn shrink(&mut self, owner: &str, bounds: &Bounds) {
        while self.bytes(Some(owner)) > bounds.bytes.0 {
            let Some(oldest) = self.over.iter().position(|work| work.0.owner == owner) else { break };
            self.over.remove(oldest);
        }
        while self.over.len() > MOST_REMEMBERED || self.bytes(None) > bounds.bytes.1 {
            if self.over.pop_front().is_none() {
                break;
            }
        }
    }
}

/// A place for one piece of work. Another's when it is dropped.
pub struct Place {
    background: Background,
    owner: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.background.all();
        if let Some(taken) = all.places.get_mut(&self.owner) {
            *taken -= 1;
            if *taken == 0 {
                all.places.remove(&self.owner);
            }
        }
    }
}

/// One piece of work. Clones speak of the same.
#[derive(Clone)]
pub struct Work(Arc<Piece>);

struct Piece {
    id: String,
    owner: String,
    bytes: AtomicUsize,
    cancelled: CancellationToken,
    over: CancellationToken,
    /// None: it cannot be followed.
    said: Option<watch::Sender<Vec<Arc<str>>>>,
}

impl Background {
    /// Of which so many pieces may go on at the same time.
    pub fn new(most: usize) -> Self {
        Self::within(Bounds { running: ((most / PARTS).max(1), most.max(1)), bytes: MOST_BYTES })
    }

    fn within(bounds: Bounds) -> Self {
        Self(Arc::new(Inner { bounds, all: Mutex::default(), tasks: TaskTracker::new() }))
    }

    /// A place for an owner's work.
    ///
    /// # Errors
    /// 429 `rate_limit_exceeded` while they have as many as one may have, or all together have.
    pub fn place(&self, owner: &str) -> Result<Place, ApiError> {
        let Bounds { running, bytes } = self.0.bounds;
        let mut all = self.all();
        let (own, total) = (all.places.get(owner).copied().unwrap_or(0), all.places.values().sum::<usize>());
        if own >= running.0 {
            return Err(full(format!(
                "`background`: {own} of your responses are being made, the most at once"
            )));
        }
        let said: usize = all.running.values().filter(|work| work.0.owner == owner).map(Work::bytes).sum();
        if said >= bytes.0 {
            return Err(full(
                "`background`: your responses that are being made take all their memory".to_owned(),
            ));
        }
        if total >= running.1 {
            return Err(full(format!("`background`: {total} responses are being made, the most at once")));
        }
        *all.places.entry(owner.to_owned()).or_default() += 1;
        Ok(Place { background: self.clone(), owner: owner.to_owned() })
    }

    /// Begins a piece of work, in a task of its own. What it says is kept if it can be followed.
    pub fn begin<F>(&self, place: Place, id: &str, can_be_followed: bool, run: impl FnOnce(Work) -> F) -> Work
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = Work(Arc::new(Piece {
            id: id.to_owned(),
            owner: place.owner.clone(),
            bytes: AtomicUsize::new(0),
            cancelled: CancellationToken::new(),
            over: CancellationToken::new(),
            said: can_be_followed.then(watch::Sender::default),
        }));
        self.all().running.insert(id.to_owned(), work.clone());
        let ending = Ending { background: self.clone(), work: work.clone(), place: Some(place) };
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

fn full(message: String) -> ApiError {
    ApiError::new(Code::RateLimited, message).retry_after(LATER).about("background")
}

/// The end of a piece of work, however it comes.
struct Ending {
    background: Background,
    work: Work,
    place: Option<Place>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut all = self.background.all();
        all.running.remove(&self.work.0.id);
        if self.work.0.said.is_some() {
            all.over.push_back(self.work.clone());
            all.shrink(&self.work.0.owner, &self.background.0.bounds);
        }
        drop(all);
        // Before it is told: who hears that it is over finds the place free.
        drop(self.place.take());
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
            let count = |text: String| {
                self.0.bytes.fetch_add(text.len(), Ordering::Relaxed);
                Arc::from(text)
            };
            said.send_modify(|all| all.extend(texts.into_iter().map(count)));
        }
    }

    /// How many bytes are kept of what it said.
    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
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

    fn place(background: &Background) -> Place {
        background.place("owner").map_err(|error| error.number()).expect("there is room")
    }

    #[tokio::test]
    async fn work_is_found_followed_and_over() {
        let background = Background::new(128);
        let (more, go_on) = oneshot::channel::<()>();
        let work = background.begin(place(&background), "a", true, |work| async move {
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
        let background = Background::new(128);
        let cancelled =
            background.begin(place(&background), "a", false, |work| async move { work.cancelled().await });
        cancelled.cancel();
        cancelled.over().await;
        let broken =
            background.begin(place(&background), "b", true, |_| async { panic!("forced by the test") });
        broken.over().await;
        assert!(background.find("a").is_none() && background.running().is_empty());
        assert_eq!(broken.follow(0).count().await, 0);
    }

    #[tokio::test]
    async fn only_the_latest_are_remembered() {
        let background = Background::new(128);
        for number in 0..=MOST_REMEMBERED {
            background.begin(place(&background), &number.to_string(), true, |_| async {}).over().await;
        }
        assert!(background.find("0").is_none() && background.find("1").is_some());
    }

    #[tokio::test]
    async fn one_owner_leaves_room_for_others() {
        let background = Background::within(Bounds { running: (2, 3), bytes: (100, 100) });
        let (first, _second) = (place(&background), place(&background));
        let refused = background.place("owner").map(|_| ()).expect_err("they have two");
        assert_eq!((refused.number(), refused.message().contains("`background`")), (42901, true));
        let _third = background.place("another").map_err(|error| error.number()).expect("it is another's");
        assert!(background.place("a third").is_err(), "there are three");
        drop(first);
        assert!(background.place("a third").is_ok());
    }

    #[tokio::test]
    async fn what_was_said_is_remembered_up_to_so_many_bytes_and_ones_own_goes_first() {
        let background = Background::within(Bounds { running: (9, 9), bytes: (100, 150) });
        let say = async |owner: &str, id: &str, bytes: usize| {
            let place = background.place(owner).map_err(|error| error.number()).expect("there is room");
            let text = "x".repeat(bytes);
            background.begin(place, id, true, |work| async move { work.say([text]) }).over().await;
        };
        let known = |id: &str| background.find(id).is_some();
        say("other", "other", 60).await;
        say("owner", "1", 50).await;
        say("owner", "2", 40).await;
        assert!(known("other") && known("1") && known("2"));
        say("owner", "3", 20).await;
        assert!(known("other") && !known("1") && known("2") && known("3"), "their own oldest went");
        say("third", "third", 60).await;
        assert!(!known("other") && known("2") && known("third"), "there was too much of all");
        say("owner", "4", 101).await;
        assert!(!known("4"), "it is too much by itself");
        let busy = background.begin(place(&background), "5", true, |work| async move {
            work.say(["x".repeat(100)]);
            work.cancelled().await;
        });
        let mut heard = Box::pin(busy.follow(0));
        heard.next().await.expect("it is said");
        assert!(background.place("owner").is_err(), "what goes on is counted, too");
        busy.cancel();
    }
}
