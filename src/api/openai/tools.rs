//! Functions that a model may call: `tools` and what belongs to them, and the older `functions`.

use serde_json::{Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::generate::{Tool, ToolChoice, ToolUse};

/// Most functions of one request, as OpenAI has it.
pub const MAX_TOOLS: usize = 128;
/// Longest name of a function.
const MAX_NAME: usize = 128;

/// What a request says of functions, and in which words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    /// What is offered, and how free the model is.
    pub tool_use: ToolUse,
    /// It came in the older words, and so must the answer.
    pub legacy: bool,
}

/// Takes them out of a body.
///
/// # Errors
/// For values that cannot be, kinds of tools that are not supported, and both words at once.
pub fn take(fields: &mut Fields) -> Result<Tools, ParameterError> {
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let tools = fields.list("tools", MAX_TOOLS)?.unwrap_or_default();
    let choice = fields.take("tool_choice");
    let functions = fields.list("functions", MAX_TOOLS)?.unwrap_or_default();
    let function_call = fields.take("function_call");
    if functions.is_empty() && function_call.as_ref().is_none_or(|call| *call == "none" || *call == "auto") {
        let tools = numbered(tools, "tools", tool)?;
        check_names(&tools, |number| format!("tools[{number}].function.name"))?;
        let choice = choice.map_or(Ok(ToolChoice::Auto), |choice| tool_choice(choice, &tools))?;
        return Ok(Tools { tool_use: ToolUse { tools, choice, parallel }, legacy: false });
    }
    if !tools.is_empty() {
        return Err(ParameterError::invalid("functions", "is the older name of `tools`; send one of them"));
    }
    let functions = numbered(functions, "functions", function)?;
    check_names(&functions, |number| format!("functions[{number}].name"))?;
    let choice = function_call.map_or(Ok(ToolChoice::Auto), |call| legacy_choice(call, &functions))?;
    // An answer in the older words has room for one call.
    Ok(Tools { tool_use: ToolUse { tools: functions, choice, parallel: false }, legacy: true })
}

fn numbered(
    values: Vec<Value>,
    name: &str,
    read: impl Fn(Fields) -> Result<Tool, ParameterError>,
) -> Result<Vec<Tool>, ParameterError> {
    let each = values.into_iter().enumerate();
    each.map(|(number, value)| read(Fields::of(value, format!("{name}[{number}]"))?)).collect()
}

/// No two functions may have one name: a call of it would be a call of either.
fn check_names(tools: &[Tool], path: impl Fn(usize) -> String) -> Result<(), ParameterError> {
    let is_second = |&number: &usize| tools[..number].iter().any(|tool| tool.name == tools[number].name);
    match (0..tools.len()).find(is_second) {
        Some(number) => Err(ParameterError::invalid(path(number), "is the name of another function too")),
        None => Ok(()),
    }
}

fn tool(mut fields: Fields) -> Result<Tool, ParameterError> {
    must_be_function(&mut fields)?;
    let path = fields.path("function");
    let tool = function(Fields::of(fields.required("function")?, path)?)?;
    fields.finish()?;
    Ok(tool)
}

/// A function's own members: its name, what it is for, and what it takes.
///
/// # Errors
/// For a name that cannot be one, and arguments that are no schema.
pub fn function(mut fields: Fields) -> Result<Tool, ParameterError> {
    let name = name(&mut fields)?;
    let description = fields.string("description")?;
    let parameters = match fields.take("parameters") {
        None => None,
        Some(schema @ Value::Object(_)) => {
            if schema.get("type").is_some_and(|kind| kind != "object") {
                let path = format!("{}.type", fields.path("parameters"));
                return Err(ParameterError::invalid(path, "must be `object`: arguments have names"));
            }
            Some(schema)
        }
        Some(other) => {
            let reason = format!("must be a JSON Schema, an object, not {}", kind(&other));
            return Err(ParameterError::invalid(fields.path("parameters"), reason));
        }
    };
    let strict = fields.boolean("strict")?.unwrap_or(false);
    fields.finish()?;
    Ok(Tool { name, description, parameters, strict })
}

fn name(fields: &mut Fields) -> Result<String, ParameterError> {
    let name = string(fields.required("name")?, || fields.path("name"))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    match (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(name),
        false => {
            let reason = format!("must have 1 to {MAX_NAME} letters, digits, `_`, `-` or `.`");
            Err(ParameterError::invalid(fields.path("name"), reason))
        }
    }
}

fn must_be_function(fields: &mut Fields) -> Result<(), ParameterError> {
    let path = fields.path("type");
    match string(fields.required("type")?, || path.clone())?.as_str() {
        "function" => Ok(()),
        "custom" | "web_search" | "file_search" | "code_interpreter" | "mcp" => {
            Err(ParameterError::unsupported(path, "the models here call functions, and nothing else"))
        }
        _ => Err(ParameterError::invalid(path, "must be `function`")),
    }
}

