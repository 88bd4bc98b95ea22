//! Reads a JSON object member by member and complains about what is left over.
//!
//! `null` is the same as absent, as it is for OpenAI. Errors name the member, with its path.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Code, Failure};

/// What is wrong with a parameter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ParameterError {
    code: Code,
    param: String,
    message: String,
}

impl Failure for ParameterError {
    fn code(&self) -> Code {
        self.code
    }

    fn param(&self) -> Option<&str> {
        (!self.param.is_empty()).then_some(&self.param)
    }
}

impl ParameterError {
    /// A value that cannot be.
    pub fn invalid(param: impl Into<String>, reason: impl AsRef<str>) -> Self {
        let param = param.into();
        let message = format!("`{param}` {}", reason.as_ref());
        Self { code: Code::InvalidValue, param, message }
    }

    /// A parameter that exists, but not here.
    pub fn unsupported(param: impl Into<String>, reason: impl AsRef<str>) -> Self {
        let param = param.into();
        let message = format!("`{param}` is not supported: {}", reason.as_ref());
        Self { code: Code::UnsupportedParameter, param, message }
    }

    /// A parameter that must be there; `mistyped` is one that may be meant by it.
    pub fn missing(param: String, mistyped: Option<&String>) -> Self {
        let hint = mistyped.map(|name| format!("; is it meant by `{name}`?")).unwrap_or_default();
        let message = format!("`{param}` is missing{hint}");
        Self { code: Code::MissingParameter, param, message }
    }

    fn unknown(param: String, suggestion: Option<&str>) -> Self {
        let hint = suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        let message = format!("`{param}` is not a known parameter{hint}");
        Self { code: Code::UnknownParameter, param, message }
    }
}

#[cfg(test)]
thread_local! {
    /// The full name of every member that was asked for on this thread: what readers know.
    pub static ASKED: std::cell::RefCell<std::collections::BTreeSet<String>> = std::cell::RefCell::default();
}

/// The members of an object that were not read yet.
pub struct Fields {
    path: String,
    members: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl Fields {
    /// The members of `value`, which stands at `path` (empty for the body itself).
    ///
    /// # Errors
    /// If it is no object.
    pub fn of(value: Value, path: impl Into<String>) -> Result<Self, ParameterError> {
        let path = path.into();
        match value {
            Value::Object(members) => Ok(Self { path, members, asked: Vec::new() }),
            _ if path.is_empty() => Err(ParameterError {
                code: Code::InvalidJson,
                param: String::new(),
                message: "the body must be a JSON object".to_owned(),
            }),
            other => Err(ParameterError::invalid(path, format!("must be an object, not {}", kind(&other)))),
        }
    }

    /// The full name of a member.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether a member is there, without taking it.
    pub fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a member of any kind; `null` counts as absent.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(self.path(name)));
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a member that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn required(&mut self, name: &'static str) -> Result<Value, ParameterError> {
        match self.take(name) {
            Some(value) => Ok(value),
            None => Err(ParameterError::missing(
                self.path(name),
                self.members.keys().find(|key| is_near(key, name)),
            )),
        }
    }

