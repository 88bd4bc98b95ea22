//! JSON read into a type as it says: only an object is one with fields, only a text is one of several names.
//!
//! serde would take a list for an object, and a map of one member for a name. The one thing to know: [`Mistake`] says what
//! is wrong in words of the API; the names of the program's types stay in the program.

use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::map;
use serde_json::{Map, Value};

/// A value that is read strictly.
pub struct Strict(pub Value);

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// There is no field of this name.
    Unknown(String),
    /// This field must be there.
    Missing(&'static str),
    /// It cannot be so, in words that follow its name.
    Wrong(String),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(_) => f.write_str("is not known here"),
            Self::Missing(_) => f.write_str("is missing"),
            Self::Wrong(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Mistake {}

impl Error for Mistake {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Wrong(text.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::Wrong(format!("must be {}, not {}", in_words(wanted), kind(found)))
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        match found {
            Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_) => {
                Self::Wrong(format!("must be {}", in_words(wanted)))
            }
            found => Self::invalid_type(found, wanted),
        }
    }

    fn invalid_length(length: usize, wanted: &dyn Expected) -> Self {
        Self::Wrong(format!("must be {}, and has {length} items", in_words(wanted)))
    }

    fn unknown_variant(_: &str, names: &'static [&'static str]) -> Self {
        Self::Wrong(format!("must be one of {}", names.join(", ")))
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(name.chars().take(LONGEST_NAME).collect())
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Missing(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::Wrong(format!("has `{name}` twice"))
    }
}

/// So much of a name is repeated to whoever sent it.
pub const LONGEST_NAME: usize = 64;

/// What serde's readers expect, as JSON calls it.
fn in_words(wanted: &dyn Expected) -> String {
    let text = wanted.to_string();
    let whole = |least: i128, most: i128| format!("a whole number from {least} to {most}");
    match text.as_str() {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" | "usize" => whole(0, u64::MAX.into()),
        "i8" => whole(i8::MIN.into(), i8::MAX.into()),
        "i16" => whole(i16::MIN.into(), i16::MAX.into()),
        "i32" => whole(i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" => whole(i64::MIN.into(), i64::MAX.into()),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "an object".to_owned(),
        text if text.starts_with("struct ") => "an object".to_owned(),
        text if text.starts_with("enum ") || text.starts_with("variant ") => "one of its names".to_owned(),
        text if text.starts_with("tuple ") || text.starts_with("a tuple") => "an array".to_owned(),
        _ => text,
    }
}

/// What a value is, for messages.
fn kind(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a string".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        _ => "that".to_owned(),
    }
}

impl Strict {
    /// Refuses it.
    fn is_not(&self, wanted: &str) -> Mistake {
        let found = match &self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => Unexpected::Unsigned(number),
                (_, Some(number), _) => Unexpected::Signed(number),
                (.., number) => Unexpected::Float(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Mistake::invalid_type(found, &wanted)
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(members) => visitor.visit_map(Members::of(members)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members::of(members)),
            _ => Err(self.is_not("an object")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::String(name) => {
                let name: StringDeserializer<Mistake> = name.into_deserializer();
                visitor.visit_enum(name)
            }
            _ => Err(self.is_not(&format!("one of {}", names.join(", ")))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier ignored_any
    }
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        self.0.next().map(|item| seed.deserialize(Strict(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Members {
    left: map::IntoIter,
    value: Option<Value>,
}

impl Members {
    fn of(members: Map<String, Value>) -> Self {
        Self { left: members.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let Some((name, value)) = self.left.next() else { return Ok(None) };
        self.value = Some(value);
        let name: StrDeserializer<'_, Mistake> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        seed.deserialize(Strict(self.value.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        name: String,
        #[serde(default)]
        colours: Vec<Colour>,
        size: Option<u32>,
        inner: Option<Box<Thing>>,
    }

    fn read(value: Value) -> Result<Thing, String> {
        Thing::deserialize(Strict(value)).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn what_is_right_is_read() {
        let inner = json!({"name": "b", "size": 3, "inner": null});
        let thing =
            read(json!({"name": "a", "colours": ["red", "green"], "inner": inner})).expect("it is right");
        assert_eq!(thing.colours, [Colour::Red, Colour::Green]);
        assert_eq!(thing.inner.expect("it is there").size, Some(3));
    }

    #[test]
    fn lists_are_no_objects_and_maps_no_names() {
        for (wrong, text) in [
            (json!(["a", [], null, null]), "must be an object, not an array"),
            (json!({"name": "a", "inner": ["b", [], null, null]}), "must be an object, not an array"),
            (json!({"name": "a", "colours": [{"red": null}]}), "must be one of red, green, not an object"),
            (json!({"name": "a", "colours": ["blue"]}), "must be one of red, green"),
            (json!({"name": "a", "colours": {}}), "must be an array, not an object"),
            (json!({"name": ["a"]}), "must be a string, not an array"),
            (json!({"name": null}), "must be a string, not null"),
            (json!({"name": "a", "size": -1}), "must be a whole number from 0 to 4294967295"),
            (json!({"name": "a", "size": 1.5}), "must be a whole number from 0 to 4294967295, not 1.5"),
            (json!({"name": "a", "size": "1"}), "must be a whole number from 0 to 4294967295, not a string"),
            (json!({"name": "a", "other": 1}), "is not known here"),
            (json!({"size": 1}), "is missing"),
        ] {
            assert_eq!(read(wrong.clone()).expect_err("it must be refused"), text, "{wrong}");
        }
    }
}