/// OpenAI's `tool_choice`.
fn tool_choice(choice: Value, tools: &[Tool]) -> Result<ToolChoice, ParameterError> {
    let needs_tools = |choice| match tools.is_empty() {
        true => Err(ParameterError::invalid("tool_choice", "needs `tools` to choose among")),
        false => Ok(choice),
    };
    match choice {
        Value::String(word) => match word.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" => needs_tools(ToolChoice::Required(Vec::new())),
            _ => Err(ParameterError::invalid(
                "tool_choice",
                "must be `none`, `auto`, `required`, or an object",
            )),
        },
        object @ Value::Object(_) => {
            let mut fields = Fields::of(object, "tool_choice")?;
            let choice = match fields.take("allowed_tools") {
                Some(allowed) => {
                    let is_allowed = fields.string("type")?.is_none_or(|kind| kind == "allowed_tools");
                    if !is_allowed {
                        return Err(ParameterError::invalid("tool_choice.type", "must be `allowed_tools`"));
                    }
                    allowed_tools(Fields::of(allowed, "tool_choice.allowed_tools")?, tools)?
                }
                None => ToolChoice::Required(vec![named(&mut fields, tools)?]),
            };
            fields.finish()?;
            needs_tools(choice)
        }
        other => {
            let reason = format!("must be a string or an object, not {}", kind(&other));
            Err(ParameterError::invalid("tool_choice", reason))
        }
    }
}

fn named(fields: &mut Fields, tools: &[Tool]) -> Result<String, ParameterError> {
    must_be_function(fields)?;
    let path = fields.path("function");
    let mut function = Fields::of(fields.required("function")?, path)?;
    let name = known(&mut function, tools)?;
    function.finish()?;
    Ok(name)
}

/// A name that one of the functions has.
fn known(fields: &mut Fields, tools: &[Tool]) -> Result<String, ParameterError> {
    let name = name(fields)?;
    match tools.iter().any(|tool| tool.name == name) {
        true => Ok(name),
        false => Err(ParameterError::invalid(fields.path("name"), "names a function that is not offered")),
    }
}

fn allowed_tools(mut fields: Fields, tools: &[Tool]) -> Result<ToolChoice, ParameterError> {
    let mode = string(fields.required("mode")?, || fields.path("mode"))?;
    let path = fields.path("tools");
    let allowed = fields.list("tools", MAX_TOOLS)?.unwrap_or_default();
    if allowed.is_empty() {
        return Err(ParameterError::invalid(path, "must name at least one"));
    }
    let each = allowed.into_iter().enumerate();
    let names = each.map(|(number, value)| {
        let mut fields = Fields::of(value, format!("{path}[{number}]"))?;
        let name = named(&mut fields, tools)?;
        fields.finish()?;
        Ok(name)
    });
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let choice = match mode.as_str() {
        "auto" => ToolChoice::Among(names),
        "required" => ToolChoice::Required(names),
        _ => return Err(ParameterError::invalid(fields.path("mode"), "must be `auto` or `required`")),
    };
    fields.finish()?;
    Ok(choice)
}

fn legacy_choice(call: Value, functions: &[Tool]) -> Result<ToolChoice, ParameterError> {
    match call {
        word if word == json!("none") => Ok(ToolChoice::None),
        word if word == json!("auto") => Ok(ToolChoice::Auto),
        object @ Value::Object(_) => {
            let mut fields = Fields::of(object, "function_call")?;
            let name = known(&mut fields, functions)?;
            fields.finish()?;
            Ok(ToolChoice::Required(vec![name]))
        }
        _ => {
            Err(ParameterError::invalid("function_call", "must be `none`, `auto`, or an object with a name"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn read(body: Value) -> Result<Tools, ParameterError> {
        let mut fields = Fields::of(body, "").expect("an object");
        let tools = take(&mut fields)?;
        fields.finish().map(|()| tools)
    }

    fn offered() -> Value {
        json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": true}},
               {"type": "function", "function": {"name": "now", "description": "The time"}}])
    }

    #[test]
    fn each_choice_is_understood() {
        let named = json!({"type": "function", "function": {"name": "now"}});
        let allowed =
            |mode: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named]}});
        for (choice, expected) in [
            (json!(null), ToolChoice::Auto),
            (json!("auto"), ToolChoice::Auto),
            (json!("none"), ToolChoice::None),
            (json!("required"), ToolChoice::Required(Vec::new())),
            (named.clone(), ToolChoice::Required(vec!["now".into()])),
            (allowed("auto"), ToolChoice::Among(vec!["now".into()])),
            (allowed("required"), ToolChoice::Required(vec!["now".into()])),
        ] {
            let read = read(json!({"tools": offered(), "tool_choice": choice})).expect("it is good");
            assert_eq!(read.tool_use.choice, expected, "{choice}");
            assert!(read.tool_use.parallel && !read.legacy && read.tool_use.tools[0].strict);
        }
    }

    #[test]
    fn the_older_words_mean_the_same() {
        let functions = json!([{"name": "now", "parameters": {"type": "object"}}]);
        let read =
            read(json!({"functions": functions, "function_call": {"name": "now"}})).expect("it is good");
        assert_eq!(read.tool_use.choice, ToolChoice::Required(vec!["now".into()]));
        assert!(read.legacy && !read.tool_use.parallel);
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_place() {
        let many = json!(vec![offered()[0].clone(); MAX_TOOLS + 1]);
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": many}), "tools"),
            (json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}),
                "tools[0].function.parameters",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "more": 1}}]}),
                "tools[0].function.more",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}]}),
                "tools[0].function.parameters.type",
            ),
            (json!({"tools": [offered()[1], offered()[1]]}), "tools[1].function.name"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tools": offered(), "tool_choice": "perhaps"}), "tool_choice"),
            (
                json!({"tools": offered(), "tool_choice": {"type": "function", "function": {"name": "x"}}}),
                "tool_choice.function.name",
            ),
            (json!({"tools": offered(), "functions": [{"name": "x"}]}), "functions"),
            (json!({"functions": [{"name": "x"}], "function_call": {"name": "y"}}), "function_call.name"),
            (json!({"parallel_tool_calls": "no"}), "parallel_tool_calls"),
        ] {
            let error = read(body.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{body}");
        }
    }
}
