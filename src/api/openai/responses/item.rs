//! The items of a conversation, as `/v1/responses` has them: read from what a client sends or from what is stored, and
//! written as they are shown. What templates make of them is in `conversation.rs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::api::openai::responses::item_id::item_id;

/// Most items of one request.
pub const MAX_ITEMS: usize = 10_000;

const MAX_PARTS: usize = 1_000;

/// Longest id of an item or a call.
const LONGEST_ID: usize = 128;

/// What begins the thoughts that a client carries from answer to answer without looking at them.
const CARRIED: &str = "sconce1.";

/// What a client sends for an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// The item itself.
    Item(Item),
    /// The id of one that was kept.
    Reference(String),
}

/// An item: what somebody said, thought, called, or found.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `msg_…`, `rs_…`, `fc_…`, `fco_…`; none: it gets one when it is written.
    pub id: Option<String>,
    /// Cut off.
    pub is_incomplete: bool,
    /// What it is.
    pub kind: ItemKind,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemKind {
    /// Something said.
    Message {
        /// `system`, `developer`, `user`, `assistant`.
        role: Role,
        /// Its parts.
        texts: Vec<String>,
    },
    /// What the model thought.
    Reasoning {
        /// The thought.
        text: String,
        /// It stands in the summary, where those look who asked for one.
        is_summary: bool,
    },
    /// A function called.
    Call {
        /// What its output refers to.
        call_id: String,
        /// The function.
        name: String,
        /// The text of a JSON object.
        arguments: String,
    },
    /// What a function gave.
    Output {
        /// The call.
        call_id: String,
        /// What it gave, as text.
        output: String,
    },
}

impl ItemKind {
    /// What ids of such items begin with.
    const fn prefix(&self) -> &'static str {
        match self {
            Self::Message { .. } => "msg",
            Self::Reasoning { .. } => "rs",
            Self::Call { .. } => "fc",
            Self::Output { .. } => "fco",
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whoever set it up, in the older word.
    System,
    /// The same, in the newer.
    Developer,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Thoughts as a client carries them that is not to look at them.
pub fn carried(thought: &str) -> String {
    format!("{CARRIED}{}", STANDARD.encode(thought))
}

/// Reads `input`: a text, or items and references to some.
///
/// # Errors
/// For what is none, and for items of tools that are not here.
pub fn read_input(value: Value) -> Result<Vec<Given>, ParameterError> {
    match value {
        Value::String(text) => Ok(vec![Given::Item(Item::said(Role::User, text))]),
        Value::Array(items) if (1..=MAX_ITEMS).contains(&items.len()) => {
            let numbered = items.into_iter().enumerate();
            numbered.map(|(number, value)| Given::read(value, format!("input[{number}]"))).collect()
        }
        Value::Array(items) => {
            let reason = format!("must have 1 to {MAX_ITEMS} items, not {}", items.len());
            Err(ParameterError::invalid("input", reason))
        }
        other => {
            let reason = format!("must be a string or an array of items, not {}", kind(&other));
            Err(ParameterError::invalid("input", reason))
        }
    }
}

/// Reads items that stand at `path`.
///
/// # Errors
/// As [`read_input`].
pub fn read(items: Vec<Value>, path: &str) -> Result<Vec<Item>, ParameterError> {
    let numbered = items.into_iter().enumerate();
    numbered.map(|(number, value)| Item::read(value, format!("{path}[{number}]"))).collect()
}

impl Given {
    fn read(value: Value, path: String) -> Result<Self, ParameterError> {
        if !is_reference(&value) {
            return Item::read(value, path).map(Self::Item);
        }
        let mut fields = Fields::of(value, path)?;
        fields.string("type")?;
        let id = required_short(&mut fields, "id")?;
        fields.finish()?;
        Ok(Self::Reference(id))
    }

    /// The id that it has, or refers to.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Item(item) => item.id.as_deref(),
            Self::Reference(id) => Some(id),
        }
    }

    /// The id that it refers to.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Item(_) => None,
            Self::Reference(id) => Some(id),
        }
    }
}

/// An id alone is a reference, too.
fn is_reference(value: &Value) -> bool {
    match &value["type"] {
        Value::Null => value.as_object().is_some_and(|members| {
            let has_more = members.keys().any(|name| name != "id" && name != "type");
            !has_more && members.get("id").is_some_and(Value::is_string)
        }),
        named => named == "item_reference",
    }
}

