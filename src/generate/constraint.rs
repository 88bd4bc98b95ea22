//! What an answer may be at all.

use sconce_models::grammar::Language;
use serde_json::Value;

/// A language that an answer must belong to. Checked before anything is generated.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema (draft 2020-12) admits.
    JsonSchema(Value),
    /// Text that a regular expression matches from beginning to end.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A context-free grammar, as Lark writes it.
    Grammar(String),
}

impl From<Constraint> for Language {
    fn from(constraint: Constraint) -> Self {
        match constraint {
            Constraint::JsonObject => Self::JsonObject,
            Constraint::JsonSchema(schema) => Self::JsonSchema(schema),
            Constraint::Regex(regex) => Self::Regex(regex),
            Constraint::Choice(texts) => Self::Choice(texts),
            Constraint::Grammar(grammar) => Self::Lark(grammar),
        }
    }
}
