//! `metadata`: what a caller notes of what they ask for, with OpenAI's bounds wherever it may stand.

use serde_json::{Map, Value};

use crate::api::openai::fields::{Fields, ParameterError};

/// Most notes.
const MOST: usize = 16;

/// Longest name and longest text of one. What is counted is characters, as OpenAI says: neither bytes, of which a character
/// has up to four, nor what a reader takes for one sign.
const LONGEST_NAME: usize = 64;
const LONGEST_TEXT: usize = 512;

/// The notes of a request; none if it has no such member.
///
/// # Errors
/// For notes that are too many, too long, without a name, or no texts.
pub fn take(fields: &mut Fields) -> Result<Option<Map<String, Value>>, ParameterError> {
    let Some(notes) = fields.object("metadata")? else { return Ok(None) };
    let notes = notes.into_members();
    let fits = |(name, text): (&String, &Value)| {
        (1..=LONGEST_NAME).contains(&name.chars().count())
            && text.as_str().is_some_and(|text| text.chars().count() <= LONGEST_TEXT)
    };
    if notes.len() > MOST || !notes.iter().all(fits) {
        let reason = format!(
            "must be an object of {MOST} texts at most, of {LONGEST_TEXT} characters each, with names of 1 to \
             {LONGEST_NAME} characters"
        );
        return Err(ParameterError::invalid("metadata", reason));
    }
    Ok(Some(notes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::{Code, Failure};

    fn read(metadata: Value) -> Result<Option<Map<String, Value>>, ParameterError> {
        take(&mut Fields::of(json!({ "metadata": metadata }), "").expect("it is an object"))
    }

    /// So many notes, with names and texts of so many of a character.
    fn notes(character: char, count: usize, name: usize, text: usize) -> Value {
        let own = |number: u32| char::from_u32(0x4e00 + number).expect("it is a character").to_string();
        let of = |length: usize| character.to_string().repeat(length);
        let notes = (0..).take(count).map(|number| (own(number) + &of(name - 1), json!(of(text))));
        Value::Object(notes.collect())
    }

    #[test]
    fn characters_are_counted_whatever_bytes_they_have() {
        for character in ['x', 'é', '字', '🦀'] {
            let most = notes(character, 16, 64, 512);
            assert_eq!(read(most.clone()).map(|read| read.map(Value::Object)), Ok(Some(most)));
            for (count, name, text) in [(17, 64, 512), (16, 65, 512), (16, 64, 513)] {
                let error = read(notes(character, count, name, text)).expect_err("it is too much");
                assert_eq!((error.param(), error.code()), (Some("metadata"), Code::InvalidValue));
            }
        }
        // One sign, and two characters.
        assert!(read(json!({"a": "e\u{301}".repeat(256)})).is_ok());
        assert!(read(json!({"a": "e\u{301}".repeat(257)})).is_err());
    }

    #[test]
    fn notes_are_texts_with_names() {
        assert_eq!(read(Value::Null), Ok(None));
        assert_eq!(read(json!({})), Ok(Some(Map::new())));
        for wrong in [json!({"": "x"}), json!({"a": 1}), json!({"a": null}), json!([]), json!("x")] {
            assert_eq!(read(wrong.clone()).expect_err("it is wrong").param(), Some("metadata"), "{wrong}");
        }
    }
}
