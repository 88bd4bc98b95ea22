//! The functions, filters and methods a template can call: the engine's own, those of Python's types that templates use,
//! transformers' additions, and the checks that `rewrite.rs` puts in.
//!
//! Filters that chat templates have no use for and that would need a check each are left out.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::budget::{Budget, measure, over};
use super::clock;
use super::python_json::{self, Layout};

/// A value of which all may be copied, compared or written.
pub(super) const DEEP: &str = "\0deep";
/// A value of which only the outermost elements are looked at.
pub(super) const SHALLOW: &str = "\0shallow";
/// A value whose method is called.
pub(super) const METHOD: &str = "\0method";
/// A container in which something is looked for.
pub(super) const CONTAINER: &str = "\0container";
/// An operand of `+` or `~`.
pub(super) const OPERAND: &str = "\0operand";
/// A value that is stored or handed over.
pub(super) const STORE: &str = "\0store";
/// The operator `*`.
pub(super) const MULTIPLY: &str = "\0multiply";

/// The engine's filters behind those that are checked here.
const REPLACE: &str = "\0replace";
const JOIN: &str = "\0join";
const INDENT: &str = "\0indent";

/// Filters of the engine that are left out.
const LEFT_OUT: [&str; 6] = ["batch", "slice", "sum", "groupby", "pprint", "format"];
/// Most blanks of an indentation.
const MAX_INDENT: u64 = 64;
/// Most characters of a text that `str.format` is called on.
const MAX_FORMAT_BYTES: usize = 64 << 10;

/// Puts everything into the environment of one rendering.
pub(super) fn register(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    for name in LEFT_OUT {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment
        .add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(over(message)) });
    environment.add_function("strftime_now", |format: &str| clock::format_now(format).map_err(over));
    register_checks(environment, budget);
    register_filters(environment, budget);
    register_methods(environment, budget);
    let account = Arc::clone(budget);
    environment.set_formatter(move |output, state, value| {
        account.charge_emitted(value)?;
        match value.kind() {
            ValueKind::None => output.write_str("None").map_err(Error::from),
            ValueKind::Bool => {
                output.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from)
            }
            _ => escape_formatter(output, state, value),
        }
    });
}

fn register_checks(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    type Check = fn(&Budget, &Value) -> Result<(), Error>;
    let checks: [(&str, Check); 6] = [
        (DEEP, |budget, value| budget.charge_value(value).map(drop)),
        (SHALLOW, Budget::charge_elements),
        (METHOD, Budget::charge_method),
        (CONTAINER, Budget::charge_container),
        (OPERAND, Budget::charge_operand),
        (STORE, Budget::charge_stored),
    ];
    for (name, check) in checks {
        let account = Arc::clone(budget);
        environment.add_filter(name, move |value: Value| check(&account, &value).map(|()| value));
    }
    let account = Arc::clone(budget);
    environment.add_filter(MULTIPLY, move |left: Value, right: Value| multiply(&account, &left, &right));
}

fn register_filters(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    environment.add_filter(REPLACE, minijinja::filters::replace);
    environment.add_filter(JOIN, minijinja::filters::join);
    environment.add_filter(INDENT, minijinja::filters::indent);
    let account = Arc::clone(budget);
    environment.add_filter("replace", move |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        if let [text, from, to, ..] = args.as_slice() {
            account.charge_text(replaced_length(text, from, to)?)?;
        }
        state.apply_filter(REPLACE, &args)
    });
    let account = Arc::clone(budget);
    environment.add_filter("join", move |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        if let [list, rest @ ..] = args.as_slice() {
            account.charge_text(joined_length(list, rest.first())?)?;
        }
        state.apply_filter(JOIN, &args)
    });
    let account = Arc::clone(budget);
    environment.add_filter("indent", move |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        let width = indent_width(&args)?;
        let text = args.first().map(|text| text.to_string()).unwrap_or_default();
        let lines = text.lines().count() as u64 + 1;
        account.charge_text(text.len() as u64 + lines * width)?;
        state.apply_filter(INDENT, &args)
    });
    let account = Arc::clone(budget);
    environment.add_filter("tojson", move |value: Value, indent: Option<Value>, kwargs: Kwargs| {
        let layout = Layout::from_arguments(indent, &kwargs, MAX_INDENT)?;
        let size = account.charge_value(&value)?;
        account.charge_text(size.bytes)?;
        python_json::write(&value, &layout).map(Value::from_safe_string)
    });
}

