//! Why somebody is not let in, or may not do a thing.

use std::time::Duration;

use crate::auth::Permission;
use crate::error::{Code, Failure};
use crate::store::{PageError, StoreError};

/// An error of authentication, authorisation or administration.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credential was shown.
    #[error("{}", text(Code::MissingCredentials))]
    MissingCredentials,
    /// Two headers show different ones.
    #[error("`Authorization` and `x-api-key` show different credentials: send one of them")]
    DifferentCredentials,
    /// Not a key of ours, or not any more.
    #[error("{}", text(Code::InvalidApiKey))]
    InvalidApiKey,
    /// Switched off, by itself or with its owner.
    #[error("{}", text(Code::ApiKeyDisabled))]
    ApiKeyDisabled,
    /// Its time is over.
    #[error("{}", text(Code::ApiKeyExpired))]
    ApiKeyExpired,
    /// Not from there.
    #[error("{}", text(Code::AddressNotAllowed))]
    AddressNotAllowed,
    /// Its fifteen minutes are over.
    #[error("{}", text(Code::AccessTokenExpired))]
    AccessTokenExpired,
    /// Forged, of another kind, or of a session that was ended.
    #[error("{}", text(Code::AccessTokenInvalid))]
    AccessTokenInvalid,
    /// Unknown, too old, or of a session that was ended.
    #[error("{}", text(Code::RefreshTokenInvalid))]
    RefreshTokenInvalid,
    /// Used before: somebody has a copy.
    #[error("{}", text(Code::RefreshTokenReused))]
    RefreshTokenReused,
    /// Of which part was wrong, nothing is said.
    #[error("{}", text(Code::WrongPassword))]
    WrongPassword,
    /// Only said to those who know the password.
    #[error("{}", text(Code::AccountDisabled))]
    AccountDisabled,
    /// Nothing else until that is done.
    #[error("{}", text(Code::PasswordChangeRequired))]
    PasswordChangeRequired,
    /// Too many wrong passwords.
    #[error("{}", text(Code::SignInThrottled))]
    Throttled {
        /// No attempt before then.
        retry_after: Duration,
    },
    /// Too many are signing in at this moment.
    #[error("{}", text(Code::RateLimited))]
    Busy,
    /// Used up, or its time is over.
    #[error("{}", text(Code::TicketInvalid))]
    TicketInvalid,
    /// The role does not have it.
    #[error("your role does not have the permission `{0}`")]
    PermissionMissing(Permission),
    /// The role has it, the key's scopes do not.
    #[error("this API key does not have the scope `{0}`")]
    ScopeMissing(Permission),
    /// An equal or a higher one, or more than oneself holds.
    #[error("{0}")]
    NotAbove(&'static str),
    /// Not in the key's list.
    #[error("this API key may not use the model `{0}`")]
    ModelNotAllowed(String),
    /// Not there, or not yours.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Unique, and taken.
    #[error("{what} `{name}` exists already")]
    Exists {
        /// Such as `the user`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Would leave things in a state that must not be.
    #[error("{0}")]
    Conflict(&'static str),
    /// Longer than it may be.
    #[error("it is longer than {most} bytes")]
    TooLarge {
        /// The most there may be.
        most: u64,
    },
    /// There is as much as there may be.
    #[error("{0}")]
    Full(&'static str),
    /// A field that cannot be so.
    #[error("`{field}` {reason}")]
    Invalid {
        /// Its name.
        field: String,
        /// Why not.
        reason: String,
    },
    /// A password that is too easy.
    #[error("`{field}` {reason}")]
    WeakPassword {
        /// Where it stood.
        field: &'static str,
        /// What is asked for.
        reason: &'static str,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A list.
    #[error(transparent)]
    Page(#[from] PageError),
    /// Hashing or signing failed.
    #[error("a cryptographic operation failed: {0}")]
    Crypto(String),
}

const fn text(code: Code) -> &'static str {
    code.text(crate::language::Language::English)
}

impl AuthError {
    /// A field that cannot be so.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    /// The same, of a password that stood in a field of another name than `password`.
    #[must_use]
    pub fn of_password_in(self, field: &'static str) -> Self {
        match self {
            Self::WeakPassword { reason, .. } => Self::WeakPassword { field, reason },
            other => other,
        }
    }
}

impl Failure for AuthError {
    fn code(&self) -> Code {
        match self {
            Self::MissingCredentials | Self::DifferentCredentials => Code::MissingCredentials,
            Self::InvalidApiKey => Code::InvalidApiKey,
            Self::ApiKeyDisabled => Code::ApiKeyDisabled,
            Self::ApiKeyExpired => Code::ApiKeyExpired,
            Self::AddressNotAllowed => Code::AddressNotAllowed,
            Self::AccessTokenExpired => Code::AccessTokenExpired,
            Self::AccessTokenInvalid => Code::AccessTokenInvalid,
            Self::RefreshTokenInvalid => Code::RefreshTokenInvalid,
            Self::RefreshTokenReused => Code::RefreshTokenReused,
            Self::WrongPassword => Code::WrongPassword,
            Self::AccountDisabled => Code::AccountDisabled,
            Self::PasswordChangeRequired => Code::PasswordChangeRequired,
            Self::Throttled { .. } => Code::SignInThrottled,
            Self::Busy => Code::RateLimited,
            Self::TicketInvalid => Code::TicketInvalid,
            Self::PermissionMissing(_) | Self::NotAbove(_) => Code::PermissionMissing,
            Self::ScopeMissing(_) => Code::ScopeMissing,
            Self::ModelNotAllowed(_) => Code::ModelNotAllowed,
            Self::NotFound(_) => Code::NotFound,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Conflict(_) => Code::StateConflict,
            Self::TooLarge { .. } => Code::RequestTooLarge,
            Self::Full(_) => Code::QuotaExceeded,
            Self::Invalid { .. } => Code::InvalidValue,
            Self::WeakPassword { .. } => Code::WeakPassword,
            Self::Store(error) => error.code(),
            Self::Page(error) => error.code(),
            Self::Crypto(_) => Code::Internal,
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            Self::WeakPassword { field, .. } => Some(field),
            Self::ModelNotAllowed(_) => Some("model"),
            Self::Page(error) => error.param(),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => Some(*retry_after),
            Self::Busy => Some(Duration::from_secs(1)),
            Self::Store(error) => error.retry_after(),
            Self::Page(error) => error.retry_after(),
            _ => None,
        }
    }
}
