//! The reader of one choice: text in, pieces of the answer out.

use crate::generate::format::machine::Machine;
use crate::generate::format::parts::{Part, Parts};

/// Reads one answer as it grows.
pub struct Reader {
    machine: Box<dyn Machine>,
    held: String,
    parts: Parts,
}

impl Reader {
    pub(super) fn new(machine: Box<dyn Machine>) -> Self {
        Self { machine, held: String::new(), parts: Parts::default() }
    }

    /// Takes more text; gives what became certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut from = 0;
        while from < self.held.len()
            && let Some(taken) = self.machine.step(&self.held[from..], &mut self.parts)
        {
            from += taken;
        }
        self.held.drain(..from);
        self.parts.take()
    }

    /// Nothing more comes; gives what was held back.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = self.push("");
        self.machine.end(&std::mem::take(&mut self.held), &mut self.parts);
        self.parts.finish();
        parts.extend(self.parts.take());
        parts
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
