//! Values as JSON, written as Python's `json.dumps` writes it: that is what models saw in training.
//!
//! Differs from the engine's own `tojson`: nothing is escaped for HTML, and numbers look as in Python.

use std::fmt::Write;

use minijinja::Error;
use minijinja::value::{Kwargs, Value, ValueKind};

use super::budget::{MAX_TEXT_BYTES, over};

/// How it is laid out: the arguments of transformers' `tojson`.
pub(super) struct Layout {
    /// What a level is indented with; none for one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    escapes_non_ascii: bool,
    sorts_keys: bool,
}

impl Layout {
    /// Reads `indent`, `separators`, `ensure_ascii` and `sort_keys`.
    pub(super) fn from_arguments(
        indent: Option<Value>,
        kwargs: &Kwargs,
        max_indent: u64,
    ) -> Result<Self, Error> {
        let indent = indent.or(kwargs.get::<Option<Value>>("indent")?).filter(|indent| !indent.is_none());
        let indent = match indent {
            None => None,
            Some(indent) => match indent.as_str() {
                Some(text) if text.len() as u64 <= max_indent => Some(text.to_owned()),
                None => match u64::try_from(indent) {
                    Ok(width) if width <= max_indent => Some(" ".repeat(width as usize)),
                    _ => return Err(over(format!("an indentation is not a number up to {max_indent}"))),
                },
                Some(_) => return Err(over("an indentation is too long")),
            },
        };
        let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
        let (item_separator, key_separator) = match separators.as_deref() {
            None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
            Some([item, key]) => (item.clone(), key.clone()),
            Some(_) => return Err(over("`separators` are two")),
        };
        if item_separator.len() + key_separator.len() > 64 {
            return Err(over("`separators` are too long"));
        }
        let escapes_non_ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
        let sorts_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
        kwargs.assert_all_used()?;
        Ok(Self { indent, item_separator, key_separator, escapes_non_ascii, sorts_keys })
    }
}

/// Writes a value whose size and depth were checked.
pub(super) fn write(value: &Value, layout: &Layout) -> Result<String, Error> {
    let mut writer = Writer { layout, text: String::new() };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'a> {
    layout: &'a Layout,
    text: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        if self.text.len() as u64 > MAX_TEXT_BYTES {
            return Err(over(format!("the JSON is longer than {MAX_TEXT_BYTES} bytes")));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                self.container(['[', ']'], items.len(), level, |writer, index| {
                    writer.value(&items[index], level + 1)
                })?;
            }
            ValueKind::Map => self.map(value, level)?,
            other => return Err(over(format!("{other} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn map(&mut self, value: &Value, level: usize) -> Result<(), Error> {
        let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        if self.layout.sorts_keys {
            keys.sort();
        }
        self.container(['{', '}'], keys.len(), level, |writer, index| {
            let key = &keys[index];
            match key.kind() {
                ValueKind::String => writer.string(key.as_str().unwrap_or_default()),
                ValueKind::None => writer.string("null"),
                ValueKind::Bool => writer.string(if key.is_true() { "true" } else { "false" }),
                ValueKind::Number => writer.string(&number(key)),
                other => return Err(over(format!("{other} cannot be a key in JSON"))),
            }
            writer.text.push_str(&writer.layout.key_separator);
            writer.value(&value.get_item(key)?, level + 1)
        })
    }

    /// Brackets round elements, each on a line of its own if there is an indentation.
    fn container(
        &mut self,
        brackets: [char; 2],
        count: usize,
        level: usize,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(brackets[0]);
        for index in 0..count {
            if index > 0 {
                self.text.push_str(&self.layout.item_separator);
            }
            self.new_line(level + 1);
            element(self, index)?;
        }
        if count > 0 {
            self.new_line(level);
        }
        self.text.push(brackets[1]);
        Ok(())
    }

    fn new_line(&mut self, level: usize) {
        if let Some(indent) = &self.layout.indent {
            self.text.push('\n');
            for _ in 0..level {
                self.text.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                _ if character < ' ' || (self.layout.escapes_non_ascii && !character.is_ascii()) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        // Writing to a String does not fail.
                        let _ = write!(self.text, "\\u{unit:04x}");
                    }
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}

/// A number as Python writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// `repr` of a Python float: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_look_as_in_python() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (123456.789, "123456.789"),
        ] {
            assert_eq!(float(number), expected);
        }
    }
}
