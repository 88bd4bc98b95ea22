//! Tokens that say nothing: a mark and 256 random bits. Refresh tokens are such, and tickets. Only a hash is kept.
//!
//! A refresh token's successor is not drawn but computed, from the token and a seed that lies beside its hash: who lost
//! the answer and asks again gets the same one, though nobody kept it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::auth::{AuthError, hash_of};

const SECRET_BYTES: usize = 32;

/// 32 bytes in Base64 without padding.
const SECRET_LENGTH: usize = 43;

/// What a token is for; told by its first characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Exchanged for an access token.
    Refresh,
    /// Opens a WebSocket.
    Ticket,
}

impl TokenKind {
    /// What such a token begins with.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Refresh => "rt-",
            Self::Ticket => "tk-",
        }
    }
}

/// A token in full: just made, or just received. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct OpaqueToken {
    kind: TokenKind,
    text: SecretString,
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.kind.mark())
    }
}

impl OpaqueToken {
    /// A new one.
    pub fn generate(kind: TokenKind) -> Self {
        Self::of_secret(kind, &random())
    }

    /// Reads one, if its form is right.
    pub fn parse(kind: TokenKind, text: &str) -> Option<Self> {
        let secret = text.strip_prefix(kind.mark())?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (secret.len() == SECRET_LENGTH && secret.bytes().all(is_plain))
            .then(|| Self { kind, text: SecretString::from(text.to_owned()) })
    }

    /// The one that follows this one; `seed` is what was kept beside its hash.
    ///
    /// # Errors
    /// [`AuthError::Crypto`] if the seed is not one.
    pub fn successor(&self, seed: &str) -> Result<Self, AuthError> {
        let crypto = |error: String| AuthError::Crypto(error);
        let seed = URL_SAFE_NO_PAD.decode(seed).map_err(|error| crypto(error.to_string()))?;
        let mut hmac = Hmac::<Sha256>::new_from_slice(&seed).map_err(|error| crypto(error.to_string()))?;
        hmac.update(self.text.expose_secret().as_bytes());
        Ok(Self::of_secret(self.kind, &hmac.finalize().into_bytes().into()))
    }

    /// A fresh seed for [`OpaqueToken::successor`].
    pub fn new_seed() -> String {
        URL_SAFE_NO_PAD.encode(random())
    }

    /// What is kept of it.
    pub fn hash(&self) -> String {
        hash_of(self.text.expose_secret())
    }

    /// The whole token, to be given out.
    pub fn reveal(&self) -> &str {
        self.text.expose_secret()
    }

    fn of_secret(kind: TokenKind, secret: &[u8; SECRET_BYTES]) -> Self {
        let text = format!("{}{}", kind.mark(), URL_SAFE_NO_PAD.encode(secret));
        Self { kind, text: SecretString::from(text) }
    }
}

fn random() -> [u8; SECRET_BYTES] {
    let mut bytes = [0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_as_nothing_else() {
        let token = OpaqueToken::generate(TokenKind::Refresh);
        let read = OpaqueToken::parse(TokenKind::Refresh, token.reveal()).expect("its own");
        assert_eq!(read.hash(), token.hash());
        assert_ne!(OpaqueToken::generate(TokenKind::Refresh).hash(), token.hash());
        assert!(OpaqueToken::parse(TokenKind::Ticket, token.reveal()).is_none());
        let text = token.reveal();
        for wrong in
            ["", "rt-", &text[..45], &format!("{text}A"), &format!("rt-{}", "ä".repeat(21)), &text[1..]]
        {
            assert!(OpaqueToken::parse(TokenKind::Refresh, wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_successor_needs_both_the_token_and_its_seed() {
        let (token, seed) = (OpaqueToken::generate(TokenKind::Refresh), OpaqueToken::new_seed());
        let next = token.successor(&seed).expect("it can be computed");
        assert_eq!(token.successor(&seed).expect("again").hash(), next.hash());
        assert!(OpaqueToken::parse(TokenKind::Refresh, next.reveal()).is_some());
        assert_ne!(token.successor(&OpaqueToken::new_seed()).expect("of another").hash(), next.hash());
        let other = OpaqueToken::generate(TokenKind::Refresh);
        assert_ne!(other.successor(&seed).expect("of another").hash(), next.hash());
        assert!(token.successor("no seed!").is_err());
    }

    #[test]
    fn debug_shows_nothing() {
        let token = OpaqueToken::generate(TokenKind::Ticket);
        assert_eq!(format!("{token:?}"), "tk-…");
    }
}
