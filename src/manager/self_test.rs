//! A model's own test, when it is loaded: does its template show a conversation and functions, and does the model stop
//! where the template says that a turn ends? A model that fails is served all the same: what is wrong shows in the
//! registry and in the model's document.

use sconce_models::chat_template::TemplateInput;
use sconce_models::{ChatTemplate, GenerationDefaults, ModelKind, Tokenizer};
use serde::Serialize;
use serde_json::{Value, json};

/// Words that no template has of itself.
const ASKED: &str = "zephyr quartz";
const ANSWERED: &str = "basalt willow";
const TOOL: &str = "lookup_marigold";
const FOUND: &str = "cobalt lantern";

/// How one check went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Check {
    /// As it should.
    Passed,
    /// There is nothing to be checked.
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// Something is wrong.
    Failed {
        /// What.
        reason: String,
    },
}

impl Check {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }

    fn none(reason: &str) -> Self {
        Self::NotApplicable { reason: reason.to_owned() }
    }
}

/// How all of them went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfTest {
    /// A plain conversation is shown by the template.
    pub template: Check,
    /// So are functions, a call and its result.
    pub tools: Check,
    /// What the template writes after an answer ends one.
    pub end_of_turn: Check,
}

impl SelfTest {
    /// Runs them.
    pub(super) fn run(
        kind: ModelKind,
        template: Option<&ChatTemplate>,
        tokenizer: &Tokenizer,
        defaults: &GenerationDefaults,
    ) -> Self {
        let nothing = |reason: &str| {
            let check = Check::none(reason);
            Self { template: check.clone(), tools: check.clone(), end_of_turn: check }
        };
        match template {
            _ if kind != ModelKind::Causal => nothing("the model does not generate text"),
            None => nothing("the model has no chat template"),
            Some(template) => Self {
                template: conversation(template),
                tools: tools(template),
                end_of_turn: end_of_turn(template, tokenizer, defaults),
            },
        }
    }
}

fn render(
    template: &ChatTemplate,
    messages: &Value,
    tools: Vec<Value>,
    add_generation_prompt: bool,
) -> Result<String, Check> {
    let messages = messages.as_array().cloned().unwrap_or_default();
    let input = TemplateInput { messages, tools, add_generation_prompt, ..TemplateInput::default() };
    template.render(&input).map_err(|error| Check::failed(format!("the template fails: {error}")))
}

fn conversation(template: &ChatTemplate) -> Check {
    let question = json!([{"role": "user", "content": ASKED}]);
    let shown = match render(template, &question, Vec::new(), true) {
        Ok(shown) => shown,
        Err(failed) => return failed,
    };
    if shown.matches(ASKED).count() == 1 {
        Check::Passed
    } else {
        Check::failed("the template does not show a message's text once as it is")
    }
}

fn tools(template: &ChatTemplate) -> Check {
    let tool = json!({"type": "function", "function": {"name": TOOL, "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}});
    let question = json!([{"role": "user", "content": ASKED}]);
    match render(template, &question, vec![tool.clone()], true) {
        Ok(shown) if !shown.contains(TOOL) => return Check::none("the template does not show functions"),
        Ok(_) => {}
        Err(failed) => return failed,
    }
    // Nine letters and digits: one family takes no other id.
    let call = json!({"id": "call00001", "type": "function", "function": {"name": TOOL, "arguments": {"word": ANSWERED}}});
    let conversation = json!([
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "name": TOOL, "content": FOUND},
    ]);
    match render(template, &conversation, vec![tool], true) {
        Ok(shown) if !shown.contains(FOUND) => {
            Check::failed("the template does not show what a function gave")
        }
        Ok(shown) if !shown.contains(ANSWERED) => {
            Check::failed("the template does not show what a function was called with")
        }
        Ok(_) => Check::Passed,
        Err(failed) => failed,
    }
}

fn end_of_turn(template: &ChatTemplate, tokenizer: &Tokenizer, defaults: &GenerationDefaults) -> Check {
    let conversation =
        json!([{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]);
    let shown = match render(template, &conversation, Vec::new(), false) {
        Ok(shown) => shown,
        Err(failed) => return failed,
    };
    let Some(end) = shown.rfind(ANSWERED) else {
        return Check::failed("the template does not show an answer's text as it is");
    };
    let rest = &shown[end + ANSWERED.len()..];
    let Ok(ids) = tokenizer.encode(rest, false) else {
        return Check::failed("what the template writes after an answer cannot be tokenised");
    };
    let Some(&id) = ids.iter().find(|id| tokenizer.is_special(**id)) else {
        return Check::none("the template ends an answer with no special token");
    };
    if defaults.end_token_ids.contains(&id) {
        return Check::Passed;
    }
    let name = tokenizer.name(id).unwrap_or_default();
    Check::failed(format!("the template ends an answer with `{name}`, which does not stop the model"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tested(source: &str, end_token_ids: &[u32]) -> SelfTest {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden");
        let tokenizer = Tokenizer::from_file(&golden.join("llama/tokenizer.json"), 512).expect("it is sound");
        let template = ChatTemplate::new(source, None, None).expect("it parses");
        let defaults = GenerationDefaults { end_token_ids: end_token_ids.to_vec(), ..Default::default() };
        SelfTest::run(ModelKind::Causal, Some(&template), &tokenizer, &defaults)
    }

    const PLAIN: &str = "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}";

    fn eot() -> u32 {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/golden");
        let tokenizer = Tokenizer::from_file(&golden.join("llama/tokenizer.json"), 512).expect("it is sound");
        tokenizer.token_to_id("<|eot_id|>").expect("it is there")
    }

    #[test]
    fn a_sound_template_passes_and_functions_it_does_not_know_are_said_to_be_absent() {
        let found = tested(PLAIN, &[eot()]);
        assert_eq!((&found.template, &found.end_of_turn), (&Check::Passed, &Check::Passed));
        assert!(matches!(found.tools, Check::NotApplicable { .. }), "{found:?}");
    }

    #[test]
    fn a_turn_that_ends_with_a_token_that_does_not_stop_is_found() {
        let Check::Failed { reason } = tested(PLAIN, &[]).end_of_turn else { panic!("it must be found") };
        assert!(reason.contains("<|eot_id|>"), "{reason}");
    }

    #[test]
    fn a_template_that_raises_or_swallows_texts_is_found() {
        let raises = tested("{{ raise_exception('no') }}", &[]);
        assert!(matches!(raises.template, Check::Failed { .. }), "{raises:?}");
        let silent = tested("{% for m in messages %}{{ m.role }}{% endfor %}", &[]);
        assert!(matches!(silent.template, Check::Failed { .. }), "{silent:?}");
        let forgets = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}";
        let Check::Failed { reason } = tested(forgets, &[]).tools else { panic!("it must be found") };
        assert!(reason.contains("called with"), "{reason}");
    }
}
