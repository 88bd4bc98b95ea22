//! The parameters that chat and plain completions share.

use serde_json::Value;

use crate::api::openai::constraint;
use crate::api::openai::fields::{Fields, ParameterError, integer, number, seed, string};
use crate::generate::{
    Attribution, Constraint, GenerateRequest, Names, Priority, Prompt, Reasoning, Sampling, ToolUse,
};

/// Most answers to one prompt.
pub const MAX_CHOICES: u32 = 64;

const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_BIASES: usize = 1024;
const MAX_STOP_TOKENS: usize = 64;
/// Longest name of a caller's user.
const MAX_END_USER: usize = 512;

/// Known elsewhere, refused here by name; both endpoints have these.
const REFUSED: &[(&str, &str)] = &[
    ("best_of", "every answer is returned; use `n`"),
    ("use_beam_search", "answers are sampled"),
    ("length_penalty", "there is no beam search"),
    ("early_stopping", "there is no beam search"),
    ("include_stop_str_in_output", "a stop text is never shown"),
    ("truncate_prompt_tokens", "a prompt is never cut"),
    ("prompt_logprobs", "use /v1/completions"),
    ("priority", "it is the administrator's to give"),
];

/// What both endpoints know about an answer, before it is put into a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerOptions {
    /// How tokens are chosen; `logprobs` is the endpoint's own business.
    pub sampling: Sampling,
    /// What the answer may be at all.
    pub constraint: Option<Constraint>,
    /// What the protocol calls what only the model can judge.
    pub names: Names,
    /// Answers wanted.
    pub choices: u32,
    /// End tokens are not looked at before this many tokens.
    pub min_new_tokens: u32,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Tokens that end an answer.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's end tokens.
    pub ignore_end: bool,
    /// Special tokens appear in the text.
    pub show_special_tokens: bool,
    /// On whose behalf the caller asks.
    pub end_user: Option<String>,
}

impl AnswerOptions {
    /// Takes them out of a body.
    ///
    /// # Errors
    /// For a value that cannot be, and parameters that are not supported.
    pub fn take(fields: &mut Fields) -> Result<Self, ParameterError> {
        let (constraint, name) = constraint::take(fields)?.unzip();
        let usual = Names::default();
        let options = Self {
            sampling: sampling(fields)?,
            constraint,
            names: Names { constraint: name.unwrap_or(usual.constraint), ..usual },
            choices: fields.small_integer("n", 1..=MAX_CHOICES)?.unwrap_or(1),
            min_new_tokens: fields.small_integer("min_tokens", 0..=u32::MAX)?.unwrap_or(0),
            stop: stop(fields)?,
            stop_token_ids: stop_token_ids(fields)?,
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            show_special_tokens: !fields.boolean("skip_special_tokens")?.unwrap_or(true),
            end_user: end_user(fields, "user")?,
        };
        fields.refuse(REFUSED)?;
        Ok(options)
    }

    /// A request with these options; nobody's yet.
    pub fn request(self, model: &str, prompt: Prompt, max_new_tokens: Option<u32>) -> GenerateRequest {
        GenerateRequest {
            model: model.to_owned(),
            prompt,
            sampling: self.sampling,
            constraint: self.constraint,
            tools: ToolUse::default(),
            reasoning: Reasoning::default(),
            verbosity: None,
            prediction: None,
            choices: self.choices,
            max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            stop: self.stop,
            stop_token_ids: self.stop_token_ids,
            ignore_end: self.ignore_end,
            show_special_tokens: self.show_special_tokens,
            echo: false,
            context: None,
            prompt_logprobs: None,
            attribution: Attribution { end_user: self.end_user, ..Attribution::default() },
            names: self.names,
            tenant: 0,
            priority: Priority::Normal,
            deadline: None,
        }
    }
}

/// A name that the caller has for its own user; it is written down.
///
/// # Errors
/// If it is no text, too long, or has control characters, which no database need take.
pub fn end_user(fields: &mut Fields, name: &'static str) -> Result<Option<String>, ParameterError> {
    let Some(user) = fields.string(name)? else { return Ok(None) };
    match user.chars().count() <= MAX_END_USER && !user.contains(char::is_control) {
        true => Ok(Some(user)),
        false => {
            let reason = format!("must be a line of {MAX_END_USER} characters at most");
            Err(ParameterError::invalid(fields.path(name), reason))
        }
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ParameterError> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        top_k: top_k(fields)?,
        repetition_penalty: fields.number("repetition_penalty", 0.01..=10.0)?,
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        typical_p: fields.number("typical_p", 0.01..=1.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        seed: fields.take("seed").map(|value| seed(&value, || fields.path("seed"))).transpose()?,
        logprobs: None,
    })
}

