//! The model's Jinja template over messages and tools, with limits: templates come from strangers.

use crate::Error;

/// A compiled chat template. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct ChatTemplate {
    // the environment is the models helper's business
    _private: (),
}

/// What a template is rendered over.
#[derive(Debug, Clone, Default)]
pub struct TemplateInput {
    /// Messages as the template expects them: objects with `role`, `content`, perhaps `tool_calls`.
    pub messages: Vec<serde_json::Value>,
    /// Tool definitions, OpenAI shape; empty for none.
    pub tools: Vec<serde_json::Value>,
    /// Further variables (`enable_thinking`, …), already allow-listed by the caller.
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// Ask for the header of the assistant's answer at the end.
    pub add_generation_prompt: bool,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`Error::Template`] if it does not parse or is over its limits.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self, Error> {
        let _ = (source, bos_token, eos_token);
        todo!("models helper")
    }

    /// Renders the prompt's text.
    ///
    /// # Errors
    /// [`Error::Template`] if the template raises, fails or goes over its limits of work, output and repetition.
    pub fn render(&self, input: &TemplateInput) -> Result<String, Error> {
        let _ = input;
        todo!("models helper")
    }
}
