//! A model in Ollama's words: as its files and its registration say, loaded or not. What they do not say is left out or
//! empty, not made up.

use sconce_models::{Inspection, ModelKind, ModelSpec};
use serde_json::{Map, Value, json};

use crate::generate::format::Format;
use crate::http::state::Models;
use crate::manager::{Description, ModelStatus};

/// What is known of a model.
pub struct Described<'a> {
    status: &'a ModelStatus,
    /// None where its files are not on this machine.
    known: Option<Description>,
}

impl<'a> Described<'a> {
    /// What is known of one of these models; looks into its files if nobody did before.
    pub async fn of(models: &Models<'_>, status: &'a ModelStatus) -> Self {
        Self { status, known: models.describe(&status.id).await }
    }

    fn inspection(&self) -> Option<&Inspection> {
        self.known.as_ref().map(|known| known.inspection.as_ref())
    }

    /// Its shape: as it runs, or as it would.
    fn spec(&self) -> Option<&ModelSpec> {
        self.status.spec.as_ref().or_else(|| self.inspection().map(|inspection| &inspection.spec))
    }

    /// Its format for conversations, in its own words.
    pub fn template(&self) -> Option<&str> {
        self.inspection()?.card.chat_template.as_deref()
    }

    /// The text or the name of its licence.
    pub fn license(&self) -> Option<&str> {
        self.known.as_ref()?.license.as_deref()
    }

    /// What both lists and `/api/show` say.
    pub fn details(&self) -> Value {
        let family = self.spec().map(|spec| spec.architecture.as_str());
        let inspection = self.inspection();
        json!({
            "parent_model": "",
            "format": self.format(),
            "family": family.unwrap_or_default(),
            "families": family.into_iter().collect::<Vec<_>>(),
            "parameter_size": inspection.map(|found| short(found.parameters)).unwrap_or_default(),
            "quantization_level": inspection.map(|found| found.quantisation.as_str()).unwrap_or_default(),
        })
    }

    /// What its files are: one of GGUF has metadata; else as far as names tell.
    fn format(&self) -> &'static str {
        let is_gguf = match self.inspection() {
            Some(inspection) => !inspection.card.metadata.is_empty(),
            None => self.status.sources.iter().any(|source| source.to_lowercase().contains(".gguf")),
        };
        if is_gguf { "gguf" } else { "safetensors" }
    }

    /// What it can do, as far as that is known.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let mut able = match self.status.kind.or(self.spec().map(|spec| spec.kind)) {
            Some(ModelKind::Causal) => vec!["completion"],
            Some(ModelKind::Embedding) => return vec!["embedding"],
            _ => return Vec::new(),
        };
        if let (Some(template), Some(known)) = (self.template(), &self.known) {
            let calls = known.defaults.tool_format.as_deref();
            // Others can be told of functions in words, but were not trained to call them.
            if template.contains("tools") || calls.is_some() {
                able.push("tools");
            }
            if Format::of(template, calls).thoughts().is_some() {
                able.push("thinking");
            }
        }
        if self.status.profile.as_ref().is_some_and(|profile| profile.features.infill.is_some()) {
            able.push("insert");
        }
        able
    }

    /// The metadata of its file, and its shape as it is served.
    pub fn information(&self) -> Map<String, Value> {
        let mut all = self.inspection().map(|found| found.card.metadata.clone()).unwrap_or_default();
        if let Some(inspection) = self.inspection() {
            all.insert("general.parameter_count".to_owned(), json!(inspection.parameters));
        }
        let Some(spec) = self.spec() else { return all };
        all.insert("general.architecture".to_owned(), json!(spec.architecture));
        for (name, number) in [
            ("context_length", spec.context_length),
            ("embedding_length", spec.hidden_size),
            ("block_count", spec.layers),
            ("attention.head_count", spec.heads),
            ("attention.head_count_kv", spec.kv_heads),
            ("attention.key_length", spec.head_dim),
            ("vocab_size", spec.vocab_size),
        ] {
            all.insert(format!("{}.{name}", spec.architecture), json!(number));
        }
        all
    }

    /// What it does where a request does not say, by the names of a Modelfile.
    fn options(&self) -> Vec<(&'static str, String)> {
        let Some(known) = &self.known else { return Vec::new() };
        let said = &known.defaults;
        [
            ("num_ctx", known.context_length.map(|length| length.to_string())),
            ("temperature", said.temperature.map(|number| number.to_string())),
            ("top_k", said.top_k.map(|number| number.to_string())),
            ("top_p", said.top_p.map(|number| number.to_string())),
            ("repeat_penalty", said.repetition_penalty.map(|number| number.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// The same as text, a line each.
    pub fn parameters(&self) -> String {
        let lines = self.options().into_iter().map(|(name, value)| format!("{name:<30} {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A Modelfile that would make this model of itself.
    pub fn modelfile(&self) -> String {
        let mut text = format!("FROM {}\n", self.status.id);
        let options = self.options();
        let texts = [("TEMPLATE", self.template()), ("LICENSE", self.license())];
        // What is in three quotes has none within.
        let quoted = |(name, text): &(&str, Option<&str>)| {
            text.filter(|text| !text.contains("\"\"\"")).map(|text| format!("{name} \"\"\"{text}\"\"\"\n"))
        };
        text.extend(quoted(&texts[0]));
        text.extend(options.into_iter().map(|(name, value)| format!("PARAMETER {name} {value}\n")));
        text.extend(quoted(&texts[1]));
        text
    }
}

/// A number of parameters, in as many digits as Ollama gives.
fn short(parameters: u64) -> String {
    let number = parameters as f64;
    let (number, digits, unit) = match parameters {
        1_000_000_000.. => (number / 1e9, 1, "B"),
        1_000_000.. => (number / 1e6, 2, "M"),
        1_000.. => (number / 1e3, 0, "K"),
        _ => (number, 0, ""),
    };
    let digits = if number.fract() == 0.0 { 0 } else { digits };
    format!("{number:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_parameters_are_short() {
        for (parameters, expected) in [
            (7, "7"),
            (53_248, "53K"),
            (134_515_008, "134.52M"),
            (270_000_000, "270M"),
            (7_615_616_512, "7.6B"),
            (70_000_000_000, "70B"),
        ] {
            assert_eq!(short(parameters), expected);
        }
    }
}
