//! What the answer to a request is held to, calls included, and which member of the request is named where it cannot be.

use std::sync::Arc;
use std::time::Instant;

use sconce_models::Tokenizer;
use sconce_models::grammar::{self, GrammarError, Grammars, Language, Matcher};

use crate::engine::Guide;
use crate::generate::compilers::{Compilers, PATIENCE};
use crate::generate::format::Format;
use crate::generate::{Constraint, GenerateError, GenerateRequest, Prompt, Tool, ToolChoice, ToolUse};
use crate::generate::{conversation, format, prompt};
use crate::manager::ModelLease;

/// What an answer is held to.
pub(super) struct Form {
    language: Language,
    /// The member of the request that says so.
    param: String,
    /// What it was put together from.
    parts: Parts,
}

/// What a form was put together from, and the member that says so: nobody sent the whole, and so what is wrong with it is
/// told of the part that is wrong by itself.
#[derive(Default)]
struct Parts {
    /// What an answer that is no call is held to.
    own: Option<(String, Language)>,
    functions: Option<Functions>,
}

/// Functions, and what it takes to write the grammar of each by itself, which only a refusal of the whole asks for.
struct Functions {
    format: Format,
    tokenizer: Tokenizer,
    offered: Vec<(String, Tool)>,
}

impl Parts {
    /// Each as it is used in the whole. A grammar is written when it is asked for.
    fn each(self) -> impl Iterator<Item = (String, Language)> {
        self.own.into_iter().chain(self.functions.into_iter().flat_map(Functions::each))
    }
}

impl Functions {
    fn each(self) -> impl Iterator<Item = (String, Language)> {
        let Self { format, tokenizer, offered } = self;
        let by_itself = ToolUse { choice: ToolChoice::Required(Vec::new()), ..ToolUse::default() };
        offered.into_iter().filter_map(move |(param, tool)| {
            let special = |mark: &str| special(&tokenizer, mark);
            let calls = format.call_grammar(&[tool], &by_itself, &special, None)?;
            Some((param, Language::Calls(calls)))
        })
    }
}

impl Form {
    /// Of a request; none if its answer may be anything.
    ///
    /// # Errors
    /// [`GenerateError::Unsupported`] for what cannot be had together, [`GenerateError::Constraint`] for a part of it that
    /// is too much.
    pub(super) fn of(request: &GenerateRequest, lease: &ModelLease) -> Result<Option<Self>, GenerateError> {
        let names = &request.names;
        let own = request.constraint.as_ref();
        let alone = own.map(|own| Self {
            language: own.clone().into(),
            param: names.constraint.to_owned(),
            parts: Parts::default(),
        });
        let (Prompt::Chat { .. }, Some(format)) = (&request.prompt, prompt::format_of(lease)) else {
            return Ok(alone);
        };
        let tools = conversation::offered(&request.tools);
        let must_call = matches!(request.tools.choice, ToolChoice::Required(_));
        let answer = own.map(format::rule_of);
        if matches!(answer, Some(None)) && !tools.is_empty() && !must_call {
            let reason =
                "a grammar of its own cannot be had together with tools; use a JSON schema".to_owned();
            return Err(GenerateError::Unsupported { param: names.tools, reason });
        }
        if let (true, Some(Constraint::Regex(_) | Constraint::Choice(_) | Constraint::Grammar(_))) =
            (must_call && !tools.is_empty(), own)
        {
            let reason = "a call must come, and leaves no text to hold to it".to_owned();
            return Err(GenerateError::Unsupported { param: names.constraint, reason });
        }
        let special = |mark: &str| special(&lease.tokenizer, mark);
        let calls = format.call_grammar(&tools, &request.tools, &special, answer.flatten().as_deref());
        let Some(calls) = calls else { return Ok(alone) };
        check_parts(request, &tools)?;
        // An answer that must be calls has no other form.
        let own = alone.filter(|_| !must_call).map(|alone| (alone.param, alone.language));
        let params: Vec<String> =
            offered(request, &tools).map(|(number, _)| names.schema_of(number)).collect();
        let param = match (&own, &params[..]) {
            (None, [only]) => only.clone(),
            _ => names.tools.to_owned(),
        };
        let offered = params.into_iter().zip(tools).collect();
        let functions = Functions { format, tokenizer: lease.tokenizer.clone(), offered };
        let parts = Parts { own, functions: Some(functions) };
        Ok(Some(Self { language: Language::Lark(calls), param, parts }))
    }

