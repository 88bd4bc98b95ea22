//! JSON from strangers: depth, number of items and repeated keys are checked while reading, before memory is spent.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Code;
use crate::http::ApiError;

/// Most values in one document, counting each element, member and container.
pub const MAX_ITEMS: usize = 400_000;

/// Containers may be nested this deep.
pub const MAX_DEPTH: usize = 100;

const TOO_MANY: &str = "too many items";
const TOO_DEEP: &str = "nested too deep";

/// Reads one JSON document.
///
/// # Errors
/// 400 `invalid_json` with the place of the mistake, 413 `too_many_items` for the limits above.
pub fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let left = Cell::new(MAX_ITEMS);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node { left: &left, depth: 0 }.deserialize(&mut reader);
    value.and_then(|value| reader.end().map(|()| value)).map_err(|error| refused(&error))
}

fn refused(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if text.starts_with(TOO_MANY) || text.starts_with(TOO_DEEP) || text.starts_with("recursion limit") {
        let message = format!("the JSON is too large: {text}; at most {MAX_ITEMS} items, {MAX_DEPTH} levels");
        return ApiError::new(Code::TooManyItems, message);
    }
    ApiError::new(Code::InvalidJson, format!("the body is not valid JSON: {text}"))
}

#[derive(Clone, Copy)]
struct Node<'a> {
    left: &'a Cell<usize>,
    depth: usize,
}

impl<'a> Node<'a> {
    fn count<E: Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| E::custom(TOO_MANY))?;
        self.left.set(left);
        Ok(())
    }

    fn inner<E: Error>(&self) -> Result<Node<'a>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Node { left: self.left, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn code(text: &[u8]) -> u32 {
        parse(text).expect_err("it must be refused").number()
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for text in
            [&b""[..], b"{", b"{\"a\":}", b"[1,]", b"nul", b"\xef\xbb\xbf{}", b"{} {}", b"\"\xff\"", b"1e999"]
        {
            assert_eq!(code(text), 40002, "{text:?}");
        }
        assert_eq!(code(br#""\ud800""#), 40002);
        assert_eq!(code(br#"{"a":1,"a":2}"#), 40002);
    }

    #[test]
    fn depth_and_number_of_items_are_bounded() {
        let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(code(&deep(MAX_DEPTH + 1)), 41302);
        assert_eq!(code(&vec![b'['; 100_000]), 41302);
        let wide = format!("[{}0]", "0,".repeat(MAX_ITEMS));
        assert_eq!(code(wide.as_bytes()), 41302);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ours = parse(&bytes);
            let theirs = serde_json::from_slice::<Value>(&bytes);
            prop_assert!(theirs.is_ok() || ours.is_err());
        }

        #[test]
        fn valid_documents_are_read_as_they_are(
            text in ".{0,20}", number in any::<i64>(), unsigned in any::<u64>(), float in any::<f32>(),
        ) {
            let document = serde_json::json!({"t": text, "n": [number, unsigned, null, true], "f": float});
            let bytes = document.to_string().into_bytes();
            let read: Value = serde_json::from_slice(&bytes).expect("serde_json wrote it");
            prop_assert_eq!(parse(&bytes).expect("it is valid"), read);
        }
    }
}
