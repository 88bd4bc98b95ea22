//! `options`, `format`, `think` and `logprobs`: what both ways of generating have in common.

use serde_json::Value;

use crate::api::openai::fields::{self, Fields, ParameterError, string};
use crate::api::openai::sampling::AnswerOptions;
use crate::generate::{Constraint, Effort, GenerateRequest, Names, Prompt, Reasoning, Sampling, ToolUse};

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// How many tokens Ollama's penalties look at.
const USUAL_WINDOW: i64 = 64;

/// How a model is loaded and spread is the server's business.
const WITHOUT_EFFECT: &[&str] = &[
    "numa",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "embedding_only",
    "use_mmap",
    "use_mlock",
];

/// How an answer is made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerParameters {
    options: AnswerOptions,
    max_new_tokens: Option<u32>,
    /// The context that is asked for, prompt and answer together; it must not be longer than the model's.
    pub context: Option<u32>,
    constraint: Option<Constraint>,
    reasoning: Reasoning,
    /// Send lines rather than one answer.
    pub stream: bool,
}

impl AnswerParameters {
    /// Takes them out of a body.
    ///
    /// # Errors
    /// For values that cannot be, and options that are not supported.
    pub fn take(fields: &mut Fields) -> Result<Self, ParameterError> {
        let mut taken = Self { stream: fields.boolean("stream")?.unwrap_or(true), ..Self::default() };
        taken.options.choices = 1;
        if let Some(mut options) = fields.object("options")? {
            taken.take_options(&mut options)?;
            options.finish()?;
        }
        taken.options.sampling.logprobs = logprobs(fields)?;
        taken.constraint = constraint(fields)?;
        taken.reasoning = reasoning(fields)?;
        Ok(taken)
    }

    fn take_options(&mut self, options: &mut Fields) -> Result<(), ParameterError> {
        self.options.sampling = sampling(options)?;
        self.options.stop = stop(options)?;
        self.max_new_tokens = max_new_tokens(options)?;
        self.context = options.small_integer("num_ctx", 1..=u32::MAX)?;
        options.accept(WITHOUT_EFFECT);
        fixed(options)
    }

    /// Whether log-probabilities are wanted.
    pub fn has_logprobs(&self) -> bool {
        self.options.sampling.logprobs.is_some()
    }

    /// A request with them.
    pub fn request(self, model: &str, prompt: Prompt, tools: ToolUse) -> GenerateRequest {
        GenerateRequest {
            tools,
            constraint: self.constraint,
            reasoning: self.reasoning,
            context: self.context,
            names: Names {
                constraint: "format",
                max_new_tokens: "options.num_predict",
                temperature: "options.temperature",
                effort: "think",
                budget: "think",
                ..Names::default()
            },
            ..self.options.request(model, prompt, self.max_new_tokens)
        }
    }
}

fn sampling(options: &mut Fields) -> Result<Sampling, ParameterError> {
    let mut sampling = Sampling {
        temperature: options.number("temperature", 0.0..=2.0)?,
        top_p: options.number("top_p", 0.0..=1.0)?,
        top_k: options.small_integer("top_k", 0..=u32::MAX)?,
        repetition_penalty: options.number("repeat_penalty", 0.01..=10.0)?,
        min_p: options.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        typical_p: options.number("typical_p", 0.01..=1.0)?,
        presence_penalty: options.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: options.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        seed: seed(options)?,
        ..Sampling::default()
    };
    match options.take("repeat_last_n").map(|window| window.as_i64()) {
        // 64 is Ollama's usual, which clients send unasked.
        None | Some(Some(-1 | USUAL_WINDOW)) => {}
        Some(Some(0)) => {
            sampling.repetition_penalty = Some(1.0);
            (sampling.presence_penalty, sampling.frequency_penalty) = (0.0, 0.0);
        }
        // Without a penalty nothing looks.
        Some(Some(1..)) if !has_penalty(&sampling) => {}
        Some(_) => {
            let reason = "penalties look at the whole context (-1) or at nothing (0)";
            return Err(ParameterError::unsupported(options.path("repeat_last_n"), reason));
        }
    }
    Ok(sampling)
}

fn has_penalty(sampling: &Sampling) -> bool {
    sampling.repetition_penalty.is_some_and(|penalty| penalty != 1.0)
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0
}

