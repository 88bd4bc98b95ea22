//! Why a language cannot be had, in words for whoever sent it.

use super::MatcherError;

/// A language that is refused. The text names the keyword at fault, or what was too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is wrong, or has something in it that cannot be honoured.
    #[error("{0}")]
    Invalid(String),
    /// It is larger or more complex than is allowed.
    #[error("{0}")]
    TooMuch(String),
    /// This model's answers cannot be constrained.
    #[error("{0}")]
    Unsupported(String),
}

/// Longest text of llguidance's that is passed on.
const LONGEST: usize = 400;

/// Words by which llguidance says that something is too much.
const TOO_MUCH: [&str; 8] =
    ["fuel", "too large", "too complex", "too big", "limit", "exceed", "too many", "stack level"];

/// Whether llguidance fell over: it catches its own panics and begins so what it says of them.
pub(super) fn fell_over(said: &str) -> bool {
    said.starts_with("panic:")
}

impl GrammarError {
    /// What came of a language's first step; none where the matcher fell over, which says nothing of the language.
    pub(super) fn from_matcher(what: &str, error: MatcherError) -> Option<Self> {
        if error == MatcherError::Lost {
            return None;
        }
        let text = format!("{what} cannot be used: {error}");
        Some(if error.is_too_much() { Self::TooMuch(text) } else { Self::Invalid(text) })
    }

    /// What llguidance said about a language; none where it fell over, which says nothing of the language.
    pub(super) fn from_compiler(what: &str, error: &str) -> Option<Self> {
        if fell_over(error) { None } else { Some(Self::of_said(what, error)) }
    }

    fn of_said(what: &str, error: &str) -> Self {
        // Of a schema in a grammar that nobody sent, its place there says nothing.
        let within = error.split_once("failed to compile JSON schema: ").filter(|_| what == "the schema");
        let error = within.map_or(error, |(_, said)| said.lines().next().unwrap_or_default());
        let text: String =
            error.split("<state>").next().unwrap_or_default().trim().chars().take(LONGEST).collect();
        if let Some(keys) = text.split("Unimplemented keys: ").nth(1) {
            // The source that follows is not among them.
            let keys = keys.split(']').next().unwrap_or_default();
            let names: Vec<&str> = keys.split('"').skip(1).step_by(2).collect();
            let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Self::Invalid(format!("{names} is not supported in a schema"));
        }
        if text.contains("coerce_one_of") {
            let reason = "`oneOf` is supported only where its alternatives surely exclude each other, say by a \
                          `const` of their own; use `anyOf`";
            return Self::Invalid(reason.to_owned());
        }
        let lower = text.to_lowercase();
        if TOO_MUCH.iter().any(|word| lower.contains(word)) {
            return Self::TooMuch(format!("{what} is too complex: {text}"));
        }
        // What the compiler says of these does not name the keyword.
        const KEYWORDS: [(&str, &str); 4] = [
            ("reference segment", "$ref"),
            ("regex parse error", "pattern"),
            ("multiple of", "multipleOf"),
            ("unknown format", "format"),
        ];
        let keyword = KEYWORDS.iter().find(|(said, _)| what == "the schema" && lower.contains(said));
        Self::Invalid(match keyword {
            Some((_, keyword)) => format!("{what} cannot be used: `{keyword}`: {text}"),
            None => format!("{what} cannot be used: {text}"),
        })
    }
}
