//! `system` and `messages`: Anthropic's blocks → the messages that templates expect.
//!
//! Blocks of text of one message are put together as they are. Messages of one role that follow each other become one, with
//! an empty line between them. A last message of the assistant is continued.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::api::anthropic::{cache_control, short};
use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::generate::Prompt;

const MAX_MESSAGES: usize = 10_000;
const MAX_BLOCKS: usize = 1_000;

/// Between what was said in several messages of one role.
const BETWEEN: &str = "\n\n";

/// Takes `system` and `messages` out of a body.
///
/// # Errors
/// For what is no conversation, and for blocks that the models here cannot read.
pub fn take(fields: &mut Fields) -> Result<Prompt, ParameterError> {
    let mut conversation = Conversation::default();
    if let Some(system) = fields.take("system") {
        refuse_empty(&system, &fields.path("system"))?;
        let text = texts(system, &fields.path("system"))?;
        conversation.said("system", &text);
    }
    let path = fields.path("messages");
    let messages = match fields.required("messages")? {
        Value::Array(messages) if (1..=MAX_MESSAGES).contains(&messages.len()) => messages,
        Value::Array(messages) => {
            let reason = format!("must have 1 to {MAX_MESSAGES} messages, not {}", messages.len());
            return Err(ParameterError::invalid(path, reason));
        }
        other => {
            return Err(ParameterError::invalid(path, format!("must be an array, not {}", kind(&other))));
        }
    };
    for (number, message) in messages.into_iter().enumerate() {
        conversation.read(message, format!("messages[{number}]"))?;
    }
    conversation.into_prompt()
}

/// The messages so far, in the shape that templates expect.
#[derive(Default)]
struct Conversation {
    messages: Vec<Map<String, Value>>,
    /// The names of the functions that were called, by the ids of the calls.
    called: HashMap<String, String>,
    /// Calls without a result, and which message the last of them is in.
    open: Vec<String>,
    open_in: String,
    /// The user has spoken since.
    is_answered: bool,
}

impl Conversation {
    fn read(&mut self, message: Value, path: String) -> Result<(), ParameterError> {
        let mut fields = Fields::of(message, path)?;
        let role = string(fields.required("role")?, || fields.path("role"))?;
        let (content, path) = (fields.required("content")?, fields.path("content"));
        refuse_empty(&content, &path)?;
        match role.as_str() {
            "user" => {
                self.user(content, &path)?;
                self.is_answered = true;
            }
            "assistant" => {
                if self.is_answered {
                    self.refuse_open()?;
                }
                let before = self.open.len();
                self.assistant(content, &path)?;
                if self.open.len() > before {
                    self.open_in.clone_from(&path);
                }
                self.is_answered = false;
            }
            "system" => self.said("system", &texts(content, &path)?),
            other => {
                let reason = format!("must be user, assistant or system, not `{}`", short(other));
                return Err(ParameterError::invalid(fields.path("role"), reason));
            }
        }
        fields.finish()
    }

    fn user(&mut self, content: Value, path: &str) -> Result<(), ParameterError> {
        let mut said: Option<String> = None;
        for (kind, mut block) in blocks(content, path)? {
            match kind.as_str() {
                "text" => said.get_or_insert_default().push_str(&text(block)?),
                "tool_result" => {
                    if let Some(said) = said.take() {
                        self.said("user", &said);
                    }
                    self.result(&mut block)?;
                    block.finish()?;
                }
                other => return Err(unreadable(&block, other, "`text` or `tool_result`")),
            }
        }
        if let Some(said) = said {
            self.said("user", &said);
        }
        Ok(())
    }

