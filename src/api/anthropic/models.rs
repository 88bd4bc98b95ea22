//! Models in Anthropic's shape: what `GET /v1/models` answers to those who send `anthropic-version`.

use sconce_models::ModelKind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::error::Code;
use crate::http::ApiError;
use crate::manager::ModelStatus;

/// Most models of one page.
const MAX_PAGE: usize = 1000;

/// Models of one page, where nothing is said.
const USUAL_PAGE: usize = 20;

/// Which page.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    limit: Option<usize>,
    after_id: Option<String>,
    before_id: Option<String>,
}

/// A page of the models that the caller may use.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AnthropicModels)]
pub struct ModelPage {
    data: Vec<Model>,
    /// Whether there are more in the direction that was asked for.
    #[schema(example = false)]
    has_more: bool,
    /// For `before_id`.
    #[schema(example = "claude-sonnet-4-5")]
    first_id: Option<String>,
    /// For `after_id`.
    #[schema(example = "claude-sonnet-4-5")]
    last_id: Option<String>,
}

/// A model.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = AnthropicModel)]
pub struct Model {
    /// Always `model`.
    #[schema(example = "model")]
    r#type: &'static str,
    /// What to ask for.
    #[schema(example = "claude-sonnet-4-5")]
    id: String,
    /// The same.
    #[schema(example = "claude-sonnet-4-5")]
    display_name: String,
    /// When it was added to this server.
    #[schema(example = "2025-02-19T00:00:00.000Z")]
    created_at: String,
    /// Always `active`: what is not served is not listed.
    #[schema(example = "active")]
    lifecycle: &'static str,
    /// Tokens of the longest context; null before that is known.
    #[schema(example = 8192)]
    max_input_tokens: Option<usize>,
    /// The same: prompt and answer share the context.
    #[schema(example = 8192)]
    max_tokens: Option<usize>,
}

impl From<&ModelStatus> for Model {
    fn from(status: &ModelStatus) -> Self {
        let context = status.spec.as_ref().map(|spec| spec.context_length);
        let created = i64::try_from(status.created).unwrap_or(0).saturating_mul(1000);
        Self {
            r#type: "model",
            id: status.id.clone(),
            display_name: status.id.clone(),
            created_at: Timestamp::from_millis(created).to_string(),
            lifecycle: "active",
            max_input_tokens: context,
            max_tokens: context,
        }
    }
}

/// A page of those that can answer messages.
///
/// # Errors
/// 400 for a page that cannot be.
pub fn page(all: &[ModelStatus], page: &Page) -> Result<ModelPage, ApiError> {
    let limit = page.limit.unwrap_or(USUAL_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = format!("`limit` must be from 1 to {MAX_PAGE}, not {limit}");
        return Err(ApiError::new(Code::OutOfRange, message).or_param("limit"));
    }
    let answers = |status: &&ModelStatus| status.kind.is_none_or(|kind| kind == ModelKind::Causal);
    let all: Vec<&ModelStatus> = all.iter().filter(answers).collect();
    let place = |id: &str| all.iter().position(|status| status.id == id);
    let (part, has_more) = match (&page.after_id, &page.before_id) {
        (Some(_), Some(_)) => {
            let message = "`after_id` and `before_id` cannot be sent together";
            return Err(ApiError::new(Code::InvalidValue, message).or_param("before_id"));
        }
        (Some(id), None) => first(&all[place(id).map_or(all.len(), |place| place + 1)..], limit),
        (None, Some(id)) => last(&all[..place(id).unwrap_or(0)], limit),
        (None, None) => first(&all, limit),
    };
    let data: Vec<Model> = part.iter().map(|status| Model::from(*status)).collect();
    let id = |model: Option<&Model>| model.map(|model| model.id.clone());
    Ok(ModelPage { has_more, first_id: id(data.first()), last_id: id(data.last()), data })
}

/// The first of them, and whether there are more.
fn first<'a>(all: &'a [&'a ModelStatus], limit: usize) -> (&'a [&'a ModelStatus], bool) {
    (&all[..limit.min(all.len())], all.len() > limit)
}

/// The last of them, and whether there are more.
fn last<'a>(all: &'a [&'a ModelStatus], limit: usize) -> (&'a [&'a ModelStatus], bool) {
    (&all[all.len().saturating_sub(limit)..], all.len() > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<ModelStatus> {
        let model =
            |id: &str| ModelStatus { id: id.to_owned(), created: 1_740_000_000, ..ModelStatus::default() };
        let embedding = ModelStatus { kind: Some(ModelKind::Embedding), ..model("e") };
        vec![model("a"), model("b"), embedding, model("c")]
    }

    fn ids(query: &str) -> (String, bool) {
        let page = serde_json::from_str(query).expect("a page");
        let page = super::page(&models(), &page).expect("it can be");
        (page.data.iter().map(|model| model.id.as_str()).collect(), page.has_more)
    }

    #[test]
    fn pages_follow_one_another_both_ways() {
        for (query, expected, has_more) in [
            ("{}", "abc", false),
            (r#"{"limit": 2}"#, "ab", true),
            (r#"{"limit": 2, "after_id": "b"}"#, "c", false),
            (r#"{"limit": 1, "before_id": "c"}"#, "b", true),
            (r#"{"before_id": "c"}"#, "ab", false),
            (r#"{"after_id": "nobody"}"#, "", false),
            (r#"{"before_id": "nobody"}"#, "", false),
        ] {
            assert_eq!(ids(query), (expected.to_owned(), has_more), "{query}");
        }
        let page = super::page(&models(), &Page::default()).expect("it can be");
        assert_eq!(page.data[0].created_at, "2025-02-19T21:20:00.000Z");
        let both = Page { after_id: Some("a".into()), before_id: Some("c".into()), limit: None };
        assert!(super::page(&models(), &both).is_err());
        assert!(super::page(&models(), &Page { limit: Some(0), ..Page::default() }).is_err());
    }
}