impl Item {
    /// Something said.
    pub fn said(role: Role, text: String) -> Self {
        let kind = ItemKind::Message { role, texts: vec![text] };
        Self { id: None, is_incomplete: false, kind }
    }

    fn read(value: Value, path: String) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(value, path)?;
        let named = fields.string("type")?;
        let kind = match named.as_deref() {
            None | Some("message") => message(&mut fields)?,
            Some("reasoning") => reasoning(&mut fields)?,
            Some("function_call") => call(&mut fields)?,
            Some("function_call_output") => output(&mut fields)?,
            Some(other) => return Err(other_kind(&fields, other)),
        };
        let id = short(&mut fields, "id")?;
        let status = fields.string("status")?;
        let is_incomplete = match status.as_deref() {
            None | Some("completed" | "in_progress") => false,
            Some("incomplete") => true,
            Some(_) => {
                let reason = "must be in_progress, completed or incomplete";
                return Err(ParameterError::invalid(fields.path("status"), reason));
            }
        };
        fields.finish()?;
        Ok(Self { id, is_incomplete, kind })
    }

    /// As it is stored with a response, where it has this number, and shown to whoever asks for its items.
    pub fn to_json(&self, response: &str, number: usize) -> Value {
        let status = if self.is_incomplete { "incomplete" } else { "completed" };
        let id = self.id.clone().unwrap_or_else(|| item_id(self.kind.prefix(), response, number));
        match &self.kind {
            ItemKind::Message { role, texts } => {
                let part = |text: &String| match role {
                    Role::Assistant => {
                        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
                    }
                    _ => json!({"type": "input_text", "text": text}),
                };
                let content: Vec<Value> = texts.iter().map(part).collect();
                json!({"id": id, "type": "message", "role": role.name(), "status": status, "content": content})
            }
            ItemKind::Reasoning { text, is_summary: true } => json!({"id": id, "type": "reasoning",
                "summary": [{"type": "summary_text", "text": text}], "status": status}),
            ItemKind::Reasoning { text, .. } => json!({"id": id, "type": "reasoning", "summary": [],
                "content": [{"type": "reasoning_text", "text": text}], "status": status}),
            ItemKind::Call { call_id, name, arguments } => json!({"id": id, "type": "function_call",
                "call_id": call_id, "name": name, "arguments": arguments, "status": status}),
            ItemKind::Output { call_id, output } => json!({"id": id, "type": "function_call_output",
                "call_id": call_id, "output": output, "status": status}),
        }
    }
}

fn message(fields: &mut Fields) -> Result<ItemKind, ParameterError> {
    let role = string(fields.required("role")?, || fields.path("role"))?;
    let Some(role) = Role::of(&role) else {
        let reason = "must be system, developer, user or assistant";
        return Err(ParameterError::invalid(fields.path("role"), reason));
    };
    let texts = content(fields, "content")?;
    if fields.string("phase")?.is_some_and(|phase| phase != "final_answer" && phase != "commentary") {
        return Err(ParameterError::invalid(fields.path("phase"), "must be commentary or final_answer"));
    }
    Ok(ItemKind::Message { role, texts })
}

