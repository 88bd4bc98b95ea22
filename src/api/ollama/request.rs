//! What is asked for, either way of generating.

use serde_json::{Map, Value, json};

use crate::api::ollama::options::AnswerParameters;
use crate::api::ollama::{keep_alive, model};
use crate::api::openai::fields::{Fields, ParameterError};
use crate::generate::{Prompt, ToolUse};

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// The name of the model, as it was asked for.
    pub model: String,
    /// What is to be answered; none: the model itself is meant.
    pub content: Option<Content>,
    /// What may be called.
    pub tools: ToolUse,
    /// How the answer is made.
    pub parameters: AnswerParameters,
    /// The model is to go.
    pub unload: bool,
}

/// What is to be answered.
#[derive(Debug, PartialEq)]
pub enum Content {
    /// A conversation.
    Messages(Vec<Value>),
    /// One text.
    Prompt {
        /// What the assistant is.
        system: Option<String>,
        /// The text.
        prompt: String,
        /// It is continued as it is.
        raw: bool,
    },
    /// A text with a gap.
    Gap {
        /// What stands before it.
        before: String,
        /// What stands after it.
        after: String,
    },
}

impl Request {
    /// Takes what both ways have out of a body: all but content and tools.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn take(fields: &mut Fields) -> Result<Self, ParameterError> {
        let model = model(fields)?;
        let parameters = AnswerParameters::take(fields)?;
        let unload = keep_alive::take(fields)?;
        // What fits is not cut whatever they say, and what does not is refused.
        fields.boolean("truncate")?;
        fields.boolean("shift")?;
        Ok(Self { model, content: None, tools: ToolUse::default(), parameters, unload })
    }
}

impl Content {
    /// For a model that has a format for conversations, or not.
    pub fn prompt(self, has_template: bool) -> Prompt {
        match self {
            Self::Messages(messages) => conversation(messages),
            Self::Prompt { system, prompt, raw } if raw || !has_template => {
                let before = system.map(|system| format!("{system}\n\n")).unwrap_or_default();
                Prompt::Text(before + &prompt)
            }
            Self::Prompt { system, prompt, .. } => {
                let system = system.map(|system| json!({"role": "system", "content": system}));
                conversation(system.into_iter().chain([json!({"role": "user", "content": prompt})]).collect())
            }
            Self::Gap { before, after } => Prompt::Infill { before, after },
        }
    }
}

fn conversation(messages: Vec<Value>) -> Prompt {
    Prompt::Chat {
        continue_final_message: messages.last().is_some_and(|last| last["role"] == "assistant"),
        messages,
        variables: Map::new(),
        add_generation_prompt: true,
    }
}
