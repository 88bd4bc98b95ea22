//! A conversation as the model's template can show it: functions and calls in the words of models that know them, and for
//! the others put into plain messages.
//!
//! Messages come in OpenAI's shape. Templates differ in what they know: of functions, of calls in an answer, of results;
//! what one does not know of is told in text, in the way of writing that its reader looks for.

use sconce_models::ChatTemplate;
use serde_json::{Map, Value, json};

use crate::generate::format::Format;
use crate::generate::{Effort, GenerateError, Names, Reasoning, Tool, ToolChoice, ToolUse, Verbosity};

/// What a template knows of, by the words in it.
struct Knowledge<'a>(&'a str);

impl Knowledge<'_> {
    fn tools(&self) -> bool {
        self.0.contains("tools")
    }

    fn calls(&self) -> bool {
        self.0.contains("tool_calls")
    }

    fn results(&self) -> bool {
        ["\"tool\"", "'tool'", "tool_response", "ipython"].iter().any(|word| self.0.contains(word))
    }

    fn system(&self) -> bool {
        !self.0.contains("System role not supported")
    }

    /// Whether arguments are to be an object; otherwise they are put between texts as one.
    fn arguments_as_object(&self) -> bool {
        ["arguments | tojson", "arguments|tojson", "arguments | items", "arguments|items", "arguments.items"]
            .iter()
            .any(|word| self.0.contains(word))
    }

    fn short_call_ids(&self) -> bool {
        self.0.contains("length != 9") || self.0.contains("length == 9")
    }
}

/// The functions that a request offers to the model: none where it may call none.
pub(super) fn offered(tool_use: &ToolUse) -> Vec<Tool> {
    let among = match &tool_use.choice {
        ToolChoice::None => return Vec::new(),
        ToolChoice::Auto => return tool_use.tools.clone(),
        ToolChoice::Required(names) | ToolChoice::Among(names) if names.is_empty() => {
            return tool_use.tools.clone();
        }
        ToolChoice::Required(names) | ToolChoice::Among(names) => names,
    };
    tool_use.tools.iter().filter(|tool| among.contains(&tool.name)).cloned().collect()
}

/// Messages and functions for a template.
pub(super) struct Conversation {
    /// The messages.
    pub messages: Vec<Value>,
    /// The functions; empty where the template knows of none.
    pub tools: Vec<Value>,
}

impl Conversation {
    /// Of these messages, with these functions.
    pub fn new(
        template: &ChatTemplate,
        format: Format,
        messages: Vec<Value>,
        tools: &[Tool],
        tool_use: &ToolUse,
    ) -> Self {
        let knows = Knowledge(template.source());
        let mut messages = named_results(messages);
        if knows.short_call_ids() {
            messages.iter_mut().for_each(shorten_ids);
        }
        if knows.calls() {
            messages.iter_mut().for_each(|message| convert_arguments(message, knows.arguments_as_object()));
        } else {
            messages = messages.into_iter().map(|message| calls_as_text(message, format)).collect();
        }
        if !knows.results() {
            messages = messages.into_iter().map(result_as_text).collect();
        }
        let mut shown = Vec::new();
        if knows.tools() {
            shown = tools.iter().map(definition).collect();
        } else if !tools.is_empty() {
            put_first(&mut messages, &format.instructions(tools, tool_use), knows.system());
        }
        Self { messages, tools: shown }
    }
}

/// A function in OpenAI's shape.
pub(super) fn definition(tool: &Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), json!(tool.name));
    // Templates print what is there, and some fail on what is not.
    function.insert("description".to_owned(), json!(tool.description.as_deref().unwrap_or_default()));
    let none = || json!({"type": "object", "properties": {}});
    function.insert("parameters".to_owned(), tool.parameters.clone().unwrap_or_else(none));
    json!({"type": "function", "function": function})
}

/// The calls in a message.
fn calls(message: &Value) -> &[Value] {
    message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Puts the function's name to each result that has none: some templates show it.
fn named_results(mut messages: Vec<Value>) -> Vec<Value> {
    let mut names: Map<String, Value> = Map::new();
    for message in &mut messages {
        for call in calls(message) {
            if let (Some(id), Some(name)) = (call["id"].as_str(), call.pointer("/function/name")) {
                names.insert(id.to_owned(), name.clone());
            }
        }
        let is_result = message["role"] == "tool" && message.get("name").is_none();
        let id = message.get("tool_call_id").and_then(Value::as_str);
        if let Some(name) = id.filter(|_| is_result).and_then(|id| names.get(id)).cloned() {
            message["name"] = name;
        }
    }
    messages
}

fn convert_arguments(message: &mut Value, as_object: bool) {
    let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) else { return };
    for call in calls {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        *arguments = match &*arguments {
            Value::String(text) if as_object => match serde_json::from_str(text) {
                Ok(object @ Value::Object(_)) => object,
                _ => continue,
            },
            Value::String(_) => continue,
            object if !as_object => Value::String(object.to_string()),
            _ => continue,
        };
    }
}