fn register_methods(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let account = Arc::clone(budget);
    environment.set_unknown_method_callback(move |state, value, method, args| {
        match (method, args) {
            ("replace", [from, to, ..]) => account.charge_text(replaced_length(value, from, to)?)?,
            ("join", [list, ..]) if value.kind() == ValueKind::String => {
                account.charge_text(joined_length(list, Some(value))?)?;
            }
            ("format", _) => check_format(value)?,
            _ => {}
        }
        unknown_method_callback(state, value, method, args)
    });
}

/// `left * right`: numbers, or a text or list repeated.
fn multiply(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    for (repeated, count) in [(left, right), (right, left)] {
        if let Some(text) = repeated.as_str() {
            let count = repetitions(count)?;
            budget.charge_text((text.len() as u64).saturating_mul(count))?;
            return Ok(Value::from(text.repeat(count as usize)));
        }
        if matches!(repeated.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return repeat_list(budget, repeated, repetitions(count)?);
        }
    }
    if let (Ok(one), Ok(other)) = (i128::try_from(left.clone()), i128::try_from(right.clone())) {
        return one.checked_mul(other).map(Value::from).ok_or_else(|| over("the product is too large"));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(one), Ok(other)) => Ok(Value::from(one * other)),
        _ => Err(over(format!("`*` does not take {} and {}", left.kind(), right.kind()))),
    }
}

fn repetitions(count: &Value) -> Result<u64, Error> {
    let number =
        i64::try_from(count.clone()).map_err(|_| over("`*` repeats only a whole number of times"))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

fn repeat_list(budget: &Budget, list: &Value, count: u64) -> Result<Value, Error> {
    let items: Vec<Value> = list.try_iter()?.checked().collect::<Result<_, _>>()?;
    budget.charge_text((items.len() as u64).saturating_mul(count).saturating_mul(32))?;
    Ok(Value::from(vec![items; count as usize].concat()))
}

/// Bytes of a text after a replacement.
fn replaced_length(text: &Value, from: &Value, to: &Value) -> Result<u64, Error> {
    let (Some(text), Some(from), Some(to)) = (text.as_str(), from.as_str(), to.as_str()) else {
        let sizes = [measure(text)?, measure(from)?, measure(to)?];
        return Ok(sizes.iter().map(|size| size.bytes + size.nodes * 8).fold(1, u64::saturating_mul));
    };
    let places = text.matches(from).count() as u64;
    Ok((text.len() as u64).saturating_add(places.saturating_mul(to.len() as u64)))
}

/// Bytes of a list's elements with a separator between them.
fn joined_length(list: &Value, separator: Option<&Value>) -> Result<u64, Error> {
    let size = measure(list)?;
    let separator = separator.map_or(Ok(0), |separator| measure(separator).map(|size| size.bytes))?;
    Ok(size.bytes.saturating_add(size.nodes.saturating_mul(separator.saturating_add(4))))
}

fn indent_width(args: &[Value]) -> Result<u64, Error> {
    let named = args.iter().find(|arg| arg.is_kwargs()).and_then(|kwargs| kwargs.get_attr("width").ok());
    let positional = args.get(1).filter(|arg| !arg.is_kwargs()).cloned();
    let width = positional.or(named).filter(|width| !width.is_undefined() && !width.is_none());
    let width = width.map_or(Ok(4), u64::try_from)?;
    if width > MAX_INDENT {
        return Err(over(format!("an indentation of {width} is more than {MAX_INDENT}")));
    }
    Ok(width)
}

/// A width in a format is a number in the text: none may be long, or come from an argument.
fn check_format(value: &Value) -> Result<(), Error> {
    let text = value.as_str().unwrap_or_default();
    let mut digits = 0;
    let mut open = 0;
    for character in text.bytes() {
        digits = if character.is_ascii_digit() { digits + 1 } else { 0 };
        open = match character {
            b'{' => open + 1,
            b'}' => 0,
            _ => open,
        };
        if digits > 3 && open > 0 {
            return Err(over("a width in a format is too large"));
        }
    }
    let has_nested = text.replace("{{", "").split('{').skip(1).any(|field| !field.contains('}'));
    if has_nested || text.len() > MAX_FORMAT_BYTES {
        return Err(over("a format is too long or nests"));
    }
    Ok(())
}
