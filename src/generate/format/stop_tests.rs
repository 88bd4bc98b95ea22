//! Where an answer with calls and thoughts is ended by a stop text, and which tokens go with what is shown of it.

use std::sync::Arc;

use super::{Format, Part};
use crate::generate::{TextToken, Tool};

/// What is shown of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shown {
    text: String,
    thought: String,
    calls: Vec<String>,
    /// The letters of the answer, by number, that made the text.
    made_by: Vec<u32>,
    stopped: Option<u32>,
}

impl Shown {
    fn add(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Text(text, tokens) => {
                    self.text.push_str(&text);
                    self.made_by.extend(tokens.iter().map(|token| token.id));
                }
                Part::Reasoning(text, _) => self.thought.push_str(&text),
                Part::CallBegun(name) => self.calls.push(name),
                Part::Arguments(_) => {}
            }
        }
    }
}

fn tools() -> Arc<[Tool]> {
    let tool =
        |name: &str| Tool { name: name.to_owned(), description: None, parameters: None, strict: false };
    Arc::new([tool("weather"), tool("now")])
}

fn letter(id: u32) -> TextToken {
    TextToken { id, text: String::new(), bytes: Vec::new(), logprob: None, alternatives: Vec::new() }
}

/// Reads an answer that comes letter by letter.
fn read(format: &str, thinks: bool, written: &str, stop: &str) -> Shown {
    let template = if thinks { "<think></think>" } else { "" };
    let reader = Format::of(template, Some(format)).reader(&tools(), false).expect("it has calls");
    let mut reader = reader.until(Arc::new([stop.to_owned()]));
    let mut shown = Shown::default();
    for (id, character) in (0..).zip(written.chars()) {
        if reader.stopped().is_none() {
            shown.add(reader.push(&character.to_string(), Some(letter(id))));
        }
    }
    shown.add(reader.finish());
    shown.stopped = reader.stopped();

    let reader = Format::of(template, Some(format)).reader(&tools(), false).expect("it has calls");
    let mut reader = reader.until(Arc::new([stop.to_owned()]));
    let mut at_once = Shown { made_by: shown.made_by.clone(), ..Shown::default() };
    at_once.add(reader.push(written, None));
    at_once.add(reader.finish());
    at_once.stopped = reader.stopped();
    assert_eq!(shown, at_once, "{format}: {written}");
    shown
}

/// Whatever the family writes around and in its calls.
#[test]
fn nothing_of_a_call_ends_the_answer() {
    let arguments = "{\"city\": \"Oslo\"}".to_owned();
    for name in super::names_of_all() {
        let mut calls = vec![("weather", arguments.clone())];
        if name != "harmony" {
            calls.push(("now", "{}".to_owned()));
        }
        let written = Format::of("", Some(name)).written(&calls);
        for stop in written.chars().map(String::from).chain(["weather".to_owned(), "_call".to_owned()]) {
            let shown = read(name, false, &written, &stop);
            let names: Vec<&str> = calls.iter().map(|(name, _)| *name).collect();
            assert_eq!(
                (shown.calls, shown.text.as_str()),
                (names.iter().map(|name| (*name).to_owned()).collect(), ""),
                "{name} {stop:?}"
            );
            assert_eq!((shown.stopped, shown.made_by.len()), (None, 0), "{name} {stop:?}: {written}");
        }
    }
}

#[test]
fn what_is_shown_ends_the_answer() {
    let call = "<tool_call>\n{\"name\": \"now\"}\n</tool_call>";
    let around = format!("ab{call}\ncd");
    for (format, thinks, written, stop, text, thought, calls, is_stopped) in [
        ("hermes", false, "One\nTwo", "\n", "One", "", 0, true),
        // Space that follows a text counts, whether it will be shown or not.
        ("hermes", false, "One\n<tool_call>", "\n", "One", "", 0, true),
        // What only began like a call is text.
        ("hermes", false, "<tool_call>\nno\ncall", "\n", "<tool_call>", "", 0, true),
        ("hermes", false, "<tool_call>\n{\"a\": 1}", "\"", "<tool_call>\n{", "", 0, true),
        ("hermes", false, "a <tool", "tool", "a <", "", 0, true),
        ("llama3", false, "{\n\"a\": 1}", "\n", "{", "", 0, true),
        ("mistral", false, "[TOOL_CALLS]a b", " ", "[TOOL_CALLS]a", "", 0, true),
        ("gemma4", false, "<|tool_call>a\nb<tool_call|>", "\n", "<|tool_call>a", "", 0, true),
        // Nothing is put together that does not stand together.
        ("hermes", false, &around, "bcd", "abcd", "", 1, false),
        ("hermes", false, &around, "\n", "abcd", "", 1, false),
        ("hermes", false, &around, "c", "ab", "", 1, true),
        // A thought is ended as a text is.
        ("hermes", true, "<think>\nOne\nTwo\n</think>\n\nThree", "\n\n", "Three", "One\nTwo", 0, false),
        ("hermes", true, "<think>\nOne\nTwo\n</think>\n\nThree", "Two", "", "One", 0, true),
        (
            "harmony",
            false,
            "<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>c d",
            "d",
            "c ",
            "a b",
            0,
            true,
        ),
    ] {
        let shown = read(format, thinks, written, stop);
        assert_eq!(
            (shown.text.as_str(), shown.thought.as_str()),
            (text, thought),
            "{format}: {written:?} {stop:?}"
        );
        assert_eq!(
            (shown.calls.len(), shown.stopped.is_some()),
            (calls, is_stopped),
            "{format}: {written:?} {stop:?}"
        );
    }
}

/// Where every token is a letter, the letters are those of the text.
#[test]
fn the_tokens_of_a_text_are_those_that_made_it() {
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    for (format, thinks, written, stop) in [
        ("hermes", false, "One <b>two</b> ".to_owned(), "END"),
        ("hermes", false, "<tool_call>\n{\"a\": [1]}, and so on".to_owned(), "END"),
        ("hermes", false, format!("One\n{call}\nTwo <tool three"), "END"),
        ("hermes", false, "One E <tool_END two".to_owned(), "END"),
        ("hermes", true, format!("<think>\nHm\n</think>\n\nOne\n{call}{call}Two"), "END"),
        ("mistral", false, "[TOOL_CALLS]no call".to_owned(), "END"),
        ("gemma4", false, "a <|tool_call>no call<tool_call|> b".to_owned(), "END"),
        ("harmony", false, "<|channel|>final<|message|>One two<|end|>".to_owned(), "END"),
    ] {
        let shown = read(format, thinks, &written, stop);
        let letters: Vec<char> = written.chars().collect();
        let made: String = shown.made_by.iter().map(|&id| letters[id as usize]).collect();
        assert_eq!(made, shown.text, "{format}: {written:?}");
    }
}
