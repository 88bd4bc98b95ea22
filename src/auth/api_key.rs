//! API keys as text: `sk-sconce-` + 43 characters of secret + 6 of checksum. Only a hash is kept.
//!
//! The checksum lets a typing error, or a scanner's find, be told apart without asking the database.

use std::fmt;

use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// What each begins with.
pub(super) const PREFIX: &str = "sk-sconce-";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// How many of its first characters are kept to know a key again.
const SHOWN: usize = PREFIX.len() + 6;

/// A key in full: to be shown once, or just received. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct PlainKey(SecretString);

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(…)")
    }
}

impl PlainKey {
    /// A new one: 43 characters of 62, more than 256 bits.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut secret = String::with_capacity(SECRET_LENGTH);
        while secret.len() < SECRET_LENGTH {
            // The first 248 of 256 values give each character the same chance.
            let byte = random.next_u32() as u8;
            if byte < 248 {
                secret.push(char::from(ALPHABET[usize::from(byte % 62)]));
            }
        }
        Self(SecretString::from(format!("{PREFIX}{secret}{}", checksum(&secret))))
    }

    /// Reads one, if its form and checksum are right.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        if rest.len() != SECRET_LENGTH + CHECKSUM_LENGTH || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let (secret, sum) = rest.split_at(SECRET_LENGTH);
        (checksum(secret) == sum).then(|| Self(SecretString::from(text.to_owned())))
    }

    /// Whether a credential claims to be one.
    pub fn looks_like(text: &str) -> bool {
        text.starts_with("sk-")
    }

    /// What is kept of it.
    pub fn hash(&self) -> String {
        hash_of(self.0.expose_secret())
    }

    /// What people know it by.
    pub fn prefix(&self) -> String {
        self.0.expose_secret().chars().take(SHOWN).collect()
    }

    /// The whole key, to be shown this once.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// SHA-256 in hexadecimal digits. Enough for secrets of 256 random bits, which nobody can guess at any speed.
pub fn hash_of(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(secret: &str) -> String {
    let mut sum = crc32fast::hash(secret.as_bytes());
    let mut text = [b'0'; CHECKSUM_LENGTH];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(sum % 62) as usize];
        sum /= 62;
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_no_other_is() {
        let key = PlainKey::generate();
        let text = key.reveal().to_owned();
        assert!(text.starts_with("sk-sconce-") && text.len() == 59, "{}", text.len());
        assert_eq!(PlainKey::parse(&text).expect("its own").hash(), key.hash());
        assert_ne!(PlainKey::generate().hash(), key.hash());
        for place in 10..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[place] = if wrong[place] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).expect("ASCII");
            assert!(PlainKey::parse(&wrong).is_none(), "{place}");
        }
        for wrong in ["", "sk-", "sk-sconce-", &text[..58], &format!("{text}0"), &format!(" {text}")] {
            assert!(PlainKey::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let key = PlainKey::generate();
        assert!(!format!("{key:?}").contains(&key.reveal()[10..]));
    }
}
