//! The body of `POST /v1/responses`, read member by member: every one is honoured, or refused by its name.

use serde_json::{Map, Value, json};

use crate::api::openai::fields::{Fields, ParameterError, kind, number, string};
use crate::api::openai::metadata;
use crate::api::openai::responses::conversation;
use crate::api::openai::responses::included::Included;
use crate::api::openai::responses::item::{self, Given, Item};
use crate::api::openai::responses::tools::{Tools, is_name};
use crate::api::openai::sampling::end_user;
use crate::api::openai::service_tier;
use crate::generate::{
    Attribution, Constraint, Effort, GenerateRequest, Names, Priority, Prompt, Reasoning, Sampling, Verbosity,
};

/// Longest `safety_identifier` and `prompt_cache_key`, in characters.
const LONGEST_SAFETY_IDENTIFIER: usize = 64;
const LONGEST_CACHE_KEY: usize = 512;

/// Known to OpenAI's clients, refused by name.
const REFUSED: &[(&str, &str)] = &[
    ("conversation", "use `previous_response_id`, or send the items"),
    ("prompt", "prompts are not kept here: send `instructions` and `input`"),
    ("context_management", "what a model is told is what was sent"),
    ("moderation", "answers are not moderated"),
    ("access_programs", "there are none"),
    ("background_options", "what is made in the background is made at once"),
    ("image", "the models here read text"),
    ("prompt_cache_options", "the cache keeps what it can"),
    ("prompt_cache_retention", "the cache keeps what it can"),
    ("messages", "it is called `input` here"),
    ("max_tokens", "it is called `max_output_tokens` here"),
    ("max_completion_tokens", "it is called `max_output_tokens` here"),
    ("response_format", "it is called `text.format` here"),
    ("reasoning_effort", "it is called `reasoning.effort` here"),
    ("n", "there is one answer"),
];

/// A request, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseRequest {
    /// What is asked.
    pub question: Question,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of the answer.
    pub max_output_tokens: Option<u32>,
    /// Send events rather than one answer.
    pub stream: bool,
    /// Keep the answer; none: as is usual.
    pub store: Option<bool>,
    /// Go on though the client leaves.
    pub background: bool,
    /// Who goes first.
    pub priority: Priority,
    /// What is shown of thoughts.
    pub thoughts: Thoughts,
    /// What is shown again as it was sent.
    pub echoed: Echoed,
}

/// What is asked: all that makes the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The model.
    pub model: String,
    /// What the model is told first.
    pub instructions: Option<String>,
    /// What is new.
    pub input: Vec<Given>,
    /// The answer that this one goes on from.
    pub previous: Option<String>,
    /// Functions.
    pub tools: Tools,
    /// How much is thought.
    pub reasoning: Reasoning,
    /// What the answer may be at all.
    pub constraint: Option<Constraint>,
    /// How much is said.
    pub verbosity: Option<Verbosity>,
    /// What becomes of a conversation that is too long: `disabled`, `auto`.
    truncation: &'static str,
    /// `reasoning` and `text` as they are shown.
    shown: (Value, Value),
}

/// What is shown of what the model thinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thoughts {
    /// In the summary, where those look who asked for one; else as what they are.
    pub as_summary: bool,
    /// Also in a form that clients carry without looking at it.
    pub carried: bool,
}

/// Members of the answer that say what was sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Echoed(pub Map<String, Value>);

