//! Items → the messages that templates expect: one for what the model thought, said and called in one go.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::api::openai::fields::ParameterError;
use crate::api::openai::responses::item::{Given, Item, ItemKind, Role};

/// How it stands with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Answered,
    /// Nobody knows what it was to be: the model is not shown it.
    CutOff,
}

/// Refuses calls without an output, and outputs of calls that nobody made, that have one, or that were cut off.
///
/// # Errors
/// Names the first of the `last` items that is such an output; or all, for a call that waits for one.
pub fn check_calls(items: &[Item], last: usize) -> Result<(), ParameterError> {
    let mut calls = HashMap::new();
    let begin = items.len().saturating_sub(last);
    for (number, item) in items.iter().enumerate() {
        let call_id = match &item.kind {
            ItemKind::Call { call_id, .. } => {
                let standing = if item.is_incomplete { Standing::CutOff } else { Standing::Open };
                calls.insert(call_id.as_str(), standing);
                continue;
            }
            ItemKind::Output { call_id, .. } => call_id.as_str(),
            _ => continue,
        };
        let reason = match calls.get(call_id) {
            Some(Standing::Open) => {
                calls.insert(call_id, Standing::Answered);
                continue;
            }
            Some(Standing::Answered) => format!("names a call that has an output already: `{call_id}`"),
            Some(Standing::CutOff) => format!("names a call that was cut off: `{call_id}`"),
            None => format!("names no call of this conversation: there is no `{call_id}` before it"),
        };
        if number >= begin {
            return Err(ParameterError::invalid(format!("input[{}].call_id", number - begin), reason));
        }
    }
    let waits = items.iter().find_map(|item| match &item.kind {
        ItemKind::Call { call_id, .. } if calls.get(call_id.as_str()) == Some(&Standing::Open) => {
            Some(call_id)
        }
        _ => None,
    });
    match waits {
        // In OpenAI's words, which its clients may look for.
        Some(id) => {
            let reason = format!("is not whole: No tool output found for function call {id}.");
            Err(ParameterError::invalid("input", reason))
        }
        None => Ok(()),
    }
}

/// Refuses an id that two items have, or refer to: a page could not go on from it.
///
/// # Errors
/// Names the second of them.
pub fn check_ids(items: &[Given]) -> Result<(), ParameterError> {
    let mut known = HashSet::new();
    for (number, item) in items.iter().enumerate() {
        if let Some(id) = item.id()
            && !known.insert(id)
        {
            let reason = format!("stands twice: Duplicate item found with id {id}.");
            return Err(ParameterError::invalid(format!("input[{number}].id"), reason));
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
    use crate::api::openai::responses::item::tests::items;
    use crate::error::Failure;

    #[test]
    fn a_text_is_what_the_user_says() {
        let read = items(json!("Hello"));
        assert_eq!(messages(None, &read), [json!({"role": "user", "content": "Hello"})]);
        assert!(read[0].to_json("resp_1f", 2)["id"] == "msg_1f0002");
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
        assert_eq!(check_calls(&read, read.len()), Ok(()));
    }

    fn refusal(value: Value, last: usize) -> (Option<String>, String) {
        let refused = check_calls(&items(value), last).expect_err("they do not belong together");
        (refused.param().map(str::to_owned), refused.to_string())
    }

    fn call(id: &str) -> Value {
        json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"})
    }

    fn output(id: &str) -> Value {
        json!({"type": "function_call_output", "call_id": id, "output": "y"})
    }

    #[test]
    fn an_output_needs_its_call_and_a_call_its_output() {
        let user = json!({"role": "user", "content": "x"});
        let mut cut = call("c1");
        cut["status"] = json!("incomplete");
        for (asked, last, param, said) in [
            (json!([call("c1"), user, output("c2")]), 2, "input[1].call_id", "no call of this conversation"),
            (json!([call("c1"), output("c1"), output("c1")]), 3, "input[2].call_id", "an output already"),
            (json!([cut, output("c1")]), 2, "input[1].call_id", "cut off"),
            (
                json!([call("c1"), call("c2"), output("c1"), user]),
                1,
                "input",
                "No tool output found for function call c2.",
            ),
        ] {
            let (found, message) = refusal(asked.clone(), last);
            assert_eq!((found.as_deref(), message.contains(said)), (Some(param), true), "{asked}: {message}");
        }
        for good in [json!([cut, user]), json!([call("c"), output("c"), call("c"), output("c")])] {
            assert_eq!(check_calls(&items(good.clone()), 1), Ok(()), "{good}");
        }
    }

    #[test]
    fn an_id_is_one_items() {
        let said = |id: Value| json!({"role": "user", "content": "x", "id": id});
        let again = json!({"type": "item_reference", "id": "a"});
        for last in [said(json!("a")), again] {
            let read = read_input(json!([said(json!("a")), said(Value::Null), said(Value::Null), last]));
            let read = read.expect("they are items");
            assert_eq!(check_ids(&read).expect_err("it stands twice").param(), Some("input[3].id"));
            assert_eq!(check_ids(&read[1..]), Ok(()));
        }
    }
}
