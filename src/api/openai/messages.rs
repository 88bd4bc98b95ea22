//! The messages of a conversation: OpenAI's shape → what templates expect.

use serde_json::{Map, Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, string};

const MAX_MESSAGES: usize = 10_000;
const MAX_PARTS: usize = 1_000;
/// Most calls in one message.
const MAX_CALLS: usize = 128;

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
    let given = string(fields.required("role")?, || fields.path("role"))?;
    let role = match given.as_str() {
        "system" | "user" | "assistant" | "tool" => given.as_str(),
        // The newer name of the same thing; templates know the older one.
        "developer" => "system",
        // The older name of the same thing.
        "function" => "tool",
        other => {
            let other: String = other.chars().take(32).collect();
            let reason = format!("must be system, developer, user, assistant or tool, not `{other}`");
            return Err(ParameterError::invalid(fields.path("role"), reason));
        }
    };
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    let calls = calls(&mut fields, role == "assistant")?;
    let refusal = fields.string("refusal")?.filter(|_| role == "assistant");
    let content = match fields.take("content") {
        None if refusal.is_some() => json!(refusal),
        // Templates tell by it that there is no text beside the calls.
        None if !calls.is_empty() => Value::Null,
        Some(content) => json!(self::content(content, &fields)?),
        None => json!(self::content(fields.required("content")?, &fields)?),
    };
    message.insert("content".to_owned(), content);
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    for name in ["name", "reasoning_content"] {
        if let Some(text) = fields.string(name)? {
            message.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(id) = result_of(&mut fields, &given, &message)? {
        message.insert("tool_call_id".to_owned(), json!(id));
    }
    refuse_empty_or(&mut fields, "annotations", "answers carry none")?;
    fields.refuse(&[("audio", "the models here read text"), ("prefix", "use `continue_final_message`")])?;
    fields.finish()?;
    Ok(Value::Object(message))
}

/// Which call a message is the result of; none if it is no result.
fn result_of(
    fields: &mut Fields,
    role: &str,
    message: &Map<String, Value>,
) -> Result<Option<String>, ParameterError> {
    match (role, fields.string("tool_call_id")?) {
        ("tool", Some(id)) => Ok(Some(id)),
        ("tool", None) => fields.required("tool_call_id").map(|_| None),
        (_, Some(_)) => Err(ParameterError::invalid(fields.path("tool_call_id"), "needs the role `tool`")),
        ("function", None) => match message.get("name").and_then(Value::as_str) {
            Some(name) => Ok(Some(legacy_id(name))),
            None => fields.required("name").map(|_| None),
        },
        (_, None) => Ok(None),
    }
}

/// What stands for the id of a call in the older words, which have none.
fn legacy_id(name: &str) -> String {
    format!("call_{name}")
}

/// The calls in a message: `tool_calls`, or the older `function_call`.
fn calls(fields: &mut Fields, is_assistant: bool) -> Result<Vec<Value>, ParameterError> {
    let path = fields.path("tool_calls");
    let mut calls = Vec::new();
    for (number, value) in fields.list("tool_calls", MAX_CALLS)?.unwrap_or_default().into_iter().enumerate() {
        let mut call = Fields::of(value, format!("{path}[{number}]"))?;
        let id = string(call.required("id")?, || call.path("id"))?;
        let kind = call.string("type")?;
        if kind.is_some_and(|kind| kind != "function") {
            let reason = "the models here call functions, and nothing else";
            return Err(ParameterError::unsupported(call.path("type"), reason));
        }
        // Clients that send a streamed call back leave its number in.
        call.integer("index", 0..=u64::from(u32::MAX))?;
        let inner = call.path("function");
        let function = function(Fields::of(call.required("function")?, inner)?)?;
        call.finish()?;
        calls.push(json!({"id": id, "type": "function", "function": function}));
    }
    if let Some(call) = fields.object("function_call")? {
        let function = function(call)?;
        let id = legacy_id(function["name"].as_str().unwrap_or_default());
        calls.push(json!({"id": id, "type": "function", "function": function}));
    }
    match is_assistant || calls.is_empty() {
        true => Ok(calls),
        false => Err(ParameterError::invalid(path, "needs the role `assistant`")),
    }
}

/// The function of a call. Arguments that are JSON become an object, as templates want them.
fn function(mut fields: Fields) -> Result<Value, ParameterError> {
    let name = string(fields.required("name")?, || fields.path("name"))?;
    let arguments = match fields.take("arguments") {
        None => json!({}),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => object,
            _ => json!(text),
        },
        Some(other) => {
            let reason = format!("must be a string, not {}", kind(&other));
            return Err(ParameterError::invalid(fields.path("arguments"), reason));
        }
    };
    fields.finish()?;
    Ok(json!({"name": name, "arguments": arguments}))
}

/// An empty list says nothing and is let through.
fn refuse_empty_or(fields: &mut Fields, name: &'static str, reason: &str) -> Result<(), ParameterError> {
    match fields.list(name, usize::MAX)? {
        Some(list) if !list.is_empty() => Err(ParameterError::unsupported(fields.path(name), reason)),
        _ => Ok(()),
    }
}

/// A text, or a list of parts that are texts, as one text.
///
/// # Errors
/// For anything else.
pub fn content(content: Value, fields: &Fields) -> Result<String, ParameterError> {
    let path = fields.path("content");
    match content {
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
        "refusal" => {
            let text = string(fields.required("refusal")?, || fields.path("refusal"))?;
            fields.finish()?;
            Ok(text)
        }
        "image_url" | "input_audio" | "file" | "video_url" | "audio_url" => {
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
    fn calls_and_results_are_read() {
        let read = read(json!([
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{\"zone\": \"UTC\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "noon"}]},
            {"role": "assistant", "content": null, "function_call": {"name": "now", "arguments": "no JSON"}},
            {"role": "function", "name": "now", "content": "noon"},
            {"role": "assistant", "content": null, "refusal": "I will not."},
        ]));
        let call = |id: &str, arguments: Value| json!([{"id": id, "type": "function", "function": {"name": "now", "arguments": arguments}}]);
        let expected = vec![
            json!({"role": "assistant", "content": null, "tool_calls": call("call_1", json!({"zone": "UTC"}))}),
            json!({"role": "tool", "content": "noon", "tool_call_id": "call_1"}),
            json!({"role": "assistant", "content": null, "tool_calls": call("call_now", json!("no JSON"))}),
            json!({"role": "tool", "content": "noon", "name": "now", "tool_call_id": "call_now"}),
            json!({"role": "assistant", "content": "I will not."}),
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
            (json!([{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
            (json!([{"role": "function", "content": "x"}]), "messages[0].name"),
            (json!([{"role": "user", "content": "x", "tool_call_id": "1"}]), "messages[0].tool_call_id"),
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
            (
                json!([{"role": "assistant", "content": "x", "tool_calls": [{}]}]),
                "messages[0].tool_calls[0].id",
            ),
            (
                json!([{"role": "user", "content": "x", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}]),
                "messages[0].tool_calls",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {}}]}]),
                "messages[0].tool_calls[0].type",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (json!([{"role": "user", "content": "x", "colour": "red"}]), "messages[0].colour"),
        ] {
            let error = read(messages.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{messages}");
        }
    }
}
