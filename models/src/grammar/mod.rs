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

use self::cache::{Cache, Key};
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
    found: Mutex<Found>,
}

/// Most grammars that are kept. One is some ten kilobytes to a few megabytes.
const MOST_COMPILED: usize = 32;
/// Most verdicts that are kept. One is a text of some hundred bytes.
const MOST_VERDICTS: usize = 256;

/// What was found out about languages. It depends on nothing but them and the model.
struct Found {
    /// Matchers at their beginning. They are shared: copying one takes time.
    compiled: Cache<Arc<Matcher>>,
    /// Whether a language can be had, where no matcher is kept that would say so.
    verdicts: Cache<Result<(), GrammarError>>,
}

impl Found {
    fn new() -> Self {
        Self { compiled: Cache::new(MOST_COMPILED), verdicts: Cache::new(MOST_VERDICTS) }
    }

    /// Whether the language can be had, if that is known.
    fn verdict(&mut self, key: &Key) -> Option<Result<(), GrammarError>> {
        self.compiled.find(key).map(|_| Ok(())).or_else(|| self.verdicts.find(key))
    }

    /// The matcher, or the refusal, if one is known.
    fn matcher(&mut self, key: &Key) -> Option<Result<Arc<Matcher>, GrammarError>> {
        let matcher = self.compiled.find(key).map(Ok);
        matcher.or_else(|| self.verdicts.find(key)?.err().map(Err))
    }
}

impl Grammars {
    /// For a model with this tokenizer, whose answers end with one of these tokens.
    pub fn new(tokenizer: Tokenizer, end_token_ids: Vec<u32>) -> Self {
        Self { tokenizer, end_token_ids, factory: OnceLock::new(), found: Mutex::new(Found::new()) }
    }

    /// Compiles a language, or finds it compiled, or refused; the matcher is at its beginning, and whoever follows an answer
    /// copies it. With `after`, any text may come first up to and with that one. Takes up to a few hundred milliseconds:
    /// not for async threads.
    ///
    /// # Errors
    /// [`GrammarError`] for what is wrong with the language, or too much in it.
    pub fn compile(&self, language: &Language, after: Option<&str>) -> Result<Arc<Matcher>, GrammarError> {
        limits::check(language)?;
        let key = cache::key(language, after);
        if let Some(known) = self.found(|found| found.matcher(&key)) {
            return known;
        }
        let compiled = compile::compile(self.factory()?, language, after)?.map(Arc::new);
        self.found(|found| match &compiled {
            Ok(matcher) => found.compiled.keep(key, Arc::clone(matcher)),
            Err(refused) => found.verdicts.keep(key, Err(refused.clone())),
        });
        compiled
    }

    /// Compiles a language only to learn whether it can be, if that is not known: only the verdict is kept.
    ///
    /// # Errors
    /// As [`Grammars::compile`].
    pub fn try_out(&self, language: &Language) -> Result<(), GrammarError> {
        limits::check(language)?;
        let key = cache::key(language, None);
        if let Some(known) = self.found(|found| found.verdict(&key)) {
            return known;
        }
        let verdict = compile::compile(self.factory()?, language, None)?.map(drop);
        self.found(|found| found.verdicts.keep(key, verdict.clone()));
        verdict
    }

    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let factory = self.factory.get_or_init(|| {
            let environment = vocabulary::environment(&self.tokenizer, &self.end_token_ids)?;
            compile::factory(&environment).map(Arc::new)
        });
        factory.as_deref().map_err(Clone::clone)
    }

    fn found<T>(&self, work: impl FnOnce(&mut Found) -> T) -> T {
        work(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn grammars() -> Grammars {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama/tokenizer.json");
        Grammars::new(Tokenizer::from_file(&golden, 512).expect("it is sound"), vec![2])
    }

    /// What nobody compiles would find: who says so has it from the table.
    fn told() -> GrammarError {
        GrammarError::Invalid("so it was told".to_owned())
    }

    #[test]
    fn a_refusal_is_remembered_for_the_language_and_what_comes_before_it() {
        let grammars = grammars();
        let language = Language::JsonSchema(json!({"type": "object", "unevaluatedProperties": false}));
        let refused = grammars.compile(&language, None).expect_err("it has a keyword that is not supported");
        let key = cache::key(&language, None);
        assert_eq!(grammars.found(|found| found.verdict(&key)), Some(Err(refused)));
        grammars.found(|found| found.verdicts.keep(key, Err(told())));
        assert_eq!(grammars.compile(&language, None).err(), Some(told()));
        assert_eq!(grammars.try_out(&language), Err(told()));
        assert_ne!(grammars.compile(&language, Some("</think>")).err(), Some(told()));
    }

    #[test]
    fn what_was_tried_out_is_remembered_and_yet_compiled() {
        let grammars = grammars();
        let language = Language::Regex("[a-z]+".to_owned());
        let key = cache::key(&language, None);
        assert_eq!(grammars.try_out(&language), Ok(()));
        assert_eq!(grammars.found(|found| found.verdicts.find(&key)), Some(Ok(())));
        let matcher = grammars.compile(&language, None).expect("it can be had");
        let again = grammars.compile(&language, None).expect("it can be had");
        assert!(Arc::ptr_eq(&matcher, &again));
    }

    #[test]
    fn what_is_compiled_need_not_be_tried_out() {
        let grammars = grammars();
        let language = Language::Regex("[0-9]+".to_owned());
        grammars.compile(&language, None).expect("it can be had");
        assert_eq!(grammars.try_out(&language), Ok(()));
        assert_eq!(grammars.found(|found| found.verdicts.find(&cache::key(&language, None))), None);
    }
}
