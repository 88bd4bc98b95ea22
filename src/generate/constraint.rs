//! What an answer may be at all, and how it is held to that.

use std::sync::Arc;
use std::time::Duration;

use sconce_models::grammar::{GrammarError, Language};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::engine::Guide;
use crate::generate::{GenerateError, Tool};
use crate::manager::ModelLease;

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

/// How long a constraint may wait for its turn, and how long it may be worked on before it counts as too complex.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes what the engine follows. With `after`, the constraint holds for what comes after this text, and anything may come
/// before it (a thought). `compilers` bounds how many are made at the same time.
///
/// # Errors
/// [`Refusal`] for what is wrong with the constraint, or too much in it.
pub(super) async fn guide(
    constraint: Constraint,
    after: Option<String>,
    lease: &ModelLease,
    compilers: &Arc<Semaphore>,
) -> Result<Box<Guide>, Refusal> {
    let permit = tokio::time::timeout(PATIENCE, compilers.clone().acquire_owned()).await;
    let permit = permit.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Ours)?;
    let grammars = lease.grammars.clone();
    // A token of its own is looked for by the engine, which costs nothing; other text is a part of the grammar.
    let token = after.as_ref().and_then(|after| lease.tokenizer.token_to_id(after));
    let before = after.filter(|_| token.is_none());
    let work = move || {
        // What took too long still takes its place until it is done.
        let _permit = permit;
        grammars.compile(&constraint.into(), before.as_deref())
    };
    let matcher = match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(worked) => worked.map_err(|_| Refusal::Ours)??,
        Err(_) => {
            return Err(GrammarError::TooMuch("the constraint takes too long to compile".to_owned()).into());
        }
    };
    Ok(Box::new(Guide::after(matcher, token.into_iter().collect())))
}

/// Why there is no guide.
pub(super) enum Refusal {
    /// The constraint is wrong, too much, or not for this model.
    Grammar(GrammarError),
    /// Others are being worked on.
    Busy,
    /// A task of ours died.
    Ours,
}

impl From<GrammarError> for Refusal {
    fn from(error: GrammarError) -> Self {
        Self::Grammar(error)
    }
}

impl Refusal {
    /// With the name of the parameter to blame.
    pub(super) fn of(self, param: impl FnOnce() -> String) -> GenerateError {
        match self {
            Self::Grammar(error) => GenerateError::Constraint { param: param(), error },
            Self::Busy => GenerateError::CompilersBusy { retry_after: PATIENCE },
            Self::Ours => GenerateError::Preparation,
        }
    }
}

/// Which of the functions' schemas cannot be had and why, if it is one alone: each is tried, until one is refused or all
/// take too long together. Asked only once all of them together are refused.
pub(super) async fn at_fault(
    tools: &[Tool],
    lease: &ModelLease,
    compilers: &Arc<Semaphore>,
) -> Option<(usize, Refusal)> {
    let search = async {
        for (number, tool) in tools.iter().enumerate() {
            let Some(schema) = tool.parameters.clone() else { continue };
            if let Err(refusal) = guide(Constraint::JsonSchema(schema), None, lease, compilers).await {
                return Some((number, refusal));
            }
        }
        None
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or(None)
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
