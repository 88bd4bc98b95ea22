//! `/v1/responses`: answers that are kept, gone on from, and made in the background. Request in, events out, as everywhere;
//! what is stored is in `auth/responses.rs`.

mod conversation;
mod included;
mod item;
mod item_id;
mod keeping;
mod maker;
mod reference;
pub(in crate::api::openai) mod request;
mod run;
mod tools;
mod truncation;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::api::openai::files::listed;
use crate::api::openai::responses::included::Including;
use crate::api::openai::responses::request::{Question, ResponseRequest};
use crate::api::openai::schema;
use crate::auth::responses::{ResponseStatus, StoredResponse};
use crate::auth::{Capability, ModelUser};
use crate::error::Code;
use crate::http::state::Models;
use crate::http::{ApiError, AppState, Granted, Interruption, JsonBody, OpenAiError, Path, sse};

/// Answers a conversation, keeps the answer, and goes on from one that was kept.
///
/// With `stream` each step is an event, named by its `type` and numbered by `sequence_number`; the last is
/// `response.completed`, `response.incomplete` or `response.failed`. With `background` the answer goes on being made though
/// the client leaves.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a full queue, a conversation that is not there.
#[utoipa::path(post, path = "/v1/responses", operation_id = "openaiCreateResponse", tag = "openai",
    request_body(content = schema::ResponseRequest, examples(
        ("whole" = (summary = "One answer", value = json!({"model": "gpt-4o", "input": "Hello!"}))),
        ("streamed" = (summary = "Step by step", value = json!({"model": "gpt-4o", "stream": true,
            "instructions": "Be brief.", "input": [{"role": "user", "content": "Hello!"}]}))))),
    responses((status = 200, description = "The answer, as far as it is made; with `stream` the steps as events", content(
        (schema::OpenAiResponse = "application/json"), (schema::OpenAiResponseEvent = "text/event-stream"))),
        (status = 409, description = "The response that it goes on from, or refers to, is still being made")))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Response, OpenAiError> {
    let request = ResponseRequest::read(body)?;
    Ok(run::answer(&app, &user, request).await?)
}

pub use run::PATH;

/// The same for a line of a batch, of this name: whole, and kept as at its URL.
///
/// # Errors
/// As [`create`], and for a stream, or an answer in the background.
pub async fn whole(
    app: &AppState,
    user: &ModelUser,
    models: &Models<'_>,
    name: &str,
    body: Value,
) -> Result<Value, ApiError> {
    run::in_batch(app, user, models, name, ResponseRequest::read(body)?).await
}

/// How a kept answer is to be shown.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RetrieveQuery {
    /// Tell the steps as events, from the first on: of an answer that is made in the background and was asked for with
    /// `stream`, while it is made and for a while after.
    #[param(default = false, example = false)]
    stream: Option<bool>,
    /// Only with `stream`: without the events up to this number.
    #[param(minimum = 0, example = 7)]
    starting_after: Option<u64>,
    /// Nothing is added to the events: only `false`.
    #[param(default = false, example = false)]
    include_obfuscation: Option<bool>,
}

/// Shows an answer that was kept.
///
/// # Errors
/// In OpenAI's shape: 404 for one that is not there, or not yours; 400 for events that are not kept.
#[utoipa::path(get, path = "/v1/responses/{responseId}", operation_id = "openaiGetResponse", tag = "openai",
    params(("responseId" = String, Path, description = "The answer's id", example = "resp_0198c0ffee"), RetrieveQuery,
        ("include[]" = Option<Vec<String>>, Query, example = json!(["message.output_text.logprobs"]),
            description = "`message.output_text.logprobs` and `reasoning.encrypted_content`: what was kept is shown as it was \
                made, so that they change nothing")),
    responses((status = 200, description = "The answer as it stands; with `stream` the steps as events", content(
        (schema::OpenAiResponse = "application/json"), (schema::OpenAiResponseEvent = "text/event-stream")))))]