    /// Refuses parts that are too much together. The part at fault is looked for in a compiler's place: there may be many.
    ///
    /// # Errors
    /// [`GenerateError::Constraint`], and [`GenerateError::CompilersBusy`] where nobody can look for the part.
    pub(super) async fn checked(self, compilers: &Compilers) -> Result<Self, GenerateError> {
        if self.parts.functions.is_none() {
            // It is no more than its one part.
            return Ok(self);
        }
        let Err(error) = grammar::check(&self.language) else { return Ok(self) };
        let whole = GenerateError::Constraint { param: self.param.clone(), error: error.clone() };
        let look = move || self.refused(error, Instant::now() + PATIENCE, grammar::check);
        Err(compilers.work(look).await?.unwrap_or(whole))
    }

    /// Makes what the engine follows. With `after`, the form holds for what comes after this text, and anything may come
    /// before it (a thought).
    ///
    /// # Errors
    /// [`GenerateError::Constraint`] for what is wrong with the form, or too much in it.
    pub(super) async fn guide(
        self,
        after: Option<String>,
        lease: &ModelLease,
        compilers: &Compilers,
    ) -> Result<Box<Guide>, GenerateError> {
        let grammars = lease.grammars.clone();
        // A token of its own is looked for by the engine, which costs nothing; other text is a part of the grammar.
        let token = after.as_ref().and_then(|after| lease.tokenizer.token_to_id(after));
        let before = after.filter(|_| token.is_none());
        let param = self.param.clone();
        let matcher = compilers.work(move || self.compile(&grammars, before.as_deref())).await?;
        let Some(matcher) = matcher else {
            let error = GrammarError::TooMuch("the constraint takes too long to compile".to_owned());
            return Err(GenerateError::Constraint { param, error });
        };
        Ok(Box::new(Guide::after(matcher?, token.into_iter().collect())))
    }

    fn compile(self, grammars: &Grammars, after: Option<&str>) -> Result<Arc<Matcher>, GenerateError> {
        let until = Instant::now() + PATIENCE;
        let compiled = grammars.compile(&self.language, after);
        compiled.map_err(|error| self.refused(error, until, |part| grammars.try_out(part)))
    }

    /// Why the whole is refused: for what is wrong with a part by itself, if that is found until then, else for `error`.
    fn refused(
        self,
        error: GrammarError,
        until: Instant,
        try_out: impl Fn(&Language) -> Result<(), GrammarError>,
    ) -> GenerateError {
        if matches!(error, GrammarError::Unsupported(_)) {
            // It is the model's.
            return GenerateError::Constraint { param: self.param, error };
        }
        for (param, part) in self.parts.each() {
            if Instant::now() > until {
                break;
            }
            if let Err(error) = try_out(&part) {
                return GenerateError::Constraint { param, error };
            }
        }
        GenerateError::Constraint { param: self.param, error }
    }
}

/// The id of a mark that is a special token.
fn special(tokenizer: &Tokenizer, mark: &str) -> Option<u32> {
    tokenizer.token_to_id(mark).filter(|&id| tokenizer.is_special(id))
}

/// The functions of a request that are offered, by their number in it.
fn offered<'a>(request: &'a GenerateRequest, tools: &'a [Tool]) -> impl Iterator<Item = (usize, &'a Tool)> {
    request.tools.tools.iter().enumerate().filter(move |(_, tool)| tools.contains(tool))
}

/// Holds each part of a grammar of calls to the limits that it has where it stands alone.
fn check_parts(request: &GenerateRequest, tools: &[Tool]) -> Result<(), GenerateError> {
    let names = &request.names;
    if let Some(own) = request.constraint.clone() {
        let refused = |error| GenerateError::Constraint { param: names.constraint.to_owned(), error };
        grammar::check(&own.into()).map_err(refused)?;
    }
    for (number, tool) in offered(request, tools) {
        let Some(schema) = tool.parameters.clone() else { continue };
        let checked = if tool.strict {
            grammar::check(&Language::JsonSchema(schema))
        } else {
            grammar::check_lenient(&schema)
        };
        checked.map_err(|error| GenerateError::Constraint { param: names.schema_of(number), error })?;
    }
    Ok(())
}
