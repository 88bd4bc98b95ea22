//! How a family of models writes calls of functions and thoughts into its text, and how both are read out of it again.
//!
//! Which family a model is of shows in its chat template; an administrator may say otherwise. Each family has a reader
//! ([`Machine`](machine::Machine)) and a shape, from which come the grammar that holds an answer to calls and, for models
//! whose template knows of no functions, the words that tell them how to call.

mod deepseek;
mod family;
mod gemma;
mod grammar;
mod harmony;
mod instructions;
mod json_call;
mod json_calls;
mod json_value;
mod machine;
mod mistral;
mod parts;
mod qwen_coder;
mod reader;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
mod thought;

use std::sync::Arc;

use self::family::Family;
pub use self::family::names_of_all;
pub use self::grammar::rule_of;
use self::machine::{Machine, Plain};
pub use self::parts::Part;
pub use self::reader::Reader;
pub use self::thought::ThoughtMarks;
use self::thought::{MARKS, Thought};
use crate::generate::Tool;

/// How a model writes.
#[derive(Clone, Copy)]
pub struct Format {
    family: &'static dyn Family,
    thought: Option<ThoughtMarks>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Format").field("calls", &self.calls()).field("thought", &self.thought).finish()
    }
}

impl Format {
    /// Of a model with this chat template, unless `calls` names another way to write calls.
    pub fn of(template: &str, calls: Option<&str>) -> Self {
        let family = calls.and_then(family::named).unwrap_or_else(|| family::of_template(template));
        let thought = MARKS.into_iter().find(|marks| template.contains(marks.end));
        Self { family, thought }
    }

    /// The name of the way it writes calls.
    pub fn calls(&self) -> &'static str {
        self.family.name()
    }

    /// The name of the way it writes thoughts; none if it does not think.
    pub fn thoughts(&self) -> Option<&'static str> {
        if self.family.name() == "harmony" {
            return Some("harmony");
        }
        self.thought.map(|marks| marks.begin.trim_end())
    }

    /// The marks around its thoughts, where two marks are all there is to it.
    pub fn thought_marks(&self) -> Option<ThoughtMarks> {
        self.thought
    }

    /// What reads an answer. Without functions that may be called, calls are text; `is_thinking` says that the prompt
    /// ends inside of a thought. None where an answer can only be text.
    pub fn reader(&self, tools: &Arc<[Tool]>, is_thinking: bool) -> Option<Reader> {
        let is_harmony = self.family.name() == "harmony";
        if tools.is_empty() && self.thought.is_none() && !is_harmony {
            return None;
        }
        let has_calls = is_harmony || !tools.is_empty();
        let calls: Box<dyn Machine> = if has_calls { self.family.machine(tools) } else { Box::new(Plain) };
        Some(Reader::new(match self.thought {
            Some(marks) => Box::new(Thought::new(marks, is_thinking, calls)),
            None => calls,
        }))
    }

    /// Marks that a reader looks for, some of which may be special tokens.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        let thought = self.thought.into_iter().flat_map(|marks| [marks.begin, marks.end]);
        self.family.marks().iter().copied().chain(thought)
    }
}
