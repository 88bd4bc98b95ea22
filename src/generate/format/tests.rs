//! What each family writes is read, however it is cut.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::{prop_assert_eq, proptest};
use sconce_models::Tokenizer;
use sconce_models::grammar::{Grammars, Language, Matcher};
use serde_json::{Value, json};

use super::{Format, Part, rule_of};
use crate::generate::{Constraint, Tool, ToolChoice, ToolUse};

fn tools() -> Arc<[Tool]> {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
        "loud": {"type": "boolean"}, "tags": {"type": "array"}}});
    let tool =
        |name: &str, parameters| Tool { name: name.to_owned(), description: None, parameters, strict: false };
    Arc::new([tool("weather", Some(weather)), tool("now", None)])
}

/// Text, thought, and calls of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
struct Read {
    text: String,
    thought: String,
    calls: Vec<(String, String)>,
}

impl Read {
    fn add(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Text(text, _) => self.text.push_str(&text),
                Part::Reasoning(text, _) => self.thought.push_str(&text),
                Part::CallBegun(name) => self.calls.push((name, String::new())),
                Part::Arguments(text) => {
                    self.calls.last_mut().expect("a call began").1.push_str(&text);
                }
            }
        }
    }
}

/// Reads an answer that comes in these pieces.
fn read<'a>(format: &str, thinks: bool, pieces: impl IntoIterator<Item = &'a str>) -> Read {
    let template = if thinks { "<think></think>" } else { "" };
    let format = Format::of(template, Some(format));
    let mut reader = format.reader(&tools(), false).expect("it has calls");
    let mut read = Read::default();
    for piece in pieces {
        read.add(reader.push(piece, None));
    }
    read.add(reader.finish());
    read
}

