//! The reader of one choice: text in, pieces of the answer out.

use std::sync::Arc;

use crate::generate::TextToken;
use crate::generate::format::machine::Machine;
use crate::generate::format::parts::{Part, Parts};

/// Reads one answer as it grows.
pub struct Reader {
    machine: Box<dyn Machine>,
    /// What the machine needs more of.
    held: String,
    /// Bytes that came before that.
    read: usize,
    parts: Parts,
}

impl Reader {
    pub(super) fn new(machine: Box<dyn Machine>) -> Self {
        Self { machine, held: String::new(), read: 0, parts: Parts::default() }
    }

    /// Ends the answer before any of these texts, where they would be shown: marks and calls are none, whatever is in
    /// them.
    #[must_use]
    pub fn until(mut self, stop: Arc<[String]>) -> Self {
        self.parts.look_for(stop);
        self
    }

    /// Takes more text, and the token that made it where that is wanted again; gives what became certain.
    pub fn push(&mut self, text: &str, token: Option<TextToken>) -> Vec<Part> {
        let begin = self.read + self.held.len();
        if let Some(token) = token {
            self.parts.made_by(begin..begin + text.len(), token);
        }
        self.held.push_str(text);
        let mut from = 0;
        while from < self.held.len() && self.stopped().is_none() {
            self.parts.stand_at(self.read + from);
            let Some(taken) = self.machine.step(&self.held[from..], &mut self.parts) else { break };
            from += taken;
        }
        self.held.drain(..from);
        self.read += from;
        self.parts.take()
    }

    /// Nothing more comes; gives what was held back.
    pub fn finish(&mut self) -> Vec<Part> {
        if self.stopped().is_none() {
            self.parts.stand_at(self.read);
            self.machine.end(&std::mem::take(&mut self.held), &mut self.parts);
        }
        self.parts.finish();
        self.parts.take()
    }

    /// The stop text that was met (its number): nothing comes after it.
    pub fn stopped(&self) -> Option<u32> {
        self.parts.stopped()
    }

    /// Whether what comes next is what the model thinks.
    pub fn is_thinking(&self) -> bool {
        self.machine.is_thinking()
    }

    /// How many calls began.
    pub fn calls_begun(&self) -> u32 {
        self.parts.calls_begun()
    }

    /// How many calls are whole.
    pub fn calls_ended(&self) -> u32 {
        self.parts.calls_ended()
    }
}
