//! `thinking`, `output_config` and `output_format`: how much the model thinks first, and what its answer may be at all.

use crate::api::anthropic::short;
use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::generate::{Constraint, Effort, Reasoning};

/// What is sent of what the model thinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Display {
    /// All of it.
    #[default]
    Shown,
    /// That there was a thought.
    Omitted,
}

/// What a request says about thinking and about the answer's form.
#[derive(Debug, PartialEq)]
pub struct Thinking {
    /// How much the model thinks.
    pub reasoning: Reasoning,
    /// What is sent of it.
    pub display: Display,
    /// What the answer may be; none: anything.
    pub constraint: Option<Constraint>,
    /// What that was sent as.
    pub format: &'static str,
    /// What says how much the model thinks.
    pub effort: &'static str,
}

/// Takes them out of a body; `max_tokens` is what thoughts and answer may have together, where that is known.
///
/// # Errors
/// For values that cannot be.
pub fn take(fields: &mut Fields, max_tokens: Option<u32>) -> Result<Thinking, ParameterError> {
    let format = if fields.has("output_format") { "output_format" } else { "output_config.format" };
    let (effort, constraint) = output(fields)?;
    let name = if effort.is_some() { "output_config.effort" } else { "thinking.type" };
    let reasoning = Reasoning { effort, budget: None };
    let Some(mut given) = fields.object("thinking")? else {
        return Ok(Thinking { reasoning, display: Display::Shown, constraint, format, effort: name });
    };
    let kind = string(given.required("type")?, || given.path("type"))?;
    let reasoning = match kind.as_str() {
        "disabled" => Reasoning { effort: Some(Effort::None), budget: None },
        "adaptive" => reasoning,
        "enabled" => {
            let budget = budget(&mut given, max_tokens)?;
            Reasoning { effort: effort.or(Some(Effort::Medium)), budget: Some(budget) }
        }
        other => {
            let reason = format!("must be enabled, adaptive or disabled, not `{}`", short(other));
            return Err(ParameterError::invalid(given.path("type"), reason));
        }
    };
    let display = if kind == "disabled" { Display::Shown } else { display(&mut given)? };
    given.finish()?;
    Ok(Thinking { reasoning, display, constraint, format, effort: name })
}

/// Most tokens of thought. (Anthropic wants 1,024 at least; small models think less.)
fn budget(given: &mut Fields, max_tokens: Option<u32>) -> Result<u32, ParameterError> {
    let path = given.path("budget_tokens");
    let Some(budget) = given.small_integer("budget_tokens", 1..=u32::MAX)? else {
        return Err(ParameterError::missing(path, None));
    };
    if max_tokens.is_some_and(|most| budget >= most) {
        return Err(ParameterError::invalid(path, "must be less than `max_tokens`"));
    }
    Ok(budget)
}

fn display(given: &mut Fields) -> Result<Display, ParameterError> {
    match given.string("display")?.as_deref() {
        None | Some("summarized") => Ok(Display::Shown),
        Some("omitted") => Ok(Display::Omitted),
        Some(_) => Err(ParameterError::invalid(
            given.path("display"),
            "must be `summarized` (all of it) or `omitted`",
        )),
    }
}

/// `output_config`, and `output_format`, which is the older name of its `format`.
fn output(fields: &mut Fields) -> Result<(Option<Effort>, Option<Constraint>), ParameterError> {
    let older = format(fields, "output_format")?;
    let Some(mut given) = fields.object("output_config")? else { return Ok((None, older)) };
    let effort = match given.string("effort")?.as_deref() {
        None => None,
        Some("low") => Some(Effort::Low),
        Some("medium") => Some(Effort::Medium),
        Some("high" | "xhigh") => Some(Effort::High),
        Some("max") => Some(Effort::Maximal),
        Some(other) => {
            let reason = format!("must be low, medium, high, xhigh or max, not `{}`", short(other));
            return Err(ParameterError::invalid(given.path("effort"), reason));
        }
    };
    let newer = format(&mut given, "format")?;
    if older.is_some() && newer.is_some() {
        let reason = "is the older name of `output_config.format`; send one of them";
        return Err(ParameterError::invalid("output_format", reason));
    }
    given.refuse(&[("task_budget", "use `max_tokens` and `thinking.budget_tokens`")])?;
    given.finish()?;
    Ok((effort, newer.or(older)))
}

fn format(fields: &mut Fields, name: &'static str) -> Result<Option<Constraint>, ParameterError> {
    let Some(mut format) = fields.object(name)? else { return Ok(None) };
    let kind = string(format.required("type")?, || format.path("type"))?;
    if kind != "json_schema" {
        let reason = format!("must be `json_schema`, not `{}`", short(&kind));
        return Err(ParameterError::invalid(format.path("type"), reason));
    }
    let (schema, path) = (format.required("schema")?, format.path("schema"));
    let schema = Fields::of(schema, path)?.into_members();
    format.finish()?;
    Ok(Some(Constraint::JsonSchema(schema.into())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::Failure;

    fn read(body: Value) -> Result<Thinking, ParameterError> {
        take(&mut Fields::of(body, "").expect("an object"), Some(2000))
    }

    #[test]
    fn thinking_and_forms_are_read() {
        let reasoning = |body| read(body).expect("it is right").reasoning;
        let of = |effort, budget| Reasoning { effort, budget };
        assert_eq!(reasoning(json!({})), Reasoning::default());
        assert_eq!(reasoning(json!({"thinking": {"type": "disabled"}})), of(Some(Effort::None), None));
        let enabled = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
        assert_eq!(reasoning(enabled), of(Some(Effort::Medium), Some(1024)));
        let adaptive = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}});
        assert_eq!(reasoning(adaptive), of(Some(Effort::Maximal), None));
        let omitted = read(json!({"thinking": {"type": "adaptive", "display": "omitted"}}));
        assert_eq!(omitted.expect("it is right").display, Display::Omitted);
        let schema = json!({"type": "json_schema", "schema": {"type": "object"}});
        for body in [json!({"output_config": {"format": schema}}), json!({"output_format": schema})] {
            let constraint = read(body).expect("it is right").constraint;
            assert_eq!(constraint, Some(Constraint::JsonSchema(json!({"type": "object"}))));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_place() {
        let schema = json!({"type": "json_schema", "schema": {}});
        for (body, param) in [
            (json!({"thinking": true}), "thinking"),
            (json!({"thinking": {}}), "thinking.type"),
            (json!({"thinking": {"type": "deep"}}), "thinking.type"),
            (json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens"),
            (json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}), "thinking.budget_tokens"),
            (json!({"thinking": {"type": "disabled", "budget_tokens": 9}}), "thinking.budget_tokens"),
            (json!({"thinking": {"type": "adaptive", "display": "some"}}), "thinking.display"),
            (json!({"output_config": {"effort": "none"}}), "output_config.effort"),
            (json!({"output_config": {"task_budget": {}}}), "output_config.task_budget"),
            (json!({"output_config": {"format": {"type": "text"}}}), "output_config.format.type"),
            (json!({"output_format": {"type": "json_schema", "schema": []}}), "output_format.schema"),
            (json!({"output_format": schema, "output_config": {"format": schema}}), "output_format"),
        ] {
            let error = read(body.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{body}");
        }
    }
}