    fn assistant(&mut self, content: Value, path: &str) -> Result<(), ParameterError> {
        let (mut said, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
        for (kind, mut block) in blocks(content, path)? {
            match kind.as_str() {
                "text" => said.push_str(&text(block)?),
                "thinking" => {
                    thought.push_str(&string(block.required("thinking")?, || block.path("thinking"))?);
                    // Whoever sends a thought is believed that it was one: the model is shown what is said.
                    block.string("signature")?;
                    block.finish()?;
                }
                "redacted_thinking" => {
                    // Nobody here can read it, the model included.
                    string(block.required("data")?, || block.path("data"))?;
                    block.finish()?;
                }
                "tool_use" => {
                    calls.push(self.call(&mut block)?);
                    block.finish()?;
                }
                other => return Err(unreadable(&block, other, "`text`, `thinking` or `tool_use`")),
            }
        }
        let message = self.turn("assistant", &said);
        if !thought.is_empty() {
            append(message, "reasoning_content", &thought);
        }
        if !calls.is_empty() {
            let all = message.entry("tool_calls").or_insert_with(|| json!([]));
            all.as_array_mut().into_iter().for_each(|all| all.append(&mut calls));
        }
        Ok(())
    }

    /// A call, as OpenAI has it, with the arguments as templates want them.
    fn call(&mut self, block: &mut Fields) -> Result<Value, ParameterError> {
        let id = string(block.required("id")?, || block.path("id"))?;
        let name = string(block.required("name")?, || block.path("name"))?;
        let (input, path) = (block.required("input")?, block.path("input"));
        let arguments = Fields::of(input, path)?.into_members();
        if let Some(mut caller) = block.object("caller")? {
            let kind = string(caller.required("type")?, || caller.path("type"))?;
            if kind != "direct" {
                let reason = "functions are called by the model itself: `direct`";
                return Err(ParameterError::unsupported(caller.path("type"), reason));
            }
            caller.finish()?;
        }
        block.refuse(&[("toolset_name", "there are no sets of tools")])?;
        cache_control(block)?;
        self.called.insert(id.clone(), name.clone());
        self.open.push(id.clone());
        Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
    }

    /// What a call gave.
    fn result(&mut self, block: &mut Fields) -> Result<(), ParameterError> {
        let id = string(block.required("tool_use_id")?, || block.path("tool_use_id"))?;
        let Some(name) = self.called.get(&id).cloned() else {
            let reason = format!("must be the id of a call before it, not `{}`", short(&id));
            return Err(ParameterError::invalid(block.path("tool_use_id"), reason));
        };
        let Some(place) = self.open.iter().position(|open| *open == id) else {
            let reason = format!("names a call that has a result already: `{}`", short(&id));
            return Err(ParameterError::invalid(block.path("tool_use_id"), reason));
        };
        self.open.remove(place);
        let path = block.path("content");
        let mut content = match block.take("content") {
            None => String::new(),
            Some(content) => texts(content, &path)?,
        };
        if block.boolean("is_error")? == Some(true) {
            // Templates have no other word for it.
            content.insert_str(0, "Error: ");
        }
        block.refuse(&[("toolset_name", "there are no sets of tools")])?;
        cache_control(block)?;
        let message = json!({"role": "tool", "tool_call_id": id, "name": name, "content": content});
        self.messages.extend(message.as_object().cloned());
        Ok(())
    }

    /// Refuses calls whose results do not come in the user's next message.
    fn refuse_open(&self) -> Result<(), ParameterError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = self.open.iter().map(|id| short(id)).collect();
        let reason =
            format!("has `tool_use` ids without `tool_result` blocks immediately after: {}", ids.join(", "));
        Err(ParameterError::invalid(self.open_in.as_str(), reason))
    }

    fn said(&mut self, role: &str, text: &str) {
        self.turn(role, text);
    }

    /// The last message, if it is of this role, else a new one; with the text at its end.
    fn turn(&mut self, role: &str, text: &str) -> &mut Map<String, Value> {
        if self.messages.last().is_none_or(|last| last["role"] != role) {
            let mut message = Map::new();
            message.insert("role".to_owned(), json!(role));
            message.insert("content".to_owned(), json!(""));
            self.messages.push(message);
        }
        let last = self.messages.len() - 1;
        append(&mut self.messages[last], "content", text);
        &mut self.messages[last]
    }

    fn into_prompt(self) -> Result<Prompt, ParameterError> {
        let last = self.messages.last();
        let is_call = last.is_some_and(|last| last.contains_key("tool_calls"));
        if is_call {
            let reason = "must not end with calls of functions: say what they gave in a `tool_result`";
            return Err(ParameterError::invalid("messages", reason));
        }
        self.refuse_open()?;
        let continues = last.is_some_and(|last| last["role"] == "assistant");
        Ok(Prompt::Chat {
            messages: self.messages.into_iter().map(Value::Object).collect(),
            variables: Map::new(),
            add_generation_prompt: !continues,
            continue_final_message: continues,
        })
    }
}

/// Refuses blocks of text that say nothing.
fn refuse_empty(content: &Value, path: &str) -> Result<(), ParameterError> {
    let is_empty = |block: &Value| block["type"] == "text" && block["text"] == "";
    match content.as_array().and_then(|blocks| blocks.iter().position(is_empty)) {
        Some(number) => {
            let reason = "must not be empty: text content blocks must be non-empty";
            Err(ParameterError::invalid(format!("{path}[{number}].text"), reason))
        }
        None => Ok(()),
    }
}

