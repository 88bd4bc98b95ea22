//! Whether the lines of a batch are requests at all: each is one, for the batch's URL, and has a name of its own.
//!
//! Not whether the requests are right: that is found when it is their turn, and is their result.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value};

use crate::batch::splitter::{RawLine, TooLong};
use crate::http::json;
use crate::store::batches::{BatchError, LineRow};

/// Most lines of a batch, as at OpenAI.
pub(super) const MOST_LINES: usize = 50_000;

/// Mistakes that are told of one batch.
const MOST_ERRORS: usize = 100;

/// Longest name, in characters.
const LONGEST_ID: usize = 512;

/// Longest name of a model, in bytes, that is kept.
const LONGEST_MODEL: usize = 256;

/// A line that was found right.
#[derive(Debug)]
pub(super) struct RightLine {
    row: LineRow,
    /// The model that it asks for.
    model: Option<String>,
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Findings {
    /// Lines that were found right.
    pub(super) lines: usize,
    /// What is wrong.
    pub(super) errors: Vec<BatchError>,
    /// Of the names seen.
    seen: HashSet<[u8; 16]>,
    /// The models that are asked for; the first two of them.
    models: BTreeSet<Option<String>>,
}

impl Findings {
    /// Whether there is no use in going on.
    pub(super) fn are_enough(&self) -> bool {
        self.errors.len() >= MOST_ERRORS || self.lines > MOST_LINES
    }

    /// Adds what was found of some lines; those that are right, and whose names are new.
    pub(super) fn add(&mut self, found: Vec<Result<RightLine, BatchError>>) -> Vec<LineRow> {
        let mut right = Vec::new();
        for line in found {
            match line.and_then(|line| self.check_name(line)) {
                Ok(line) => right.push(line),
                Err(error) if self.errors.len() < MOST_ERRORS => self.errors.push(error),
                Err(_) => {}
            }
        }
        self.lines += right.len();
        if self.lines > MOST_LINES && self.errors.len() < MOST_ERRORS {
            let message = format!("there are more than {MOST_LINES} lines");
            self.errors.push(error("too_many_lines", message, None, None));
        }
        right
    }

    /// The model that all lines ask for, if it is one.
    pub(super) fn model(&self) -> Option<&str> {
        match self.models.len() {
            1 => self.models.first()?.as_deref(),
            _ => None,
        }
    }

    fn check_name(&mut self, RightLine { row: line, model }: RightLine) -> Result<LineRow, BatchError> {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(line.custom_id.as_bytes()).as_bytes()[..16]);
        if self.seen.insert(short) {
            if self.models.len() < 2 {
                self.models.insert(model);
            }
            return Ok(line);
        }
        let message = "`custom_id` is that of another line".to_owned();
        Err(error("duplicate_custom_id", message, Some("custom_id"), Some(line.number)))
    }

    /// A line is longer than it may be.
    pub(super) fn too_long(&mut self, TooLong(number): TooLong, longest: usize) {
        let message = format!("the line is longer than {longest} bytes");
        self.errors.push(error("line_too_long", message, None, Some(number)));
    }

    /// All was read.
    pub(super) fn finish(&mut self) {
        if self.lines == 0 && self.errors.is_empty() {
            self.errors.push(error("empty_file", "the file has no lines".to_owned(), None, None));
        }
    }
}

/// A mistake.
pub(super) fn error(code: &str, message: String, param: Option<&str>, line: Option<i64>) -> BatchError {
    BatchError { code: code.to_owned(), message, param: param.map(str::to_owned), line }
}

/// What some lines are, for a batch for this URL.
pub(super) fn check(lines: &[RawLine], endpoint: &str) -> Vec<Result<RightLine, BatchError>> {
    lines.iter().map(|line| check_line(line, endpoint)).collect()
}

fn check_line(line: &RawLine, endpoint: &str) -> Result<RightLine, BatchError> {
    let wrong =
        |code: &str, param: &str, message: String| error(code, message, Some(param), Some(line.number));
    let mut members = members(&line.bytes)
        .map_err(|message| error("invalid_json_line", message, None, Some(line.number)))?;
    let custom_id = match members.remove("custom_id") {
        Some(Value::String(text)) if is_name(&text) => text,
        found => {
            let code = if found.is_some() { "invalid_custom_id" } else { "missing_required_parameter" };
            let message = format!("`custom_id` must be a text of 1 to {LONGEST_ID} characters");
            return Err(wrong(code, "custom_id", message));
        }
    };
    if members.remove("method").is_none_or(|method| method != "POST") {
        return Err(wrong("invalid_method", "method", "`method` must be `POST`".to_owned()));
    }
    if members.remove("url").is_none_or(|url| url != endpoint) {
        let message = format!("`url` must be the batch's `endpoint`, {endpoint}");
        return Err(wrong("mismatched_endpoint", "url", message));
    }
    let Some(body) = members.remove("body").filter(Value::is_object) else {
        return Err(wrong("invalid_body", "body", "`body` must be an object".to_owned()));
    };
    if let Some(name) = members.keys().next() {
        let name: String = name.chars().take(64).collect();
        return Err(wrong("unknown_parameter", &name, format!("`{name}` is not a known member of a line")));
    }
    let (number, place, length) = (line.number, line.place, line.bytes.len() as i64);
    let row = LineRow { number, custom_id, place, length, status: None, output: None };
    let is_plain = |name: &&str| name.len() <= LONGEST_MODEL && !name.contains(char::is_control);
    Ok(RightLine { row, model: body["model"].as_str().filter(is_plain).map(str::to_owned) })
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.chars().count()) && !text.contains('\0')
}

