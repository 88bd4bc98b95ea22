//! The grammar that holds an answer to calls, in Lark's notation as llguidance reads it
//! (<https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>).

use std::fmt::Write;

use sconce_models::grammar::regex_rule;
use serde_json::{Map, Value, json};

use crate::generate::format::Format;
use crate::generate::format::family::{Arguments, Shape};
use crate::generate::{Constraint, Tool, ToolChoice, ToolUse};

/// Any text.
const ANY: &str = "(.|\\n)*";

impl Format {
    /// What an answer may be where these functions are offered; none if calls are not held to anything. `special` gives the
    /// id of a mark that is a special token: those are not written as text. `answer` is what an answer that is no call must
    /// be, as a rule.
    pub fn call_grammar(
        &self,
        tools: &[Tool],
        tool_use: &ToolUse,
        special: &dyn Fn(&str) -> Option<u32>,
        answer: Option<&str>,
    ) -> Option<String> {
        if tools.is_empty() {
            return None;
        }
        let writer = Writer { format: self, shape: self.family.shape(), special };
        let is_strict = tools.iter().any(|tool| tool.strict);
        match (&tool_use.choice, answer) {
            (ToolChoice::None, _) => None,
            (ToolChoice::Required(_), _) => Some(writer.only_calls(tools, tool_use.parallel)),
            (_, Some(answer)) => Some(writer.answer_or_calls(answer, tools, tool_use.parallel)),
            (ToolChoice::Auto, None) if !is_strict => None,
            (ToolChoice::Auto | ToolChoice::Among(_), None) => writer.text_or_calls(tools, tool_use.parallel),
        }
    }
}

/// A constraint as a rule among others; none where it is a grammar of its own.
pub fn rule_of(constraint: &Constraint) -> Option<String> {
    Some(match constraint {
        Constraint::JsonObject => format!("%json {}", on_one_line(json!({"type": "object"}), false)),
        Constraint::JsonSchema(schema) => format!("%json {}", on_one_line(schema.clone(), false)),
        Constraint::Regex(regex) => regex_rule(regex),
        Constraint::Choice(texts) => texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(" | "),
        Constraint::Grammar(_) => return None,
    })
}

struct Writer<'a> {
    format: &'a Format,
    shape: &'a Shape,
    special: &'a dyn Fn(&str) -> Option<u32>,
}