    /// Takes a text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn string(&mut self, name: &'static str) -> Result<Option<String>, ParameterError> {
        self.take(name).map(|value| string(value, || self.path(name))).transpose()
    }

    /// Takes a truth value.
    ///
    /// # Errors
    /// If it is something else.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ParameterError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    /// Takes a whole number within a range.
    ///
    /// # Errors
    /// If it is something else or outside.
    pub fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ParameterError> {
        self.take(name).map(|value| integer(&value, range, || self.path(name))).transpose()
    }

    /// As [`Fields::integer`], for ranges within `u32`.
    ///
    /// # Errors
    /// If it is something else or outside.
    pub fn small_integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ParameterError> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        let value = self.integer(name, wide)?;
        Ok(value.and_then(|value| u32::try_from(value).ok()))
    }

    /// Takes a number within a range.
    ///
    /// # Errors
    /// If it is something else or outside.
    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ParameterError> {
        self.take(name).map(|value| number(&value, range, || self.path(name))).transpose()
    }

    /// Takes a list.
    ///
    /// # Errors
    /// If it is something else, or longer than `most`.
    pub fn list(&mut self, name: &'static str, most: usize) -> Result<Option<Vec<Value>>, ParameterError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(values)) if values.len() <= most => Ok(Some(values)),
            Some(Value::Array(values)) => Err(ParameterError::invalid(
                self.path(name),
                format!("has {} elements, at most {most} are allowed", values.len()),
            )),
            Some(other) => Err(self.wrong(name, "an array", &other)),
        }
    }

    /// Takes an object.
    ///
    /// # Errors
    /// If it is something else.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Self>, ParameterError> {
        let path = self.path(name);
        self.take(name).map(|value| Self::of(value, path)).transpose()
    }

    /// Members of an object whose names are not known in advance.
    pub fn into_members(self) -> Map<String, Value> {
        self.members
    }

    /// Takes parameters that change nothing here, whatever they hold.
    pub fn accept(&mut self, names: &[&'static str]) {
        for name in names {
            let _ = self.take(name);
        }
    }

    /// Refuses parameters that exist, but not here.
    ///
    /// # Errors
    /// If one of them is there.
    pub fn refuse(&mut self, names: &[(&'static str, &str)]) -> Result<(), ParameterError> {
        for (name, reason) in names {
            if self.take(name).is_some() {
                return Err(ParameterError::unsupported(self.path(name), reason));
            }
        }
        Ok(())
    }

    /// Refuses what is left over.
    ///
    /// # Errors
    /// If anything is.
    pub fn finish(self) -> Result<(), ParameterError> {
        let Some((name, _)) = self.members.iter().find(|(_, value)| !value.is_null()) else {
            return Ok(());
        };
        let short: String = name.chars().take(64).collect();
        let suggestion = self.asked.iter().copied().find(|known| is_near(&short, known));
        Err(ParameterError::unknown(self.path(&short), suggestion))
    }

    fn wrong(&self, name: &str, wanted: &str, found: &Value) -> ParameterError {
        ParameterError::invalid(self.path(name), format!("must be {wanted}, not {}", kind(found)))
    }
}

/// A text.
///
/// # Errors
/// If it is something else.
pub fn string(value: Value, path: impl FnOnce() -> String) -> Result<String, ParameterError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(ParameterError::invalid(path(), format!("must be a string, not {}", kind(&other)))),
    }
}

/// A whole number; `1.0` is one too.
///
/// # Errors
/// If it is something else or outside of the range.
pub fn integer(
    value: &Value,
    range: RangeInclusive<u64>,
    path: impl FnOnce() -> String,
) -> Result<u64, ParameterError> {
    let Value::Number(number) = value else {
        return Err(ParameterError::invalid(path(), format!("must be a whole number, not {}", kind(value))));
    };
    let whole = number.as_u64().or_else(|| number.as_f64().and_then(whole));
    match whole {
        Some(whole) if range.contains(&whole) => Ok(whole),
        _ => {
            let (least, most) = (range.start(), range.end());
            let reason = format!("must be a whole number from {least} to {most}, not {number}");
            Err(ParameterError::invalid(path(), reason))
        }
    }
}

/// A seed: any whole number that has 64 bits, with a sign or without. Those below 0 are told apart by the same bits.
///
/// # Errors
/// If it is something else.
pub fn seed(value: &Value, path: impl FnOnce() -> String) -> Result<u64, ParameterError> {
    let exact =
        |number: f64| whole(-number).and_then(|number| i64::try_from(number).ok()).map(|number| -number);
    let signed = value.as_i64().or_else(|| value.as_f64().and_then(exact));
    match signed {
        Some(below_zero @ ..0) => Ok(below_zero.cast_unsigned()),
        _ => integer(value, 0..=u64::MAX, path),
    }
}

