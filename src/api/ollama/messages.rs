//! `messages` and `tools`: Ollama's shape → the messages that templates expect, and what may be called.

use serde_json::{Map, Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::generate::{Tool, ToolUse};

const MAX_MESSAGES: usize = 10_000;
const MAX_CALLS: usize = 512;
const MAX_TOOLS: usize = 512;

/// Takes `messages` out of a body; there may be none.
///
/// # Errors
/// For what is no conversation, and for pictures.
pub fn take(fields: &mut Fields) -> Result<Vec<Value>, ParameterError> {
    let messages = fields.list("messages", MAX_MESSAGES)?.unwrap_or_default();
    let mut read: Vec<Value> = Vec::with_capacity(messages.len());
    for (number, value) in messages.into_iter().enumerate() {
        let message = message(value, format!("messages[{number}]"), &read)?;
        read.push(message);
    }
    Ok(read)
}

fn message(value: Value, path: String, before: &[Value]) -> Result<Value, ParameterError> {
    let mut fields = Fields::of(value, path)?;
    let role = string(fields.required("role")?, || fields.path("role"))?;
    if !["system", "user", "assistant", "tool"].contains(&role.as_str()) {
        let role: String = role.chars().take(32).collect();
        let reason = format!("must be system, user, assistant or tool, not `{role}`");
        return Err(ParameterError::invalid(fields.path("role"), reason));
    }
    let mut message = Map::new();
    message.insert("content".to_owned(), json!(fields.string("content")?.unwrap_or_default()));
    no_images(&mut fields)?;
    if let Some(thought) = fields.string("thinking")?.filter(|thought| !thought.is_empty()) {
        message.insert("reasoning_content".to_owned(), json!(thought));
    }
    let calls = calls(&mut fields, before.len())?;
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), json!(calls));
    }
    let (name, id) = (fields.string("tool_name")?, fields.string("tool_call_id")?);
    if role == "tool" {
        // Clients that know no ids answer the calls in their order.
        let id = id.or_else(|| next_unanswered(before, name.as_deref()));
        message.extend(id.map(|id| ("tool_call_id".to_owned(), json!(id))));
        message.extend(name.map(|name| ("name".to_owned(), json!(name))));
    }
    fields.finish()?;
    message.insert("role".to_owned(), json!(role));
    Ok(Value::Object(message))
}

/// Refuses pictures; an empty list of them says nothing.
///
/// # Errors
/// If there are any.
pub fn no_images(fields: &mut Fields) -> Result<(), ParameterError> {
    match fields.list("images", usize::MAX)? {
        Some(images) if !images.is_empty() => {
            Err(ParameterError::unsupported(fields.path("images"), "the models here read text"))
        }
        _ => Ok(()),
    }
}

/// The calls of a message, as OpenAI has them; `number` is the message's.
fn calls(fields: &mut Fields, number: usize) -> Result<Vec<Value>, ParameterError> {
    let path = fields.path("tool_calls");
    let calls = fields.list("tool_calls", MAX_CALLS)?.unwrap_or_default();
    let call = |(index, value): (usize, Value)| {
        let mut call = Fields::of(value, format!("{path}[{index}]"))?;
        let id = call.string("id")?.unwrap_or_else(|| format!("call_{number}_{index}"));
        let kind = call.string("type")?;
        if kind.is_some_and(|kind| kind != "function") {
            return Err(ParameterError::invalid(call.path("type"), "must be `function`"));
        }
        let function = call.required("function")?;
        let mut function = Fields::of(function, call.path("function"))?;
        let name = string(function.required("name")?, || function.path("name"))?;
        let arguments = match function.object("arguments")? {
            Some(arguments) => arguments.into_members(),
            None => Map::new(),
        };
        function.accept(&["index"]);
        function.finish()?;
        call.finish()?;
        Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
    };
    calls.into_iter().enumerate().map(call).collect()
}

