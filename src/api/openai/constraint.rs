//! What an answer may be at all, as requests say it: OpenAI's `response_format`, and the names that vLLM gave to what
//! OpenAI does not have (<https://docs.vllm.ai/en/latest/features/structured_outputs.html>).

use serde_json::Value;

use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::generate::Constraint;

/// Most texts to choose from.
const MAX_CHOICES: usize = 1_024;
/// Longest name of a schema, as OpenAI has it.
const MAX_NAME: usize = 64;

/// Known to vLLM's clients; what they set is fixed here.
const REFUSED: &[(&str, &str)] = &[
    ("guided_decoding_backend", "there is one"),
    ("guided_whitespace_pattern", "JSON is written on one line"),
    ("structural_tag", "use tools"),
];

/// Members of `structured_outputs` that are refused.
const REFUSED_INSIDE: &[(&str, &str)] = &[
    ("structural_tag", "use tools"),
    ("whitespace_pattern", "JSON is written on one line"),
    ("disable_any_whitespace", "JSON is written on one line"),
    ("disable_additional_properties", "say `additionalProperties` in the schema"),
    ("disable_fallback", "there is nothing to fall back to"),
];

/// Takes the constraint out of a body, with the name it came by; there may be one, by whatever name.
///
/// # Errors
/// For values that cannot be, and a second constraint.
pub fn take(fields: &mut Fields) -> Result<Option<(Constraint, &'static str)>, ParameterError> {
    fields.refuse(REFUSED)?;
    let mut found = Found::default();
    if let Some(format) = fields.object("response_format")? {
        found.add("response_format", response_format(format)?)?;
    }
    found.add(
        "guided_json",
        fields.take("guided_json").map(|value| schema(value, "guided_json")).transpose()?,
    )?;
    found.add("guided_regex", fields.string("guided_regex")?.map(Constraint::Regex))?;
    found.add("guided_choice", choice(fields, "guided_choice")?)?;
    found.add("guided_grammar", fields.string("guided_grammar")?.map(Constraint::Grammar))?;
    if let Some(inside) = fields.object("structured_outputs")? {
        let inside = structured_outputs(inside)?;
        let by = inside.by;
        // Told to be one too many by its own name, refused by the model by that of its member.
        found.add("structured_outputs", inside.constraint)?;
        if !by.is_empty() {
            found.by = by;
        }
    }
    Ok(found.constraint.map(|constraint| (constraint, found.by)))
}

/// The constraint, and the parameter it came in.
#[derive(Default)]
struct Found {
    constraint: Option<Constraint>,
    by: &'static str,
}

impl Found {
    fn add(&mut self, name: &'static str, constraint: Option<Constraint>) -> Result<(), ParameterError> {
        if constraint.is_none() {
            return Ok(());
        }
        if self.constraint.is_some() {
            let reason = format!("cannot be sent together with `{}`", self.by);
            return Err(ParameterError::invalid(name, reason));
        }
        *self = Self { constraint, by: name };
        Ok(())
    }
}

/// OpenAI's `response_format`; none: any text.
///
/// # Errors
/// For a kind or a member that is not known.
pub fn response_format(mut format: Fields) -> Result<Option<Constraint>, ParameterError> {
    let path = format.path("type");
    let kind = string(format.required("type")?, || path.clone())?;
    let constraint = match kind.as_str() {
        "text" => None,
        "json_object" => Some(Constraint::JsonObject),
        "json_schema" => {
            let path = format.path("json_schema");
            Some(json_schema(Fields::of(format.required("json_schema")?, path)?)?)
        }
        _ => {
            let reason = "there are `text`, `json_object` and `json_schema`";
            return Err(ParameterError::unsupported(path, reason));
        }
    };
    format.finish()?;
    Ok(constraint)
}

/// The object with a schema in it. An answer is held to the schema whether or not it is `strict`.
///
/// # Errors
/// For a member that cannot be or is not known.
pub fn json_schema(mut format: Fields) -> Result<Constraint, ParameterError> {
    let path = format.path("name");
    let name = string(format.required("name")?, || path.clone())?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(is_plain) {
        let reason = format!("must be 1 to {MAX_NAME} letters, digits, `_` and `-`");
        return Err(ParameterError::invalid(path, reason));
    }
    // Words for the model: those of the schema itself do not reach it either.
    format.string("description")?;
    format.boolean("strict")?;
    let path = format.path("schema");
    let constraint = match format.take("schema") {
        Some(value @ Value::Object(_)) => Constraint::JsonSchema(value),
        Some(other) => {
            return Err(ParameterError::invalid(path, format!("must be an object, not {}", kind(&other))));
        }
        None => Constraint::JsonObject,
    };
    format.finish()?;
    Ok(constraint)
}