/// The members of a line.
fn members(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match json::parse(bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("the line must be a JSON object".to_owned()),
        Err(error) => Err(error.message_in(crate::language::Language::English).into_owned()),
    }
}

/// The request in a line that was found right.
pub(super) fn body(bytes: &[u8]) -> Option<Value> {
    members(bytes).ok()?.remove("body")
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "/v1/embeddings";

    fn find(text: &[u8]) -> Findings {
        let mut findings = Findings::default();
        let mut lines = Vec::new();
        for (number, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
            lines.push(RawLine { number: number as i64 + 1, place: 0, bytes: bytes.to_vec() });
        }
        findings.add(check(&lines, URL));
        findings
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        let right = |id: &str| format!(r#"{{"custom_id":{id},"method":"POST","url":"{URL}","body":{{}}}}"#);
        let deep = format!(r#"{{"custom_id":"a","body":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        let long = format!("\"{}\"", "x".repeat(513));
        for (line, code, param) in [
            (right("\"a\""), None, None),
            (right("\"b\""), Some("duplicate_custom_id"), Some("custom_id")),
            (right("7"), Some("invalid_custom_id"), Some("custom_id")),
            (right("\"\""), Some("invalid_custom_id"), Some("custom_id")),
            (right("\"a\\u0000\""), Some("invalid_custom_id"), Some("custom_id")),
            (right(&long), Some("invalid_custom_id"), Some("custom_id")),
            (right("\"c\"").replace("POST", "GET"), Some("invalid_method"), Some("method")),
            (right("\"c\"").replace(URL, "/v1/models"), Some("mismatched_endpoint"), Some("url")),
            (right("\"c\"").replace("{}", "[]"), Some("invalid_body"), Some("body")),
            (
                right("\"c\"").replace("\"body\"", "\"bdoy\":1,\"body\""),
                Some("unknown_parameter"),
                Some("bdoy"),
            ),
            ("{\"method\":\"POST\"}".into(), Some("missing_required_parameter"), Some("custom_id")),
            ("[]".into(), Some("invalid_json_line"), None),
            ("{\"custom_id\":".into(), Some("invalid_json_line"), None),
            (deep, Some("invalid_json_line"), None),
        ] {
            let findings = find(format!("{}\n{line}", right("\"b\"")).as_bytes());
            let found = findings.errors.first();
            assert_eq!(found.map(|error| error.code.as_str()), code, "{line}");
            assert_eq!(found.and_then(|error| error.param.as_deref()), param, "{line}");
            assert_eq!(found.and_then(|error| error.line), code.map(|_| 2), "{line}");
        }
        assert_eq!(find(b"\xff\xfe").errors[0].code, "invalid_json_line");
    }

    #[test]
    fn mistakes_and_lines_have_an_end() {
        let findings = find("x\n".repeat(1000).as_bytes());
        assert_eq!((findings.errors.len(), findings.are_enough()), (MOST_ERRORS, true));
        let line = |number: usize| {
            let (number, custom_id) = (number as i64, number.to_string());
            let row = LineRow { number, custom_id, place: 0, length: 1, status: None, output: None };
            RightLine { row, model: None }
        };
        let mut findings = Findings::default();
        findings.add((0..MOST_LINES).map(|number| Ok(line(number))).collect());
        assert!(findings.errors.is_empty() && !findings.are_enough());
        findings.add(vec![Ok(line(MOST_LINES))]);
        assert_eq!((findings.errors[0].code.as_str(), findings.are_enough()), ("too_many_lines", true));
    }

    #[test]
    fn the_model_is_that_of_all_lines() {
        let line = |id: usize, body: &str| {
            format!(r#"{{"custom_id":"{id}","method":"POST","url":"{URL}","body":{body}}}"#)
        };
        let model = |bodies: &[&str]| {
            let lines: Vec<_> = bodies.iter().enumerate().map(|(id, body)| line(id, body)).collect();
            find(lines.join("\n").as_bytes()).model().map(str::to_owned)
        };
        let (one, other) = (r#"{"model":"one"}"#, r#"{"model":"other"}"#);
        assert_eq!(model(&[one, one, one]).as_deref(), Some("one"));
        for bodies in [&[one, other][..], &[one, "{}"], &["{}", one], &["{}"], &[r#"{"model":"a\u0000"}"#]] {
            assert_eq!(model(bodies), None, "{bodies:?}");
        }
    }

    #[test]
    fn a_file_without_lines_is_none() {
        let mut findings = Findings::default();
        findings.finish();
        assert_eq!(findings.errors[0].code, "empty_file");
    }
}
