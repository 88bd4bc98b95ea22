//! What administrators say a model is to be: read, checked, and put into what it was.
//!
//! Not whether its sources may be used, nor whether its names are free (`http/registry.rs`, `auth/models.rs`). The one
//! thing to know: what is left out stays, null empties what can be empty, and nothing else may be null.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::auth::models::{ModelLimits, ModelSpecification, Visibility};
use crate::auth::{AuthError, is_plain};
use crate::error::Code;
use crate::http::ApiError;
use crate::http::openapi::joined;
use crate::manager::{CALL_FORMATS, ModelStatus};

/// Values for parameters that a request leaves open.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelDefaults {
    /// Within 0 and 2.
    #[schema(example = 0.2, minimum = 0, maximum = 2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// From 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    /// How many tokens are chosen among.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    /// 1 changes nothing.
    #[schema(minimum = 0.01, maximum = 10)]
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f64>,
    /// How it writes calls of functions: `hermes`, `qwen3-coder`, `llama3`, `mistral`, `mistral-list`, `deepseek`,
    /// `deepseek-v3.1`, `gemma4`, `functiongemma`, `harmony` or `smollm2`. Left out: as its chat template shows.
    #[schema(example = "hermes")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_format: Option<String>,
}

/// A model to register.
#[derive(Debug)]
pub struct CreateModel {
    /// The name clients will ask for.
    pub(super) id: String,
    /// All else.
    pub(super) rest: UpdateModel,
}

/// What a model to register has beside what can be changed of it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only the description of the API is made from it")]
struct ModelName {
    /// The name clients will ask for.
    #[schema(example = "smollm2", min_length = 1, max_length = 128)]
    id: String,
}

impl PartialSchema for CreateModel {
    fn schema() -> RefOr<Schema> {
        joined("A model to register.", ModelName::schema(), UpdateModel::schema())
    }
}

impl ToSchema for CreateModel {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        UpdateModel::schemas(schemas);
    }
}

impl<'de> Deserialize<'de> for CreateModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Whole)
    }
}

/// Reads the id out of the members, and the rest as a change: serde refuses unknown fields only where nothing is
/// flattened.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = CreateModel;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<CreateModel, A::Error> {
        let mut id = None;
        let rest = Rest { members, id: &mut id };
        let rest = UpdateModel::deserialize(MapAccessDeserializer::new(rest))?;
        Ok(CreateModel { id: id.ok_or_else(|| A::Error::missing_field("id"))?, rest })
    }
}

/// All members but the id, which is kept.
struct Rest<'a, A> {
    members: A,
    id: &'a mut Option<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.members.next_key::<String>()? {
            if name != "id" {
                let name: StringDeserializer<A::Error> = name.into_deserializer();
                return seed.deserialize(name).map(Some);
            }
            *self.id = Some(self.members.next_value()?);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.members.next_value_seed(seed)
    }
}

/// What is to be changed of a model; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateModel {
    /// Where it may be had: `hf:owner/repository@revision/file`, `modelscope:…`, `https://…`, `pip:…`, or a path below a
    /// model root; tried in order. Empty: as the catalogue says for this name.
    #[serde(default, deserialize_with = "present")]
    #[schema(example = json!(["hf:owner/repository@main/model.gguf"]), max_items = 16, nullable = false)]
    sources: Option<Vec<String>>,
    /// Other names that lead to it: each once, and none of them its id.
    #[serde(default, deserialize_with = "present")]
    #[schema(example = json!(["gpt-4o"]), max_items = 64, nullable = false)]
    aliases: Option<Vec<String>>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    #[schema(max_length = 2000, nullable = false)]
    description: Option<String>,
    /// SHA-256 of its only file, 64 hexadecimal digits; null for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    sha256: Option<Option<String>>,
    /// A context length below its own; null for its own.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    context_length: Option<Option<u32>>,
    /// Values for parameters that a request leaves open, all of them; null for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ModelDefaults>)]
    defaults: Option<Option<ModelDefaults>>,
    /// The most that a request may ask for, all of it; null for no limits.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ModelLimits>)]
    limits: Option<Option<ModelLimits>>,
    /// Who sees it.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    visibility: Option<Visibility>,
    /// The teams that see it, where not everyone does.
    #[serde(default, deserialize_with = "present")]
    #[schema(max_items = 100, nullable = false)]
    team_ids: Option<Vec<String>>,
    /// Never unloaded to make room.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pinned: Option<bool>,
    /// Not enabled: as if it were not there.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// Loaded as soon as it is registered, and at start.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    preload: Option<bool>,
}

/// Reads a field that is there: null too is a value, of which its type says whether it is one.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

impl UpdateModel {
    /// The sources it names.
    pub(super) fn sources(&self) -> &[String] {
        self.sources.as_deref().unwrap_or_default()
    }