/// A text, or parts that are texts.
fn content(fields: &mut Fields, name: &'static str) -> Result<Vec<String>, ParameterError> {
    let path = fields.path(name);
    match fields.required(name)? {
        Value::String(text) => Ok(vec![text]),
        Value::Array(parts) if parts.len() <= MAX_PARTS => {
            let numbered = parts.into_iter().enumerate();
            numbered.map(|(number, value)| part(value, format!("{path}[{number}]"))).collect()
        }
        Value::Array(parts) => {
            let reason = format!("has {} parts, at most {MAX_PARTS} are allowed", parts.len());
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
    let named = string(fields.required("type")?, || fields.path("type"))?;
    match named.as_str() {
        "input_text" | "output_text" | "text" => {
            let text = string(fields.required("text")?, || fields.path("text"))?;
            // What came with an earlier answer comes back with it.
            fields.list("annotations", MAX_PARTS)?;
            fields.list("logprobs", usize::MAX)?;
            fields.refuse(&[("prompt_cache_breakpoint", "the cache finds by itself what begins alike")])?;
            fields.finish()?;
            Ok(text)
        }
        "input_image" | "input_file" | "input_audio" | "refusal" => {
            let reason = format!("`{named}` cannot be read by the models here, `input_text` can");
            Err(ParameterError::unsupported(fields.path("type"), reason))
        }
        _ => Err(ParameterError::invalid(fields.path("type"), "must be `input_text` or `output_text`")),
    }
}

fn reasoning(fields: &mut Fields) -> Result<ItemKind, ParameterError> {
    let content = thought(fields, "content", "reasoning_text")?;
    let summary = not_empty(thought(fields, "summary", "summary_text")?);
    let carried = fields.string("encrypted_content")?;
    let is_summary = content.is_none() && summary.is_some();
    let from_carried = || carried.as_deref().and_then(uncarried);
    let text = not_empty(content).or_else(from_carried).or(summary).unwrap_or_default();
    Ok(ItemKind::Reasoning { text, is_summary })
}

fn not_empty(thought: Option<String>) -> Option<String> {
    thought.filter(|text| !text.is_empty())
}

/// The texts of a part of a reasoning item, put together.
fn thought(
    fields: &mut Fields,
    name: &'static str,
    part_kind: &str,
) -> Result<Option<String>, ParameterError> {
    let path = fields.path(name);
    let Some(parts) = fields.list(name, MAX_PARTS)? else { return Ok(None) };
    let mut texts = Vec::with_capacity(parts.len());
    for (number, value) in parts.into_iter().enumerate() {
        let mut part = Fields::of(value, format!("{path}[{number}]"))?;
        let named = string(part.required("type")?, || part.path("type"))?;
        if named != part_kind {
            return Err(ParameterError::invalid(part.path("type"), format!("must be `{part_kind}`")));
        }
        texts.push(string(part.required("text")?, || part.path("text"))?);
        part.finish()?;
    }
    Ok(Some(texts.join("\n\n")))
}

/// The thoughts that were carried; of another's making, nothing.
fn uncarried(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text.strip_prefix(CARRIED)?).ok()?;
    String::from_utf8(bytes).ok()
}

fn call(fields: &mut Fields) -> Result<ItemKind, ParameterError> {
    let call_id = required_short(fields, "call_id")?;
    let name = required_short(fields, "name")?;
    let arguments = string(fields.required("arguments")?, || fields.path("arguments"))?;
    refuse_callers(fields)?;
    Ok(ItemKind::Call { call_id, name, arguments })
}

fn output(fields: &mut Fields) -> Result<ItemKind, ParameterError> {
    let call_id = required_short(fields, "call_id")?;
    let output = content(fields, "output")?.concat();
    // Said by its call already.
    short(fields, "name")?;
    refuse_callers(fields)?;
    Ok(ItemKind::Output { call_id, output })
}

/// Only the model itself calls here.
fn refuse_callers(fields: &mut Fields) -> Result<(), ParameterError> {
    if let Some(mut caller) = fields.object("caller")? {
        let named = string(caller.required("type")?, || caller.path("type"))?;
        if named != "direct" {
            return Err(ParameterError::unsupported(
                caller.path("type"),
                "programs do not call functions here",
            ));
        }
        caller.finish()?;
    }
    if fields.boolean("async")? == Some(true) {
        return Err(ParameterError::unsupported(fields.path("async"), "calls are waited for"));
    }
    fields.refuse(&[("namespace", "functions have one name"), ("created_by", "it is not kept")])
}

fn short(fields: &mut Fields, name: &'static str) -> Result<Option<String>, ParameterError> {
    let text = fields.string(name)?;
    if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > LONGEST_ID || text.contains('\0')) {
        let reason = format!("must have 1 to {LONGEST_ID} bytes");
        return Err(ParameterError::invalid(fields.path(name), reason));
    }
    Ok(text)
}

fn required_short(fields: &mut Fields, name: &'static str) -> Result<String, ParameterError> {
    match short(fields, name)? {
        Some(text) => Ok(text),
        None => fields.required(name).map(|_| String::new()),
    }
}