/// Mistral's templates take ids of nine letters and digits only.
fn shorten_ids(message: &mut Value) {
    let short = |id: &Value| {
        let text = id.as_str().unwrap_or_default();
        let fits = text.len() == 9 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if fits { id.clone() } else { json!(nine_letters(text)) }
    };
    if let Some(id) = message.get("tool_call_id").map(short) {
        message["tool_call_id"] = id;
    }
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        call["id"] = short(&call["id"]);
    }
}

/// Nine letters and digits that stand for a text (FNV-1a, in base 36).
fn nine_letters(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digit = |place: u32| {
        let digit = u8::try_from(hash / 36_u64.pow(place) % 36).unwrap_or(0);
        char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
    };
    (0..9).map(digit).collect()
}

/// Text as it stands in a message; `null` is none.
fn content(message: &Value) -> &str {
    message.get("content").and_then(Value::as_str).unwrap_or_default()
}

fn calls_as_text(message: Value, format: Format) -> Value {
    if calls(&message).is_empty() {
        return message;
    }
    let calls: Vec<(&str, String)> = calls(&message)
        .iter()
        .map(|call| {
            let arguments = match &call["function"]["arguments"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (call["function"]["name"].as_str().unwrap_or_default(), arguments)
        })
        .collect();
    let written = format.written(&calls);
    let text = content(&message);
    let separator = if text.is_empty() { "" } else { "\n" };
    json!({"role": "assistant", "content": format!("{text}{separator}{written}")})
}

fn result_as_text(message: Value) -> Value {
    if message["role"] != "tool" {
        return message;
    }
    let name = message.get("name").and_then(Value::as_str).unwrap_or("function");
    json!({"role": "user", "content": format!("<tool_response>\n{name}: {}\n</tool_response>", content(&message))})
}

/// Puts words before a conversation: into the system's message, or the first where there can be none.
fn put_first(messages: &mut Vec<Value>, words: &str, knows_system: bool) {
    let role = if knows_system { "system" } else { "user" };
    match messages.first_mut().filter(|first| first["role"] == role) {
        Some(first) => {
            let own = content(first).to_owned();
            first["content"] =
                json!(if knows_system { format!("{own}\n\n{words}") } else { format!("{words}\n\n{own}") });
        }
        None => messages.insert(0, json!({"role": role, "content": words})),
    }
}

/// How much a model thinks, in its template's variables. What the caller set by hand stays.
///
/// # Errors
/// [`GenerateError::Unsupported`] for a model that does not think, or does so always.
pub(super) fn set_effort(
    variables: &mut Map<String, Value>,
    source: &str,
    format: Format,
    reasoning: Reasoning,
    names: &Names,
) -> Result<(), GenerateError> {
    let unsupported =
        |param, reason: &str| Err(GenerateError::Unsupported { param, reason: reason.to_owned() });
    let thinks = format.thoughts().is_some();
    if reasoning.budget.is_some() && format.thought_marks().is_none() {
        return unsupported(names.budget, "this model's thoughts cannot be told apart from its answer");
    }
    let Some(effort) = reasoning.effort else { return Ok(()) };
    let mut set = |name: &str, value: Value| {
        variables.entry(name).or_insert(value);
    };
    if mentions(source, "reasoning_effort") {
        let level = match effort {
            Effort::None | Effort::Minimal | Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High | Effort::Maximal => "high",
        };
        set("reasoning_effort", json!(level));
    }
    for switch in ["enable_thinking", "thinking"].into_iter().filter(|switch| mentions(source, switch)) {
        set(switch, json!(effort != Effort::None));
    }
    let can_be_set =
        ["enable_thinking", "thinking", "reasoning_effort"].iter().any(|name| mentions(source, name));
    match (effort, thinks) {
        (Effort::None, true) if !can_be_set => {
            unsupported(names.effort, "this model always thinks before it answers")
        }
        (Effort::None, _) | (_, true) => Ok(()),
        (_, false) => unsupported(names.effort, "this model does not think before it answers"),
    }
}

/// How much a model says, in its template's variables. The usual is what every model does without being told.
///
/// # Errors
/// [`GenerateError::Unsupported`] for a model that cannot be told.
pub(super) fn set_verbosity(
    variables: &mut Map<String, Value>,
    source: &str,
    verbosity: Option<Verbosity>,
    names: &Names,
) -> Result<(), GenerateError> {
    let Some(verbosity) = verbosity else { return Ok(()) };
    if mentions(source, "verbosity") {
        variables.entry("verbosity").or_insert(json!(verbosity.name()));
        return Ok(());
    }
    match verbosity {
        Verbosity::Medium => Ok(()),
        Verbosity::Low | Verbosity::High => {
            let reason = "this model cannot be told how much to say, only asked in words".to_owned();
            Err(GenerateError::Unsupported { param: names.verbosity, reason })
        }
    }
}

/// Whether a template has this name in it, and not as a part of another.
fn mentions(source: &str, name: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    source.match_indices(name).any(|(at, _)| {
        let after = &source[at + name.len()..];
        !source[..at].ends_with(is_part) && !after.starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIC: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, None, None).expect("it is sound")
    }

    fn tool() -> Tool {
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        Tool {
            name: "weather".into(),
            description: Some("Tells it".into()),
            parameters: Some(parameters),
            strict: false,
        }
    }

    fn exchange() -> Vec<Value> {
        vec![
            json!({"role": "user", "content": "Well?"}),
            json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]}),
            json!({"role": "tool", "tool_call_id": "call_1", "content": "rain"}),
        ]
    }

    fn shown(source: &str, tools: &[Tool]) -> Conversation {
        let template = template(source);
        let format = Format::of(source, None);
        Conversation::new(&template, format, exchange(), tools, &ToolUse::default())
    }

    #[test]
    fn a_template_that_knows_nothing_is_told_in_text() {
        let shown = shown(BASIC, &[tool()]);
        assert!(shown.tools.is_empty());
        let roles: Vec<_> =
            shown.messages.iter().map(|message| message["role"].as_str().unwrap_or("")).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert!(content(&shown.messages[0]).contains("weather"), "{}", shown.messages[0]);
        assert!(
            content(&shown.messages[2])
                .contains("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}")
        );
        assert!(content(&shown.messages[3]).contains("weather: rain"));
    }

    #[test]
    fn a_template_that_knows_calls_gets_them_as_it_wants_them() {
        let knows = "{{ tools }}{% if m.role == 'tool' %}{% endif %}";
        let as_object = shown(&format!("{knows}{{{{ tool_calls.arguments | tojson }}}}"), &[tool()]);
        assert_eq!(as_object.tools[0]["function"]["name"], "weather");
        assert_eq!(as_object.messages[1]["tool_calls"][0]["function"]["arguments"], json!({"city": "Oslo"}));
        assert_eq!(as_object.messages[2]["name"], "weather");
        let as_text = shown(&format!("{knows}{{{{ tool_calls.arguments + '' }}}}"), &[tool()]);
        assert_eq!(as_text.messages[1]["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Oslo\"}");
        let short = shown(&format!("{knows}{{{{ tool_calls.id|length != 9 }}}}"), &[tool()]);
        let id = short.messages[1]["tool_calls"][0]["id"].clone();
        assert_eq!(id.as_str().map(str::len), Some(9));
        assert_eq!(short.messages[2]["tool_call_id"], id);
    }

    #[test]
    fn only_what_may_be_called_is_offered() {
        let tools = vec![tool(), Tool { name: "now".into(), ..tool() }];
        let named = |choice| {
            let offered = offered(&ToolUse { tools: tools.clone(), choice, parallel: true });
            offered.into_iter().map(|tool| tool.name).collect::<Vec<_>>()
        };
        assert_eq!(named(ToolChoice::Auto), ["weather", "now"]);
        assert_eq!(named(ToolChoice::None), [""; 0]);
        assert_eq!(named(ToolChoice::Required(Vec::new())), ["weather", "now"]);
        assert_eq!(named(ToolChoice::Among(vec!["now".into()])), ["now"]);
    }

    #[test]
    fn effort_becomes_the_templates_own_variables() {
        let set = |source: &str, effort| {
            let mut variables = Map::new();
            let reasoning = Reasoning { effort: Some(effort), budget: None };
            set_effort(&mut variables, source, Format::of(source, None), reasoning, &Names::default())
                .map(|()| Value::Object(variables))
        };
        let switched = "{{ enable_thinking }}<think></think>";
        assert_eq!(set(switched, Effort::None).expect("it can"), json!({"enable_thinking": false}));
        assert_eq!(set(switched, Effort::Low).expect("it can"), json!({"enable_thinking": true}));
        let levels = "{{ reasoning_effort }}<|channel|><|message|>";
        assert_eq!(set(levels, Effort::High).expect("it can"), json!({"reasoning_effort": "high"}));
        assert_eq!(set("no thoughts", Effort::None).expect("nor does it"), json!({}));
        assert!(set("no thoughts", Effort::Low).is_err());
        assert!(set("<think></think>", Effort::None).is_err());
    }

    #[test]
    fn verbosity_is_told_to_templates_that_know_of_it() {
        let set = |source: &str, level| {
            let mut variables = Map::new();
            set_verbosity(&mut variables, source, Some(level), &Names::default())
                .map(|()| Value::Object(variables))
        };
        assert_eq!(set("{{ verbosity }}", Verbosity::Low).expect("it can"), json!({"verbosity": "low"}));
        assert_eq!(
            set("{{ verbosity }}", Verbosity::Medium).expect("it can"),
            json!({"verbosity": "medium"})
        );
        assert_eq!(set("", Verbosity::Medium).expect("it is the usual"), json!({}));
        let refused = set("", Verbosity::High).expect_err("it cannot be told");
        assert!(matches!(refused, GenerateError::Unsupported { param: "verbosity", .. }), "{refused}");
    }
}