/// Any whole number; -1, which is Ollama's for a matter of chance and may come as -1.0, is as if it were not there.
fn seed(options: &mut Fields) -> Result<Option<u64>, ParameterError> {
    let given = options.take("seed").filter(|value| value.as_f64() != Some(-1.0));
    given.map(|value| fields::seed(&value, || options.path("seed"))).transpose()
}

/// Most tokens of the answer; -1, -2 and 0 mean as many as the context has room for.
fn max_new_tokens(options: &mut Fields) -> Result<Option<u32>, ParameterError> {
    let path = options.path("num_predict");
    let Some(value) = options.take("num_predict") else { return Ok(None) };
    match value.as_i64() {
        Some(-2..=0) => Ok(None),
        Some(number) if u32::try_from(number).is_ok() => Ok(u32::try_from(number).ok()),
        _ => Err(ParameterError::invalid(
            path,
            "must be a whole number of tokens, or -1 for as many as there is room for",
        )),
    }
}

fn stop(options: &mut Fields) -> Result<Vec<String>, ParameterError> {
    let path = options.path("stop");
    let texts = match options.take("stop") {
        None => Vec::new(),
        Some(text @ Value::String(_)) => vec![text],
        Some(Value::Array(texts)) if texts.len() <= MAX_STOPS => texts,
        Some(_) => {
            let reason = format!("must be a string or an array of at most {MAX_STOPS} strings");
            return Err(ParameterError::invalid(path, reason));
        }
    };
    let checked = |text| {
        let text = string(text, || path.clone())?;
        if (1..=MAX_STOP_BYTES).contains(&text.len()) {
            return Ok(text);
        }
        let reason = format!("must have texts of 1 to {MAX_STOP_BYTES} bytes, not {}", text.len());
        Err(ParameterError::invalid(path.clone(), reason))
    };
    texts.into_iter().map(checked).collect()
}

/// Options that may have only the value that changes nothing.
fn fixed(options: &mut Fields) -> Result<(), ParameterError> {
    let wrong = |options: &Fields, name: &str, reason: &str| {
        Err(ParameterError::unsupported(options.path(name), reason))
    };
    if options.take("mirostat").is_some_and(|kind| kind.as_f64() != Some(0.0)) {
        return wrong(options, "mirostat", "there is no such sampler; use `top_p`, `min_p` or `typical_p`");
    }
    if options.take("tfs_z").is_some_and(|z| z.as_f64() != Some(1.0)) {
        return wrong(options, "tfs_z", "there is no such sampler; use `top_p`, `min_p` or `typical_p`");
    }
    if options.boolean("penalize_newline")? == Some(false) {
        return wrong(options, "penalize_newline", "penalties are the same for all tokens");
    }
    options.accept(&["mirostat_tau", "mirostat_eta"]);
    Ok(())
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ParameterError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let alternatives = fields.small_integer("top_logprobs", 0..=20)?;
    match alternatives {
        Some(1..) if !wanted => Err(ParameterError::invalid("top_logprobs", "needs `logprobs` to be true")),
        alternatives => Ok(wanted.then_some(alternatives.unwrap_or(0))),
    }
}

fn constraint(fields: &mut Fields) -> Result<Option<Constraint>, ParameterError> {
    match fields.take("format") {
        None => Ok(None),
        Some(Value::String(format)) if format.is_empty() => Ok(None),
        Some(Value::String(format)) if format == "json" => Ok(Some(Constraint::JsonObject)),
        Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema))),
        Some(_) => Err(ParameterError::invalid("format", "must be `json` or a JSON schema")),
    }
}