fn structured_outputs(mut inside: Fields) -> Result<Found, ParameterError> {
    let mut found = Found::default();
    let path = inside.path("json");
    found
        .add("structured_outputs.json", inside.take("json").map(|value| schema(value, path)).transpose()?)?;
    found.add("structured_outputs.regex", inside.string("regex")?.map(Constraint::Regex))?;
    found.add("structured_outputs.choice", choice(&mut inside, "choice")?)?;
    found.add("structured_outputs.grammar", inside.string("grammar")?.map(Constraint::Grammar))?;
    let object = inside.boolean("json_object")?.unwrap_or(false);
    found.add("structured_outputs.json_object", object.then_some(Constraint::JsonObject))?;
    inside.refuse(REFUSED_INSIDE)?;
    inside.finish()?;
    Ok(found)
}

/// A schema as itself or as text.
fn schema(value: Value, path: impl Into<String>) -> Result<Constraint, ParameterError> {
    let path = path.into();
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            ParameterError::invalid(path.clone(), format!("holds text that is no JSON: {error}"))
        })?,
        other => other,
    };
    if !value.is_object() {
        return Err(ParameterError::invalid(
            path,
            format!("must be a schema, an object, not {}", kind(&value)),
        ));
    }
    Ok(Constraint::JsonSchema(value))
}

fn choice(fields: &mut Fields, name: &'static str) -> Result<Option<Constraint>, ParameterError> {
    let Some(texts) = fields.list(name, MAX_CHOICES)? else { return Ok(None) };
    if texts.is_empty() {
        return Err(ParameterError::invalid(fields.path(name), "must have at least one text"));
    }
    let texts = texts.into_iter().map(|text| string(text, || fields.path(name)));
    Ok(Some(Constraint::Choice(texts.collect::<Result<_, _>>()?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Option<Constraint>, String> {
        let mut fields = Fields::of(body, "").expect("it is an object");
        let constraint = take(&mut fields).map_err(|error| error.to_string())?;
        fields.finish().map_err(|error| error.to_string())?;
        Ok(constraint.map(|(constraint, _)| constraint))
    }

    #[test]
    fn one_thing_has_one_meaning_by_whatever_name() {
        let schema = json!({"type": "object"});
        let expected = Ok(Some(Constraint::JsonSchema(schema.clone())));
        for body in [
            json!({"response_format": {"type": "json_schema", "json_schema":
                {"name": "a-1_b", "strict": true, "description": "x", "schema": schema}}}),
            json!({"guided_json": schema}),
            json!({"guided_json": schema.to_string()}),
            json!({"structured_outputs": {"json": schema}}),
        ] {
            assert_eq!(read(body.clone()), expected, "{body}");
        }
        let texts = Ok(Some(Constraint::Choice(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(read(json!({"guided_choice": ["a", "b"]})), texts);
        assert_eq!(read(json!({"structured_outputs": {"choice": ["a", "b"]}})), texts);
        assert_eq!(read(json!({"guided_regex": "a+"})), Ok(Some(Constraint::Regex("a+".to_owned()))));
        assert_eq!(
            read(json!({"response_format": {"type": "json_object"}})),
            Ok(Some(Constraint::JsonObject))
        );
        assert_eq!(
            read(json!({"structured_outputs": {"json_object": true}})),
            Ok(Some(Constraint::JsonObject))
        );
        for free in
            [json!({}), json!({"response_format": {"type": "text"}}), json!({"structured_outputs": {}})]
        {
            assert_eq!(read(free), Ok(None));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (body, name) in [
            (json!({"response_format": {"type": "yaml"}}), "response_format.type"),
            (json!({"response_format": {"type": "text", "x": 1}}), "response_format.x"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
                "json_schema.name",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}),
                "json_schema.name",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": []}}}),
                "json_schema.schema",
            ),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"guided_json": 7}), "guided_json"),
            (json!({"guided_choice": []}), "guided_choice"),
            (json!({"guided_choice": [1]}), "guided_choice"),
            (json!({"guided_decoding_backend": "outlines"}), "guided_decoding_backend"),
            (json!({"guided_regex": "a", "guided_choice": ["a"]}), "guided_choice"),
            (json!({"guided_regex": "a", "structured_outputs": {"regex": "a"}}), "structured_outputs"),
            (json!({"structured_outputs": {"regex": "a", "grammar": "a"}}), "structured_outputs.grammar"),
            (
                json!({"structured_outputs": {"whitespace_pattern": "a"}}),
                "structured_outputs.whitespace_pattern",
            ),
            (json!({"structured_outputs": {"yaml": "a"}}), "structured_outputs.yaml"),
        ] {
            let refused = read(body.clone()).expect_err("it cannot be");
            assert!(refused.contains(&format!("`{name}`")) || refused.contains(name), "{body}: {refused}");
        }
    }
}