    /// Puts it into what the model was to be, and looks whether that may be.
    ///
    /// # Errors
    /// 400 with the whole name of the field at fault.
    pub(super) fn apply(self, model: &mut ModelSpecification) -> Result<(), ApiError> {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut model.sources, self.sources);
        set(&mut model.aliases, self.aliases);
        set(&mut model.description, self.description);
        set(&mut model.sha256, self.sha256);
        set(&mut model.context_length, self.context_length);
        let defaults = self.defaults.map(Option::unwrap_or_default);
        if let Some(defaults) = &defaults {
            defaults.check()?;
        }
        set(&mut model.defaults, defaults.map(|defaults| json!(defaults)));
        set(&mut model.limits, self.limits.map(Option::unwrap_or_default));
        set(&mut model.visibility, self.visibility);
        set(&mut model.team_ids, self.team_ids);
        set(&mut model.pinned, self.pinned);
        set(&mut model.enabled, self.enabled);
        set(&mut model.preload, self.preload);
        check(model)
    }
}

impl ModelDefaults {
    /// A default is held to what a request is held to.
    fn check(&self) -> Result<(), ApiError> {
        within("defaults.temperature", self.temperature, 0.0, 2.0)?;
        within("defaults.top_p", self.top_p, 0.0, 1.0)?;
        within("defaults.repetition_penalty", self.repetition_penalty, 0.01, 10.0)?;
        match &self.tool_format {
            Some(format) if !CALL_FORMATS.contains(&format.as_str()) => {
                Err(wrong("defaults.tool_format", &format!("must be one of {}", CALL_FORMATS.join(", "))))
            }
            _ => Ok(()),
        }
    }
}

fn within(field: &str, value: Option<f64>, least: f64, most: f64) -> Result<(), ApiError> {
    match value.is_none_or(|value| (least..=most).contains(&value)) {
        true => Ok(()),
        false => Err(out_of_range(field, format!("must be from {least} to {most}"))),
    }
}

fn out_of_range(field: &str, reason: String) -> ApiError {
    ApiError::new(Code::OutOfRange, format!("`{field}` {reason}")).or_param(field)
}

fn check(model: &ModelSpecification) -> Result<(), ApiError> {
    check_texts(model)?;
    if model.team_ids.len() > 100 {
        return Err(wrong("team_ids", "must name at most 100 teams"));
    }
    if model.visibility == Visibility::Everyone && !model.team_ids.is_empty() {
        return Err(wrong("team_ids", "needs `visibility` to be `teams`"));
    }
    if model.aliases.contains(&model.id) {
        return Err(wrong("aliases", "are other names than the id"));
    }
    if model.aliases.iter().collect::<BTreeSet<_>>().len() < model.aliases.len() {
        return Err(wrong("aliases", "must name each name once"));
    }
    for (field, most) in [("limits.max_tokens", model.limits.max_tokens), ("limits.n", model.limits.n)] {
        if most == Some(0) {
            return Err(out_of_range(field, "must be at least 1".to_owned()));
        }
    }
    within("limits.temperature", model.limits.temperature.map(f64::from), 0.0, 2.0)
}

fn check_texts(model: &ModelSpecification) -> Result<(), ApiError> {
    if model.description.chars().count() > 2000 {
        return Err(wrong("description", "must have at most 2000 characters"));
    }
    // Lines may end, nothing else may happen in a text: NUL, above all, no database need understand.
    if !model.description.chars().all(|character| is_plain(character) || "\n\t".contains(character)) {
        return Err(wrong("description", "must be plain text"));
    }
    for (field, texts) in [("sources", &model.sources), ("team_ids", &model.team_ids)] {
        if texts.iter().any(|text| text.contains(char::is_control)) {
            return Err(wrong(field, "must be lines of text"));
        }
    }
    Ok(())
}

fn wrong(field: &str, reason: &str) -> ApiError {
    AuthError::invalid(field, reason).into()
}

/// A model of which nothing was said yet.
pub(super) fn blank(id: String) -> ModelSpecification {
    ModelSpecification {
        id,
        sources: Vec::new(),
        aliases: Vec::new(),
        description: String::new(),
        sha256: None,
        context_length: None,
        defaults: json!({}),
        limits: ModelLimits::default(),
        visibility: Visibility::Everyone,
        team_ids: Vec::new(),
        pinned: false,
        enabled: true,
        preload: false,
    }
}

/// What the configuration says of a model that is not registered.
pub(super) fn configured(status: &ModelStatus) -> ModelSpecification {
    ModelSpecification {
        aliases: status.aliases.clone(),
        pinned: status.pinned,
        enabled: status.enabled,
        ..blank(status.id.clone())
    }
}