fn reasoning(fields: &mut Fields) -> Result<Reasoning, ParameterError> {
    let effort = match fields.take("think") {
        None => return Ok(Reasoning::default()),
        Some(Value::Bool(true)) => Effort::Medium,
        Some(Value::Bool(false)) => Effort::None,
        Some(Value::String(effort)) => match effort.as_str() {
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "max" => Effort::Maximal,
            _ => {
                return Err(ParameterError::invalid(
                    "think",
                    "must be true, false, low, medium, high or max",
                ));
            }
        },
        Some(_) => {
            return Err(ParameterError::invalid("think", "must be true, false, low, medium, high or max"));
        }
    };
    Ok(Reasoning { effort: Some(effort), budget: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Failure;

    fn read(body: Value) -> Result<AnswerParameters, ParameterError> {
        let mut fields = Fields::of(body, "").expect("an object");
        let taken = AnswerParameters::take(&mut fields)?;
        fields.finish().map(|()| taken)
    }

    #[test]
    fn options_become_what_the_engine_knows() {
        let read = read(
            json!({"stream": false, "format": "json", "think": "high", "logprobs": true, "top_logprobs": 2,
            "options": {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "seed": 42, "stop": ["a", "b"],
                "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": 0.5, "num_predict": 9, "num_ctx": 64,
                "num_gpu": -1, "num_thread": 8, "mirostat": 0, "mirostat_tau": 5.0, "repeat_last_n": -1}}),
        );
        let read = read.expect("it is right");
        let sampling = &read.options.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (Some(0.5), Some(7), Some(42)));
        assert_eq!((sampling.repetition_penalty, sampling.presence_penalty), (Some(1.1), 1.0));
        assert_eq!((sampling.logprobs, read.max_new_tokens, read.context), (Some(2), Some(9), Some(64)));
        assert_eq!((read.options.stop.len(), read.stream), (2, false));
        assert_eq!(read.constraint, Some(Constraint::JsonObject));
        assert_eq!(read.reasoning.effort, Some(Effort::High));
    }

    #[test]
    fn a_seed_below_zero_is_one_but_for_minus_one() {
        let seed =
            |seed: Value| read(json!({"options": {"seed": seed}})).map(|read| read.options.sampling.seed);
        for chance in [json!(-1), json!(-1.0)] {
            assert_eq!(seed(chance), Ok(None));
        }
        assert_eq!(seed(json!(0)), Ok(Some(0)));
        assert_eq!(seed(json!(-2)), Ok(Some(u64::MAX - 1)));
    }

    #[test]
    fn what_means_nothing_is_as_if_it_were_not_there() {
        let usual = read(json!({})).expect("nothing is needed");
        assert!(usual.stream);
        for body in [
            json!({"options": {"num_predict": -1, "seed": -1}}),
            json!({"options": {"num_predict": 0}}),
            json!({"options": {"repeat_last_n": 64}}),
            json!({"options": {"repeat_last_n": 32}}),
            json!({"options": {}, "format": "", "logprobs": false}),
            json!({"options": null, "format": null, "think": null, "stream": null}),
        ] {
            assert_eq!(read(body.clone()), Ok(usual.clone()), "{body}");
        }
        let off = read(json!({"options": {"repeat_last_n": 0, "repeat_penalty": 2, "presence_penalty": 1}}));
        let sampling = off.expect("it is right").options.sampling;
        assert_eq!((sampling.repetition_penalty, sampling.presence_penalty), (Some(1.0), 0.0));
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_place() {
        for (body, param) in [
            (json!({"options": []}), "options"),
            (json!({"options": {"temperature": 3}}), "options.temperature"),
            (json!({"options": {"seed": 0.5}}), "options.seed"),
            (json!({"options": {"num_predict": -3}}), "options.num_predict"),
            (json!({"options": {"num_ctx": 0}}), "options.num_ctx"),
            (json!({"options": {"stop": 7}}), "options.stop"),
            (json!({"options": {"stop": [""]}}), "options.stop"),
            (json!({"options": {"mirostat": 2}}), "options.mirostat"),
            (json!({"options": {"tfs_z": 0.5}}), "options.tfs_z"),
            (json!({"options": {"penalize_newline": false}}), "options.penalize_newline"),
            (json!({"options": {"repeat_last_n": 32, "repeat_penalty": 1.1}}), "options.repeat_last_n"),
            (json!({"options": {"repeat_last_n": -2}}), "options.repeat_last_n"),
            (json!({"options": {"top_q": 1}}), "options.top_q"),
            (json!({"format": "xml"}), "format"),
            (json!({"think": "hard"}), "think"),
            (json!({"think": 1}), "think"),
            (json!({"top_logprobs": 2}), "top_logprobs"),
            (json!({"stream": "no"}), "stream"),
        ] {
            let error = read(body.clone()).expect_err("it must be refused");
            assert_eq!(error.param(), Some(param), "{body}");
        }
    }
}
