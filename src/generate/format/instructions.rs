//! What calls look like in words: an earlier call written again, and what is said to a model whose template does not
//! know of functions.

use serde_json::{Map, Value};

use crate::generate::format::Format;
use crate::generate::format::family::Arguments;
use crate::generate::{Tool, ToolChoice, ToolUse};

impl Format {
    /// Calls (name, arguments as JSON) as the model writes them.
    pub fn written(&self, calls: &[(&str, String)]) -> String {
        let shape = self.family.shape();
        let each = calls.iter().map(|(name, arguments)| {
            let arguments = match shape.arguments {
                Arguments::Json => arguments.clone(),
                Arguments::Parameters => parameters(arguments),
                Arguments::Pairs(quote) => pairs(arguments, quote),
            };
            [shape.before_name, name, shape.before_arguments, &arguments, shape.after].concat()
        });
        let each: Vec<String> = each.collect();
        [shape.open, &each.join(shape.between.unwrap_or("\n")), shape.close].concat()
    }

    /// What a model is told of functions, and of how to call them.
    pub fn instructions(&self, tools: &[Tool], tool_use: &ToolUse) -> String {
        let signatures: Vec<String> = tools.iter().map(|tool| signature(tool).to_string()).collect();
        let example = self.written(&[("NAME", "{\"PARAMETER\": \"VALUE\"}".to_owned())]);
        let duty = match tool_use.choice {
            ToolChoice::Required(_) => "Answer with a call of one of them.",
            _ => "Call one where it helps to answer; otherwise answer in words, without a call.",
        };
        let number = match tool_use.parallel {
            true => "",
            false => " Call one function at a time.",
        };
        format!(
            "You can call these functions. Each line describes one: its name, what it does, and the JSON Schema of its \
             arguments.\n{}\n{duty}{number} Write a call exactly so, with the name of the function and its \
             arguments:\n{example}\nThe result comes in the next message.",
            signatures.join("\n")
        )
    }
}

fn signature(tool: &Tool) -> Value {
    let mut members = Map::new();
    members.insert("name".to_owned(), Value::from(tool.name.as_str()));
    if let Some(description) = &tool.description {
        members.insert("description".to_owned(), Value::from(description.as_str()));
    }
    members.insert(
        "parameters".to_owned(),
        tool.parameters.clone().unwrap_or_else(|| Value::Object(Map::new())),
    );
    Value::Object(members)
}

fn object(arguments: &str) -> Map<String, Value> {
    serde_json::from_str(arguments).unwrap_or_default()
}

fn parameters(arguments: &str) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let each = object(arguments).into_iter();
    each.map(|(key, value)| format!("<parameter={key}>\n{}\n</parameter>\n", shown(&value))).collect()
}

fn pairs(arguments: &str, quote: &str) -> String {
    pair_value(&Value::Object(object(arguments)), quote)
}

fn pair_value(value: &Value, quote: &str) -> String {
    match value {
        Value::String(text) => format!("{quote}{text}{quote}"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| pair_value(item, quote)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let pair = |(key, value): (&String, &Value)| format!("{key}:{}", pair_value(value, quote));
            let members: Vec<String> = members.iter().map(pair).collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}
