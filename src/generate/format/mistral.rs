//! Mistral's calls: after `[TOOL_CALLS]` a list in JSON, or (since 2025) a name, perhaps an id after `[CALL_ID]`, and
//! after `[ARGS]` the arguments. Source: mistral-common's documentation of its tokenizer versions,
//! <https://mistralai.github.io/mistral-common/>.

use crate::generate::format::json_calls::{JsonCalls, Marks};
use crate::generate::format::json_value::ValueScan;
use crate::generate::format::machine::{Found, Machine, find, space};
use crate::generate::format::parts::Parts;

/// Before calls.
pub(super) const OPEN: &str = "[TOOL_CALLS]";
/// Before an id, which is of no use: calls get their own.
pub(super) const CALL_ID: &str = "[CALL_ID]";
/// Before arguments.
pub(super) const ARGUMENTS: &str = "[ARGS]";

enum State {
    Text,
    /// After the mark: a list, or a name.
    Opened,
    Name,
    CallId,
    Arguments(ValueScan),
    List(JsonCalls),
}

/// Reads them.
pub(super) struct MistralCalls(State);

impl MistralCalls {
    pub(super) fn new() -> Self {
        Self(State::Text)
    }

    fn text(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match find(text, &[OPEN]) {
            Found::At(at, _) => {
                parts.text(&text[..at]);
                self.0 = State::Opened;
                Some(at + OPEN.len())
            }
            Found::NotBefore(free) => {
                parts.text(&text[..free]);
                (free > 0).then_some(free)
            }
        }
    }

    fn opened(&mut self, text: &str) -> Option<usize> {
        let space = space(text);
        let first = text[space..].chars().next()?;
        self.0 = match first {
            '[' | '{' => State::List(JsonCalls::new(Marks { open: OPEN, close: "", bare: true }, None)),
            _ => State::Name,
        };
        Some(space)
    }

    fn name(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let Found::At(at, which) = find(text, &[CALL_ID, ARGUMENTS, "{"]) else { return None };
        parts.begin_call(text[..at].trim().to_owned());
        let (next, taken) = match which {
            0 => (State::CallId, at + CALL_ID.len()),
            1 => (State::Arguments(ValueScan::default()), at + ARGUMENTS.len()),
            _ => (State::Arguments(ValueScan::default()), at),
        };
        self.0 = next;
        Some(taken)
    }

    fn call_id(&mut self, text: &str) -> Option<usize> {
        let Found::At(at, _) = find(text, &[ARGUMENTS]) else { return None };
        self.0 = State::Arguments(ValueScan::default());
        Some(at + ARGUMENTS.len())
    }
}

impl Machine for MistralCalls {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match &mut self.0 {
            State::Text => self.text(text, parts),
            State::Opened => self.opened(text),
            State::Name => self.name(text, parts),
            State::CallId => self.call_id(text),
            State::List(calls) => calls.step(text, parts),
            State::Arguments(scan) => {
                let (length, is_whole) = scan.take(text);
                parts.arguments(&text[..length]);
                if is_whole {
                    parts.end_call();
                    self.0 = State::Text;
                }
                (length > 0 || is_whole).then_some(length)
            }
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match &mut self.0 {
            State::Text => parts.text(rest),
            State::Opened | State::Name => {
                parts.text_before(OPEN);
                parts.text(rest);
            }
            State::List(calls) => calls.end(rest, parts),
            State::CallId | State::Arguments(_) => {}
        }
    }
}