/// The id of the first call (of this function, if it is named) that has no result yet.
fn next_unanswered(before: &[Value], name: Option<&str>) -> Option<String> {
    let answered: Vec<&str> = before.iter().filter_map(|message| message["tool_call_id"].as_str()).collect();
    let calls = before.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
    let mut open = calls.filter(|call| name.is_none_or(|name| call["function"]["name"] == name));
    let is_open = |id: &&str| !answered.contains(id);
    open.find_map(|call| call["id"].as_str().filter(is_open)).map(str::to_owned)
}

/// Takes `tools` out of a body.
///
/// # Errors
/// For what is no function.
pub fn tools(fields: &mut Fields) -> Result<ToolUse, ParameterError> {
    let tools = fields.list("tools", MAX_TOOLS)?.unwrap_or_default();
    let numbered = tools.into_iter().enumerate();
    let tools = numbered.map(|(number, value)| tool(value, format!("tools[{number}]")));
    Ok(ToolUse { tools: tools.collect::<Result<_, _>>()?, ..ToolUse::default() })
}

fn tool(value: Value, path: String) -> Result<Tool, ParameterError> {
    let mut tool = Fields::of(value, path)?;
    if tool.string("type")?.is_some_and(|kind| kind != "function") {
        return Err(ParameterError::invalid(tool.path("type"), "must be `function`"));
    }
    let function = tool.required("function")?;
    let mut function = Fields::of(function, tool.path("function"))?;
    let name = string(function.required("name")?, || function.path("name"))?;
    if name.is_empty() || name.len() > 128 {
        return Err(ParameterError::invalid(function.path("name"), "must have 1 to 128 bytes"));
    }
    let description = function.string("description")?;
    let parameters = match function.take("parameters") {
        None => None,
        Some(schema @ Value::Object(_)) => Some(schema),
        Some(other) => {
            let reason = format!("must be an object, not {}", kind(&other));
            return Err(ParameterError::invalid(function.path("parameters"), reason));
        }
    };
    function.finish()?;
    tool.finish()?;
    Ok(Tool { name, description, parameters, strict: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn read(messages: Value) -> Result<Vec<Value>, ParameterError> {
        take(&mut Fields::of(json!({ "messages": messages }), "").expect("an object"))
    }

    #[test]
    fn messages_become_those_that_templates_know() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"x": 1}}});
        let read = read(json!([
            {"role": "user", "content": "Go", "images": []},
            {"role": "assistant", "thinking": "Hm.", "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "content": "2", "tool_name": "b"},
            {"role": "tool", "content": "1"},
        ]))
        .expect("it is a conversation");
        assert_eq!(read[0], json!({"content": "Go", "role": "user"}));
        assert_eq!(read[1]["reasoning_content"], "Hm.");
        assert_eq!(read[1]["tool_calls"][1]["function"], json!({"name": "b", "arguments": {"x": 1}}));
        assert_eq!((&read[2]["tool_call_id"], &read[2]["name"]), (&json!("call_1_1"), &json!("b")));
        assert_eq!(read[3]["tool_call_id"], "call_1_0");
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_place() {
        for (messages, param) in [
            (json!("x"), "messages"),
            (json!([7]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "robot"}]), "messages[0].role"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (json!([{"role": "user", "images": ["x"]}]), "messages[0].images"),
            (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0].function"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "x"}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (json!([{"role": "user", "colour": "red"}]), "messages[0].colour"),
        ] {
            let error = read(messages.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{messages}");
        }
        for (tools, param) in [
            (json!([{"type": "function"}]), "tools[0].function"),
            (json!([{"type": "web", "function": {"name": "a"}}]), "tools[0].type"),
            (json!([{"function": {"name": ""}}]), "tools[0].function.name"),
            (json!([{"function": {"name": "a", "parameters": []}}]), "tools[0].function.parameters"),
            (json!([{"function": {"name": "a", "strict": true}}]), "tools[0].function.strict"),
        ] {
            let read = super::tools(&mut Fields::of(json!({ "tools": tools }), "").expect("an object"));
            assert_eq!(read.expect_err("it must be refused").param(), Some(param), "{tools}");
        }
    }
}
