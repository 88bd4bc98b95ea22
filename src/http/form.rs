//! Forms with files (`multipart/form-data`, RFC 7578), read as they come: a file in one is never whole in memory.
//!
//! The one thing to know: of what has come no more is kept than a little, whatever a client sends and however it cuts it;
//! and a client must not only go on sending but come forward, or its place is another's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use futures_util::Stream;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tokio::time::{Instant, timeout_at};

use crate::error::Code;
use crate::http::{ApiError, AppState};

/// What may be beside the files: names, small fields, boundaries.
const BESIDE: u64 = 1 << 20;

/// What is kept at most of what has come and was not handed on.
const MOST_KEPT: u64 = 2 << 20;

/// After so many bytes the reader is to give on what it has.
const DRAUGHT: usize = 256 << 10;

/// Longest field that is no file, in bytes.
const LONGEST_FIELD: usize = 4096;

/// The slowest that a client may send once its time for a small body is over, in bytes a second.
const SLOWEST: u64 = 32 * 1024;

/// A form that is being read. At most so large that one file of the largest size fits.
pub struct FormBody {
    parts: Multipart<'static>,
    pace: Pace,
}

/// One field of a form.
pub struct FormPart {
    field: Field<'static>,
    pace: Pace,
}

impl FromRequest<AppState> for FormBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let most = state.settings().batch.max_file_bytes.saturating_add(BESIDE);
        Self::read(request.headers().clone(), request.into_body(), most, state.settings().body_timeout)
    }
}

impl FormBody {
    fn read(headers: HeaderMap, body: Body, most: u64, patience: Duration) -> Result<Self, ApiError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(text(CONTENT_TYPE).unwrap_or_default()).map_err(|_| {
            ApiError::new(Code::UnsupportedMediaType, "the body must be `multipart/form-data`")
        })?;
        if text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(ApiError::new(Code::UnsupportedMediaType, "compressed bodies are not accepted"));
        }
        let announced = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > most) {
            return Err(too_large(most));
        }
        let pace = Pace { begun: Instant::now(), patience, most, flow: Arc::default() };
        let flow = Flow { body: body.into_data_stream(), pace: pace.clone(), taken: 0 };
        let limits = SizeLimit::new().whole_stream(most);
        let parts = Multipart::with_constraints(flow, boundary, Constraints::new().size_limit(limits));
        Ok(Self { parts, pace })
    }

    /// The next field; what was not read of the one before is passed over. None at the end.
    ///
    /// # Errors
    /// 400 for what is no form, 408 for one that comes too slowly, 413 for one that is too large.
    pub async fn next(&mut self) -> Result<Option<FormPart>, ApiError> {
        let pace = self.pace.clone();
        let field = pace.within(self.parts.next_field()).await?;
        Ok(field.map(|field| FormPart { field, pace }))
    }
}

impl FormPart {
    /// What the field is called.
    pub fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// What the file in it is called, if it is one.
    pub fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// What comes next of its content; none at the end.
    ///
    /// # Errors
    /// As [`FormBody::next`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let chunk = self.pace.clone().within(self.field.chunk()).await?;
        self.pace.hand_on();
        Ok(chunk)
    }

    /// Its content, which is a short text.
    ///
    /// # Errors
    /// 400 for a long one and for one that is no text; as [`FormBody::next`].
    pub async fn text(mut self) -> Result<String, ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST_FIELD {
                return Err(self.wrong(&format!("is longer than {LONGEST_FIELD} bytes")));
            }
        }
        String::from_utf8(bytes).map_err(|_| self.wrong("is no text in UTF-8"))
    }

    fn wrong(&self, reason: &str) -> ApiError {
        let name: String = self.name().chars().take(64).collect();
        ApiError::new(Code::InvalidValue, format!("`{name}` {reason}")).or_param(&name)
    }
}

/// How far a body has come, and how far it must have.
#[derive(Clone)]
struct Pace {
    begun: Instant,
    patience: Duration,
    most: u64,
    flow: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    come: AtomicU64,
    /// Of that, what was read and handed on, or passed over.
    handed_on: AtomicU64,
}

