//! How a model samples where a request does not say: an administrator's word, the model's files, the catalogue, in
//! this order. What sampling does with these values is the engine's business.

use sconce_models::GenerationDefaults;
use serde::{Deserialize, Serialize};

/// Values for a request that says nothing of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingDefaults {
    /// 0 to 2; 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// 0 to 1; 0 takes the likeliest token.
    pub top_p: Option<f32>,
    /// Candidates; 0 for all.
    pub top_k: Option<u32>,
    /// Above 0, at most 10; 1 changes nothing.
    pub repetition_penalty: Option<f32>,
    /// How it writes calls of functions, one of [`CALL_FORMATS`]; none: as its chat template shows.
    pub tool_format: Option<String>,
}

/// The ways to write calls that there are; what each is, `generate/format/family.rs` knows.
pub const CALL_FORMATS: [&str; 11] = [
    "harmony",
    "deepseek-v3.1",
    "deepseek",
    "mistral",
    "mistral-list",
    "gemma4",
    "functiongemma",
    "qwen3-coder",
    "llama3",
    "hermes",
    "smollm2",
];

impl SamplingDefaults {
    /// Whether every value is one that can be sampled with.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let within =
            |value: Option<f32>, low: f32, high: f32| value.is_none_or(|value| (low..=high).contains(&value));
        for (name, value, low, most) in [
            ("temperature", self.temperature, 0.0, 2.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE, 10.0),
        ] {
            if !within(value, low, most) {
                return Err((name, format!("is not within 0 and {most}")));
            }
        }
        match &self.tool_format {
            Some(format) if !CALL_FORMATS.contains(&format.as_str()) => {
                Err(("tool_format", format!("is none of {}", CALL_FORMATS.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// What a request that says nothing gets: these values, then what the model's files say, then the catalogue's.
    pub(super) fn over(&self, files: &GenerationDefaults, catalog: &Self) -> GenerationDefaults {
        let top_k = self.top_k.or(files.top_k).or(catalog.top_k);
        let penalty = self.repetition_penalty.or(files.repetition_penalty).or(catalog.repetition_penalty);
        GenerationDefaults {
            end_token_ids: files.end_token_ids.clone(),
            temperature: self.temperature.or(files.temperature).or(catalog.temperature),
            top_p: self.top_p.or(files.top_p).or(catalog.top_p),
            top_k,
            repetition_penalty: penalty,
            tool_format: self.tool_format.clone().or_else(|| catalog.tool_format.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_goes_before_the_files_and_they_before_the_catalogue() {
        let values = |temperature, top_p, top_k| SamplingDefaults {
            temperature,
            top_p,
            top_k,
            ..SamplingDefaults::default()
        };
        let files = GenerationDefaults {
            end_token_ids: vec![7],
            temperature: Some(0.5),
            top_p: Some(0.6),
            top_k: None,
            repetition_penalty: Some(1.1),
            tool_format: None,
        };
        let found = values(Some(0.1), None, None).over(&files, &values(Some(0.9), Some(0.9), Some(9)));
        assert_eq!((found.temperature, found.top_p, found.top_k), (Some(0.1), Some(0.6), Some(9)));
        assert_eq!((found.repetition_penalty, found.end_token_ids), (Some(1.1), vec![7]));
    }

    #[test]
    fn values_that_cannot_be_sampled_with_are_refused_by_name() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1, 11.0] {
            let temperature = SamplingDefaults { temperature: Some(bad), ..SamplingDefaults::default() };
            assert_eq!(temperature.check().unwrap_err().0, "temperature", "{bad}");
            let top_p = SamplingDefaults { top_p: Some(bad), ..SamplingDefaults::default() };
            assert_eq!(top_p.check().unwrap_err().0, "top_p", "{bad}");
            let penalty = SamplingDefaults { repetition_penalty: Some(bad), ..SamplingDefaults::default() };
            assert_eq!(penalty.check().unwrap_err().0, "repetition_penalty", "{bad}");
        }
        let zero = SamplingDefaults { temperature: Some(0.0), top_k: Some(0), ..SamplingDefaults::default() };
        assert_eq!(zero.check(), Ok(()));
        let zero = SamplingDefaults { top_p: Some(0.0), ..SamplingDefaults::default() };
        assert_eq!(zero.check(), Ok(()), "as a request may say it");
    }
}
