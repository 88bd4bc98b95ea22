//! What every room's error can say about itself. An error gets its kind where it is born and its shape at the edge.

/// Whose fault it is, and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong. 400.
    InvalidRequest,
    /// Nobody known is asking. 401.
    Unauthenticated,
    /// Known, but not allowed. 403.
    Forbidden,
    /// Not there, or not visible to the caller. 404.
    NotFound,
    /// Contradicts the present state. 409.
    Conflict,
    /// Larger than what is accepted. 413.
    TooLarge,
    /// The caller, or the model it asks for, has more work than it may have; later is better. 429.
    RateLimited,
    /// This replica as a whole cannot take work now. 503. Never for one model or one caller: routers take a replica
    /// that answers 5xx out of service.
    Unavailable,
    /// A deadline passed. 504.
    Timeout,
    /// Our fault. 500.
    Internal,
}

/// An error that can be shown to a client.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// Whose fault, and is it worth retrying.
    fn kind(&self) -> ErrorKind;

    /// Stable public name, `snake_case`. Part of the API: added, never renamed.
    fn code(&self) -> &'static str;

    /// The request field at fault, if one is.
    fn param(&self) -> Option<&str> {
        None
    }

    /// When trying again makes sense, for [`ErrorKind::RateLimited`] and [`ErrorKind::Unavailable`].
    fn retry_after(&self) -> Option<std::time::Duration> {
        None
    }
}
