//! What strangers' grammars are held to, beside the limits that llguidance keeps while it compiles and parses.

use std::collections::HashSet;

use llguidance::api::ParserLimits;
use serde_json::{Map, Value};

use super::{GrammarError, Language};

/// Most bytes of a schema, a grammar, or all texts of a choice.
const MOST_BYTES: usize = 64 * 1024;
/// Most bytes of a regular expression, also of a `pattern` in a schema.
const MOST_REGEX_BYTES: usize = 4 * 1024;
/// Most texts of a choice.
const MOST_CHOICES: usize = 1_024;
/// Deepest nesting of a schema.
const DEEPEST_SCHEMA: usize = 64;
/// Deepest nesting of brackets in a regular expression.
const DEEPEST_REGEX: usize = 32;
/// The same of a grammar, with the schemas in it.
const DEEPEST_GRAMMAR: usize = 128;
/// Most values of all `enum`s of a schema together.
const MOST_ENUM_VALUES: usize = 4_096;

/// What llguidance may spend: about a fifth of its own limits. An answer's state takes no more than some ten megabytes, a
/// step no more than a few milliseconds.
pub(super) fn parser_limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 1_000,
        initial_lexer_fuel: 400_000,
        step_lexer_fuel: 100_000,
        step_max_items: 25_000,
        max_lexer_states: 10_000,
        max_grammar_size: 100_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Refuses what is too much before anything is done with it.
pub(super) fn check(language: &Language) -> Result<(), GrammarError> {
    match language {
        Language::JsonObject => Ok(()),
        Language::JsonSchema(schema) => check_schema(schema, false),
        Language::Regex(regex) => check_regex("the regular expression", regex),
        Language::Choice(texts) => check_choice(texts),
        Language::Lark(grammar) | Language::Calls(grammar) => {
            at_most("the grammar has", grammar.len(), MOST_BYTES, "bytes")?;
            check_brackets("the grammar", grammar, DEEPEST_GRAMMAR)
        }
    }
}

fn check_choice(texts: &[String]) -> Result<(), GrammarError> {
    if texts.is_empty() || texts.iter().all(String::is_empty) {
        return Err(GrammarError::Invalid("the choice has no texts".to_owned()));
    }
    at_most("the choice has", texts.len(), MOST_CHOICES, "texts")?;
    at_most("the choice has", texts.iter().map(String::len).sum(), MOST_BYTES, "bytes")
}

fn check_regex(what: &str, regex: &str) -> Result<(), GrammarError> {
    at_most(&format!("{what} has"), regex.len(), MOST_REGEX_BYTES, "bytes")?;
    let escapes = regex.len() - regex.trim_end_matches('\\').len();
    if escapes % 2 == 1 {
        return Err(GrammarError::Invalid(format!("{what} ends in the middle of an escape")));
    }
    check_brackets(what, regex, DEEPEST_REGEX)
}

/// Counts every opening bracket, escaped or not: it is a bound, no parser.
fn check_brackets(what: &str, text: &str, most: usize) -> Result<(), GrammarError> {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    at_most(&format!("{what} is nested"), deepest, most, "deep")
}

/// What a value in a schema is.
#[derive(Clone, Copy)]
enum Place {
    /// A schema, or a list of schemas.
    Schema,
    /// Schemas by name.
    Named,
    /// Data.
    Value,
}

impl Place {
    /// What the member of this name is in a schema.
    fn of_member(key: &str) -> Self {
        match key {
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => Self::Named,
            "const" | "enum" | "default" | "examples" => Self::Value,
            _ => Self::Schema,
        }
    }
}

/// Refuses a schema that is too much, or is not honoured. `lenient`: what is not honoured may be passed over.
pub(super) fn check_schema(schema: &Value, lenient: bool) -> Result<(), GrammarError> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(GrammarError::Invalid("the schema must be an object".to_owned()));
    }
    let mut enum_values = 0;
    let mut pending = vec![(schema, 1, Place::Schema)];
    while let Some((value, depth, place)) = pending.pop() {
        at_most("the schema is nested", depth, DEEPEST_SCHEMA, "deep")?;
        match value {
            Value::Array(values) => pending.extend(values.iter().map(|value| (value, depth + 1, place))),
            Value::Object(members) => {
                if let Place::Schema = place {
                    check_members(members, lenient)?;
                    enum_values += members.get("enum").and_then(Value::as_array).map_or(0, Vec::len);
                    at_most("`enum`s of the schema have", enum_values, MOST_ENUM_VALUES, "values")?;
                }
                pending.extend(members.iter().map(|(key, value)| {
                    let inside = match place {
                        Place::Schema => Place::of_member(key),
                        Place::Named => Place::Schema,
                        Place::Value => Place::Value,
                    };
                    (value, depth + 1, inside)
                }));
            }
            _ => {}
        }
    }
    // Counted last: it is not deep any more.
    at_most("the schema has", schema.to_string().len(), MOST_BYTES, "bytes")
}

fn check_members(members: &Map<String, Value>, lenient: bool) -> Result<(), GrammarError> {
    if members.contains_key("x-guidance") {
        return Err(GrammarError::Invalid("`x-guidance` is not supported in a schema".to_owned()));
    }
    if let Some(Value::String(pattern)) = members.get("pattern") {
        check_regex("`pattern`", pattern)?;
    }
    if let Some(Value::Object(patterns)) = members.get("patternProperties") {
        patterns.keys().try_for_each(|pattern| check_regex("`patternProperties`", pattern))?;
    }
    // Names that are not listed may come twice, which counts once. One more than those that must come is always another.
    let required = members.get("required").and_then(Value::as_array);
    let required: HashSet<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
    let least = members.get("minProperties").and_then(Value::as_f64);
    if !lenient && least.is_some_and(|least| least > required.len() as f64 + 1.0) {
        let reason = "`minProperties` is supported only up to one more than the names in `required`";
        return Err(GrammarError::Invalid(reason.to_owned()));
    }
    Ok(())
}

fn at_most(what: &str, found: usize, most: usize, unit: &str) -> Result<(), GrammarError> {
    if found <= most {
        return Ok(());
    }
    Err(GrammarError::TooMuch(format!("{what} {found} {unit}, at most {most} are allowed")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn least_properties_are_refused_where_names_could_come_twice() {
        let open =
            json!({"type": "object", "patternProperties": {"^a+$": {}}, "additionalProperties": false});
        for (required, least, is_good) in
            [(0, 0, true), (0, 1, true), (0, 2, false), (1, 2, true), (1, 3, false), (2, 2, true)]
        {
            let mut schema = open.clone();
            schema["minProperties"] = json!(least);
            schema["required"] = json!(["x", "y"][..required]);
            let nested = json!({"properties": {"const": schema}});
            for schema in [&schema, &nested] {
                let found = check_schema(schema, false);
                assert_eq!(found.is_ok(), is_good, "{schema}");
                assert!(found.err().is_none_or(|error| error.to_string().contains("`minProperties`")));
                assert_eq!(check_schema(schema, true), Ok(()));
            }
        }
        assert_eq!(check_schema(&json!({"const": {"minProperties": 9, "x-guidance": 1}}), false), Ok(()));
    }

    #[test]
    fn an_expression_is_whole() {
        assert_eq!(check_regex("it", "a\\\\"), Ok(()));
        assert!(check_regex("it", "a\\").is_err());
    }
}