impl ResponseRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let question = Question::take(&mut fields)?;
        let priority = service_tier::take(&mut fields)?;
        let mut echoed = Echoed::take(&mut fields, &question)?;
        let (thoughts, wants_logprobs) = include(&mut fields)?;
        let mut sampling = sampling(&mut fields, &mut echoed)?;
        if wants_logprobs {
            sampling.logprobs.get_or_insert(0);
        }
        let max_output_tokens = fields.small_integer("max_output_tokens", 1..=u32::MAX)?;
        echoed.put("max_output_tokens", max_output_tokens);
        let stream = fields.boolean("stream")?.unwrap_or(false);
        stream_options(&mut fields, stream)?;
        let store = fields.boolean("store")?;
        let background = fields.boolean("background")?.unwrap_or(false);
        if background && store == Some(false) {
            let reason = "must not be false for what is made in the background: it could not be fetched";
            return Err(ParameterError::invalid("store", reason));
        }
        fields.refuse(REFUSED)?;
        fields.finish()?;
        let thoughts = Thoughts { as_summary: !question.shown.0["summary"].is_null(), ..thoughts };
        Ok(Self {
            question,
            sampling,
            max_output_tokens,
            stream,
            store,
            background,
            priority,
            thoughts,
            echoed,
        })
    }

    /// What is to be generated of these items; nobody's yet.
    pub fn generate(&self, items: &[Item]) -> GenerateRequest {
        GenerateRequest {
            sampling: self.sampling.clone(),
            max_new_tokens: self.max_output_tokens,
            attribution: self.echoed.attribution(),
            priority: self.priority,
            ..self.question.generate(items)
        }
    }
}

/// What is called otherwise than in chat.
const NAMES: Names = Names {
    constraint: "text.format",
    tools: "tools",
    tool_schema: "parameters",
    max_new_tokens: "max_output_tokens",
    temperature: "temperature",
    effort: "reasoning.effort",
    budget: "reasoning",
    verbosity: "text.verbosity",
};

impl Question {
    /// Reads the body of a question whose tokens are to be counted.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let question = Self::take(&mut fields)?;
        fields.refuse(&[
            ("conversation", "use `previous_response_id`, or send the items"),
            ("personality", "say it in `instructions`"),
        ])?;
        fields.finish()?;
        Ok(question)
    }

    fn take(fields: &mut Fields) -> Result<Self, ParameterError> {
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let previous = fields.string("previous_response_id")?;
        let input = input(fields, previous.is_some())?;
        conversation::check_ids(&input)?;
        let (reasoning, shown_reasoning) = reasoning(fields)?;
        let (constraint, verbosity, shown_text) = text(fields)?;
        Ok(Self {
            model,
            instructions: fields.string("instructions")?,
            input,
            previous,
            tools: Tools::take(fields)?,
            reasoning,
            constraint,
            verbosity,
            truncation: truncation(fields)?,
            shown: (shown_reasoning, shown_text),
        })
    }

    /// Whether the oldest may go where the whole is too long.
    pub fn is_cut(&self) -> bool {
        self.truncation == "auto"
    }

    /// What is to be generated of these items, in the usual way.
    pub fn generate(&self, items: &[Item]) -> GenerateRequest {
        GenerateRequest {
            model: self.model.clone(),
            prompt: self.prompt(items),
            sampling: Sampling::default(),
            constraint: self.constraint.clone(),
            tools: self.tools.used.clone(),
            reasoning: self.reasoning,
            verbosity: self.verbosity,
            prediction: None,
            choices: 1,
            max_new_tokens: None,
            min_new_tokens: 0,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_end: false,
            show_special_tokens: false,
            echo: false,
            context: None,
            prompt_logprobs: None,
            attribution: Attribution::default(),
            names: NAMES,
            tenant: 0,
            priority: Priority::Normal,
            deadline: None,
        }
    }

    fn prompt(&self, items: &[Item]) -> Prompt {
        Prompt::Chat {
            messages: conversation::messages(self.instructions.as_deref(), items),
            variables: Map::new(),
            add_generation_prompt: true,
            continue_final_message: false,
        }
    }
}

impl Echoed {
    /// Takes what changes nothing here but is shown again, and notes what was read before.
    fn take(fields: &mut Fields, question: &Question) -> Result<Self, ParameterError> {
        let mut echoed = Self::default();
        echoed.put("instructions", question.instructions.as_deref());
        echoed.put("previous_response_id", question.previous.as_deref());
        echoed.put("tools", &question.tools.shown);
        echoed.put("tool_choice", &question.tools.choice);
        echoed.put("parallel_tool_calls", question.tools.used.parallel);
        echoed.put("max_tool_calls", question.tools.most_calls);
        echoed.put("reasoning", &question.shown.0);
        echoed.put("text", &question.shown.1);
        echoed.put("metadata", metadata::take(fields)?.unwrap_or_default());
        echoed.put("user", end_user(fields, "user")?);
        let asking = end_user(fields, "safety_identifier")?;
        echoed.put("safety_identifier", within(asking, "safety_identifier", LONGEST_SAFETY_IDENTIFIER)?);
        let key = fields.string("prompt_cache_key")?;
        echoed.put("prompt_cache_key", within(key, "prompt_cache_key", LONGEST_CACHE_KEY)?);
        echoed.put("truncation", question.truncation);
        Ok(echoed)
    }

