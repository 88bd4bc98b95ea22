//! From a language to a matcher.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{JsonCompileOptions, ParserFactory, regex_to_lark};
use serde_json::{Value, json};

use super::limits::parser_limits;
use super::{GrammarError, Language, Matcher, MatcherError};

/// Stack of the thread that compiles: parts of it are recursive, as deep as a grammar is long. Only what is used of it is
/// ever memory.
const STACK_BYTES: usize = 64 << 20;
/// Steps that are taken to see whether a language can be followed. Where much may be left out (`(a?){2000}`), each step
/// takes more work than the one before it; what is too much by then would be too much in the middle of every answer.
const STEPS: usize = 4;

/// What makes parsers for a vocabulary.
pub(super) fn factory(environment: &TokEnv) -> Result<ParserFactory, GrammarError> {
    let slices = SlicedBiasComputer::json_slices();
    let factory = ParserFactory::new(environment, InferenceCapabilities::default(), &slices);
    let mut factory = factory.map_err(|error| GrammarError::Unsupported(error.to_string()))?;
    factory.quiet();
    *factory.limits_mut() = parser_limits();
    Ok(factory)
}

/// Compiles a language that is within the limits. The outer error says nothing of the language: another time it may be
/// otherwise.
pub(super) fn compile(
    factory: &ParserFactory,
    language: &Language,
    after: Option<&str>,
) -> Result<Result<Matcher, GrammarError>, GrammarError> {
    let grammar = match grammar(language) {
        Ok(grammar) => preceded(grammar, after),
        Err(refused) => return Ok(Err(refused)),
    };
    let name = name(language);
    let compile = || match factory.create_parser(grammar) {
        Ok(parser) => Matcher::new(parser).and_then(|matcher| begun(name, matcher)),
        Err(error) => Err(GrammarError::from_compiler(name, &format!("{error:#}"))),
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, compile);
        let running =
            running.map_err(|error| GrammarError::TooMuch(format!("no thread for {name}: {error}")))?;
        match running.join() {
            Ok(Ok(matcher)) => Ok(Ok(matcher)),
            Ok(Err(Some(refused))) => Ok(Err(refused)),
            // What it fell over need not be the language.
            Ok(Err(None)) | Err(_) => Err(GrammarError::Invalid(format!("{name} cannot be compiled"))),
        }
    })
}

/// Takes the first steps, so that what fails at its beginning is refused before anything is generated. Without a refusal
/// where the matcher fell over.
fn begun(name: &'static str, mut matcher: Matcher) -> Result<Matcher, Option<GrammarError>> {
    let mut walk = || -> Result<(), MatcherError> {
        // What it finds out about the beginning it keeps.
        matcher.allowed()?;
        let mut copy = matcher.clone();
        let mut goes_on = step(&mut copy)?;
        for _ in 1..STEPS {
            if goes_on {
                // Where this way ends there may be others; where it takes too much they are no help.
                goes_on = step(&mut copy).or_else(|error| {
                    let is_lost = error == MatcherError::Lost;
                    if is_lost || error.is_too_much() { Err(error) } else { Ok(false) }
                })?;
            }
        }
        Ok(())
    };
    match walk() {
        Ok(()) => Ok(matcher),
        Err(error) => Err(GrammarError::from_matcher(name, error)),
    }
}

/// Takes what must come, and the first token that may; whether more can come.
fn step(matcher: &mut Matcher) -> Result<bool, MatcherError> {
    matcher.consume_forced()?;
    if matcher.is_complete() {
        return Ok(false);
    }
    let allowed = matcher.allowed()?;
    match allowed.first() {
        Some(token) => matcher.consume(token).map(|()| true),
        None if allowed.may_end => Ok(false),
        None => Err(MatcherError::DeadEnd),
    }
}

/// What messages call it.
fn name(language: &Language) -> &'static str {
    match language {
        Language::JsonObject | Language::JsonSchema(_) | Language::Calls(_) => "the schema",
        Language::Regex(_) => "the regular expression",
        Language::Choice(_) => "the choice",
        Language::Lark(_) => "the grammar",
    }
}

fn grammar(language: &Language) -> Result<GrammarWithLexer, GrammarError> {
    Ok(match language {
        Language::JsonObject => schema(&json!({ "type": "object" }))?,
        Language::JsonSchema(value) => schema(value)?,
        Language::Regex(regex) => GrammarWithLexer::from_regex(regex),
        Language::Choice(texts) => {
            let texts = texts.iter().map(|text| json!(text).to_string());
            GrammarWithLexer::from_lark(format!("start: {}", texts.collect::<Vec<_>>().join(" | ")))
        }
        Language::Lark(grammar) | Language::Calls(grammar) => GrammarWithLexer::from_lark(grammar.clone()),
    })
}

/// JSON is written as most of what models have read: on one line, with a space after each comma and colon. With white
/// space left to the model, small ones fall into writing nothing else, and less of the text is forced.
fn schema(schema: &Value) -> Result<GrammarWithLexer, GrammarError> {
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Bool(false) => {
            return Err(GrammarError::Invalid("the schema `false` admits nothing".to_owned()));
        }
        other => other.clone(),
    };
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(GrammarWithLexer::from_json_schema(schema))
}

/// Lets any text come first, up to and with `after`.
fn preceded(mut grammar: GrammarWithLexer, after: Option<&str>) -> TopLevelGrammar {
    let Some(after) = after else { return TopLevelGrammar::from_grammar(grammar) };
    grammar.name = Some("answer".to_owned());
    let escaped: String = after.chars().map(escape).collect();
    let before = format!("start: before @answer\nbefore[lazy]: /(?s:.*){}/", regex_to_lark(&escaped, ""));
    TopLevelGrammar { grammars: vec![GrammarWithLexer::from_lark(before), grammar], max_tokens: None }
}

/// A character in a regular expression that stands for itself.
fn escape(character: char) -> String {
    if character.is_ascii_punctuation() { format!("\\{character}") } else { character.to_string() }
}