/// (format, whether it thinks, what it wrote, text, thought, calls).
type Case = (&'static str, bool, &'static str, &'static str, &'static str, Vec<(&'static str, Value)>);

fn cases() -> Vec<Case> {
    let oslo = || ("weather", json!({"city": "Os\"lo"}));
    let now = || ("now", json!({}));
    vec![
        ("hermes", false, "Hello <b>you</b> ", "Hello <b>you</b> ", "", vec![]),
        (
            "hermes",
            false,
            "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Os\\\"lo\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
            "Let me look.",
            "",
            vec![oslo(), now()],
        ),
        (
            "hermes",
            true,
            "<think>\nHm, <tool?\n</think>\n\n<tool_call>{\"arguments\": {\"city\": \"Os\\\"lo\"}, \"name\": \"weather\"}</tool_call>",
            "",
            "Hm, <tool?",
            vec![oslo()],
        ),
        ("hermes", true, "\n<think>\nOne </b>\n</think>\n\nTwo\n", "Two\n", "One </b>", vec![]),
        ("hermes", true, "<think>never ends", "", "never ends", vec![]),
        ("hermes", true, "<thin", "<thin", "", vec![]),
        ("hermes", false, "<tool_call>no call</tool_call> x", "<tool_call>no call</tool_call> x", "", vec![]),
        (
            "hermes",
            false,
            "<tool_call>{\"x\": 1}</tool_call>",
            "<tool_call>{\"x\": 1}</tool_call>",
            "",
            vec![],
        ),
        (
            "hermes",
            false,
            "<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"now\", \"arguments\": \"{}\"}}</tool_call>",
            "",
            "",
            vec![now()],
        ),
        (
            "hermes",
            false,
            "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": \\\"Oslo\\\"}\"}</tool_call> and so on",
            "and so on",
            "",
            vec![("weather", json!({"city": "Oslo"}))],
        ),
        ("hermes", false, "<tool_call>{\"name\": \"now\"}", "", "", vec![now()]),
        (
            "smollm2",
            false,
            "<tool_call>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Os\\\"lo\"}}, {\"name\": \"now\", \"arguments\": {}}]</tool_call>",
            "",
            "",
            vec![oslo(), now()],
        ),
        (
            "llama3",
            false,
            "{\"name\": \"weather\", \"parameters\": {\"city\": \"Os\\\"lo\"}}; {\"name\": \"now\", \"parameters\": {}}",
            "",
            "",
            vec![oslo(), now()],
        ),
        (
            "llama3",
            false,
            "<|python_tag|>{\"type\": \"function\", \"name\": \"now\", \"parameters\": null}",
            "",
            "",
            vec![now()],
        ),
        ("llama3", false, "{\"name\": \"Ann\", \"age\": 7}", "{\"name\": \"Ann\", \"age\": 7}", "", vec![]),
        ("llama3", false, " [1, 2]", " [1, 2]", "", vec![]),
        (
            "mistral-list",
            false,
            "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Os\\\"lo\"}}, {\"name\": \"now\", \"arguments\": {}}]",
            "",
            "",
            vec![oslo(), now()],
        ),
        (
            "mistral",
            false,
            "Well [TOOL_CALLS]weather[ARGS]{\"city\": \"Os\\\"lo\"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}",
            "Well",
            "",
            vec![oslo(), now()],
        ),
        (
            "deepseek",
            true,
            "<think>a\n\n</think>\n\nSo:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Os\\\"lo\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "So:",
            "a",
            vec![oslo(), now()],
        ),
        (
            "deepseek-v3.1",
            false,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Os\\\"lo\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
            "",
            vec![oslo(), now()],
        ),
        (
            "qwen3-coder",
            false,
            "I look.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nO\"s<lo>\n\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=loud>\nTrue\n</parameter>\n<parameter=tags>\n[\"a\"]\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
            "I look.",
            "",
            vec![("weather", json!({"city": "O\"s<lo>\n", "days": 3, "loud": true, "tags": ["a"]})), now()],
        ),
        (
            "functiongemma",
            false,
            "<start_function_call>call:weather{city:<escape>Os\"lo<escape>}<end_function_call><start_function_call>call:now{}<end_function_call>",
            "",
            "",
            vec![oslo(), now()],
        ),
        (
            "gemma4",
            false,
            "Ok <|tool_call>call:weather{city:<|\"|>O, {slo}<|\"|>,days:3,tags:[<|\"|>a<|\"|>,true]}<tool_call|>",
            "Ok",
            "",
            vec![("weather", json!({"city": "O, {slo}", "days": 3, "tags": ["a", true]}))],
        ),
        (
            "harmony",
            false,
            "<|channel|>analysis<|message|>Must call.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Os\\\"lo\"}<|call|>",
            "I look.",
            "Must call.",
            vec![oslo()],
        ),
        (
            "harmony",
            false,
            "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Hi <there>",
            "Hi <there>",
            "Easy.",
            vec![],
        ),
        ("harmony", false, "just text", "just text", "", vec![]),
    ]
}

#[test]
fn every_family_is_read() {
    for (format, thinks, written, text, thought, calls) in cases() {
        let read = read(format, thinks, [written]);
        assert_eq!((read.text.as_str(), read.thought.as_str()), (text, thought), "{format}: {written}");
        let found: Vec<(&str, Value)> = read
            .calls
            .iter()
            .map(|(name, arguments)| {
                let arguments = serde_json::from_str(arguments)
                    .unwrap_or_else(|error| panic!("{format}: {error}: {arguments}"));
                (name.as_str(), arguments)
            })
            .collect();
        assert_eq!(found, calls, "{format}: {written}");
    }
}

#[test]
fn an_answer_cut_at_any_two_places_is_read_alike() {
    for (format, thinks, written, ..) in cases() {
        let whole = read(format, thinks, [written]);
        let places: Vec<usize> = (0..=written.len()).filter(|&at| written.is_char_boundary(at)).collect();
        for &first in &places {
            let pieces = [&written[..first], &written[first..]];
            assert_eq!(read(format, thinks, pieces), whole, "{format} cut at {first}: {written}");
        }
        let letters: Vec<String> = written.chars().map(String::from).collect();
        let letter_by_letter = read(format, thinks, letters.iter().map(String::as_str));
        assert_eq!(letter_by_letter, whole, "{format} letter by letter: {written}");
    }
}

#[test]
fn arguments_come_while_they_are_written() {
    for (format, begun) in [
        ("hermes", "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Os"),
        ("smollm2", "<tool_call>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Os"),
        ("llama3", "{\"name\": \"weather\", \"parameters\": {\"city\": \"Os"),
        ("mistral", "[TOOL_CALLS]weather[ARGS]{\"city\": \"Os"),
        ("deepseek-v3.1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Os"),
        ("qwen3-coder", "<tool_call>\n<function=weather>\n<parameter=city>\nOs"),
        ("harmony", "<|channel|>commentary to=functions.weather<|message|>{\"city\": \"Os"),
    ] {
        let mut reader = Format::of("", Some(format)).reader(&tools(), false).expect("it has calls");
        let mut read = Read::default();
        read.add(reader.push(begun, None));
        assert_eq!(read.calls, [("weather".to_owned(), "{\"city\": \"Os".to_owned())], "{format}");
        assert_eq!((reader.calls_begun(), reader.calls_ended()), (1, 0), "{format}");
    }
}

#[test]
fn a_thought_that_the_prompt_opened_is_one() {
    let format = Format::of("… <think>\n … </think>", None);
    let none: Arc<[Tool]> = Arc::new([]);
    let mut reader = format.reader(&none, true).expect("it thinks");
    let mut read = Read::default();
    assert!(reader.is_thinking());
    read.add(reader.push("Well, ", None));
    read.add(reader.push("yes\n</think>\n\nYes", None));
    assert!(!reader.is_thinking());
    read.add(reader.finish());
    assert_eq!((read.thought.as_str(), read.text.as_str()), ("Well, yes", "Yes"));
    assert!(Format::of("no marks", None).reader(&none, false).is_none());
}

#[test]
fn a_template_shows_its_family() {
    for (template, family) in [
        ("{{ '<|im_start|>' + message['role'] }} ... named SmolLM, trained", "smollm2"),
        ("<tools> ... <tool_call>\\n{\"name\": ", "hermes"),
        ("<tool_call>\n<function=example>\n<parameter=x>", "qwen3-coder"),
        ("[TOOL_CALLS] [", "mistral-list"),
        ("[TOOL_CALLS]{{ name }}[ARGS]", "mistral"),
        ("<｜tool▁calls▁begin｜> ```json", "deepseek"),
        ("<｜tool▁calls▁begin｜><｜tool▁sep｜>", "deepseek-v3.1"),
        ("<|start|>assistant<|channel|>final<|message|>", "harmony"),
        ("<|start_header_id|> {\"name\": \"f\", \"parameters\": {}}", "llama3"),
        ("<start_function_call>call:", "functiongemma"),
        ("<start_of_turn>user", "hermes"),
    ] {
        assert_eq!(Format::of(template, None).calls(), family, "{template}");
    }
}

#[test]
fn every_family_can_be_named_in_the_settings() {
    assert!(super::names_of_all().eq(crate::manager::CALL_FORMATS));
}

#[test]
fn what_is_written_is_read_again() {
    for name in super::names_of_all() {
        let format = Format::of("", Some(name));
        let written = format.written(&[("weather", "{\"city\":\"Oslo\",\"days\":3}".to_owned())]);
        let read = read(name, false, [written.as_str()]);
        assert_eq!(read.calls.len(), 1, "{name}: {written}");
        let arguments: Value = serde_json::from_str(&read.calls[0].1).expect("it is JSON");
        assert_eq!(
            (read.calls[0].0.as_str(), arguments),
            ("weather", json!({"city": "Oslo", "days": 3})),
            "{name}"
        );
    }
}

/// Whatever the family: the grammar compiles, and what it lets through is what the family's reader reads.
#[test]
fn each_family_can_be_held_to_calls() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden/llama/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&golden, 512).expect("it is sound");
    let grammars = Grammars::new(tokenizer, vec![511]);
    let free = tools();
    let strict: Vec<Tool> = free.iter().map(|tool| Tool { strict: true, ..tool.clone() }).collect();
    let none = |_: &str| None;
    let some = |mark: &str| (mark.len() > 1).then_some(507);
    let answer =
        rule_of(&Constraint::JsonSchema(json!({"type": "object", "properties": {"a": {"type": "integer"}}})));
    for name in super::names_of_all() {
        let format = Format::of("", Some(name));
        for special in [&none as &dyn Fn(&str) -> Option<u32>, &some] {
            for (choice, tools, answer) in [
                (ToolChoice::Required(Vec::new()), &free[..], None),
                (ToolChoice::Required(Vec::new()), &strict[..], None),
                (ToolChoice::Auto, &strict[..], None),
                (ToolChoice::Among(vec!["now".to_owned()]), &free[..], None),
                (ToolChoice::Auto, &free[..], answer.as_deref()),
            ] {
                for parallel in [true, false] {
                    let tool_use = ToolUse { tools: tools.to_vec(), choice: choice.clone(), parallel };
                    let Some(grammar) = format.call_grammar(tools, &tool_use, special, answer) else {
                        assert_eq!(name, "harmony", "{choice:?}");
                        continue;
                    };
                    let compiled = grammars.compile(&Language::Lark(grammar.clone()), None);
                    assert!(compiled.is_ok(), "{name} {choice:?}: {:?}\n{grammar}", compiled.err());
                }
            }
        }
        let tool_use = ToolUse { tools: free.to_vec(), choice: ToolChoice::Auto, parallel: true };
        assert_eq!(format.call_grammar(&free, &tool_use, &none, None), None, "{name}");
    }
}