/// Puts a text at the end of a member.
fn append(message: &mut Map<String, Value>, name: &str, more: &str) {
    let before = message.get(name).and_then(Value::as_str).unwrap_or_default();
    let between = if before.is_empty() || more.is_empty() { "" } else { BETWEEN };
    let text = format!("{before}{between}{more}");
    message.insert(name.to_owned(), json!(text));
}

/// The blocks of a content with the type of each; a text is one block of it.
fn blocks(content: Value, path: &str) -> Result<Vec<(String, Fields)>, ParameterError> {
    let values = match content {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(values) if (1..=MAX_BLOCKS).contains(&values.len()) => values,
        Value::Array(values) => {
            let reason = format!("must have 1 to {MAX_BLOCKS} blocks, not {}", values.len());
            return Err(ParameterError::invalid(path, reason));
        }
        other => {
            let reason = format!("must be a string or an array of blocks, not {}", kind(&other));
            return Err(ParameterError::invalid(path, reason));
        }
    };
    let block = |(number, value)| {
        let mut fields = Fields::of(value, format!("{path}[{number}]"))?;
        let kind = string(fields.required("type")?, || fields.path("type"))?;
        Ok((kind, fields))
    };
    values.into_iter().enumerate().map(block).collect()
}

/// The text of a content that has nothing but text.
fn texts(content: Value, path: &str) -> Result<String, ParameterError> {
    let text = |(kind, block): (String, Fields)| match kind.as_str() {
        "text" => text(block),
        other => Err(unreadable(&block, other, "`text`")),
    };
    blocks(content, path)?.into_iter().map(text).collect()
}

fn text(mut block: Fields) -> Result<String, ParameterError> {
    let text = string(block.required("text")?, || block.path("text"))?;
    cache_control(&mut block)?;
    if block.list("citations", MAX_BLOCKS)?.is_some_and(|citations| !citations.is_empty()) {
        let reason = "the models here read no documents that could be cited";
        return Err(ParameterError::unsupported(block.path("citations"), reason));
    }
    block.finish()?;
    Ok(text)
}