impl Pace {
    fn hand_on(&self) {
        self.flow.handed_on.store(self.flow.come.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether no more may be kept.
    fn is_full(&self) -> bool {
        let (come, handed_on) = (&self.flow.come, &self.flow.handed_on);
        come.load(Ordering::Relaxed) - handed_on.load(Ordering::Relaxed) > MOST_KEPT
    }

    async fn within<T>(&self, read: impl Future<Output = multer::Result<T>>) -> Result<T, ApiError> {
        let earned = Duration::from_secs(self.flow.come.load(Ordering::Relaxed) / SLOWEST);
        match timeout_at(self.begun + self.patience + earned, read).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(self.refusal(&error)),
            Err(_) => Err(ApiError::of(Code::RequestTimeout)),
        }
    }

    fn refusal(&self, error: &multer::Error) -> ApiError {
        match error {
            multer::Error::StreamSizeExceeded { .. } => too_large(self.most),
            multer::Error::StreamReadFailed(_) if self.is_full() => {
                ApiError::new(Code::InvalidValue, "the form has a part whose head does not end")
            }
            multer::Error::StreamReadFailed(_) | multer::Error::IncompleteStream => {
                ApiError::new(Code::InvalidValue, "the body could not be read to its end")
            }
            error => ApiError::new(Code::InvalidValue, format!("the body is no form: {error}")),
        }
    }
}

fn too_large(most: u64) -> ApiError {
    ApiError::new(Code::RequestTooLarge, format!("the body is larger than {most} bytes"))
}

/// A body that comes in draughts, since the reader of forms takes all that is there before it gives any on; and that stops
/// when too much of it is kept.
struct Flow {
    body: BodyDataStream,
    pace: Pace,
    /// Bytes of this draught.
    taken: usize,
}

impl Stream for Flow {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.pace.is_full() {
            return Poll::Ready(Some(Err(std::io::ErrorKind::OutOfMemory.into())));
        }
        if self.taken >= DRAUGHT {
            self.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.body).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            self.taken += bytes.len();
            self.pace.flow.come.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        next.map_err(|_| std::io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::HeaderValue;
    use futures_util::{StreamExt, stream};
    use proptest::prelude::{any, proptest};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn form(body: Body) -> FormBody {
        let kind = HeaderValue::from_static("multipart/form-data; boundary=BOUND");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        let Ok(form) = FormBody::read(headers, body, 64 << 20, PATIENCE) else {
            panic!("the headers are right")
        };
        form
    }

    async fn read(mut form: FormBody) -> Result<Vec<(String, Option<String>, usize)>, u32> {
        let mut found = Vec::new();
        while let Some(mut part) = form.next().await.map_err(|error| error.number())? {
            let mut bytes = 0;
            while let Some(chunk) = part.chunk().await.map_err(|error| error.number())? {
                bytes += chunk.len();
            }
            found.push((part.name().to_owned(), part.file_name().map(str::to_owned), bytes));
        }
        Ok(found)
    }

    fn head(name: &str) -> String {
        format!("--BOUND\r\nContent-Disposition: form-data; {name}\r\n\r\n")
    }

    #[tokio::test]
    async fn fields_and_large_files_come_through() {
        let file = stream::iter((0..5000).map(|_| vec![b'x'; 4096]));
        let before =
            format!("{}batch\r\n{}", head("name=\"purpose\""), head("name=\"file\"; filename=\"a.jsonl\""));
        let all = stream::iter([before.into_bytes()])
            .chain(file)
            .chain(stream::iter([b"\r\n--BOUND--\r\n".to_vec()]));
        let found = read(form(Body::from_stream(all.map(Ok::<_, Infallible>)))).await;
        let expected =
            vec![("purpose".into(), None, 5), ("file".into(), Some("a.jsonl".into()), 5000 * 4096)];
        assert_eq!(found, Ok(expected));
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_not_kept() {
        let begun = "--BOUND\r\nContent-Disposition: form-data; name=\"".to_owned().into_bytes();
        let endless = stream::iter([begun]).chain(stream::repeat(vec![b'x'; 4096]));
        assert_eq!(read(form(Body::from_stream(endless.map(Ok::<_, Infallible>)))).await, Err(40003));
    }

    #[tokio::test]
    async fn what_breaks_off_or_is_no_form_is_refused() {
        for body in
            ["", "nonsense", "--BOUND\r\n", &head("name=\"a\""), &format!("{}text", head("name=\"a\""))]
        {
            assert_eq!(read(form(Body::from(body.to_owned()))).await, Err(40003), "{body}");
        }
        let long = format!("{}{}\r\n--BOUND--\r\n", head("name=\"a\""), "x".repeat(LONGEST_FIELD + 1));
        let part = form(Body::from(long)).next().await.ok().flatten().expect("it is there");
        assert_eq!(part.text().await.map_err(|error| error.number()), Err(40003));
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_is_given_up() {
        let begun = head("name=\"file\"; filename=\"a\"").into_bytes();
        let body = Body::from_stream(stream::iter([Ok::<_, Infallible>(begun)]).chain(stream::pending()));
        let mut slow = form(body);
        slow.pace.patience = Duration::from_millis(5);
        assert_eq!(read(slow).await, Err(40801));
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let begun = [head("name=\"a\"").into_bytes(), bytes].concat();
            let _ = runtime.expect("a runtime").block_on(read(form(Body::from(begun))));
        }
    }
}
