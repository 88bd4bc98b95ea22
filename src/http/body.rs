//! Bodies of requests: read into memory of which there is only so much for all of them together.
//!
//! Who asks is known before this: nobody else's bodies are read, but for the few small ones by which somebody shows who
//! they are. The one thing to know: memory is taken as bytes come, not as they are announced; who finds none within a few
//! seconds is told to come back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Code;
use crate::http::ApiError;

/// What every body may take without asking: most never need more.
const FREE: usize = 64 * 1024;

/// What all bodies may take together beyond that, unless a single one may be larger.
const SHARED: usize = 256 << 20;

/// How long a body waits for others to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// When to come back.
const LATER: Duration = Duration::from_secs(5);

/// The memory that all bodies share while they are read.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    left: Arc<Semaphore>,
    patience: Duration,
}

/// A body that was read. Its memory is others' again when it is dropped.
pub struct Bytes {
    bytes: Vec<u8>,
    _taken: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyMemory {
    /// For bodies of at most this length each.
    pub fn new(longest: usize) -> Self {
        Self::of(SHARED.max(longest), PATIENCE)
    }

    fn of(bytes: usize, patience: Duration) -> Self {
        Self { left: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))), patience }
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 for a longer one, 400 for one that breaks off, 429 while others take all the memory there is.
    pub async fn read(&self, body: Body, limit: usize) -> Result<Bytes, ApiError> {
        let announced = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let longest = announced.map_or(limit, |length| length.min(limit));
        let mut chunks = body.into_data_stream();
        let mut read = Bytes { bytes: Vec::new(), _taken: None };
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk
                .map_err(|_| ApiError::new(Code::InvalidJson, "the body could not be read to its end"))?;
            let length = read.bytes.len() + chunk.len();
            if length > limit {
                return Err(too_large(limit));
            }
            if length > read.bytes.capacity() {
                self.grow(&mut read, length, longest.max(length)).await?;
            }
            read.bytes.extend_from_slice(&chunk);
        }
        Ok(read)
    }

    /// Makes room for `length` bytes: twice the room there was, but no more than the longest that it can become.
    async fn grow(&self, read: &mut Bytes, length: usize, longest: usize) -> Result<(), ApiError> {
        let room = read.bytes.capacity().saturating_mul(2).max(length).max(FREE).min(longest);
        let own = read._taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = room.saturating_sub(FREE).saturating_sub(own);
        if more > 0 {
            let more = u32::try_from(more).map_err(|_| too_large(longest))?;
            let permit = tokio::time::timeout(self.patience, Arc::clone(&self.left).acquire_many_owned(more));
            // The semaphore is never closed.
            let Ok(Ok(permit)) = permit.await else { return Err(none_left()) };
            match &mut read._taken {
                Some(taken) => taken.merge(permit),
                none => *none = Some(permit),
            }
        }
        read.bytes.reserve_exact(room - read.bytes.len());
        Ok(())
    }
}

fn none_left() -> ApiError {
    let message = "other requests' bodies take all the memory there is for bodies: try again shortly";
    ApiError::new(Code::RateLimited, message).retry_after(LATER)
}

/// Refuses a body that is longer than it may be.
pub fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::RequestTooLarge, format!("the body is larger than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt, stream};

    use super::*;

    const MIB: usize = 1 << 20;

    fn pieces(length: usize) -> impl futures_util::Stream<Item = Result<Vec<u8>, Infallible>> + Send {
        stream::iter((0..length / 1024).map(|_| Ok(vec![b' '; 1024])))
    }

    /// A body that comes to its end.
    fn whole(length: usize) -> Body {
        Body::from_stream(pieces(length))
    }

    /// A body of which the end does not come.
    fn half(length: usize) -> Body {
        Body::from_stream(pieces(length).chain(stream::pending()))
    }

    fn memory(bytes: usize) -> BodyMemory {
        BodyMemory::of(bytes, Duration::from_millis(1))
    }

    #[tokio::test]
    async fn small_bodies_need_none_of_the_memory() {
        let none = memory(0);
        assert_eq!(none.read(whole(FREE), MIB).await.map(|read| read.len()).ok(), Some(FREE));
        let error = none.read(whole(FREE + 1024), MIB).await.map(|read| read.len()).expect_err("it must ask");
        assert_eq!((error.number(), error.status().as_u16()), (42901, 429));
    }

    #[tokio::test]
    async fn all_bodies_together_take_no_more_than_there_is() {
        let memory = memory(2 * MIB);
        let mut first = Box::pin(memory.read(half(MIB), MIB));
        let mut second = Box::pin(memory.read(half(MIB), MIB));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        assert!(memory.left.available_permits() <= 2 * FREE);
        assert_eq!(memory.read(whole(MIB), MIB).await.map(|_| ()).expect_err("none is left").number(), 42901);
        // Those who need little are not kept waiting, and those who wait get what others leave.
        assert!(memory.read(whole(FREE), MIB).await.is_ok());
        drop(first);
        let third = memory.read(whole(MIB), MIB).await.map_err(|error| error.number()).map(|read| read.len());
        assert_eq!(third, Ok(MIB));
        drop(second);
        assert_eq!(memory.left.available_permits(), 2 * MIB, "all of it is back");
    }

    #[tokio::test]
    async fn a_body_whose_length_is_known_takes_no_more_than_that() {
        let memory = memory(MIB);
        let text = vec![b' '; 900_001];
        let read = memory.read(Body::from(text), MIB).await.map_err(|error| error.number()).expect("it fits");
        assert_eq!((read.len(), read.bytes.capacity()), (900_001, 900_001));
        assert_eq!(MIB - memory.left.available_permits(), 900_001 - FREE);
        drop(read);
        let longer = memory.read(whole(MIB), MIB - 1).await.map(|_| ()).expect_err("it is too long");
        assert_eq!(longer.number(), 41301);
    }
}
