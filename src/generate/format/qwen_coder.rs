//! Calls of Qwen3-Coder: `<function=NAME>` with one `<parameter=KEY>` after the other, each value as text. Whether a value
//! is a text or something else is known from the function's schema. Source: the chat template of
//! `Qwen/Qwen3-Coder-30B-A3B-Instruct`.

use std::sync::Arc;

use serde_json::Value;

use crate::generate::Tool;
use crate::generate::format::machine::{Found, Machine, find};
use crate::generate::format::parts::Parts;

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";
pub(super) const FUNCTION: &str = "<function=";
pub(super) const FUNCTION_CLOSE: &str = "</function>";
pub(super) const PARAMETER: &str = "<parameter=";
pub(super) const PARAMETER_CLOSE: &str = "</parameter>";

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After `<tool_call>`.
    Opened,
    Name,
    /// Between parameters.
    Function,
    Key,
    /// A text, passed on as it comes; whether something of it was.
    TextValue(bool),
    OtherValue,
}

/// Reads them.
pub(super) struct QwenCoderCalls {
    state: State,
    tools: Arc<[Tool]>,
    name: String,
    parameters: u32,
}

impl QwenCoderCalls {
    pub(super) fn new(tools: Arc<[Tool]>) -> Self {
        Self { state: State::Text, tools, name: String::new(), parameters: 0 }
    }

    fn text(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match find(text, &[OPEN, FUNCTION]) {
            Found::At(at, which) => {
                parts.text(&text[..at]);
                self.state = if which == 0 { State::Opened } else { State::Name };
                Some(at + [OPEN, FUNCTION][which].len())
            }
            Found::NotBefore(free) => {
                parts.text(&text[..free]);
                (free > 0).then_some(free)
            }
        }
    }

    fn opened(&mut self, text: &str) -> Option<usize> {
        match find(text, &[FUNCTION, CLOSE]) {
            Found::At(at, 0) => {
                self.state = State::Name;
                Some(at + FUNCTION.len())
            }
            Found::At(at, _) => {
                self.state = State::Text;
                Some(at + CLOSE.len())
            }
            Found::NotBefore(free) => (free > 0).then_some(free),
        }
    }

    fn name(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let end = text.find('>')?;
        text[..end].trim().clone_into(&mut self.name);
        self.parameters = 0;
        parts.begin_call(self.name.clone());
        self.state = State::Function;
        Some(end + 1)
    }

    fn function(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match find(text, &[PARAMETER, FUNCTION_CLOSE, CLOSE]) {
            Found::At(at, 0) => {
                self.state = State::Key;
                Some(at + PARAMETER.len())
            }
            Found::At(at, which) => {
                parts.arguments(if self.parameters == 0 { "{}" } else { "}" });
                parts.end_call();
                self.state = if which == 1 { State::Opened } else { State::Text };
                Some(at + [PARAMETER, FUNCTION_CLOSE, CLOSE][which].len())
            }
            Found::NotBefore(free) => (free > 0).then_some(free),
        }
    }

    fn key(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let end = text.find('>')?;
        let key = text[..end].trim();
        parts.arguments(if self.parameters == 0 { "{" } else { ", " });
        parts.arguments(&format!("{}: ", Value::from(key)));
        self.parameters += 1;
        self.state = match self.is_text(key) {
            true => {
                parts.arguments("\"");
                State::TextValue(false)
            }
            false => State::OtherValue,
        };
        Some(end + 1)
    }

    /// A value is a text unless the schema says that it is something else.
    fn is_text(&self, key: &str) -> bool {
        let tool = self.tools.iter().find(|tool| tool.name == self.name);
        let schema = tool.and_then(|tool| tool.parameters.as_ref()?.get("properties")?.get(key));
        match schema.and_then(|schema| schema.get("type")) {
            Some(Value::String(kind)) => kind == "string",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
            _ => schema.is_none_or(|schema| schema.get("anyOf").is_none() && schema.get("$ref").is_none()),
        }
    }

    /// The line's end after the mark before it and before the mark after it are not the value's.
    fn text_value(&mut self, has_begun: bool, text: &str, parts: &mut Parts) -> Option<usize> {
        let skipped = usize::from(!has_begun && text.starts_with('\n'));
        let rest = &text[skipped..];
        match find(rest, &[PARAMETER_CLOSE]) {
            Found::At(at, _) => {
                let value = rest[..at].strip_suffix('\n').unwrap_or(&rest[..at]);
                parts.arguments(&escaped(value));
                parts.arguments("\"");
                self.state = State::Function;
                Some(skipped + at + PARAMETER_CLOSE.len())
            }
            Found::NotBefore(free) => {
                let free = free - usize::from(rest[..free].ends_with('\n'));
                parts.arguments(&escaped(&rest[..free]));
                self.state = State::TextValue(has_begun || skipped + free > 0);
                (skipped + free > 0).then_some(skipped + free)
            }
        }
    }

    fn other_value(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let Found::At(at, _) = find(text, &[PARAMETER_CLOSE]) else { return None };
        let value = text[..at].trim();
        match serde_json::from_str::<Value>(value) {
            Ok(_) => parts.arguments(value),
            // As Python writes them.
            Err(_) => parts.arguments(match value {
                "True" => "true",
                "False" => "false",
                "None" => "null",
                _ => return self.quoted(value, at, parts),
            }),
        }
        self.state = State::Function;
        Some(at + PARAMETER_CLOSE.len())
    }

    fn quoted(&mut self, value: &str, at: usize, parts: &mut Parts) -> Option<usize> {
        parts.arguments(&Value::from(value).to_string());
        self.state = State::Function;
        Some(at + PARAMETER_CLOSE.len())
    }
}

/// A text as it stands inside of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

impl Machine for QwenCoderCalls {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match self.state {
            State::Text => self.text(text, parts),
            State::Opened => self.opened(text),
            State::Name => self.name(text, parts),
            State::Function => self.function(text, parts),
            State::Key => self.key(text, parts),
            State::TextValue(has_begun) => self.text_value(has_begun, text, parts),
            State::OtherValue => self.other_value(text, parts),
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match self.state {
            State::Text => parts.text(rest),
            State::TextValue(_) => parts.arguments(&escaped(rest.strip_suffix('\n').unwrap_or(rest))),
            State::OtherValue => parts.arguments(rest.trim()),
            _ => {}
        }
    }
}