/// What a family writes, its grammar lets through to the end; and nothing else before it.
#[test]
fn a_grammar_has_the_calls_of_its_family() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden/llama/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&golden, 512).expect("it is sound");
    let grammars = Grammars::new(tokenizer.clone(), vec![511]);
    let tools = tools();
    for name in super::names_of_all() {
        let format = Format::of("", Some(name));
        let tool_use =
            ToolUse { tools: tools.to_vec(), choice: ToolChoice::Required(Vec::new()), parallel: true };
        let grammar = format.call_grammar(&tools, &tool_use, &|_| None, None).expect("it is held");
        let mut calls = vec![("weather", "{\"city\": \"Oslo\", \"days\": 3}".to_owned())];
        if name != "harmony" {
            calls.push(("now", "{}".to_owned()));
        }
        let written = format.written(&calls);
        let compiled = grammars.compile(&Language::Lark(grammar.clone()), None).expect("it compiles");
        let mut matcher = Matcher::clone(&compiled);
        assert!(!matcher.allowed().expect("it can be asked").may_end, "{name}");
        for id in tokenizer.encode(&written, false).expect("it is text") {
            let allowed = matcher.allowed().expect("it can be asked");
            assert!(
                allowed.contains(id),
                "{name}: {:?} in {written}\n{grammar}",
                tokenizer.decode(&[id], false)
            );
            matcher.consume(id).expect("it is allowed");
        }
        assert!(
            matcher.is_complete() || matcher.allowed().expect("it can be asked").may_end,
            "{name}: {written}"
        );
    }
}

proptest! {
    /// Marks in any order, cut anywhere: what is read does not depend on the cuts, and nothing panics.
    #[test]
    fn what_is_read_does_not_depend_on_the_cuts(
        words in proptest::collection::vec(0_usize..26, 0..24),
        cuts in proptest::collection::vec(0_usize..400, 0..6),
        format in 0_usize..11,
        thinks: bool,
    ) {
        let marks = ["<tool_call>", "</tool_call>", "{", "}", "\"name\"", ": ", "\"now\"", ", ", "\"arguments\"", "[", "]",
            "<think>", "</think>", " \n", "text", "[TOOL_CALLS]", "[ARGS]", "<function=now>", "<parameter=city>",
            "</parameter>", "</function>", "<|channel|>", "<|message|>", "<|end|>", "<｜tool▁calls▁begin｜>", "\\"];
        let format = super::names_of_all().nth(format).expect("there are as many");
        let written: String = words.iter().map(|&word| marks[word]).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| written.floor_char_boundary(cut)).collect();
        cuts.push(written.len());
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&written[from..cut]);
            from = cut;
        }
        prop_assert_eq!(read(format, thinks, pieces), read(format, thinks, [written.as_str()]));
    }
}
