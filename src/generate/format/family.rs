//! The families of models that write calls in a way of their own: by which words in a chat template each is known, what
//! reads its answers, and what a call of it looks like.

use std::sync::Arc;

use crate::generate::Tool;
use crate::generate::format::deepseek::{self, DeepSeekCalls};
use crate::generate::format::gemma::{self, GemmaCalls};
use crate::generate::format::harmony::{self, Harmony};
use crate::generate::format::json_calls::{JsonCalls, Marks};
use crate::generate::format::machine::Machine;
use crate::generate::format::mistral::{self, MistralCalls};
use crate::generate::format::qwen_coder::{self, QwenCoderCalls};

/// A way to write calls.
pub(super) trait Family: Send + Sync {
    /// What it is called in settings and in what a model tells of itself.
    fn name(&self) -> &'static str;

    /// Whether a model with this chat template writes so.
    fn wrote(&self, template: &str) -> bool;

    /// What reads an answer in which these functions may be called.
    fn machine(&self, tools: &Arc<[Tool]>) -> Box<dyn Machine>;

    /// Marks that may be special tokens, which are otherwise not shown.
    fn marks(&self) -> &'static [&'static str];

    /// What calls look like.
    fn shape(&self) -> &Shape;
}

/// What calls look like, piece by piece.
#[derive(Debug)]
pub(super) struct Shape {
    /// Before the first.
    pub(super) open: &'static str,
    /// Before the name of each.
    pub(super) before_name: &'static str,
    /// Between name and arguments.
    pub(super) before_arguments: &'static str,
    /// How the arguments are written.
    pub(super) arguments: Arguments,
    /// After the arguments of each.
    pub(super) after: &'static str,
    /// Between two; none: there can be only one.
    pub(super) between: Option<&'static str>,
    /// After the last.
    pub(super) close: &'static str,
}

/// How arguments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// As a JSON object.
    Json,
    /// As Qwen3-Coder's parameters.
    Parameters,
    /// As Gemma's pairs, with these quotes.
    Pairs(&'static str),
}

/// A family with nothing but constants, apart from its reader.
struct Known {
    name: &'static str,
    wrote: fn(&str) -> bool,
    machine: fn(&Arc<[Tool]>) -> Box<dyn Machine>,
    marks: &'static [&'static str],
    shape: Shape,
}

impl Family for Known {
    fn name(&self) -> &'static str {
        self.name
    }

    fn wrote(&self, template: &str) -> bool {
        (self.wrote)(template)
    }

    fn machine(&self, tools: &Arc<[Tool]>) -> Box<dyn Machine> {
        (self.machine)(tools)
    }

    fn marks(&self) -> &'static [&'static str] {
        self.marks
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }
}

const HERMES_MARKS: Marks = Marks { open: "<tool_call>", close: "</tool_call>", bare: false };
const LLAMA_MARKS: Marks = Marks { open: "<|python_tag|>", close: "", bare: true };

fn json(marks: Marks) -> Box<dyn Machine> {
    Box::new(JsonCalls::new(marks, None))
}

/// The name of each function.
fn names(tools: &Arc<[Tool]>) -> Arc<[String]> {
    tools.iter().map(|tool| tool.name.clone()).collect()
}

/// A call as an object.
const fn object(
    open: &'static str,
    before_arguments: &'static str,
    between: &'static str,
    close: &'static str,
) -> Shape {
    Shape {
        open,
        before_name: "{\"name\": \"",
        before_arguments,
        arguments: Arguments::Json,
        after: "}",
        between: Some(between),
        close,
    }
}

const ARGUMENTS: &str = "\", \"arguments\": ";

/// Where Hermes's way stands: what is told to a model whose template knows of no calls.
const HERMES: usize = 9;

