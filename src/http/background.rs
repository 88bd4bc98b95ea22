//! Work that goes on though its client has left: it is found again by its id, can be taken back, and may be followed.
//!
//! The one thing to know: the end of the server waits for it as for a request, and cuts it as one. One owner has only so
//! much of it, so that there is room for others', and only so many bytes of what it said are remembered: of what goes on the
//! beginning is forgotten where that is too much, so that the work itself need not end.

mod said;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::Code;
pub use crate::http::background::said::Forgotten;
use crate::http::background::said::Said;
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
    /// Bytes that are kept of what was said: of each owner, and of all together.
    bytes: HashMap<String, usize>,
    total: usize,
}

impl All {
    fn count_said(&mut self, owner: &str, bytes: usize) {
        self.total += bytes;
        match self.bytes.get_mut(owner) {
            Some(counted) => *counted += bytes,
            None => drop(self.bytes.insert(owner.to_owned(), bytes)),
        }
    }

    fn count_forgotten(&mut self, owner: &str, bytes: usize) {
        self.total -= bytes;
        if let Some(counted) = self.bytes.get_mut(owner) {
            *counted -= bytes;
            if *counted == 0 {
                self.bytes.remove(owner);
            }
        }
    }

    /// Forgets what was said until no more is kept than may be: first of the owner's who has too much.
    fn shrink(&mut self, owner: &str, bounds: &Bounds) {
        loop {
            let kept = self.bytes.get(owner).copied().unwrap_or(0);
            if kept <= bounds.bytes.0 || !self.forget_some(Some(owner), kept - bounds.bytes.0) {
                break;
            }
        }
        while self.over.len() > MOST_REMEMBERED {
            self.forget_over(0);
        }
        while self.total > bounds.bytes.1 && self.forget_some(None, self.total - bounds.bytes.1) {}
    }

    /// Forgets the oldest work that is over, or so many bytes from the beginning of that which said the most; whether there
    /// was anything.
    fn forget_some(&mut self, owner: Option<&str>, excess: usize) -> bool {
        let is_meant = |work: &&Work| owner.is_none_or(|owner| work.0.owner == owner) && work.bytes() > 0;
        if let Some(oldest) = self.over.iter().position(|work| is_meant(&work)) {
            // Whoever still listens is told: what they hold would be counted by nobody.
            let forgotten = self.over[oldest].forget(usize::MAX);
            let owner = self.over[oldest].0.owner.clone();
            self.count_forgotten(&owner, forgotten);
            self.over.remove(oldest);
            return true;
        }
        let Some(longest) = self.running.values().filter(is_meant).max_by_key(|work| work.bytes()).cloned()
        else {
            return false;
        };
        let forgotten = longest.forget(excess);
        self.count_forgotten(&longest.0.owner, forgotten);
        true
    }

    fn forget_over(&mut self, place: usize) {
        if let Some(work) = self.over.remove(place) {
            self.count_forgotten(&work.0.owner, work.bytes());
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
        let mut all = self.background.0.all();
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
    background: Weak<Inner>,
    /// Until it is given back.
    place: Mutex<Option<Place>>,
    cancelled: CancellationToken,
    over: CancellationToken,
    /// None: it cannot be followed.
    said: Option<watch::Sender<Said>>,
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
        let Bounds { running, .. } = self.0.bounds;
        let mut all = self.0.all();
        let (own, total) = (all.places.get(owner).copied().unwrap_or(0), all.places.values().sum::<usize>());
        if own >= running.0 {
            return Err(full(format!(
                "`background`: {own} of your responses are being made, the most at once"
            )));
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
            background: Arc::downgrade(&self.0),
            place: Mutex::new(Some(place)),
            cancelled: CancellationToken::new(),
            over: CancellationToken::new(),
            said: can_be_followed.then(watch::Sender::default),
        }));
        self.0.all().running.insert(id.to_owned(), work.clone());
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
        let all = self.0.all();
        let over = all.over.iter().rev().find(|work| work.0.id == id);
        all.running.get(id).or(over).cloned()
    }

    /// The ids of all that goes on.
    pub fn running(&self) -> Vec<String> {
        self.0.all().running.keys().cloned().collect()
    }

    /// Forgets work that is over.
    pub fn forget(&self, id: &str) {
        let mut all = self.0.all();
        while let Some(place) = all.over.iter().position(|work| work.0.id == id) {
            all.forget_over(place);
        }
    }

    /// Waits until nothing goes on.
    pub async fn finished(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(message: String) -> ApiError {
    ApiError::new(Code::RateLimited, message).retry_after(LATER).about("background")
}

/// The end of a piece of work, however it comes.
struct Ending {
    background: Background,
    work: Work,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut all = self.background.0.all();
        all.running.remove(&self.work.0.id);
        if self.work.0.said.is_some() {
            all.over.push_back(self.work.clone());
            all.shrink(&self.work.0.owner, &self.background.0.bounds);
        }
        drop(all);
        // Before it is told: who hears that it is over finds the place free.
        self.work.give_place_back();
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

    /// Gives its place back before it is over: whoever hears it say its end may begin the next at once.
    pub fn give_place_back(&self) {
        drop(self.0.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether what it says is kept.
    pub fn can_be_followed(&self) -> bool {
        self.0.said.is_some()
    }

    /// Says something to those who follow.
    pub fn say(&self, texts: impl IntoIterator<Item = String>) {
        let (Some(said), Some(background)) = (&self.0.said, self.0.background.upgrade()) else { return };
        let texts: Vec<Arc<str>> = texts.into_iter().map(Arc::from).collect();
        let mut all = background.all();
        all.count_said(&self.0.owner, texts.iter().map(|text| text.len()).sum());
        said.send_modify(|said| said.extend(texts));
        all.shrink(&self.0.owner, &background.bounds);
    }

    /// How many of the first things that it said are not kept any longer.
    pub fn forgotten(&self) -> usize {
        self.0.said.as_ref().map_or(0, |said| said.borrow().forgotten())
    }

    /// How many bytes are kept of what it said.
    fn bytes(&self) -> usize {
        self.0.said.as_ref().map_or(0, |said| said.borrow().bytes())
    }

    /// Forgets so many bytes from the beginning, or a little more; how many they were.
    fn forget(&self, bytes: usize) -> usize {
        let mut forgotten = 0;
        if let Some(said) = &self.0.said {
            said.send_modify(|said| forgotten = said.forget(bytes));
        }
        forgotten
    }

    /// What it said and will say, without the first so many; ends with it, or with what it said and is not kept any longer.
    pub fn follow(&self, skipped: usize) -> impl Stream<Item = Result<Arc<str>, Forgotten>> + Send + 'static {
        let heard = self.0.said.as_ref().map(watch::Sender::subscribe);
        stream::unfold((heard, self.clone(), skipped), |(heard, work, next)| async move {
            let mut heard = heard?;
            loop {
                let is_over = work.0.over.is_cancelled();
                let text = heard.borrow_and_update().get(next);
                match text {
                    Ok(Some(text)) => return Some((Ok(text), (Some(heard), work, next + 1))),
                    Err(forgotten) => return Some((Err(forgotten), (None, work, next))),
                    Ok(None) if is_over => return None,
                    Ok(None) => {}
                }
                tokio::select! {
                    _ = heard.changed() => {}
                    () = work.over() => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