/// A block that exists, or does not, but in any case cannot be here.
fn unreadable(block: &Fields, kind: &str, readable: &str) -> ParameterError {
    let path = block.path("type");
    let is_known =
        ["image", "document", "search_result", "container_upload", "tool_reference", "mid_conv_system"]
            .contains(&kind)
            || ["_tool_use", "_tool_result"].iter().any(|end| kind.ends_with(end));
    let kind = short(kind);
    if is_known {
        return ParameterError::unsupported(path, format!("`{kind}` cannot be read here, {readable} can"));
    }
    ParameterError::invalid(path, format!("must be {readable}, not `{kind}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Failure};

    fn read(body: Value) -> Result<Prompt, ParameterError> {
        take(&mut Fields::of(body, "").expect("an object"))
    }

    fn messages(body: Value) -> (Vec<Value>, bool) {
        match read(body).expect("it is a conversation") {
            Prompt::Chat { messages, continue_final_message, .. } => (messages, continue_final_message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocks_become_the_messages_that_templates_know() {
        let (read, continues) = messages(json!({
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "messages": [
                {"role": "user", "content": "Weather in Paris?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "I must look.", "signature": "x"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "Let me see.", "citations": null},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"},
                     "caller": {"type": "direct"}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "no"}],
                     "is_error": true},
                    {"type": "text", "text": "Never mind. "}, {"type": "text", "text": "Good night."}]},
            ]
        }));
        let call = json!({"id": "toolu_1", "type": "function",
            "function": {"name": "weather", "arguments": {"city": "Paris"}}});
        assert_eq!(
            read,
            [
                json!({"role": "system", "content": "Be brief."}),
                json!({"role": "user", "content": "Weather in Paris?"}),
                json!({"role": "assistant", "content": "Let me see.", "reasoning_content": "I must look.",
                    "tool_calls": [call]}),
                json!({"role": "tool", "tool_call_id": "toolu_1", "name": "weather", "content": "Error: no"}),
                json!({"role": "user", "content": "Never mind. Good night."}),
            ]
        );
        assert!(!continues);
    }

    #[test]
    fn turns_of_one_role_become_one_and_the_last_of_the_assistant_is_continued() {
        let (read, continues) = messages(json!({"messages": [
            {"role": "user", "content": "One"},
            {"role": "user", "content": "Two"},
            {"role": "assistant", "content": "Three ("},
        ]}));
        let expected = [
            json!({"role": "user", "content": "One\n\nTwo"}),
            json!({"role": "assistant", "content": "Three ("}),
        ];
        assert_eq!((read.as_slice(), continues), (expected.as_slice(), true));
    }

    #[test]
    fn calls_and_results_belong_together_and_texts_say_something() {
        let user = |content: Value| json!({"role": "user", "content": content});
        let by = |content: Value| json!({"role": "assistant", "content": content});
        let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "x"});
        let text = |text: &str| json!({"type": "text", "text": text});
        let refused = |messages: Value| {
            let error = read(json!({ "messages": messages })).expect_err("it must be refused");
            (error.param().map(str::to_owned).unwrap_or_default(), error.to_string())
        };
        for (messages, param, said) in [
            (
                json!([user(json!("x")), by(json!([call("a")])), user(json!("y"))]),
                "messages[1].content",
                "after: a",
            ),
            (
                json!([
                    user(json!("x")),
                    by(json!([call("a"), call("b")])),
                    user(json!([result("a")])),
                    by(json!("z"))
                ]),
                "messages[1].content",
                "after: b",
            ),
            (
                json!([user(json!("x")), by(json!([call("a")])), user(json!([result("a"), result("a")]))]),
                "messages[2].content[1].tool_use_id",
                "a result already",
            ),
            (json!([user(json!([text("x"), text("")]))]), "messages[0].content[1].text", "empty"),
            (json!([user(json!("x")), by(json!([text("")]))]), "messages[1].content[0].text", "empty"),
        ] {
            let (found, message) = refused(messages.clone());
            assert_eq!((found.as_str(), message.contains(said)), (param, true), "{messages}: {message}");
        }
        // Results may come in several messages of the user's.
        let good = json!({"messages": [user(json!("x")), by(json!([call("a"), call("b")])), user(json!([result("b")])),
            user(json!([result("a")])), by(json!("z"))]});
        assert!(read(good).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_place() {
        let of = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        let by = |content: Value| json!({"messages": [{"role": "assistant", "content": content}]});
        for (body, param, code) in [
            (json!({}), "messages", Code::MissingParameter),
            (json!({"messages": []}), "messages", Code::InvalidValue),
            (json!({"messages": "x"}), "messages", Code::InvalidValue),
            (json!({"messages": [7]}), "messages[0]", Code::InvalidValue),
            (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role", Code::InvalidValue),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content", Code::MissingParameter),
            (of(json!([])), "messages[0].content", Code::InvalidValue),
            (of(json!([{"type": "image"}])), "messages[0].content[0].type", Code::UnsupportedParameter),
            (of(json!([{"type": "document"}])), "messages[0].content[0].type", Code::UnsupportedParameter),
            (of(json!([{"type": "tool_use"}])), "messages[0].content[0].type", Code::InvalidValue),
            (of(json!([{"type": "text"}])), "messages[0].content[0].text", Code::MissingParameter),
            (
                of(json!([{"type": "text", "text": "x", "more": 1}])),
                "messages[0].content[0].more",
                Code::UnknownParameter,
            ),
            (
                of(json!([{"type": "text", "text": "x", "cache_control": {"type": "for ever"}}])),
                "messages[0].content[0].cache_control.type",
                Code::InvalidValue,
            ),
            (
                of(json!([{"type": "tool_result", "tool_use_id": "nobody", "content": "x"}])),
                "messages[0].content[0].tool_use_id",
                Code::InvalidValue,
            ),
            (
                by(json!([{"type": "server_tool_use"}])),
                "messages[0].content[0].type",
                Code::UnsupportedParameter,
            ),
            (
                by(json!([{"type": "tool_use", "id": "a", "name": "b", "input": "c"}])),
                "messages[0].content[0].input",
                Code::InvalidValue,
            ),
            (
                by(json!([{"type": "tool_use", "id": "a", "name": "b", "input": {}}])),
                "messages",
                Code::InvalidValue,
            ),
            (
                json!({"system": [{"type": "image"}], "messages": [{"role": "user", "content": "x"}]}),
                "system[0].type",
                Code::UnsupportedParameter,
            ),
        ] {
            let error = read(body.clone()).expect_err("it must be refused");
            assert_eq!((error.param(), error.code()), (Some(param), code), "{body}");
        }
    }
}
