//! GPT-OSS's messages: each with a head (`<|channel|>analysis`, `commentary to=functions.NAME`, `final`), a mark, and a
//! body; thoughts, calls and text are told apart by the head. Source: OpenAI's harmony response format,
//! <https://cookbook.openai.com/articles/openai-harmony>.

use crate::generate::format::machine::{Beginning, Found, Machine, begins, find, space};
use crate::generate::format::parts::Parts;

pub(super) const START: &str = "<|start|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const MESSAGE: &str = "<|message|>";
pub(super) const CONSTRAIN: &str = "<|constrain|>";
pub(super) const END: &str = "<|end|>";
pub(super) const CALL: &str = "<|call|>";
pub(super) const RETURN: &str = "<|return|>";

const ENDS: [&str; 4] = [END, CALL, RETURN, START];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Thought,
    Call,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Beginning,
    /// Before the mark between head and body.
    Head,
    Body(Body),
}

/// Reads them.
pub(super) struct Harmony(State);

impl Harmony {
    pub(super) fn new() -> Self {
        Self(State::Beginning)
    }

    /// What has no head is text.
    fn beginning(&mut self, text: &str) -> Option<usize> {
        let space = space(text);
        let rest = &text[space..];
        if rest.is_empty() {
            return None;
        }
        let heads = [START, CHANNEL, " to="].map(|mark| begins(rest, mark.trim_start()));
        self.0 = if heads.contains(&Beginning::Is) {
            State::Head
        } else if heads.contains(&Beginning::MayBe) {
            return None;
        } else {
            State::Body(Body::Text)
        };
        Some(0)
    }

    fn head(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        let Found::At(at, _) = find(text, &[MESSAGE]) else { return None };
        let head = &text[..at];
        let recipient = head
            .split_once("to=")
            .map(|(_, rest)| rest.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default());
        let channel = head.rsplit_once(CHANNEL).map_or("final", |(_, rest)| rest.trim_start());
        self.0 = State::Body(match recipient {
            Some(recipient) => {
                let name = recipient.strip_prefix("functions.").unwrap_or(recipient);
                parts.begin_call(name.to_owned());
                Body::Call
            }
            None if channel.starts_with("analysis") => Body::Thought,
            None => Body::Text,
        });
        Some(at + MESSAGE.len())
    }

    fn body(&mut self, body: Body, text: &str, parts: &mut Parts) -> Option<usize> {
        let mut say = |text: &str| match body {
            Body::Thought => parts.reasoning(text),
            Body::Call => parts.arguments(text),
            Body::Text => parts.text(text),
        };
        match find(text, &ENDS) {
            Found::At(at, which) => {
                say(&text[..at]);
                if body == Body::Call {
                    parts.end_call();
                }
                self.0 = State::Head;
                // The start of the next belongs to its head.
                Some(at + if ENDS[which] == START { 0 } else { ENDS[which].len() })
            }
            Found::NotBefore(free) => {
                say(&text[..free]);
                (free > 0).then_some(free)
            }
        }
    }
}

impl Machine for Harmony {
    fn step(&mut self, text: &str, parts: &mut Parts) -> Option<usize> {
        match self.0 {
            State::Beginning => self.beginning(text),
            State::Head => self.head(text, parts),
            State::Body(body) => self.body(body, text, parts),
        }
    }

    fn end(&mut self, rest: &str, parts: &mut Parts) {
        match self.0 {
            State::Beginning | State::Body(Body::Text) => parts.text(rest),
            State::Body(Body::Thought) => parts.reasoning(rest),
            State::Body(Body::Call) => {
                parts.arguments(rest);
                parts.end_call();
            }
            State::Head => {}
        }
    }

    fn is_thinking(&self) -> bool {
        self.0 == State::Body(Body::Thought)
    }
}
