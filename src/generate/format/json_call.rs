//! One call written as a JSON object: `{"name": …, "arguments": {…}}`, with `parameters` for `arguments`, in either order,
//! or in a member `function` of its own.

use std::sync::Arc;

use crate::generate::format::json_value::{ValueScan, string};
use crate::generate::format::machine::space;
use crate::generate::format::parts::Parts;

/// How far a reading came.
pub(super) enum Progress {
    /// It needs more.
    More,
    /// It took so many bytes.
    Took(usize),
    /// It took so many bytes, and the call is whole.
    Done(usize),
    /// It is no call.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Key,
    Colon,
    Value,
    Arguments(Passing),
    Other,
}

/// What the arguments are passed on as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    /// An object, piece by piece.
    AsTheyCome,
    /// Something else: once it is whole.
    Whole,
}

/// Reads one call.
pub(super) struct JsonCall {
    state: State,
    scan: ValueScan,
    key: String,
    /// Inside of a member `function`.
    is_nested: bool,
    name: Option<String>,
    /// Arguments that came before the name, or are not whole yet.
    early: String,
    has_arguments: bool,
    /// The only names that count; none: all do.
    known: Option<Arc<[String]>>,
}

impl JsonCall {
    pub(super) fn new(known: Option<Arc<[String]>>) -> Self {
        Self {
            state: State::Open,
            scan: ValueScan::default(),
            key: String::new(),
            is_nested: false,
            name: None,
            early: String::new(),
            has_arguments: false,
            known,
        }
    }

    /// Whether the caller was told of it.
    pub(super) fn has_begun(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn step(&mut self, text: &str, parts: &mut Parts) -> Progress {
        match self.state {
            State::Arguments(how) => return self.arguments(how, text, parts),
            State::Other => {
                let (length, is_whole) = self.scan.take(text);
                if is_whole {
                    self.state = State::Key;
                }
                return if length == 0 && !is_whole { Progress::More } else { Progress::Took(length) };
            }
            _ => {}
        }
        let space = space(text);
        let rest = &text[space..];
        let Some(first) = rest.chars().next() else { return Progress::More };
        match (self.state, first) {
            (State::Open, '{') => self.go(State::Key, space + 1),
            (State::Key, ',') => Progress::Took(space + 1),
            (State::Key, '}') if self.is_nested => {
                self.is_nested = false;
                Progress::Took(space + 1)
            }
            (State::Key, '}') => self.close(space + 1, parts),
            (State::Key, '"') => match string(rest) {
                None => Progress::More,
                Some((key, length)) => {
                    self.key = key;
                    self.go(State::Colon, space + length)
                }
            },
            (State::Colon, ':') => self.go(State::Value, space + 1),
            (State::Value, first) => self.value(first, rest, space, parts),
            _ => Progress::Broken,
        }
    }

    fn go(&mut self, state: State, taken: usize) -> Progress {
        self.state = state;
        self.scan = ValueScan::default();
        Progress::Took(taken)
    }

    fn value(&mut self, first: char, rest: &str, space: usize, parts: &mut Parts) -> Progress {
        match (self.key.as_str(), first) {
            ("function", '{') if !self.is_nested => {
                self.is_nested = true;
                self.go(State::Key, space + 1)
            }
            ("name" | "function", '"') if self.name.is_none() => match string(rest) {
                None => Progress::More,
                Some((name, length)) => match self.named(name, parts) {
                    true => self.go(State::Key, space + length),
                    false => Progress::Broken,
                },
            },
            ("name", _) => Progress::Broken,
            ("arguments" | "parameters", '{') => self.go(State::Arguments(Passing::AsTheyCome), space),
            ("arguments" | "parameters", _) => self.go(State::Arguments(Passing::Whole), space),
            _ => self.go(State::Other, space),
        }
    }

    fn named(&mut self, name: String, parts: &mut Parts) -> bool {
        if self.known.as_ref().is_some_and(|known| !known.contains(&name)) {
            return false;
        }
        parts.begin_call(name.clone());
        parts.arguments(&std::mem::take(&mut self.early));
        self.name = Some(name);
        true
    }

    fn arguments(&mut self, how: Passing, text: &str, parts: &mut Parts) -> Progress {
        let (length, is_whole) = self.scan.take(text);
        self.has_arguments = true;
        match (how, &self.name) {
            (Passing::AsTheyCome, Some(_)) => parts.arguments(&text[..length]),
            _ => self.early.push_str(&text[..length]),
        }
        if is_whole {
            self.state = State::Key;
            if how == Passing::Whole {
                self.early = as_object(&self.early);
                if self.name.is_some() {
                    parts.arguments(&std::mem::take(&mut self.early));
                }
            }
        }
        if length == 0 && !is_whole { Progress::More } else { Progress::Took(length) }
    }

    fn close(&mut self, taken: usize, parts: &mut Parts) -> Progress {
        if self.name.is_none() {
            return Progress::Broken;
        }
        if !self.has_arguments {
            parts.arguments("{}");
        }
        parts.end_call();
        Progress::Done(taken)
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// Arguments that are no object: the text of one, or nothing at all; anything else stays the JSON that it is.
fn as_object(value: &str) -> String {
    match serde_json::from_str(value) {
        Ok(serde_json::Value::String(text)) if is_object(&text) => text,
        Ok(serde_json::Value::Null) => "{}".to_owned(),
        _ => value.to_owned(),
    }
}
