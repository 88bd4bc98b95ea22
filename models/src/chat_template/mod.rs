//! The model's Jinja template over messages and tools, with limits: templates come from strangers.
//!
//! The `minijinja` crate runs them. Its own limits count instructions, which says nothing of how large a value one
//! instruction makes, so `rewrite.rs` puts a check before every operation whose result may be larger than what it was
//! given, `budget.rs` keeps the account, and `precheck.rs` bounds the template's own size and nesting. Each rendering has
//! a thread of its own, with a stack for the deepest template that the checks let through.

mod budget;
mod clock;
mod functions;
mod precheck;
mod python_json;
mod rewrite;
mod sources;

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{CodeGenerator, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value};

use self::budget::Budget;
use crate::Error;

/// Name of the template in error messages.
const NAME: &str = "chat template";
/// Stack of the thread that renders; touched only as far as it is used.
const STACK_BYTES: usize = 128 << 20;
/// Instructions that any rendering may take.
const BASE_FUEL: u64 = 1_000_000;
/// Instructions that each message and each tool adds.
const FUEL_PER_ITEM: u64 = 20_000;
/// Most instructions of a rendering.
const MAX_FUEL: u64 = 10_000_000;
/// Depth of macro calls and recursive loops.
const RECURSION_LIMIT: usize = 500;

/// A compiled chat template. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
}

struct Inner {
    /// With `{% generation %}` taken out.
    source: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

/// What a template is rendered over.
#[derive(Debug, Clone, Default)]
pub struct TemplateInput {
    /// Messages as the template expects them: objects with `role`, `content`, perhaps `tool_calls`.
    pub messages: Vec<serde_json::Value>,
    /// Tool definitions, OpenAI shape; empty for none.
    pub tools: Vec<serde_json::Value>,
    /// Further variables (`enable_thinking`, …), already allow-listed by the caller.
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// Ask for the header of the assistant's answer at the end.
    pub add_generation_prompt: bool,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`Error::Template`] if it does not parse or is over its limits.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self, Error> {
        precheck::size(source)?;
        let inner = Inner {
            source: precheck::without_generation_marks(source),
            bos_token: bos_token.map(str::to_owned),
            eos_token: eos_token.map(str::to_owned),
        };
        precheck::nesting(&inner.source, &syntax()?)?;
        on_deep_stack(|| {
            let ast = parse(&inner.source, NAME, syntax()?).map_err(error)?;
            compile(&ast, &inner.source).map(drop)
        })?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The template's text: what it knows of can be told by the words in it.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// Renders the prompt's text.
    ///
    /// # Errors
    /// [`Error::Template`] if the template raises, fails or goes over its limits of work, output and repetition.
    pub fn render(&self, input: &TemplateInput) -> Result<String, Error> {
        on_deep_stack(|| self.inner.render(input))
    }
}

impl Inner {
    fn render(&self, input: &TemplateInput) -> Result<String, Error> {
        let ast = parse(&self.source, NAME, syntax()?).map_err(error)?;
        let instructions = compile(&ast, &self.source)?;
        let budget = Arc::new(Budget::default());
        let mut environment = Environment::new();
        environment.set_recursion_limit(RECURSION_LIMIT);
        let items = (input.messages.len() + input.tools.len()) as u64;
        environment
            .set_fuel(Some(BASE_FUEL.saturating_add(items.saturating_mul(FUEL_PER_ITEM)).min(MAX_FUEL)));
        functions::register(&mut environment, &budget);
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let blocks = BTreeMap::new();
        eval(&environment, &instructions, self.variables(input), &blocks, &mut output, AutoEscape::None)
            .map_err(error)?;
        if text.len() > budget::MAX_OUTPUT_BYTES {
            return Err(Error::Template(format!(
                "the prompt is longer than {} bytes",
                budget::MAX_OUTPUT_BYTES
            )));
        }
        Ok(text)
    }

    /// The names a template knows; the caller's further variables cannot replace the ones all templates have.
    fn variables(&self, input: &TemplateInput) -> Value {
        let mut variables: BTreeMap<String, Value> = BTreeMap::new();
        for (name, value) in &input.variables {
            variables.insert(name.clone(), Value::from(Serde(value)));
        }
        let tools = if input.tools.is_empty() { Value::from(()) } else { Value::from(Serde(&input.tools)) };
        variables.insert("messages".into(), Value::from(Serde(&input.messages)));
        variables.insert("tools".into(), tools);
        variables.insert("documents".into(), Value::from(()));
        variables.insert("add_generation_prompt".into(), input.add_generation_prompt.into());
        for (name, token) in [("bos_token", &self.bos_token), ("eos_token", &self.eos_token)] {
            match token {
                Some(token) => variables.insert(name.into(), Value::from(token.as_str())),
                None => variables.remove(name),
            };
        }
        Value::from(variables)
    }
}

/// White space as transformers has it: a block tag takes the blanks before it and the line's end after it.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(error)
}

fn compile<'source>(
    ast: &minijinja::machinery::ast::Stmt<'source>,
    source: &'source str,
) -> Result<minijinja::machinery::Instructions<'source>, Error> {
    let guarded = rewrite::statement(ast).map_err(Error::Template)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&guarded);
    Ok(generator.finish().0)
}

/// Runs work on a thread with a large stack. A panic there (of which none is known) is an error here.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |reason: &str| Error::Template(reason.to_owned());
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
        let thread =
            builder.spawn_scoped(scope, work).map_err(|e| failed(&format!("no thread to render in: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("it cannot be processed")))
    })
}

/// The error with its place and, if there is one, its cause; not the template's text.
fn error(error: minijinja::Error) -> Error {
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        message = format!("{message}: {source}");
    }
    Error::Template(message)
}