/// 0 and −1 both mean all.
fn top_k(fields: &mut Fields) -> Result<Option<u32>, ParameterError> {
    let Some(value) = fields.take("top_k") else { return Ok(None) };
    if value.as_f64() == Some(-1.0) {
        return Ok(Some(0));
    }
    let value = integer(&value, 0..=u64::from(u32::MAX), || "top_k".to_owned())?;
    Ok(u32::try_from(value).ok())
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ParameterError> {
    let Some(biases) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let biases = biases.into_members();
    if biases.len() > MAX_BIASES {
        let reason = format!("has {} entries, at most {MAX_BIASES} are allowed", biases.len());
        return Err(ParameterError::invalid("logit_bias", reason));
    }
    let bias = |(id, value): (String, Value)| {
        let id: u32 =
            id.parse().map_err(|_| ParameterError::invalid("logit_bias", "must have token ids as keys"))?;
        Ok((id, number(&value, -100.0..=100.0, || format!("logit_bias.{id}"))?))
    };
    biases.into_iter().map(bias).collect()
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ParameterError> {
    let texts = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::Array(texts)) if texts.len() <= MAX_STOPS => texts,
        Some(Value::Array(texts)) => {
            let reason = format!("has {} texts, at most {MAX_STOPS} are allowed", texts.len());
            return Err(ParameterError::invalid("stop", reason));
        }
        Some(text @ Value::String(_)) => vec![text],
        Some(_) => return Err(ParameterError::invalid("stop", "must be a string or an array of strings")),
    };
    let checked = |text| {
        let text = string(text, || "stop".to_owned())?;
        if (1..=MAX_STOP_BYTES).contains(&text.len()) {
            return Ok(text);
        }
        let reason = format!("must have texts of 1 to {MAX_STOP_BYTES} bytes, not {}", text.len());
        Err(ParameterError::invalid("stop", reason))
    };
    texts.into_iter().map(checked).collect()
}

fn stop_token_ids(fields: &mut Fields) -> Result<Vec<u32>, ParameterError> {
    let ids = fields.list("stop_token_ids", MAX_STOP_TOKENS)?.unwrap_or_default();
    token_ids(&ids, "stop_token_ids")
}

/// An array of token ids.
///
/// # Errors
/// For an element that is none.
pub fn token_ids(values: &[Value], path: &str) -> Result<Vec<u32>, ParameterError> {
    let id = |value: &Value| {
        let id = integer(value, 0..=u64::from(u32::MAX), || path.to_owned())?;
        Ok(u32::try_from(id).unwrap_or(u32::MAX))
    };
    values.iter().map(id).collect()
}

/// `stream` and `stream_options`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StreamOptions {
    /// Send events rather than one answer.
    pub stream: bool,
    /// End with a chunk that tells the usage.
    pub include_usage: bool,
}

impl StreamOptions {
    /// Where there is nobody to stream to.
    ///
    /// # Errors
    /// If a stream is asked for.
    pub fn refuse(self) -> Result<(), ParameterError> {
        match self.stream {
            true => Err(ParameterError::unsupported("stream", "an answer in a file is whole")),
            false => Ok(()),
        }
    }

    /// Takes them out of a body.
    ///
    /// # Errors
    /// For values that cannot be, and options without a stream.
    pub fn take(fields: &mut Fields) -> Result<Self, ParameterError> {
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let Some(mut options) = fields.object("stream_options")? else {
            return Ok(Self { stream, include_usage: false });
        };
        if !stream {
            return Err(ParameterError::invalid("stream_options", "is only allowed when `stream` is true"));
        }
        let include_usage = options.boolean("include_usage")?.unwrap_or(false);
        for (name, reason) in [
            ("include_obfuscation", "nothing is added to the events"),
            ("continuous_usage_stats", "the usage comes once, at the end"),
        ] {
            if options.boolean(name)? == Some(true) {
                return Err(ParameterError::unsupported(options.path(name), reason));
            }
        }
        options.finish()?;
        Ok(Self { stream, include_usage })
    }
}