/// All of them. The first that knows a template has it, so those with rarer marks come first.
static FAMILIES: [Known; 11] = [
    Known {
        name: "harmony",
        wrote: |template| template.contains(harmony::CHANNEL) && template.contains(harmony::MESSAGE),
        machine: |_| Box::new(Harmony::new()),
        marks: &[
            harmony::START,
            harmony::CHANNEL,
            harmony::MESSAGE,
            harmony::CONSTRAIN,
            harmony::END,
            harmony::CALL,
            harmony::RETURN,
        ],
        shape: Shape {
            open: "",
            before_name: "<|channel|>commentary to=functions.",
            before_arguments: " <|constrain|>json<|message|>",
            arguments: Arguments::Json,
            after: "",
            between: None,
            close: "",
        },
    },
    Known {
        name: "deepseek-v3.1",
        wrote: |template| template.contains(deepseek::OPEN) && !template.contains("```json"),
        machine: |_| Box::new(DeepSeekCalls::new()),
        marks: DEEPSEEK_MARKS,
        shape: Shape {
            open: deepseek::OPEN,
            before_name: deepseek::CALL_OPEN,
            before_arguments: deepseek::SEPARATOR,
            arguments: Arguments::Json,
            after: deepseek::CALL_CLOSE,
            between: Some(""),
            close: deepseek::CLOSE,
        },
    },
    Known {
        name: "deepseek",
        wrote: |template| template.contains(deepseek::OPEN),
        machine: |_| Box::new(DeepSeekCalls::new()),
        marks: DEEPSEEK_MARKS,
        shape: Shape {
            open: deepseek::OPEN,
            before_name: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            before_arguments: "\n```json\n",
            arguments: Arguments::Json,
            after: "\n```<｜tool▁call▁end｜>",
            between: Some("\n"),
            close: deepseek::CLOSE,
        },
    },
    Known {
        name: "mistral",
        wrote: |template| template.contains(mistral::OPEN) && template.contains(mistral::ARGUMENTS),
        machine: |_| Box::new(MistralCalls::new()),
        marks: MISTRAL_MARKS,
        shape: Shape {
            open: "",
            before_name: mistral::OPEN,
            before_arguments: mistral::ARGUMENTS,
            arguments: Arguments::Json,
            after: "",
            between: Some(""),
            close: "",
        },
    },
    Known {
        name: "mistral-list",
        wrote: |template| template.contains(mistral::OPEN),
        machine: |_| Box::new(MistralCalls::new()),
        marks: MISTRAL_MARKS,
        shape: object("[TOOL_CALLS][", ARGUMENTS, ", ", "]"),
    },
    Known {
        name: "gemma4",
        wrote: |template| template.contains(gemma::GEMMA_4.open),
        machine: |_| Box::new(GemmaCalls::new(gemma::GEMMA_4)),
        marks: &["<|tool_call>", "<tool_call|>", "<|\"|>", "<|channel>", "<channel|>"],
        shape: pairs("<|tool_call>call:", "<|\"|>", "<tool_call|>"),
    },
    Known {
        name: "functiongemma",
        wrote: |template| template.contains(gemma::FUNCTION_GEMMA.open),
        machine: |_| Box::new(GemmaCalls::new(gemma::FUNCTION_GEMMA)),
        marks: &["<start_function_call>", "<end_function_call>", "<escape>"],
        shape: pairs("<start_function_call>call:", "<escape>", "<end_function_call>"),
    },
    Known {
        name: "qwen3-coder",
        wrote: |template| template.contains(qwen_coder::FUNCTION) && template.contains(qwen_coder::PARAMETER),
        machine: |tools| Box::new(QwenCoderCalls::new(Arc::clone(tools))),
        marks: HERMES_MARK_TEXTS,
        shape: Shape {
            open: "",
            before_name: "<tool_call>\n<function=",
            before_arguments: ">\n",
            arguments: Arguments::Parameters,
            after: "</function>\n</tool_call>",
            between: Some("\n"),
            close: "",
        },
    },
    Known {
        name: "llama3",
        wrote: |template| {
            template.contains(LLAMA_MARKS.open)
                || (template.contains("<|start_header_id|>") && template.contains("\"parameters\": "))
        },
        machine: |tools| Box::new(JsonCalls::new(LLAMA_MARKS, Some(names(tools)))),
        marks: &["<|python_tag|>"],
        shape: object("", "\", \"parameters\": ", "; ", ""),
    },
    Known {
        name: "hermes",
        wrote: |template| template.contains("<tool_call>"),
        machine: |_| json(HERMES_MARKS),
        marks: HERMES_MARK_TEXTS,
        shape: Shape {
            open: "",
            before_name: "<tool_call>\n{\"name\": \"",
            before_arguments: ARGUMENTS,
            arguments: Arguments::Json,
            after: "}\n</tool_call>",
            between: Some("\n"),
            close: "",
        },
    },
    Known {
        name: "smollm2",
        wrote: |template| template.contains("SmolLM"),
        machine: |_| json(HERMES_MARKS),
        marks: HERMES_MARK_TEXTS,
        shape: object("<tool_call>[", ARGUMENTS, ", ", "]</tool_call>"),
    },
];

const HERMES_MARK_TEXTS: &[&str] = &["<tool_call>", "</tool_call>"];
const MISTRAL_MARKS: &[&str] = &[mistral::OPEN, mistral::CALL_ID, mistral::ARGUMENTS];
const DEEPSEEK_MARKS: &[&str] =
    &[deepseek::OPEN, deepseek::CLOSE, deepseek::CALL_OPEN, deepseek::CALL_CLOSE, deepseek::SEPARATOR];

/// Gemma's calls.
const fn pairs(before_name: &'static str, quote: &'static str, after: &'static str) -> Shape {
    Shape {
        open: "",
        before_name,
        before_arguments: "",
        arguments: Arguments::Pairs(quote),
        after,
        between: Some(""),
        close: "",
    }
}

/// The family of a model with this chat template; that whose way is told to models that know none.
pub(super) fn of_template(template: &str) -> &'static dyn Family {
    FAMILIES.iter().find(|known| known.wrote(template)).unwrap_or(&FAMILIES[HERMES])
}

/// The family of this name.
pub(super) fn named(name: &str) -> Option<&'static dyn Family> {
    FAMILIES.iter().find(|known| known.name == name).map(|known| known as &dyn Family)
}

/// The names of all families.
pub fn names_of_all() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|known| known.name)
}