pub async fn retrieve(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
    Including(query): Including<RetrieveQuery>,
) -> Result<Response, OpenAiError> {
    if query.include_obfuscation == Some(true) {
        let message = "`include_obfuscation` is not supported: nothing is added to the events";
        return Err(ApiError::new(Code::UnsupportedParameter, message)
            .or_param("include_obfuscation")
            .into());
    }
    let stored = user.responses().find(&id).await?;
    if query.stream != Some(true) {
        if query.starting_after.is_some() {
            return Err(invalid("starting_after", "is only allowed when `stream` is true").into());
        }
        return Ok(Json(shown(stored)).into_response());
    }
    let followed = app.background().find(&id).filter(|work| work.can_be_followed());
    let Some(work) = followed else {
        let reason = "is for answers that are made in the background and were asked for with `stream`, while they are \
            made and for a while after";
        return Err(invalid("stream", reason).into());
    };
    let skipped = query.starting_after.map_or(0, |number| number.saturating_add(1));
    let first = skipped;
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    if skipped < work.forgotten() {
        return Err(run::forgotten(&work).into());
    }
    let interruption = Interruption::of_request(user.caller(), ModelUser::PERMISSION, app.shutdown());
    let events = run::followed(&work, skipped);
    Ok(sse::named_events_from(&app, interruption, events, run::error_event, first))
}

/// Deletes an answer that was kept. What goes on from it cannot be gone on from any more.
///
/// # Errors
/// In OpenAI's shape: 404 for one that is not there, or not yours.
#[utoipa::path(delete, path = "/v1/responses/{responseId}", operation_id = "openaiDeleteResponse", tag = "openai",
    params(("responseId" = String, Path, description = "The answer's id", example = "resp_0198c0ffee")),
    responses((status = 200, description = "It is deleted", body = schema::OpenAiDeletedResponse)))]
pub async fn delete(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    let responses = user.responses();
    responses.find(&id).await?;
    if let Some(work) = app.background().find(&id) {
        work.cancel();
        work.over().await;
        app.background().forget(&id);
    }
    responses.delete(&id).await?;
    Ok(Json(json!({"id": id, "object": "response", "deleted": true})))
}

/// Takes back an answer that is made in the background. One that is over stays as it is.
///
/// # Errors
/// In OpenAI's shape: 404 for one that is not there, or not yours; 400 for one that was not made in the background.
#[utoipa::path(post, path = "/v1/responses/{responseId}/cancel", operation_id = "openaiCancelResponse", tag = "openai",
    params(("responseId" = String, Path, description = "The answer's id", example = "resp_0198c0ffee")),
    responses((status = 200, description = "The answer as far as it was made", body = schema::OpenAiResponse)))]
pub async fn cancel(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    let responses = user.responses();
    let stored = responses.find(&id).await?;
    if stored.body["background"] != true {
        let message = "only a response that is made in the background can be cancelled";
        return Err(ApiError::new(Code::InvalidValue, message).into());
    }
    if !stored.status.is_running() {
        return Ok(Json(shown(stored)));
    }
    match app.background().find(&id) {
        Some(work) => {
            work.cancel();
            work.over().await;
        }
        None => responses.cancel(&id).await?,
    }
    Ok(Json(shown(responses.find(&id).await?)))
}

/// Which of the items.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ItemsQuery {
    /// Most items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<usize>,
    /// `desc`: the last is first, the usual; `asc`: the other way round.
    #[param(inline)]
    order: Option<ItemOrder>,
    /// The id of the item after which the page begins.
    #[param(example = "msg_0198c0ffee")]
    after: Option<String>,
}

/// Which way items go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ItemOrder {
    /// The first is first.
    Asc,
    /// The last is first.
    Desc,
}

/// Lists the items that an answer was asked for with; those of the answers that it goes on from are theirs.
///
/// # Errors
/// In OpenAI's shape: 404 for an answer that is not there, or not yours.
#[utoipa::path(get, path = "/v1/responses/{responseId}/input_items", operation_id = "openaiListResponseItems",
    tag = "openai",
    params(("responseId" = String, Path, description = "The answer's id", example = "resp_0198c0ffee"), ItemsQuery,
        ("include[]" = Option<Vec<String>>, Query, example = json!(["reasoning.encrypted_content"]),
            description = "`message.output_text.logprobs` and `reasoning.encrypted_content`: items are shown as they were \
                sent, so that they change nothing")),
    responses((status = 200, description = "One page of the items", body = schema::OpenAiResponseItems)))]