/// The number without its fraction of zero, where that is exact.
fn whole(number: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    ((0.0..=EXACT).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

/// A number.
///
/// # Errors
/// If it is something else or outside of the range.
pub fn number(
    value: &Value,
    range: RangeInclusive<f64>,
    path: impl FnOnce() -> String,
) -> Result<f32, ParameterError> {
    match value.as_f64() {
        #[allow(clippy::cast_possible_truncation, reason = "parameters are small")]
        Some(number) if range.contains(&number) => Ok(number as f32),
        Some(number) => {
            let (least, most) = (range.start(), range.end());
            Err(ParameterError::invalid(path(), format!("must be from {least} to {most}, not {number}")))
        }
        None => Err(ParameterError::invalid(path(), format!("must be a number, not {}", kind(value)))),
    }
}

/// What a value is, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether two names differ in at most two places.
fn is_near(given: &str, known: &str) -> bool {
    if given.len() > 64 {
        return false;
    }
    let (given, known): (Vec<char>, Vec<char>) = (given.chars().collect(), known.chars().collect());
    if given.len().abs_diff(known.len()) > 2 || known.len() < 4 {
        return false;
    }
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (i, a) in given.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in known.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[known.len()] <= 2
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(value: Value) -> Fields {
        Fields::of(value, "").expect("it is an object")
    }

    #[test]
    fn what_is_left_over_is_named_with_a_suggestion() {
        let mut fields = body(json!({"temprature": 1, "model": "m"}));
        fields.accept(&["model", "temperature"]);
        let error = fields.finish().expect_err("it is unknown");
        assert_eq!(error.code(), Code::UnknownParameter);
        assert_eq!(error.param(), Some("temprature"));
        assert!(error.to_string().ends_with("did you mean `temperature`?"), "{error}");
    }

    #[test]
    fn a_missing_parameter_is_found_under_a_mistyped_name() {
        let error = body(json!({"inptu": "x"})).required("input").expect_err("it is missing");
        assert_eq!(error.param(), Some("input"));
        assert!(error.to_string().contains("`inptu`"), "{error}");
        let error = body(json!({"x": 1})).required("input").expect_err("it is missing");
        assert_eq!(error.to_string(), "`input` is missing");
    }

    #[test]
    fn null_is_absent_everywhere() {
        let mut fields = body(json!({"a": null, "tools": null, "x": null}));
        assert_eq!(fields.string("a"), Ok(None));
        assert_eq!(fields.refuse(&[("tools", "not yet")]), Ok(()));
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn numbers_are_not_read_out_of_texts() {
        let mut fields = body(json!({"n": "1", "t": "0.5", "b": "true"}));
        for error in [
            fields.integer("n", 0..=9).expect_err("it is a text").to_string(),
            fields.number("t", 0.0..=1.0).expect_err("it is a text").to_string(),
            fields.boolean("b").expect_err("it is a text").to_string(),
        ] {
            assert!(error.ends_with("not a string"), "{error}");
        }
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_fraction_of_zero() {
        let mut fields = body(json!({"a": 3.0, "b": 3.5, "c": -1, "d": 18446744073709551615_u64, "e": 1e30}));
        assert_eq!(fields.integer("a", 0..=9), Ok(Some(3)));
        assert!(fields.integer("b", 0..=9).is_err());
        assert!(fields.integer("c", 0..=9).is_err());
        assert_eq!(fields.integer("d", 0..=u64::MAX), Ok(Some(u64::MAX)));
        assert!(fields.integer("e", 0..=u64::MAX).is_err());
    }

    #[test]
    fn a_seed_is_any_whole_number_of_64_bits_and_each_is_another() {
        let read = |value: Value| seed(&value, || "seed".to_owned()).ok();
        assert_eq!(
            (read(json!(7)), read(json!(-1)), read(json!(-1.0))),
            (Some(7), Some(u64::MAX), Some(u64::MAX))
        );
        assert_eq!((read(json!(0)), read(json!(-0.0)), read(json!(3.0))), (Some(0), Some(0), Some(3)));
        assert_eq!((read(json!(i64::MIN)), read(json!(u64::MAX))), (Some(1 << 63), Some(u64::MAX)));
        for wrong in [json!(-1.5), json!(1.5), json!("7"), json!(1e30), json!(-1e30), json!(true)] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn inner_members_are_named_by_their_path() {
        let mut fields = body(json!({"stream_options": {"include_usage": 1}}));
        let mut inner = fields.object("stream_options").expect("an object").expect("it is there");
        let error = inner.boolean("include_usage").expect_err("not a truth value");
        assert_eq!(error.param(), Some("stream_options.include_usage"));
    }
}
