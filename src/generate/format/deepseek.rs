//! DeepSeek's calls: between marks of its own, each with its name before a mark and its arguments after it; in V3 and R1
//! these are a block of code, in V3.1 bare. Source: the chat templates of `deepseek-ai/DeepSeek-V3`, `-R1`, `-V3.1`.

use crate::generate::format::json_value::ValueScan;
use crate::generate::format::machine::{Found, Machine, find};
use crate::generate::format::parts::Parts;

pub(super) const OPEN: &str = "<｜tool▁calls▁begin｜>";
pub(super) const CLOSE: &str = "<｜tool▁calls▁end｜>";
pub(super) const CALL_OPEN: &str = "<｜tool▁call▁begin｜>";
pub(super) const CALL_CLOSE: &str = "<｜tool▁call▁end｜>";
pub(super) const SEPARATOR: &str = "<｜tool▁sep｜>";

#[derive(Clone, Copy)]
enum State {
    Text,
    /// Between calls.
    Calls,
    /// Before the separator.
    Head,
    /// After a separator that came after the call's kind.
    Name,
    /// Before the arguments' first brace.
    Arguments,
    InArguments(ValueScan),
}

/// Reads them.
pub(super) struct DeepSeekCalls(State);

impl DeepSeekCalls {
    pub(super) fn new() -> Self {
        Self(State::Text)
    }

    fn head(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let Found::At(at, _) = find(text, &[SEPARATOR]) else { return None };
        self.0 = match text[..at].trim() {
            "function" => State::Name,
            name => {
                parts.begin_call(name.to_owned());
                State::Arguments
            }
        };
        Some(at + SEPARATOR.len())
    }

    fn name(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let at = text.find(['\n', '{'])?;
        parts.begin_call(text[..at].trim().to_owned());
        self.0 = State::Arguments;
        Some(at)
    }

    /// Passes over what stands before the arguments: the line that opens a block of code.
    fn arguments(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let brace = text.find('{');
        match find(text, &[CALL_CLOSE]) {
            Found::At(at, _) if brace.is_none_or(|brace| at < brace) => {
                parts.arguments("{}");
                parts.end_call();
                self.0 = State::Calls;
                Some(at + CALL_CLOSE.len())
            }
            _ => {
                let brace = brace?;
                self.0 = State::InArguments(ValueScan::default());
                Some(brace)
            }
        }
    }
}

impl Machine for DeepSeekCalls {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match self.0 {
            State::Text => match find(text, &[OPEN]) {
                Found::At(at, _) => {
                    parts.text(&text[..at]);
                    self.0 = State::Calls;
                    Some(at + OPEN.len())
                }
                Found::NotBefore(free) => {
                    parts.text(&text[..free]);
                    (free > 0).then_some(free)
                }
            },
            State::Calls => match find(text, &[CALL_OPEN, CLOSE]) {
                Found::At(at, 0) => {
                    self.0 = State::Head;
                    Some(at + CALL_OPEN.len())
                }
                Found::At(at, _) => {
                    self.0 = State::Text;
                    Some(at + CLOSE.len())
                }
                Found::NotBefore(free) => (free > 0).then_some(free),
            },
            State::Head => self.head(text, parts),
            State::Name => self.name(text, parts),
            State::Arguments => self.arguments(text, parts),
            State::InArguments(mut scan) => {
                let (length, is_whole) = scan.take(text);
                parts.arguments(&text[..length]);
                self.0 = State::InArguments(scan);
                if is_whole {
                    parts.end_call();
                    self.0 = State::Calls;
                }
                (length > 0 || is_whole).then_some(length)
            }
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match self.0 {
            State::Text => parts.text(rest),
            State::Head | State::Name => {
                parts.text_before(CALL_OPEN);
                parts.text(rest);
            }
            State::Calls | State::Arguments | State::InArguments(_) => {}
        }
    }
}