impl Writer<'_> {
    fn only_calls(&self, tools: &[Tool], parallel: bool) -> String {
        let before = if self.format.calls() == "harmony" { "thought? " } else { "" };
        let mut grammar = format!("start: {before}{}\n", self.calls(parallel));
        if !before.is_empty() {
            let (head, next) = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant");
            let _ = writeln!(
                grammar,
                "thought: {} TEXT {}\nTEXT: /{ANY}/",
                self.literal(head),
                self.literal(next)
            );
        }
        grammar + &self.rules(tools)
    }

    fn answer_or_calls(&self, answer: &str, tools: &[Tool], parallel: bool) -> String {
        format!("start: answer | {}\nanswer: {answer}\n{}", self.calls(parallel), self.rules(tools))
    }

    /// None where calls cannot be told from text by a mark before them.
    fn text_or_calls(&self, tools: &[Tool], parallel: bool) -> Option<String> {
        let first = [self.shape.open, self.shape.before_name].concat();
        if first.starts_with('{') {
            // An answer that begins as a call does is one.
            let text = format!("TEXT: /(\\s*[^{{\\s]{ANY})?/");
            return Some(format!("start: TEXT | {}\n{text}\n{}", self.calls(parallel), self.rules(tools)));
        }
        let mark = self.format.family.marks().iter().find(|mark| first.starts_with(**mark))?;
        if self.format.calls() == "harmony" {
            return None;
        }
        let mut grammar = String::new();
        if (self.special)(mark).is_some() {
            let _ = writeln!(grammar, "start: TEXT | TEXT {}\nTEXT: /{ANY}/", self.calls(parallel));
        } else {
            // The mark belongs to the text before it; what is left of the first call follows.
            let mark = escaped(mark);
            let rest = self.calls_after_mark(parallel);
            let _ = writeln!(grammar, "start: TEXT | lead {rest}");
            let _ = writeln!(grammar, "TEXT: /{ANY}/ & ~/{ANY}{mark}{ANY}/\nlead[lazy]: /{ANY}{mark}/");
        }
        Some(grammar + &self.rules(tools))
    }

    fn calls(&self, parallel: bool) -> String {
        let (open, close) = (self.literal(self.shape.open), self.literal(self.shape.close));
        format!("{open} call{} {close}", self.others(parallel))
    }

    /// As `calls`, but without the mark at the beginning of the first.
    fn calls_after_mark(&self, parallel: bool) -> String {
        let marks = self.format.family.marks();
        let without =
            |text: &'static str| marks.iter().find_map(|mark| text.strip_prefix(mark)).unwrap_or(text);
        let close = self.literal(self.shape.close);
        match self.shape.open {
            "" => format!(
                "{} named{} {close}",
                self.literal(without(self.shape.before_name)),
                self.others(parallel)
            ),
            open => format!("{} call{} {close}", self.literal(without(open)), self.others(parallel)),
        }
    }

    fn others(&self, parallel: bool) -> String {
        match self.shape.between.filter(|_| parallel) {
            Some(between) => format!(" ({} call)*", self.literal(between)),
            None => String::new(),
        }
    }

    fn rules(&self, tools: &[Tool]) -> String {
        let each: Vec<String> = (0..tools.len()).map(|number| format!("call_{number}")).collect();
        let mut rules =
            format!("call: {} named\nnamed: {}\n", self.literal(self.shape.before_name), each.join(" | "));
        for (number, tool) in tools.iter().enumerate() {
            let before = self.literal(&[&tool.name, self.shape.before_arguments].concat());
            let after = self.literal(self.shape.after);
            let _ = writeln!(rules, "call_{number}: {before} arguments_{number} {after}");
            let arguments = match self.shape.arguments {
                Arguments::Json => format!("%json {}", schema(tool)),
                Arguments::Parameters => self.parameters(number, tool),
                Arguments::Pairs(_) => self.pairs(tool),
            };
            let _ = writeln!(rules, "arguments_{number}: {arguments}");
        }
        if let Arguments::Pairs(quote) = self.shape.arguments {
            rules.push_str(&self.pair_values(quote));
        }
        if self.shape.arguments == Arguments::Parameters {
            // Up to the mark after it, which belongs to it.
            let _ = writeln!(rules, "parameter_value[lazy]: /{ANY}\\n<\\/parameter>\\n/");
        }
        rules
    }

    /// One parameter after the other, those that must be there and those that may.
    fn parameters(&self, number: usize, tool: &Tool) -> String {
        let (mut each, mut rules) = (Vec::new(), String::new());
        for (place, (key, schema, is_required)) in properties(tool).enumerate() {
            let (before, after) = (literal(&format!("<parameter={key}>\n")), literal("\n</parameter>\n"));
            let texts = schema.get("enum").and_then(Value::as_array);
            let value = match (schema["type"] == "string", texts) {
                (true, None) => "parameter_value".to_owned(),
                // A text stands there as it is, and not as JSON has it.
                (true, Some(texts)) => {
                    let texts = texts.iter().filter_map(Value::as_str).map(literal);
                    format!("({}) {after}", texts.collect::<Vec<_>>().join(" | "))
                }
                (false, _) => {
                    let schema = on_one_line(schema, !tool.strict);
                    let _ = write!(rules, "\nvalue_{number}_{place}: %json {schema}");
                    format!("value_{number}_{place} {after}")
                }
            };
            each.push(if is_required { format!("{before} {value}") } else { format!("({before} {value})?") });
        }
        if each.is_empty() { "\"\"".to_owned() } else { each.join(" ") + &rules }
    }

    /// Key and value, where the keys are those of the schema: first those that must be there, then those that may.
    fn pairs(&self, tool: &Tool) -> String {
        let of = |wanted: bool| -> Vec<String> {
            let those = properties(tool).filter(|(_, _, is_required)| *is_required == wanted);
            those
                .map(|(key, schema, _)| format!("{} {}", literal(&format!("{key}:")), kind(&schema)))
                .collect()
        };
        let (required, optional) = (of(true), of(false));
        let more =
            |from: usize| optional[from..].iter().map(|pair| format!(" (\",\" {pair})?")).collect::<String>();
        if !required.is_empty() {
            return format!("\"{{\" {}{} \"}}\"", required.join(" \",\" "), more(0));
        }
        // Without one that must be there, any of them may be the first.
        let lists = (0..optional.len()).map(|first| format!("{}{}", optional[first], more(first + 1)));
        match optional.is_empty() {
            true => "\"{\" \"}\"".to_owned(),
            false => format!("\"{{\" ({})? \"}}\"", lists.collect::<Vec<_>>().join(" | ")),
        }
    }

    fn pair_values(&self, quote: &str) -> String {
        let quote = self.literal(quote);
        format!(
            "pair_text: {quote} PAIR_TEXT {quote}\nPAIR_TEXT: /[^<]*/\n\
             pair_number: %json {{\"type\": \"number\"}}\npair_integer: %json {{\"type\": \"integer\"}}\n\
             pair_boolean: \"true\" | \"false\"\n\
             pair_list: \"[\" (pair_value (\",\" pair_value)*)? \"]\"\n\
             pair_object: \"{{\" (PAIR_KEY \":\" pair_value (\",\" PAIR_KEY \":\" pair_value)*)? \"}}\"\n\
             PAIR_KEY: /[A-Za-z_][A-Za-z0-9_]*/\n\
             pair_value: pair_text | pair_number | pair_boolean | \"null\" | pair_list | pair_object\n"
        )
    }

    /// A text that may hold special tokens.
    fn literal(&self, text: &str) -> String {
        let marks = self.format.family.marks().iter().filter_map(|mark| Some((*mark, (self.special)(mark)?)));
        let marks: Vec<(&str, u32)> = marks.collect();
        let mut rest = text;
        let mut written = Vec::new();
        while !rest.is_empty() {
            let next = marks.iter().filter_map(|(mark, id)| Some((rest.find(mark)?, mark.len(), *id))).min();
            let (at, length) = next.map_or((rest.len(), 0), |(at, length, _)| (at, length));
            if at > 0 {
                written.push(literal(&rest[..at]));
            }
            written.extend(next.map(|(_, _, id)| format!("<[{id}]>")));
            rest = &rest[at + length..];
        }
        written.join(" ")
    }
}

fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text as a regular expression between slashes.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() && letter != '<' && letter != '>' && letter != '_' {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The schema that arguments are held to: an object in any case. What a function says that is not strict is followed as
/// far as it can be.
fn schema(tool: &Tool) -> Value {
    let Some(Value::Object(mut schema)) = tool.parameters.clone() else {
        // It takes none, and so is given none.
        return on_one_line(
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
            false,
        );
    };
    schema.entry("type").or_insert(json!("object"));
    on_one_line(Value::Object(schema), !tool.strict)
}

/// A schema whose JSON is written on one line, as in answers that are nothing but JSON: left the choice, small models write
/// white space without end. With `lenient` what the compiler does not know is passed over.
fn on_one_line(schema: Value, lenient: bool) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    let style = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": lenient});
    schema.insert("x-guidance".to_owned(), style);
    Value::Object(schema)
}

/// (name, schema, whether it must be there) of each parameter.
fn properties(tool: &Tool) -> impl Iterator<Item = (String, Value, bool)> {
    let parameters = tool.parameters.clone().unwrap_or_default();
    let properties: Map<String, Value> =
        parameters.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let required = parameters.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    properties.into_iter().map(move |(key, schema)| {
        let is_required = required.iter().any(|name| *name == key);
        (key, schema, is_required)
    })
}

/// The rule for values of Gemma's of this kind.
fn kind(schema: &Value) -> &'static str {
    match schema["type"].as_str() {
        Some("string") => "pair_text",
        Some("number") => "pair_number",
        Some("integer") => "pair_integer",
        Some("boolean") => "pair_boolean",
        Some("array") => "pair_list",
        Some("object") => "pair_object",
        _ => "pair_value",
    }
}
