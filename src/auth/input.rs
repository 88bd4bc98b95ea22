//! What people type about users, keys and teams: the checks that several of them share. What each field may be is said
//! beside the field.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::auth::AuthError;

/// A password on its way in. `Debug` shows nothing of it.
#[derive(Clone, ToSchema)]
#[schema(value_type = String, format = Password, min_length = 8)]
pub struct Password(SecretString);

impl Password {
    /// The password.
    pub fn into_secret(self) -> SecretString {
        self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

/// Tells a field that is not there (none) from one that is null (some none). For use with `#[serde(default)]`.
pub(super) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A text for people: one line without control characters, no white space round it, not too long.
///
/// # Errors
/// [`AuthError::Invalid`].
pub(super) fn line(field: &str, text: &str, longest: usize) -> Result<String, AuthError> {
    if text.chars().any(|character| character.is_control() || "\u{2028}\u{2029}".contains(character)) {
        return Err(AuthError::invalid(field, "must be one line of text"));
    }
    let text = text.trim();
    if text.chars().count() > longest {
        return Err(AuthError::invalid(field, format!("must have at most {longest} characters")));
    }
    Ok(text.to_owned())
}

/// The same, that says something.
///
/// # Errors
/// [`AuthError::Invalid`].
pub(super) fn name(field: &str, text: &str, longest: usize) -> Result<String, AuthError> {
    let text = line(field, text, longest)?;
    if text.is_empty() {
        return Err(AuthError::invalid(field, "must not be empty"));
    }
    Ok(text)
}

/// An e-mail address, as far as one can tell without writing to it.
///
/// # Errors
/// [`AuthError::Invalid`].
pub(super) fn email(text: &str) -> Result<String, AuthError> {
    let text = line("email", text, 254)?;
    let has_parts = text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if !has_parts || text.matches('@').count() != 1 || text.contains(char::is_whitespace) {
        return Err(AuthError::invalid("email", "must be an e-mail address"));
    }
    Ok(text)
}

/// A list that is no longer than a list of its kind needs to be.
///
/// # Errors
/// [`AuthError::Invalid`].
pub(super) fn few<T>(field: &str, items: &[T], most: usize) -> Result<(), AuthError> {
    match items.len() > most {
        true => Err(AuthError::invalid(field, format!("must have at most {most} items"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_and_bounded_and_have_no_control_characters() {
        assert_eq!(line("f", "  密钥 a ", 4).expect("it is right"), "密钥 a");
        for wrong in ["a\nb", "\0", "a\u{1b}[0m", "\u{85}x", "a\u{2028}", "a\n", "abcde"] {
            assert!(line("f", wrong, 4).is_err(), "{wrong:?}");
        }
        assert!(line("f", " ", 4).is_ok() && name("f", " ", 4).is_err());
    }

    #[test]
    fn an_address_has_two_parts() {
        assert_eq!(email(" a@b ").expect("it is right"), "a@b");
        for wrong in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\nc"] {
            assert!(email(wrong).is_err(), "{wrong:?}");
        }
        assert!(email(&format!("{}@b", "a".repeat(260))).is_err());
    }

    #[test]
    fn a_password_does_not_show_itself() {
        let password: Password = serde_json::from_str("\"tidal mosaic\"").expect("it is text");
        assert!(!format!("{password:?}").contains("tidal"));
    }
}
