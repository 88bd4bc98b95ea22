//! Items → the messages that templates expect: one for what the model thought, said and called in one go.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::api::openai::fields::ParameterError;
use crate::api::openai::responses::item::{Item, ItemKind, Role};

/// Refuses outputs of calls that nobody made.
///
/// # Errors
/// Names the first of the `last` items that is one.
pub fn check_outputs(items: &[Item], last: usize) -> Result<(), ParameterError> {
    let mut calls = HashSet::new();
    let begin = items.len().saturating_sub(last);
    for (number, item) in items.iter().enumerate() {
        match &item.kind {
            ItemKind::Call { call_id, .. } => drop(calls.insert(call_id.as_str())),
            ItemKind::Output { call_id, .. } if !calls.contains(call_id.as_str()) && number >= begin => {
                let path = format!("input[{}].call_id", number - begin);
                let reason = format!("names no call of this conversation: there is no `{call_id}` before it");
                return Err(ParameterError::invalid(path, reason));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The messages that templates expect: one for what the model thought, said and called in one go.
pub fn messages(instructions: Option<&str>, items: &[Item]) -> Vec<Value> {
    let mut conversation = Conversation::default();
    if let Some(instructions) = instructions {
        conversation.say("system", instructions);
    }
    for item in items {
        conversation.add(item);
    }
    conversation.end_turn();
    conversation.messages
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Value>,
    /// What the model does at the moment.
    turn: Turn,
}

#[derive(Default)]
struct Turn {
    thought: String,
    said: Option<String>,
    calls: Vec<Value>,
}

impl Conversation {
    fn add(&mut self, item: &Item) {
        match &item.kind {
            ItemKind::Message { role: Role::Assistant, texts } => {
                if self.turn.said.is_some() || !self.turn.calls.is_empty() {
                    self.end_turn();
                }
                self.turn.said = Some(texts.concat());
            }
            ItemKind::Message { role, texts } => {
                self.end_turn();
                let role = if *role == Role::User { "user" } else { "system" };
                self.say(role, &texts.concat());
            }
            ItemKind::Reasoning { text, .. } => {
                if self.turn.said.is_some() || !self.turn.calls.is_empty() {
                    self.end_turn();
                }
                self.turn.thought.push_str(text);
            }
            // Of a call that was cut off nobody knows what it was to be.
            ItemKind::Call { .. } if item.is_incomplete => {}
            ItemKind::Call { call_id, name, arguments } => {
                let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
                self.turn.calls.push(json!({"id": call_id, "type": "function",
                    "function": {"name": name, "arguments": arguments}}));
            }
            ItemKind::Output { call_id, output } => {
                self.end_turn();
                self.messages.push(json!({"role": "tool", "tool_call_id": call_id, "content": output}));
            }
        }
    }

    /// The instructions and what is set up before anything is said are one message: many templates know but one.
    fn say(&mut self, role: &str, text: &str) {
        if role == "system"
            && let [only] = self.messages.as_mut_slice()
            && only["role"] == "system"
        {
            let joined = format!("{}\n\n{text}", only["content"].as_str().unwrap_or_default());
            only["content"] = joined.into();
            return;
        }
        self.messages.push(json!({"role": role, "content": text}));
    }

    fn end_turn(&mut self) {
        let Turn { thought, said, calls } = std::mem::take(&mut self.turn);
        if said.is_none() && calls.is_empty() {
            return;
        }
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        message.insert("content".to_owned(), said.unwrap_or_default().into());
        if !thought.is_empty() {
            message.insert("reasoning_content".to_owned(), thought.into());
        }
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), calls.into());
        }
        self.messages.push(Value::Object(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openai::responses::item::read_input;
    use crate::error::Failure;

    fn items(value: Value) -> Vec<Item> {
        read_input(value).expect("they are items")
    }

    #[test]
    fn a_text_is_what_the_user_says() {
        let read = items(json!("Hello"));
        assert_eq!(messages(None, &read), [json!({"role": "user", "content": "Hello"})]);
        assert!(read[0].to_json()["id"].as_str().is_some_and(|id| id.starts_with("msg_")));
    }

    #[test]
    fn what_is_set_up_first_is_one_message() {
        let read = items(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "One "}, {"type": "input_text", "text": "two"}]},
            {"role": "system", "content": "Be kind."},
        ]));
        let expected = [
            json!({"role": "system", "content": "Be good.\n\nBe brief."}),
            json!({"role": "user", "content": "One two"}),
            json!({"role": "system", "content": "Be kind."}),
        ];
        assert_eq!(messages(Some("Be good."), &read), expected);
    }

    #[test]
    fn thoughts_words_and_calls_of_one_turn_are_one_message() {
        let read = items(json!([
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "I must look."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"city\": \"Paris\"}"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{\"city\": \"Rome\"}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sun"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
        ]));
        let call = |id: &str, city: &str| {
            json!({"id": id, "type": "function",
            "function": {"name": "weather", "arguments": {"city": city}}})
        };
        let expected = [
            json!({"role": "user", "content": "Weather?"}),
            json!({"role": "assistant", "content": "Let me see.", "reasoning_content": "I must look.",
                "tool_calls": [call("c1", "Paris"), call("c2", "Rome")]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": "sun"}),
            json!({"role": "tool", "tool_call_id": "c2", "content": "rain"}),
        ];
        assert_eq!(messages(None, &read), expected);
        assert_eq!(check_outputs(&read, read.len()), Ok(()));
    }

    #[test]
    fn an_output_needs_its_call() {
        let read = items(json!([
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"role": "user", "content": "x"},
            {"type": "function_call_output", "call_id": "c2", "output": "y"},
        ]));
        let refused = check_outputs(&read, 2).expect_err("nobody called");
        assert_eq!(refused.param(), Some("input[1].call_id"));
    }
}
