//! `tools`, `tool_choice` and what goes with them, in the shape of `/v1/responses`.

use serde_json::{Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::generate::{Tool, ToolChoice, ToolUse};

/// Most functions of one request.
pub const MAX_TOOLS: usize = 128;

const LONGEST_NAME: usize = 64;

/// Tools that others have built in.
const BUILT_IN: [&str; 19] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use",
    "computer_use_preview",
    "custom",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "function_shell",
];

/// What a request says of tools: for the model, and to be shown again.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    /// What the model is told.
    pub used: ToolUse,
    /// Most calls of tools that a server runs.
    pub most_calls: Option<u32>,
    /// `tools` as it is shown.
    pub shown: Value,
    /// `tool_choice` as it is shown.
    pub choice: Value,
}

impl Tools {
    /// Takes them out of a body.
    ///
    /// # Errors
    /// For tools that are not functions, and choices among what is not there.
    pub fn take(fields: &mut Fields) -> Result<Self, ParameterError> {
        let path = fields.path("tools");
        let given = fields.list("tools", MAX_TOOLS)?.unwrap_or_default();
        let mut tools = Vec::with_capacity(given.len());
        for (number, value) in given.into_iter().enumerate() {
            let tool = function(value, format!("{path}[{number}]"))?;
            if tools.iter().any(|earlier: &Tool| earlier.name == tool.name) {
                let reason = format!("stands twice: there are two functions `{}`", tool.name);
                return Err(ParameterError::invalid(format!("{path}[{number}].name"), reason));
            }
            tools.push(tool);
        }
        let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        let (choice, shown_choice) = choice(fields, &tools)?;
        // Of the tools that are run by a server: none is, so that the bound always holds.
        let most_calls = fields.small_integer("max_tool_calls", 1..=u32::MAX)?;
        let shown = tools.iter().map(shown).collect();
        Ok(Self { used: ToolUse { tools, choice, parallel }, most_calls, shown, choice: shown_choice })
    }
}

fn shown(tool: &Tool) -> Value {
    json!({"type": "function", "name": tool.name, "description": tool.description,
        "parameters": tool.parameters, "strict": tool.strict})
}

fn function(value: Value, path: String) -> Result<Tool, ParameterError> {
    let mut fields = Fields::of(value, path)?;
    let named = string(fields.required("type")?, || fields.path("type"))?;
    if named != "function" {
        return Err(not_a_function(&named, fields.path("type")));
    }
    let name = function_name(&mut fields)?;
    let description = fields.string("description")?;
    let parameters = match fields.take("parameters") {
        None => None,
        Some(schema @ Value::Object(_)) => Some(schema),
        Some(other) => {
            let reason = format!("must be an object, not {}", kind(&other));
            return Err(ParameterError::invalid(fields.path("parameters"), reason));
        }
    };
    let strict = fields.boolean("strict")?.unwrap_or(true) && parameters.is_some();
    for (name, reason) in
        [("defer_loading", "all functions are shown at once"), ("async", "calls are waited for")]
    {
        if fields.boolean(name)? == Some(true) {
            return Err(ParameterError::unsupported(fields.path(name), reason));
        }
    }
    if let Some(callers) = fields.list("allowed_callers", 2)?
        && callers != [json!("direct")]
    {
        let reason = "only the model itself calls functions: `[\"direct\"]`";
        return Err(ParameterError::unsupported(fields.path("allowed_callers"), reason));
    }
    fields.refuse(&[("output_schema", "what a function gives is not looked at")])?;
    fields.finish()?;
    Ok(Tool { name, description, parameters, strict })
}

fn function_name(fields: &mut Fields) -> Result<String, ParameterError> {
    let name = string(fields.required("name")?, || fields.path("name"))?;
    if is_name(&name) {
        return Ok(name);
    }
    let reason = format!("must have 1 to {LONGEST_NAME} letters, digits, `_` and `-`");
    Err(ParameterError::invalid(fields.path("name"), reason))
}

/// Whether a function or a format may be called so.
pub fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(is_part)
}

fn not_a_function(named: &str, path: String) -> ParameterError {
    if BUILT_IN.contains(&named) {
        let reason = format!("`{named}` is not built in here; functions are called by whoever asks");
        return ParameterError::unsupported(path, reason);
    }
    let named: String = named.chars().take(64).collect();
    ParameterError::invalid(path, format!("must be `function`, not `{named}`"))
}

fn choice(fields: &mut Fields, tools: &[Tool]) -> Result<(ToolChoice, Value), ParameterError> {
    let path = fields.path("tool_choice");
    let value = match fields.take("tool_choice") {
        None => return Ok((ToolChoice::Auto, json!("auto"))),
        Some(Value::String(text)) => {
            return plain_choice(&text, tools, path).map(|choice| (choice, json!(text)));
        }
        Some(value) => value,
    };
    let shown = value.clone();
    let mut fields = Fields::of(value, path)?;
    let named = string(fields.required("type")?, || fields.path("type"))?;
    let choice = match named.as_str() {
        "function" => {
            let name = function_name(&mut fields)?;
            check_known(&name, tools, fields.path("name"))?;
            ToolChoice::Required(vec![name])
        }
        "allowed_tools" => allowed(&mut fields, tools)?,
        _ => return Err(not_a_function(&named, fields.path("type"))),
    };
    fields.finish()?;
    Ok((choice, shown))
}