/// Items of tools that are not here, and what is no item.
fn other_kind(fields: &Fields, named: &str) -> ParameterError {
    const KNOWN: [&str; 23] = [
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "web_search_call",
    ];
    let named: String = named.chars().take(64).collect();
    let path = fields.path("type");
    if KNOWN.contains(&named.as_str()) {
        let reason = format!("`{named}` is of a tool that is not here; functions can be called");
        return ParameterError::unsupported(path, reason);
    }
    let reason = format!(
        "must be message, reasoning, function_call, function_call_output or item_reference, not `{named}`"
    );
    ParameterError::invalid(path, reason)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::error::{Code, Failure};

    /// Items that are all there themselves.
    pub fn items(value: Value) -> Vec<Item> {
        let item = |given| match given {
            Given::Item(item) => item,
            Given::Reference(id) => panic!("{id} is but a reference"),
        };
        read_input(value).expect("they are items").into_iter().map(item).collect()
    }

    fn written(items: &[Item]) -> Vec<Value> {
        items.iter().enumerate().map(|(number, item)| item.to_json("resp_1", number)).collect()
    }

    #[test]
    fn what_refers_to_an_item_has_its_id_and_nothing_else() {
        let read = |value: Value| read_input(json!([value]));
        for reference in [
            json!({"type": "item_reference", "id": "msg_1"}),
            json!({"id": "msg_1"}),
            json!({"type": null, "id": "msg_1"}),
        ] {
            assert_eq!(read(reference), Ok(vec![Given::Reference("msg_1".to_owned())]));
        }
        for (wrong, param, code) in [
            (json!({"type": "item_reference"}), "input[0].id", Code::MissingParameter),
            (json!({"type": "item_reference", "id": ""}), "input[0].id", Code::InvalidValue),
            (
                json!({"type": "item_reference", "id": "x", "role": "user"}),
                "input[0].role",
                Code::UnknownParameter,
            ),
            (json!({"id": null}), "input[0].role", Code::MissingParameter),
            (json!({"id": "x", "content": "y"}), "input[0].role", Code::MissingParameter),
        ] {
            let error = read(wrong.clone()).expect_err("it is none");
            assert_eq!((error.param(), error.code()), (Some(param), code), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        let read = items(json!([
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I looked."}]},
            {"type": "reasoning", "summary": [], "encrypted_content": carried("I thought.")},
            {"role": "assistant", "content": "Sun."},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{", "status": "incomplete"},
            {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        ]));
        let shown = written(&read);
        let again = super::read(shown.clone(), "input").expect("we wrote it");
        assert_eq!(written(&again), shown);
        assert!(again.iter().zip(&read).all(|(again, read)| again.kind == read.kind));
        assert_eq!(read[4].id.as_deref(), Some("fc_1"));
        let thought = |item: &Item| match &item.kind {
            ItemKind::Reasoning { text, .. } => text.clone(),
            _ => String::new(),
        };
        assert_eq!((thought(&read[1]), thought(&read[2])), ("I looked.".to_owned(), "I thought.".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_place() {
        for (input, param, code) in [
            (json!([]), "input", Code::InvalidValue),
            (json!(7), "input", Code::InvalidValue),
            (json!([7]), "input[0]", Code::InvalidValue),
            (json!([{"role": "robot", "content": "x"}]), "input[0].role", Code::InvalidValue),
            (json!([{"role": "user"}]), "input[0].content", Code::MissingParameter),
            (
                json!([{"role": "user", "content": "x", "colour": 1}]),
                "input[0].colour",
                Code::UnknownParameter,
            ),
            (
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
                "input[0].content[0].type",
                Code::UnsupportedParameter,
            ),
            (json!([{"type": "web_search_call", "id": "x"}]), "input[0].type", Code::UnsupportedParameter),
            (json!([{"type": "nonsense"}]), "input[0].type", Code::InvalidValue),
            (
                json!([{"type": "function_call", "name": "f", "arguments": "{}"}]),
                "input[0].call_id",
                Code::MissingParameter,
            ),
            (
                json!([{"role": "user", "content": "x", "id": "i".repeat(129)}]),
                "input[0].id",
                Code::InvalidValue,
            ),
        ] {
            let error = read_input(input.clone()).expect_err("it must be refused");
            assert_eq!((error.param(), error.code()), (Some(param), code), "{input}: {error}");
        }
    }
}
