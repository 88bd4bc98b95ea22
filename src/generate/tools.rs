//! Functions that a model may call: what is offered, how free it is to call, and what it called.
//!
//! In OpenAI's sense of the words, as all models' templates have them; other protocols translate at the edge.

use serde_json::Value;

/// A function that is offered.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// What it is called by.
    pub name: String,
    /// What it is for, in words for the model.
    pub description: Option<String>,
    /// JSON Schema of its arguments, an object; none: it takes none.
    pub parameters: Option<Value>,
    /// Arguments are held to the schema while they are made.
    pub strict: bool,
}

/// How free the model is to call.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// Not at all; the functions are still shown to it.
    None,
    /// At least one of these (all, where the list is empty).
    Required(Vec<String>),
    /// As it likes, but only these.
    Among(Vec<String>),
}

/// What a request says about functions.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolUse {
    /// What is offered; empty: nothing is.
    pub tools: Vec<Tool>,
    /// How free the model is.
    pub choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel: bool,
}

impl Default for ToolUse {
    fn default() -> Self {
        Self { tools: Vec::new(), choice: ToolChoice::Auto, parallel: true }
    }
}

/// A call, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// `call_…`; what the function's result refers to.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: the text of a JSON object, as the model wrote it.
    pub arguments: String,
}