fn plain_choice(text: &str, tools: &[Tool], path: String) -> Result<ToolChoice, ParameterError> {
    match text {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" if tools.is_empty() => Err(ParameterError::invalid(path, "needs `tools` to choose among")),
        "required" => Ok(ToolChoice::Required(Vec::new())),
        _ => Err(ParameterError::invalid(path, "must be none, auto, required or an object")),
    }
}

fn allowed(fields: &mut Fields, tools: &[Tool]) -> Result<ToolChoice, ParameterError> {
    let mode = string(fields.required("mode")?, || fields.path("mode"))?;
    let path = fields.path("tools");
    let given = fields.list("tools", MAX_TOOLS)?.unwrap_or_default();
    if given.is_empty() {
        return Err(ParameterError::invalid(path, "must name at least one function"));
    }
    let mut names = Vec::with_capacity(given.len());
    for (number, value) in given.into_iter().enumerate() {
        let mut one = Fields::of(value, format!("{path}[{number}]"))?;
        let named = string(one.required("type")?, || one.path("type"))?;
        if named != "function" {
            return Err(not_a_function(&named, one.path("type")));
        }
        let name = function_name(&mut one)?;
        check_known(&name, tools, one.path("name"))?;
        one.finish()?;
        names.push(name);
    }
    match mode.as_str() {
        "auto" => Ok(ToolChoice::Among(names)),
        "required" => Ok(ToolChoice::Required(names)),
        _ => Err(ParameterError::invalid(fields.path("mode"), "must be auto or required")),
    }
}

fn check_known(name: &str, tools: &[Tool], path: String) -> Result<(), ParameterError> {
    if tools.iter().any(|tool| tool.name == name) {
        return Ok(());
    }
    Err(ParameterError::invalid(path, format!("names no function of `tools`: `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Failure};

    fn read(body: Value) -> Result<Tools, ParameterError> {
        let mut fields = Fields::of(body, "").expect("an object");
        let tools = Tools::take(&mut fields)?;
        fields.finish()?;
        Ok(tools)
    }

    fn weather() -> Value {
        json!({"type": "function", "name": "weather", "description": "Of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}})
    }

    #[test]
    fn every_choice_is_understood() {
        let both = |choice: Value| {
            let time = json!({"type": "function", "name": "time", "parameters": null, "strict": null});
            read(json!({"tools": [weather(), time], "tool_choice": choice})).expect("it is right").used.choice
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(both(Value::Null), ToolChoice::Auto);
        assert_eq!(both(json!("none")), ToolChoice::None);
        assert_eq!(both(json!("required")), ToolChoice::Required(Vec::new()));
        let named = json!({"type": "function", "name": "time"});
        assert_eq!(both(named.clone()), ToolChoice::Required(names(&["time"])));
        let among = json!({"type": "allowed_tools", "mode": "auto", "tools": [named]});
        assert_eq!(both(among.clone()), ToolChoice::Among(names(&["time"])));
        let mut required = among;
        required["mode"] = "required".into();
        assert_eq!(both(required), ToolChoice::Required(names(&["time"])));
    }

    #[test]
    fn functions_are_shown_as_they_were_understood() {
        let tools = read(json!({"tools": [weather()], "parallel_tool_calls": false})).expect("it is right");
        assert!(tools.used.tools[0].strict && !tools.used.parallel);
        assert_eq!((&tools.shown[0]["strict"], &tools.choice), (&json!(true), &json!("auto")));
    }

    #[test]
    fn what_is_no_function_of_ours_is_refused_by_name() {
        for (body, param, code) in [
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type", Code::UnsupportedParameter),
            (
                json!({"tools": [{"type": "mcp", "server_label": "x"}]}),
                "tools[0].type",
                Code::UnsupportedParameter,
            ),
            (json!({"tools": [{"type": "sorcery"}]}), "tools[0].type", Code::InvalidValue),
            (json!({"tools": [{"type": "function", "name": "a b"}]}), "tools[0].name", Code::InvalidValue),
            (json!({"tools": [weather(), weather()]}), "tools[1].name", Code::InvalidValue),
            (json!({"tool_choice": "required"}), "tool_choice", Code::InvalidValue),
            (json!({"tool_choice": "sometimes"}), "tool_choice", Code::InvalidValue),
            (
                json!({"tool_choice": {"type": "function", "name": "time"}}),
                "tool_choice.name",
                Code::InvalidValue,
            ),
            (json!({"tool_choice": {"type": "file_search"}}), "tool_choice.type", Code::UnsupportedParameter),
        ] {
            let error = read(body.clone()).expect_err("it must be refused");
            assert_eq!((error.param(), error.code()), (Some(param), code), "{body}: {error}");
        }
    }
}