pub async fn input_items(
    State(_): State<AppState>,
    Granted(user): Granted<ModelUser>,
    Path(id): Path<String>,
    Including(query): Including<ItemsQuery>,
) -> Result<Json<Value>, OpenAiError> {
    let stored = user.responses().find(&id).await?;
    let ItemsQuery { limit, order, after } = query;
    Ok(Json(page(stored.input, limit, order.unwrap_or(ItemOrder::Desc), after.as_deref())?))
}

/// Counts the tokens of a question. Nothing is generated.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown model, a conversation that is not there.
#[utoipa::path(post, path = "/v1/responses/input_tokens", operation_id = "openaiCountResponseTokens", tag = "openai",
    request_body(content = schema::ResponseQuestion, example = json!({"model": "gpt-4o", "input": "Hello!"})),
    responses((status = 200, description = "How many there are", body = schema::OpenAiResponseTokens),
        (status = 409, description = "The response that it goes on from, or refers to, is still being made")))]
pub async fn input_tokens(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    let question = Question::read(body)?;
    let items = run::asked(&app, &user, &question).await?.items;
    let lease = app.models(&user).lease(&question.model).await?;
    let items = run::fitting(&app, &lease, &question, items, None).await?;
    let counted = app.generator().prompt_tokens(&lease, question.generate(&items)).await;
    let tokens = counted.map_err(|error| ApiError::from(error).or_param("input"))?;
    Ok(Json(json!({"object": "response.input_tokens", "input_tokens": tokens})))
}

/// How many items a page has.
///
/// # Errors
/// If there are too few or too many.
pub(in crate::api::openai) fn page_length(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(20);
    if (1..=100).contains(&limit) { Ok(limit) } else { Err(invalid("limit", "must be 1 to 100")) }
}

/// A page of items that are all at hand, the first of which is the oldest.
///
/// # Errors
/// For a length that cannot be, and a page that is to begin after something else.
pub(in crate::api::openai) fn page(
    mut items: Vec<Value>,
    limit: Option<usize>,
    order: ItemOrder,
    after: Option<&str>,
) -> Result<Value, ApiError> {
    let limit = page_length(limit)?;
    if order == ItemOrder::Desc {
        items.reverse();
    }
    if let Some(after) = after {
        let place = items.iter().position(|item| item["id"] == *after);
        let place = place.ok_or_else(|| invalid("after", "names no item of this list"))?;
        items.drain(..=place);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    Ok(listed(items, has_more))
}

fn invalid(name: &str, reason: &str) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("`{name}` {reason}")).or_param(name)
}

/// A kept answer as it stands: what was written may be of before.
fn shown(stored: StoredResponse) -> Value {
    let StoredResponse { status, mut body, .. } = stored;
    if body["status"] != status.name() {
        body["status"] = status.name().into();
        if status == ResponseStatus::Failed {
            body["error"] = maker::lost();
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_both_ways_and_on_from_an_item() {
        let items = || (0..5).map(|number| json!({"id": format!("msg_{number}")})).collect::<Vec<_>>();
        let ids = |limit: Option<usize>, order: ItemOrder, after: Option<&str>| {
            let page = page(items(), limit, order, after).expect("it is right");
            let data = page["data"].as_array().expect("items").clone();
            let ids: Vec<_> =
                data.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect();
            (ids.join(" "), page["has_more"] == true)
        };
        let backwards = ItemOrder::Desc;
        assert_eq!(ids(None, backwards, None), ("msg_4 msg_3 msg_2 msg_1 msg_0".to_owned(), false));
        assert_eq!(ids(Some(2), ItemOrder::Asc, Some("msg_1")), ("msg_2 msg_3".to_owned(), true));
        assert_eq!(ids(None, backwards, Some("msg_0")), (String::new(), false));
        assert!(page(items(), None, backwards, Some("x")).is_err());
        assert!(page(items(), Some(0), backwards, None).is_err());
    }
}
