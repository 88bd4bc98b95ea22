//! Calls of FunctionGemma and Gemma 4: `call:NAME{key:value,…}` between marks, texts between quotes of their own. What a
//! value is shows only when it is whole, so a call is told at once. Source: the chat templates of
//! `google/functiongemma-270m-it` and `google/gemma-4-E2B-it`.

use serde_json::{Map, Value};

use crate::generate::format::machine::{Found, Machine, find};
use crate::generate::format::parts::Parts;

/// How a generation of the family writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    pub(super) quote: &'static str,
}

pub(super) const FUNCTION_GEMMA: Marks =
    Marks { open: "<start_function_call>", close: "<end_function_call>", quote: "<escape>" };
pub(super) const GEMMA_4: Marks = Marks { open: "<|tool_call>", close: "<tool_call|>", quote: "<|\"|>" };

/// Deepest values that are read.
const DEEPEST: usize = 32;

/// Reads them.
pub(super) struct GemmaCalls {
    marks: Marks,
    in_call: bool,
}

impl GemmaCalls {
    pub(super) fn new(marks: Marks) -> Self {
        Self { marks, in_call: false }
    }

    /// A call, perhaps with the mark after it.
    fn call(&mut self, written: &str, parts: &mut Parts) {
        let text = written.strip_suffix(self.marks.close).unwrap_or(written);
        match self.read(text.trim()) {
            Some((name, arguments)) => {
                parts.begin_call(name);
                parts.arguments(&arguments.to_string());
                parts.end_call();
            }
            None => {
                parts.text_before(self.marks.open);
                parts.text(written);
            }
        }
    }

    fn read(&self, text: &str) -> Option<(String, Value)> {
        let text = text.strip_prefix("call:").unwrap_or(text);
        let (name, _) = text.split_once('{')?;
        let mut values = Values { rest: &text[name.len()..], quote: self.marks.quote };
        let arguments = values.value(0)?;
        values.rest.trim().is_empty().then(|| (name.trim().to_owned(), arguments))
    }
}

impl Machine for GemmaCalls {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let mark = if self.in_call { self.marks.close } else { self.marks.open };
        match (find(text, &[mark]), self.in_call) {
            (Found::At(at, _), true) => {
                let taken = at + mark.len();
                self.call(&text[..taken], parts);
                self.in_call = false;
                Some(taken)
            }
            (Found::At(at, _), false) => {
                parts.text(&text[..at]);
                self.in_call = true;
                Some(at + mark.len())
            }
            (Found::NotBefore(_), true) => None,
            (Found::NotBefore(free), false) => {
                parts.text(&text[..free]);
                (free > 0).then_some(free)
            }
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match self.in_call {
            // The mark after it may be the token that ends the answer.
            true => self.call(rest, parts),
            false => parts.text(rest),
        }
    }
}

/// Values, read from the beginning of a text.
struct Values<'a> {
    rest: &'a str,
    quote: &'static str,
}

impl<'a> Values<'a> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        self.skip_space();
        if let Some(rest) = self.rest.strip_prefix(self.quote) {
            let (text, rest) = rest.split_once(self.quote)?;
            self.rest = rest;
            return Some(Value::from(text));
        }
        match self.rest.chars().next()? {
            '{' => self.object(depth),
            '[' => self.list(depth),
            _ => Some(self.scalar()),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        self.rest = &self.rest[1..];
        loop {
            if self.takes(",") {
                continue;
            }
            if self.takes("}") {
                return Some(Value::Object(members));
            }
            let key = self.key()?;
            members.insert(key, self.value(depth + 1)?);
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        self.rest = &self.rest[1..];
        loop {
            if self.takes(",") {
                continue;
            }
            if self.takes("]") {
                return Some(Value::Array(items));
            }
            if self.rest.is_empty() {
                return None;
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn key(&mut self) -> Option<String> {
        let (key, rest) = self.rest.split_once(':')?;
        self.rest = rest;
        let key = key.trim().trim_matches('"');
        Some(key.trim_start_matches(self.quote).trim_end_matches(self.quote).to_owned())
    }

    fn scalar(&mut self) -> Value {
        let end = self.rest.find([',', '}', ']']).unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at(end);
        self.rest = rest;
        serde_json::from_str(scalar.trim()).unwrap_or_else(|_| Value::from(scalar.trim()))
    }

    fn takes(&mut self, mark: &str) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}