    /// Whom the answer is for, as it is written down with what it cost.
    fn attribution(&self) -> Attribution {
        let text = |name: &str| self.0.get(name).and_then(Value::as_str).map(str::to_owned);
        let metadata = self.0.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        Attribution { end_user: text("safety_identifier").or_else(|| text("user")), metadata }
    }

    fn put(&mut self, name: &str, value: impl serde::Serialize) {
        self.0.insert(name.to_owned(), json!(value));
    }
}

/// What is asked; where there is something to go on from that may be all.
fn input(fields: &mut Fields, goes_on: bool) -> Result<Vec<Given>, ParameterError> {
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    if !goes_on {
        return item::read_input(fields.required("input")?);
    }
    let given = fields.take("input").filter(|value| !is_empty(value));
    given.map_or_else(|| Ok(Vec::new()), item::read_input)
}

fn within(text: Option<String>, name: &str, most: usize) -> Result<Option<String>, ParameterError> {
    match text {
        Some(text) if text.chars().count() > most => {
            Err(ParameterError::invalid(name, format!("must have at most {most} characters")))
        }
        text => Ok(text),
    }
}

fn truncation(fields: &mut Fields) -> Result<&'static str, ParameterError> {
    match fields.string("truncation")?.as_deref() {
        None | Some("disabled") => Ok("disabled"),
        Some("auto") => Ok("auto"),
        Some(_) => Err(ParameterError::invalid("truncation", "must be `auto` or `disabled`")),
    }
}

fn sampling(fields: &mut Fields, echoed: &mut Echoed) -> Result<Sampling, ParameterError> {
    let mut echo = |name: &'static str, most: f64| {
        let sent = fields.take(name);
        let read = sent.as_ref().map(|sent| number(sent, 0.0..=most, || name.to_owned())).transpose();
        // As it was sent: what the engine makes of it has other digits.
        echoed.put(name, sent);
        read
    };
    let (temperature, top_p) = (echo("temperature", 2.0)?, echo("top_p", 1.0)?);
    let top_logprobs = fields.small_integer("top_logprobs", 0..=20)?;
    echoed.put("top_logprobs", top_logprobs.unwrap_or(0));
    let logprobs = top_logprobs.filter(|most| *most > 0);
    Ok(Sampling { temperature, top_p, logprobs, ..Sampling::default() })
}

/// What else is to be in the answer: thoughts in the form that is carried; and whether log-probabilities are.
fn include(fields: &mut Fields) -> Result<(Thoughts, bool), ParameterError> {
    let (mut thoughts, mut logprobs) = (Thoughts::default(), false);
    for (number, value) in fields.list("include", 16)?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("include[{number}]");
        match Included::of(&string(value, || path.clone())?, &path)? {
            Included::Logprobs => logprobs = true,
            Included::Thoughts => thoughts.carried = true,
        }
    }
    Ok((thoughts, logprobs))
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<(), ParameterError> {
    let Some(mut options) = fields.object("stream_options")? else { return Ok(()) };
    if !stream {
        return Err(ParameterError::invalid("stream_options", "is only allowed when `stream` is true"));
    }
    if options.boolean("include_obfuscation")? == Some(true) {
        return Err(ParameterError::unsupported(
            options.path("include_obfuscation"),
            "nothing is added to the events",
        ));
    }
    options.finish()
}

