//! What the answer to a request is held to, calls included, and which member of the request is named where it cannot be.

use std::sync::Arc;
use std::time::Instant;

use sconce_models::grammar::{self, GrammarError, Grammars, Language, Matcher};

use crate::engine::Guide;
use crate::generate::compilers::{Compilers, PATIENCE};
use crate::generate::{Constraint, GenerateError, GenerateRequest, Prompt, Tool, ToolChoice, ToolUse};
use crate::generate::{conversation, format, prompt};
use crate::manager::ModelLease;

/// What an answer is held to.
pub(super) struct Form {
    language: Language,
    /// The member of the request that says so.
    param: String,
    /// What it was put together from, each as it is used in it, and the member that says so: nobody sent the whole, and so
    /// what is wrong with it is told of the part that is wrong by itself.
    parts: Vec<(String, Language)>,
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
            parts: Vec::new(),
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
        let special =
            |mark: &str| lease.tokenizer.token_to_id(mark).filter(|&id| lease.tokenizer.is_special(id));
        let calls = format.call_grammar(&tools, &request.tools, &special, answer.flatten().as_deref());
        let Some(calls) = calls else { return Ok(alone) };
        check_parts(request, &tools)?;
        // An answer that must be calls has no other form.
        let mut parts: Vec<(String, Language)> =
            alone.filter(|_| !must_call).map(|alone| (alone.param, alone.language)).into_iter().collect();
        let by_itself = ToolUse { choice: ToolChoice::Required(Vec::new()), ..ToolUse::default() };
        for (number, tool) in offered(request, &tools) {
            let calls = format.call_grammar(std::slice::from_ref(tool), &by_itself, &special, None);
            parts.extend(calls.map(|calls| (names.schema_of(number), Language::Calls(calls))));
        }
        let param = match &parts[..] {
            [(only, _)] => only.clone(),
            _ => names.tools.to_owned(),
        };
        Ok(Some(Self { language: Language::Lark(calls), param, parts }))
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
        let error = match grammars.compile(&self.language, after) {
            Ok(matcher) => return Ok(matcher),
            Err(error) => error,
        };
        let is_the_models = matches!(error, GrammarError::Unsupported(_));
        for (param, part) in self.parts.into_iter().filter(|_| !is_the_models) {
            if Instant::now() > until {
                break;
            }
            if let Err(error) = grammars.try_out(&part) {
                return Err(GenerateError::Constraint { param, error });
            }
        }
        Err(GenerateError::Constraint { param: self.param, error })
    }
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
