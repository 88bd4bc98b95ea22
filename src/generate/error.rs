//! Why a text cannot be generated or embedded.

use std::time::Duration;

use sconce_models::ModelKind;
use sconce_models::grammar::GrammarError;

use crate::engine::EngineError;
use crate::error::{Code, Failure};

/// An error of this room.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The model does something else.
    #[error("the model `{model}` {} and cannot {wanted}", does(*.kind))]
    WrongKind {
        /// The model.
        model: String,
        /// What it is.
        kind: ModelKind,
        /// What it was asked to do: "generate text", "embed text".
        wanted: &'static str,
    },
    /// A conversation for a model that has no format for one.
    #[error(
        "the model `{model}` has no chat template; use /v1/completions, or a model that was trained to chat"
    )]
    NoChatTemplate {
        /// The model.
        model: String,
    },
    /// Nothing to continue.
    #[error("the prompt is empty: it must have at least one token")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error(
        "this model's context is {context} tokens, the prompt has {}{prompt}{}",
        if *.at_least { "at least " } else { "" },
        if *.prompt == *.context { ", which leaves no room for an answer" } else { "" }
    )]
    ContextLength {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens the model can hold.
        context: usize,
        /// The prompt was too long even to be counted.
        at_least: bool,
    },
    /// A token id that the model does not have.
    #[error("token {id} does not exist: the model has {vocabulary} tokens")]
    NoSuchToken {
        /// The id.
        id: u32,
        /// Number of ids.
        vocabulary: usize,
        /// Where it stood, if that is known.
        field: Option<&'static str>,
    },
    /// The chat template refused the conversation or went over its limits.
    #[error("{0}")]
    Template(String),
    /// The last message cannot be continued: the template changes its text.
    #[error("the last message cannot be continued: the model's template does not show its text as it is")]
    CannotContinue,
    /// The model cannot do what a parameter asks for.
    #[error("`{param}` is not supported: {reason}")]
    Unsupported {
        /// The parameter.
        param: &'static str,
        /// Why, and what can be done.
        reason: String,
    },
    /// What the answer was to belong to is wrong, too much, or cannot be had with this model.
    #[error("the answer cannot be held to `{param}`: {error}")]
    Constraint {
        /// The parameter that says so.
        param: String,
        /// Why.
        error: GrammarError,
    },
    /// What the answer is thought to be is longer than any answer.
    #[error("`prediction` is longer than the model's context of {context} tokens")]
    Prediction {
        /// Tokens the model can hold.
        context: usize,
    },
    /// The tokenizer failed.
    #[error("the text could not be tokenised")]
    Tokenizer(#[source] sconce_models::Error),
    /// As many constraints as may be are being worked on, and none of them was done in time.
    #[error("too many grammars are being compiled; try again in {} s", retry_after.as_secs().max(1))]
    CompilersBusy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A task of ours died.
    #[error("the prompt could not be prepared")]
    Preparation,
    /// The engine refused or lost it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn does(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Causal => "generates text",
        ModelKind::Embedding => "embeds text",
        ModelKind::CrossEncoder => "scores pairs of texts",
    }
}

impl Failure for GenerateError {
    fn code(&self) -> Code {
        match self {
            Self::WrongKind { .. }
            | Self::NoChatTemplate { .. }
            | Self::Constraint { error: GrammarError::Unsupported(_), .. } => Code::UnsupportedModel,
            Self::EmptyPrompt
            | Self::NoSuchToken { .. }
            | Self::CannotContinue
            | Self::Constraint { .. }
            | Self::Prediction { .. } => Code::InvalidValue,
            Self::ContextLength { .. } => Code::ContextLengthExceeded,
            Self::Unsupported { .. } => Code::UnsupportedParameter,
            Self::Template(_) => Code::TemplateError,
            Self::CompilersBusy { .. } => Code::ModelOverloaded,
            Self::Tokenizer(_) | Self::Preparation => Code::Internal,
            Self::Engine(error) => error.code(),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::WrongKind { .. } | Self::NoChatTemplate { .. } => Some("model"),
            Self::NoSuchToken { field, .. } => *field,
            Self::Unsupported { param, .. } => Some(param),
            Self::Constraint { param, .. } => Some(param),
            Self::Prediction { .. } => Some("prediction"),
            Self::Engine(error) => error.param(),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Engine(error) => error.retry_after(),
            Self::CompilersBusy { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}