fn reasoning(fields: &mut Fields) -> Result<(Reasoning, Value), ParameterError> {
    let Some(mut given) = fields.object("reasoning")? else {
        return Ok((Reasoning::default(), json!({"effort": null, "summary": null})));
    };
    let effort = given.string("effort")?;
    let level = match effort.as_deref() {
        None => None,
        Some("none") => Some(Effort::None),
        Some("minimal") => Some(Effort::Minimal),
        Some("low") => Some(Effort::Low),
        Some("medium") => Some(Effort::Medium),
        Some("high") => Some(Effort::High),
        Some("xhigh" | "max") => Some(Effort::Maximal),
        Some(_) => {
            let reason = "must be none, minimal, low, medium, high, xhigh or max";
            return Err(ParameterError::invalid(given.path("effort"), reason));
        }
    };
    let summary = given.string("summary")?;
    match summary.as_deref() {
        None | Some("auto" | "detailed") => {}
        Some("concise") => {
            let reason = "thoughts are not shortened: `auto` or `detailed` gives them whole";
            return Err(ParameterError::unsupported(given.path("summary"), reason));
        }
        Some(_) => return Err(ParameterError::invalid(given.path("summary"), "must be auto or detailed")),
    }
    only(&mut given, "context", &["auto"], "earlier thoughts are shown as the model's template does")?;
    only(&mut given, "mode", &["standard"], "there is one mode: `standard`")?;
    given.refuse(&[("generate_summary", "it is called `summary`")])?;
    given.finish()?;
    Ok((Reasoning { effort: level, budget: None }, json!({"effort": effort, "summary": summary})))
}

/// A parameter that may only say what is so in any case.
fn only(fields: &mut Fields, name: &'static str, good: &[&str], reason: &str) -> Result<(), ParameterError> {
    match fields.string(name)? {
        Some(text) if !good.contains(&text.as_str()) => {
            Err(ParameterError::unsupported(fields.path(name), reason))
        }
        _ => Ok(()),
    }
}

type Text = (Option<Constraint>, Option<Verbosity>, Value);

fn text(fields: &mut Fields) -> Result<Text, ParameterError> {
    let plain = || (None, json!({"type": "text"}));
    let Some(mut given) = fields.object("text")? else {
        return Ok((None, None, json!({"format": plain().1, "verbosity": "medium"})));
    };
    let named = given.string("verbosity")?;
    let verbosity = named.as_deref().and_then(Verbosity::named);
    if named.is_some() && verbosity.is_none() {
        return Err(ParameterError::invalid(given.path("verbosity"), "must be low, medium or high"));
    }
    let path = given.path("format");
    let (constraint, format) = match given.take("format") {
        None => plain(),
        Some(value) => format(value, path)?,
    };
    given.finish()?;
    let shown = json!({"format": format, "verbosity": verbosity.unwrap_or(Verbosity::Medium).name()});
    Ok((constraint, verbosity, shown))
}

fn format(value: Value, path: String) -> Result<(Option<Constraint>, Value), ParameterError> {
    let shown = value.clone();
    let mut fields = Fields::of(value, path)?;
    let named = string(fields.required("type")?, || fields.path("type"))?;
    let constraint = match named.as_str() {
        "text" => None,
        "json_object" => Some(Constraint::JsonObject),
        "json_schema" => {
            let name = string(fields.required("name")?, || fields.path("name"))?;
            if !is_name(&name) {
                let reason = "must have 1 to 64 letters, digits, `_` and `-`";
                return Err(ParameterError::invalid(fields.path("name"), reason));
            }
            fields.string("description")?;
            // An answer is held to its schema in any case.
            fields.boolean("strict")?;
            Some(Constraint::JsonSchema(schema(&mut fields)?))
        }
        _ => {
            let reason = "must be text, json_object or json_schema";
            return Err(ParameterError::invalid(fields.path("type"), reason));
        }
    };
    fields.finish()?;
    Ok((constraint, shown))
}

fn schema(fields: &mut Fields) -> Result<Value, ParameterError> {
    match fields.required("schema")? {
        schema @ Value::Object(_) => Ok(schema),
        other => {
            let reason = format!("must be an object, not {}", kind(&other));
            Err(ParameterError::invalid(fields.path("schema"), reason))
        }
    }
}
