//! What people type about users, keys and teams: the checks that several of them share. What each field may be is said
//! beside the field.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use unicode_normalization::is_nfkc;
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

/// Reads a field that is there: null too is a value, of which the type says whether it is one. For use with
/// `#[serde(default)]`: what is left out is none.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether a character stands for itself: no control, no line end, nothing unseen that turns or hides its neighbours.
/// The two joiners are letters' business in several scripts, and make emoji of emoji.
pub fn is_plain(character: char) -> bool {
    !character.is_control() && !is_format(character)
}

/// Unicode's categories Cf, Zl and Zp, but for the joiners.
fn is_format(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// A user name as it is stored, if a new user may have it: as [`known_username`], and none that looks like another.
///
/// # Errors
/// [`AuthError::Invalid`].
pub fn new_username(text: &str) -> Result<String, AuthError> {
    let name = known_username(text)?;
    if !is_nfkc(&name) {
        return Err(AuthError::invalid("username", "must have no letters that are others in another shape"));
    }
    let has_latin = name.contains(|c: char| c.is_ascii_alphabetic());
    if has_latin && name.contains(is_greek_or_cyrillic) {
        return Err(AuthError::invalid("username", "must not mix Latin letters with Greek or Cyrillic ones"));
    }
    Ok(name)
}

/// Where the scripts are that have letters which look like Latin ones.
fn is_greek_or_cyrillic(character: char) -> bool {
    matches!(character, '\u{370}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{1d26}'..='\u{1d2b}' | '\u{1f00}'..='\u{1fff}'
        | '\u{2de0}'..='\u{2dff}' | '\u{a640}'..='\u{a69f}')
}

/// A user name as it is looked for: lower case; letters, digits, `.`, `_`, `-` and `@`, at most 64.
///
/// # Errors
/// [`AuthError::Invalid`].
pub fn known_username(text: &str) -> Result<String, AuthError> {
    let name = text.to_lowercase();
    let plain = name.chars().all(|c| c.is_alphanumeric() || "._-@".contains(c));
    if name.is_empty() || name.chars().count() > 64 || !plain {
        let reason = "must have 1 to 64 letters, digits, or . _ - @";
        return Err(AuthError::invalid("username", reason));
    }
    Ok(name)
}

/// A text for people: one line without control characters, no white space round it, not too long.
///
/// # Errors
/// [`AuthError::Invalid`].
pub(super) fn line(field: &str, text: &str, longest: usize) -> Result<String, AuthError> {
    if !text.chars().all(is_plain) {
        return Err(AuthError::invalid(field, "must be one line of text that hides nothing"));
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
        for wrong in [
            "a\nb",
            "\0",
            "a\u{1b}[0m",
            "\u{85}x",
            "a\u{2028}",
            "a\n",
            "\u{202e}a",
            "\u{200b}",
            "\u{e0041}",
            "abcde",
        ] {
            assert!(line("f", wrong, 4).is_err(), "{wrong:?}");
        }
        assert!(line("f", "a\u{200d}b", 4).is_ok() && line("f", "👩\u{200d}🚀", 4).is_ok());
        assert!(line("f", " ", 4).is_ok() && name("f", " ", 4).is_err());
    }

    #[test]
    fn a_new_user_name_looks_like_no_other_and_an_old_one_is_still_found() {
        for name in ["\u{430}dmin", "adm\u{3b9}n", "\u{ff41}dmin", "\u{fb01}x", "x\u{b2}"] {
            assert!(new_username(name).is_err(), "{name:?}");
            assert_eq!(known_username(name).expect("letters and digits"), name);
        }
        for name in ["a.b_c-d@e", "ольга", "ольга-2", "λάμπρος", "张伟", "zoë", "محمد"]
        {
            assert_eq!(new_username(name).expect("it is one script"), name);
        }
        assert_eq!(new_username("ADA").expect("letters"), "ada");
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
