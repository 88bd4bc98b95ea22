//! The messages of a conversation: OpenAI's shape → what templates expect.

use serde_json::{Map, Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, string};

const MAX_MESSAGES: usize = 10_000;
const MAX_PARTS: usize = 1_000;

/// Checks the messages and turns each into `{"role", "content", …}` with the content as one text.
///
/// # Errors
/// For what is no conversation, and for parts that are not supported.
pub fn take(fields: &mut Fields) -> Result<Vec<Value>, ParameterError> {
    let path = fields.path("messages");
    let messages = match fields.required("messages")? {
        Value::Array(messages) => messages,
        other => {
            return Err(ParameterError::invalid(path, format!("must be an array, not {}", kind(&other))));
        }
    };
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        let reason = format!("must have 1 to {MAX_MESSAGES} messages, not {}", messages.len());
        return Err(ParameterError::invalid(path, reason));
    }
    let numbered = messages.into_iter().enumerate();
    numbered.map(|(number, value)| message(value, format!("messages[{number}]"))).collect()
}

fn message(value: Value, path: String) -> Result<Value, ParameterError> {
    let mut fields = Fields::of(value, path)?;
    let role = string(fields.required("role")?, || fields.path("role"))?;
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role.as_str(),
        // The newer name of the same thing; templates know the older one.
        "developer" => "system",
        "tool" | "function" => {
            return Err(ParameterError::unsupported(fields.path("role"), "tools cannot be called yet"));
        }
        other => {
            let other: String = other.chars().take(32).collect();
            let reason = format!("must be system, developer, user or assistant, not `{other}`");
            return Err(ParameterError::invalid(fields.path("role"), reason));
        }
    };
    let content = content(&mut fields)?;
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    message.insert("content".to_owned(), json!(content));
    for name in ["name", "reasoning_content"] {
        if let Some(text) = fields.string(name)? {
            message.insert(name.to_owned(), json!(text));
        }
    }
    refuse_empty_or(&mut fields, "tool_calls", "tools cannot be called yet")?;
    refuse_empty_or(&mut fields, "annotations", "answers carry none")?;
    fields.refuse(&[
        ("function_call", "tools cannot be called yet"),
        ("tool_call_id", "tools cannot be called yet"),
        ("refusal", "it cannot be shown to the model"),
        ("audio", "the models here read text"),
        ("prefix", "use `continue_final_message`"),
    ])?;
    fields.finish()?;
    Ok(Value::Object(message))
}

/// An empty list says nothing and is let through.
fn refuse_empty_or(fields: &mut Fields, name: &'static str, reason: &str) -> Result<(), ParameterError> {
    match fields.list(name, usize::MAX)? {
        Some(list) if !list.is_empty() => Err(ParameterError::unsupported(fields.path(name), reason)),
        _ => Ok(()),
    }
}

fn content(fields: &mut Fields) -> Result<String, ParameterError> {
    let path = fields.path("content");
    match fields.required("content")? {
        Value::String(text) => Ok(text),
        Value::Array(parts) if (1..=MAX_PARTS).contains(&parts.len()) => {
            let numbered = parts.into_iter().enumerate();
            numbered.map(|(number, value)| part(value, format!("{path}[{number}]"))).collect()
        }
        Value::Array(parts) => {
            let reason = format!("must have 1 to {MAX_PARTS} parts, not {}", parts.len());
            Err(ParameterError::invalid(path, reason))
        }
        other => {
            let reason = format!("must be a string or an array of parts, not {}", kind(&other));
            Err(ParameterError::invalid(path, reason))
        }
    }
}

fn part(value: Value, path: String) -> Result<String, ParameterError> {
    let mut fields = Fields::of(value, path)?;
    let kind = string(fields.required("type")?, || fields.path("type"))?;
    match kind.as_str() {
        "text" => {
            let text = string(fields.required("text")?, || fields.path("text"))?;
            fields.finish()?;
            Ok(text)
        }
        "image_url" | "input_audio" | "file" | "video_url" | "audio_url" | "refusal" => {
            let reason = format!("`{kind}` cannot be read by the models here, `text` can");
            Err(ParameterError::unsupported(fields.path("type"), reason))
        }
        other => {
            let other: String = other.chars().take(32).collect();
            Err(ParameterError::invalid(fields.path("type"), format!("must be `text`, not `{other}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn read(messages: Value) -> Result<Vec<Value>, ParameterError> {
        take(&mut Fields::of(json!({ "messages": messages }), "").expect("an object"))
    }

    #[test]
    fn texts_and_parts_become_one_text() {
        let read = read(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "One "}, {"type": "text", "text": "two"}], "name": "ann"},
            {"role": "assistant", "content": "Yes", "refusal": null, "tool_calls": [], "annotations": []},
        ]));
        let expected = vec![
            json!({"role": "system", "content": "Be brief."}),
            json!({"role": "user", "content": "One two", "name": "ann"}),
            json!({"role": "assistant", "content": "Yes"}),
        ];
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_place() {
        for (messages, param) in [
            (json!([]), "messages"),
            (json!("hello"), "messages"),
            (json!(["hello"]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "tool", "content": "x", "tool_call_id": "1"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": null}]), "messages[0].content"),
            (json!([{"role": "user", "content": 7}]), "messages[0].content"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
                "messages[0].content[0].type",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "x", "more": 1}]}]),
                "messages[0].content[0].more",
            ),
            (json!([{"role": "assistant", "content": "x", "tool_calls": [{}]}]), "messages[0].tool_calls"),
            (json!([{"role": "user", "content": "x", "colour": "red"}]), "messages[0].colour"),
        ] {
            let error = read(messages.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{messages}");
        }
    }
}
