//! `tools` and `tool_choice`: Anthropic's shape → what may be called.

use serde_json::Value;

use crate::api::anthropic::{cache_control, short};
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::generate::{Tool, ToolChoice, ToolUse};

const MAX_TOOLS: usize = 512;
const MAX_NAME: usize = 128;

/// Takes both out of a body.
///
/// # Errors
/// For what is no tool, tools that Anthropic itself would run, and a choice of what is not there.
pub fn take(fields: &mut Fields) -> Result<ToolUse, ParameterError> {
    let tools = fields.list("tools", MAX_TOOLS)?.unwrap_or_default();
    let numbered = tools.into_iter().enumerate();
    let tools = numbered.map(|(number, value)| tool(value, format!("tools[{number}]")));
    let tools = tools.collect::<Result<Vec<Tool>, _>>()?;
    for (number, tool) in tools.iter().enumerate() {
        if tools[..number].iter().any(|other| other.name == tool.name) {
            let reason = format!("`{}` is the name of another tool, too", tool.name);
            return Err(ParameterError::invalid(format!("tools[{number}].name"), reason));
        }
    }
    let (choice, parallel) = choice(fields, &tools)?;
    Ok(ToolUse { tools, choice, parallel })
}

fn tool(value: Value, path: String) -> Result<Tool, ParameterError> {
    let mut fields = Fields::of(value, path)?;
    if let Some(kind) = fields.string("type")?.filter(|kind| kind != "custom") {
        let reason =
            format!("`{}` is run or known by Anthropic alone; describe it as a `custom` tool", short(&kind));
        return Err(ParameterError::unsupported(fields.path("type"), reason));
    }
    let name = string(fields.required("name")?, || fields.path("name"))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(is_plain) {
        let reason = format!("must have 1 to {MAX_NAME} letters, digits, `_` or `-`");
        return Err(ParameterError::invalid(fields.path("name"), reason));
    }
    let (schema, path) = (fields.required("input_schema")?, fields.path("input_schema"));
    let schema = Fields::of(schema, path.clone())?.into_members();
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err(ParameterError::invalid(format!("{path}.type"), "must be `object`"));
    }
    let description = fields.string("description")?;
    let strict = fields.boolean("strict")?.unwrap_or(false);
    cache_control(&mut fields)?;
    check_fixed_values(&mut fields)?;
    fields.finish()?;
    Ok(Tool { name, description, parameters: Some(Value::Object(schema)), strict })
}

/// Members that may have only the value that changes nothing.
fn check_fixed_values(fields: &mut Fields) -> Result<(), ParameterError> {
    if fields.boolean("defer_loading")? == Some(true) {
        let reason = "every tool is shown to the model at once";
        return Err(ParameterError::unsupported(fields.path("defer_loading"), reason));
    }
    if fields.boolean("eager_input_streaming")? == Some(false) {
        let reason = "a stream sends arguments as they come";
        return Err(ParameterError::unsupported(fields.path("eager_input_streaming"), reason));
    }
    if fields.list("allowed_callers", 8)?.is_some_and(|callers| callers != ["direct"]) {
        let reason = "functions are called by the model itself: `direct`";
        return Err(ParameterError::unsupported(fields.path("allowed_callers"), reason));
    }
    fields.refuse(&[("input_examples", "put them into the description")])
}

/// How free the model is, and whether one answer may hold several calls.
fn choice(fields: &mut Fields, tools: &[Tool]) -> Result<(ToolChoice, bool), ParameterError> {
    let Some(mut given) = fields.object("tool_choice")? else { return Ok((ToolChoice::Auto, true)) };
    let kind = string(given.required("type")?, || given.path("type"))?;
    if tools.is_empty() && kind != "none" {
        return Err(ParameterError::invalid("tool_choice", "needs `tools` to choose from"));
    }
    let choice = match kind.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required(Vec::new()),
        "none" => ToolChoice::None,
        "tool" => {
            let name = string(given.required("name")?, || given.path("name"))?;
            if !tools.iter().any(|tool| tool.name == name) {
                let reason = format!("must be the name of one of the `tools`, not `{}`", short(&name));
                return Err(ParameterError::invalid(given.path("name"), reason));
            }
            ToolChoice::Required(vec![name])
        }
        other => {
            let reason = format!("must be auto, any, tool or none, not `{}`", short(other));
            return Err(ParameterError::invalid(given.path("type"), reason));
        }
    };
    let parallel = !given.boolean("disable_parallel_tool_use")?.unwrap_or(false);
    given.finish()?;
    Ok((choice, parallel))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Failure;

    fn read(body: Value) -> Result<ToolUse, ParameterError> {
        take(&mut Fields::of(body, "").expect("an object"))
    }

    fn weather() -> Value {
        json!({"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}})
    }

    #[test]
    fn tools_and_choices_are_read() {
        let offered =
            |choice: Value| read(json!({"tools": [weather()], "tool_choice": choice})).expect("it is right");
        let all = offered(json!({"type": "auto"}));
        let tool = &all.tools[0];
        assert_eq!((tool.name.as_str(), tool.description.as_deref()), ("weather", Some("Tells it.")));
        assert_eq!((&tool.parameters, tool.strict), (&Some(json!({"type": "object"})), false));
        assert_eq!((all.choice, all.parallel), (ToolChoice::Auto, true));
        let any = offered(json!({"type": "any", "disable_parallel_tool_use": true}));
        assert_eq!((any.choice, any.parallel), (ToolChoice::Required(Vec::new()), false));
        let one = offered(json!({"type": "tool", "name": "weather"}));
        assert_eq!(one.choice, ToolChoice::Required(vec!["weather".to_owned()]));
        assert_eq!(offered(json!({"type": "none"})).choice, ToolChoice::None);
    }

    #[test]
    fn what_cannot_be_offered_or_chosen_is_refused_by_its_place() {
        let changed = |name: &str, value: Value| {
            let mut tool = weather();
            tool[name] = value;
            json!({"tools": [tool]})
        };
        let choosing = |choice: Value| json!({"tools": [weather()], "tool_choice": choice});
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": [{}]}), "tools[0].name"),
            (json!({"tools": [weather(), weather()]}), "tools[1].name"),
            (changed("type", json!("web_search_20250305")), "tools[0].type"),
            (changed("name", json!("a b")), "tools[0].name"),
            (changed("input_schema", json!("x")), "tools[0].input_schema"),
            (changed("input_schema", json!({"type": "string"})), "tools[0].input_schema.type"),
            (changed("defer_loading", json!(true)), "tools[0].defer_loading"),
            (changed("eager_input_streaming", json!(false)), "tools[0].eager_input_streaming"),
            (changed("allowed_callers", json!(["code_execution_20250825"])), "tools[0].allowed_callers"),
            (changed("input_examples", json!([{}])), "tools[0].input_examples"),
            (changed("parameters", json!({})), "tools[0].parameters"),
            (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
            (choosing(json!("auto")), "tool_choice"),
            (choosing(json!({"type": "some"})), "tool_choice.type"),
            (choosing(json!({"type": "tool"})), "tool_choice.name"),
            (choosing(json!({"type": "tool", "name": "other"})), "tool_choice.name"),
            (choosing(json!({"type": "auto", "name": "weather"})), "tool_choice.name"),
        ] {
            let error = read(body.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{body}");
        }
    }
}
