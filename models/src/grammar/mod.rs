//! Which tokens may come next where an answer must belong to a language: JSON that a schema admits, a regular expression,
//! one of some texts, a Lark grammar.
//!
//! The parsing is llguidance's (<https://github.com/guidance-ai/llguidance>); here are the vocabulary it works on, the
//! limits that strangers' grammars are held to, and the words in which they are refused. The one thing to know: what a
//! [`Matcher`] allows depends on its grammar and the tokens it was given alone, so it may be asked ahead of time, on
//! another thread, or again.

mod cache;
mod compile;
mod limits;
mod matcher;
mod refusal;
mod vocabulary;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::ParserFactory;
use serde_json::Value;

use self::cache::Cache;
pub use self::matcher::{Allowed, Matcher, MatcherError};
pub use self::refusal::GrammarError;
use crate::Tokenizer;

/// What an answer must belong to, from beginning to end.
#[derive(Debug, Clone, PartialEq)]
pub enum Language {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema (draft 2020-12, a part of it) admits.
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A context-free grammar in Lark's notation; it begins at `start`.
    Lark(String),
    /// The same, made of a function's schema: what is wrong with it is wrong with that.
    Calls(String),
}

/// A regular expression as a rule of a Lark grammar.
pub fn regex_rule(regex: &str) -> String {
    format!("/{}/", llguidance::regex_to_lark(regex, ""))
}

/// Refuses what is too much before anything is done with it.
///
/// # Errors
/// [`GrammarError`] for what is wrong with the language, or too much in it.
pub fn check(language: &Language) -> Result<(), GrammarError> {
    limits::check(language)
}

/// The same for a schema of which what cannot be honoured is passed over.
///
/// # Errors
/// As [`check`].
pub fn check_lenient(schema: &Value) -> Result<(), GrammarError> {
    limits::check_schema(schema, true)
}

/// The grammars of one model. Making one costs nothing; the vocabulary is laid out when the first grammar is compiled.
pub struct Grammars {
    tokenizer: Tokenizer,
    end_token_ids: Vec<u32>,
    factory: OnceLock<Result<Arc<ParserFactory>, GrammarError>>,
    compiled: Mutex<Cache>,
}

impl Grammars {
    /// For a model with this tokenizer, whose answers end with one of these tokens.
    pub fn new(tokenizer: Tokenizer, end_token_ids: Vec<u32>) -> Self {
        Self { tokenizer, end_token_ids, factory: OnceLock::new(), compiled: Mutex::default() }
    }

    /// Compiles a language, or finds it compiled; the matcher is at its beginning, and whoever follows an answer copies it.
    /// With `after`, any text may come first up to and with that one. Takes up to a few hundred milliseconds: not for
    /// async threads.
    ///
    /// # Errors
    /// [`GrammarError`] for what is wrong with the language, or too much in it.
    pub fn compile(&self, language: &Language, after: Option<&str>) -> Result<Arc<Matcher>, GrammarError> {
        limits::check(language)?;
        let key = cache::key(language, after);
        if let Some(matcher) = self.cache(|cache| cache.find(&key)) {
            return Ok(matcher);
        }
        let matcher = Arc::new(compile::compile(self.factory()?, language, after)?);
        self.cache(|cache| cache.keep(key, Arc::clone(&matcher)));
        Ok(matcher)
    }

    /// Compiles a language only to learn whether it can be: it is not kept.
    ///
    /// # Errors
    /// As [`Grammars::compile`].
    pub fn try_out(&self, language: &Language) -> Result<(), GrammarError> {
        limits::check(language)?;
        compile::compile(self.factory()?, language, None).map(drop)
    }

    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let factory = self.factory.get_or_init(|| {
            let environment = vocabulary::environment(&self.tokenizer, &self.end_token_ids)?;
            compile::factory(&environment).map(Arc::new)
        });
        factory.as_deref().map_err(Clone::clone)
    }

    fn cache<T>(&self, work: impl FnOnce(&mut Cache) -> T) -> T {
        work(&mut self.compiled.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
