//! Calls as JSON between two marks, one or a list of them: `<tool_call>{…}</tool_call>` (Hermes, Qwen),
//! `<tool_call>[{…}, {…}]</tool_call>` (SmolLM2), `[TOOL_CALLS][{…}]` (Mistral), `<|python_tag|>{…}; {…}` (Llama).

use std::sync::Arc;

use crate::generate::format::json_call::{JsonCall, Progress};
use crate::generate::format::machine::{Beginning, Found, Machine, begins, find, space};
use crate::generate::format::parts::Parts;

/// How calls are set off from text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Before calls.
    pub(super) open: &'static str,
    /// After calls; empty: they go on to the end of the answer.
    pub(super) close: &'static str,
    /// Calls may begin an answer without a mark.
    pub(super) bare: bool,
}

enum State {
    /// Nothing but space has come.
    Beginning,
    /// Text, and where a mark may come.
    Text,
    /// A call begins, or a list of them.
    Calls,
    /// Inside of a call.
    Call(Box<JsonCall>),
    /// After a call: another, or the end.
    Between,
    /// What was broken off is passed over until the mark after it.
    Lost,
}

/// Reads them.
pub(super) struct JsonCalls {
    marks: Marks,
    known: Option<Arc<[String]>>,
    state: State,
    in_list: bool,
    /// What was taken since the mark, to be shown if it is no call.
    taken: String,
}

impl JsonCalls {
    /// Of these marks; with `known`, calls of other functions are text.
    pub(super) fn new(marks: Marks, known: Option<Arc<[String]>>) -> Self {
        let state = if marks.bare { State::Beginning } else { State::Text };
        Self { marks, known, state, in_list: false, taken: String::new() }
    }

    fn beginning(&mut self, text: &str) -> Option<usize> {
        let space = space(text);
        match text[space..].chars().next() {
            None => None,
            Some('{' | '[') => {
                self.state = State::Calls;
                text[..space].clone_into(&mut self.taken);
                Some(space)
            }
            Some(_) => {
                self.state = State::Text;
                Some(0)
            }
        }
    }

    fn text(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match find(text, &[self.marks.open]) {
            Found::At(at, _) => {
                parts.text(&text[..at]);
                self.state = State::Calls;
                self.in_list = false;
                self.marks.open.clone_into(&mut self.taken);
                Some(at + self.marks.open.len())
            }
            Found::NotBefore(free) => {
                parts.text(&text[..free]);
                (free > 0).then_some(free)
            }
        }
    }

    fn calls(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let space = space(text);
        match text[space..].chars().next()? {
            '[' if !self.in_list => {
                self.in_list = true;
                self.taken.push_str(&text[..=space]);
                Some(space + 1)
            }
            ']' if self.in_list => {
                self.state = State::Between;
                self.in_list = false;
                Some(space + 1)
            }
            '{' => {
                self.state = State::Call(Box::new(JsonCall::new(self.known.clone())));
                self.taken.push_str(&text[..space]);
                Some(space)
            }
            _ => {
                self.give_up(parts);
                Some(0)
            }
        }
    }

    fn call(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let State::Call(call) = &mut self.state else { return Some(0) };
        let progress = call.step(text, parts);
        let has_begun = call.has_begun();
        match progress {
            Progress::More => None,
            Progress::Took(length) => {
                if !has_begun {
                    self.taken.push_str(&text[..length]);
                }
                Some(length)
            }
            Progress::Done(length) => {
                self.taken.clear();
                self.state = State::Between;
                Some(length)
            }
            Progress::Broken if has_begun => {
                self.state = State::Lost;
                Some(0)
            }
            Progress::Broken => {
                self.give_up(parts);
                Some(0)
            }
        }
    }

    fn between(&mut self, text: &str) -> Option<usize> {
        let space = space(text);
        let rest = &text[space..];
        let first = rest.chars().next()?;
        let separates = matches!(first, ',' | ';');
        if separates || (first == '{' && !self.in_list) {
            self.state = State::Calls;
            return Some(space + usize::from(separates));
        }
        if first == ']' && self.in_list {
            self.in_list = false;
            return Some(space + 1);
        }
        for mark in [self.marks.close, self.marks.open].into_iter().filter(|mark| !mark.is_empty()) {
            match begins(rest, mark) {
                Beginning::Is => {
                    let again = mark == self.marks.open;
                    self.state = if again { State::Calls } else { State::Text };
                    return Some(space + mark.len());
                }
                Beginning::MayBe => return None,
                Beginning::IsNot => {}
            }
        }
        self.state = State::Text;
        Some(space)
    }

    fn lost(&mut self, text: &str) -> Option<usize> {
        if self.marks.close.is_empty() {
            return (!text.is_empty()).then_some(text.len());
        }
        match find(text, &[self.marks.close]) {
            Found::At(at, _) => {
                self.state = State::Text;
                Some(at + self.marks.close.len())
            }
            Found::NotBefore(free) => (free > 0).then_some(free),
        }
    }

    /// It was no call: it is shown as it came.
    fn give_up(&mut self, parts: &mut Parts) {
        parts.text_before(&std::mem::take(&mut self.taken));
        self.state = State::Text;
        self.in_list = false;
    }
}

impl Machine for JsonCalls {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match self.state {
            State::Beginning => self.beginning(text),
            State::Text => self.text(text, parts),
            State::Calls => self.calls(text, parts),
            State::Call(_) => self.call(text, parts),
            State::Between => self.between(text),
            State::Lost => self.lost(text),
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match &self.state {
            State::Beginning | State::Text => parts.text(rest),
            State::Calls => {
                self.give_up(parts);
                parts.text(rest);
            }
            State::Call(call) if !call.has_begun() => {
                self.give_up(parts);
                parts.text(rest);
            }
            State::Call(_) | State::Between | State::Lost => {}
        }
    }
}
