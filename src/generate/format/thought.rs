//! Thoughts before an answer: `<think>…</think>` and its like. What comes after them another reader reads.

use crate::generate::format::machine::{Beginning, Found, Machine, begins, find, space};
use crate::generate::format::parts::Parts;

/// What stands around a thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThoughtMarks {
    /// Before it.
    pub begin: &'static str,
    /// After it.
    pub end: &'static str,
}

/// The marks in use; a model's are those that its template speaks of.
pub(super) const MARKS: [ThoughtMarks; 4] = [
    ThoughtMarks { begin: "<think>", end: "</think>" },
    ThoughtMarks { begin: "[THINK]", end: "[/THINK]" },
    ThoughtMarks { begin: "<seed:think>", end: "</seed:think>" },
    ThoughtMarks { begin: "<|channel>thought\n", end: "<channel|>" },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Inside,
    After,
}

/// Reads them.
pub(super) struct Thought {
    marks: ThoughtMarks,
    state: State,
    after: Box<dyn Machine>,
}

impl Thought {
    /// With `is_open` the mark before it stands in the prompt already.
    pub(super) fn new(marks: ThoughtMarks, is_open: bool, after: Box<dyn Machine>) -> Self {
        let state = if is_open { State::Inside } else { State::Before };
        Self { marks, state, after }
    }
}

impl Machine for Thought {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match self.state {
            State::Before => {
                let space = space(text);
                let rest = &text[space..];
                match begins(rest, self.marks.begin) {
                    Beginning::MayBe => None,
                    Beginning::Is => {
                        self.state = State::Inside;
                        Some(space + self.marks.begin.len())
                    }
                    Beginning::IsNot => {
                        self.state = State::After;
                        Some(0)
                    }
                }
            }
            State::Inside => match find(text, &[self.marks.end]) {
                Found::At(at, _) => {
                    parts.reasoning(&text[..at]);
                    self.state = State::After;
                    Some(at + self.marks.end.len())
                }
                Found::NotBefore(free) => {
                    parts.reasoning(&text[..free]);
                    (free > 0).then_some(free)
                }
            },
            State::After => self.after.step(text, parts),
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match self.state {
            State::Inside => parts.reasoning(rest),
            State::Before | State::After => self.after.end(rest, parts),
        }
    }

    fn is_thinking(&self) -> bool {
        self.state == State::Inside || (self.state == State::After && self.after.is_thinking())
    }
}
