//! `/v1/batches`: requests in a file, done while nobody waits for them.
//!
//! Not the doing (`batch/`), nor how one of them is answered (`line.rs`).

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::api::openai::fields::{Fields, ParameterError, string};
use crate::api::openai::files::{EXPIRY_SECONDS, limit, listed};
use crate::api::openai::{line, metadata, schema};
use crate::auth::batches::{BatchRow, BatchUsage, BatchUser, NewBatch};
use crate::clock::Timestamp;
use crate::http::{AppState, Granted, JsonBody, OpenAiError, Path, Query};

/// Most batches of one page, and the usual number.
const MOST_LISTED: u32 = 100;
const USUALLY_LISTED: u32 = 20;

/// The longest that a batch may take, in hours.
const LONGEST_WINDOW: u64 = 168;

/// Makes a batch of the requests in a file.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, a file that is not there, and for too many batches.
#[utoipa::path(post, path = "/v1/batches", operation_id = "openaiCreateBatch", tag = "openai",
    request_body(content = schema::BatchRequest, example = json!({"input_file_id": "file-0198", "endpoint":
        "/v1/chat/completions", "completion_window": "24h", "metadata": {"run": "nightly"}})),
    responses((status = 200, description = "The batch", body = schema::OpenAiBatch),
        (status = 409, description = "Too many of the user's batches are not over")))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<BatchUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    let new = read(body)?;
    crate::api::inference::refuse_while_draining(&app)?;
    Ok(Json(batch(&user.create(new).await?)))
}

/// Reads a body.
fn read(body: Value) -> Result<NewBatch, ParameterError> {
    let mut fields = Fields::of(body, "")?;
    let input_file_id = string(fields.required("input_file_id")?, || "input_file_id".to_owned())?;
    if input_file_id.contains('\0') {
        return Err(ParameterError::invalid("input_file_id", "names no file"));
    }
    let endpoint = string(fields.required("endpoint")?, || "endpoint".to_owned())?;
    if !line::ENDPOINTS.contains(&endpoint.as_str()) {
        let reason = format!("must be one of {}", line::ENDPOINTS.join(", "));
        return Err(ParameterError::invalid("endpoint", reason));
    }
    let completion_window = string(fields.required("completion_window")?, || "completion_window".to_owned())?;
    let window = window(&completion_window)?;
    let metadata = metadata::take(&mut fields)?.map(Value::Object);
    let output_seconds = output_seconds(&mut fields)?;
    fields.finish()?;
    Ok(NewBatch { input_file_id, endpoint, completion_window, window, metadata, output_seconds })
}

/// `24h`, which is all that OpenAI knows, or another number of hours.
fn window(text: &str) -> Result<Duration, ParameterError> {
    let hours = text.strip_suffix('h').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match hours.and_then(|digits| digits.parse::<u64>().ok()) {
        Some(hours) if (1..=LONGEST_WINDOW).contains(&hours) => Ok(Duration::from_secs(hours * 3600)),
        _ => {
            let reason = format!("must be a number of hours up to `{LONGEST_WINDOW}h`, such as `24h`");
            Err(ParameterError::invalid("completion_window", reason))
        }
    }
}

fn output_seconds(fields: &mut Fields) -> Result<Option<i64>, ParameterError> {
    let Some(mut expiry) = fields.object("output_expires_after")? else { return Ok(None) };
    let anchor = string(expiry.required("anchor")?, || expiry.path("anchor"))?;
    if anchor != "created_at" {
        return Err(ParameterError::invalid(expiry.path("anchor"), "must be `created_at`"));
    }
    let seconds = expiry.required("seconds")?;
    let seconds = super::fields::integer(&seconds, EXPIRY_SECONDS, || expiry.path("seconds"))?;
    expiry.finish()?;
    Ok(i64::try_from(seconds).ok())
}

/// Which batches are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BatchQuery {
    /// Most batches.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// The id of a batch; the list begins behind it.
    after: Option<String>,
}

/// Lists batches, the newest first.
///
/// # Errors
/// 400 for a query that is not right.
#[utoipa::path(get, path = "/v1/batches", operation_id = "openaiListBatches", tag = "openai", params(BatchQuery),
    responses((status = 200, description = "The batches", body = schema::OpenAiBatches)))]
pub async fn list(
    Granted(user): Granted<BatchUser>,
    Query(query): Query<BatchQuery>,
) -> Result<Json<Value>, OpenAiError> {
    let limit = limit(query.limit, USUALLY_LISTED, MOST_LISTED)?;
    let part = user.list(query.after.as_deref(), limit).await?;
    Ok(Json(listed(part.items.iter().map(batch).collect(), part.has_more)))
}

/// Describes one batch.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/batches/{batch_id}", operation_id = "openaiGetBatch", tag = "openai",
    params(("batch_id" = String, Path, description = "The batch")),
    responses((status = 200, description = "The batch", body = schema::OpenAiBatch)))]
pub async fn retrieve(
    Granted(user): Granted<BatchUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    Ok(Json(batch(&user.find(&id).await?)))
}

/// Cancels a batch: what has begun is broken off, and paid for; what was done before is written.
///
/// # Errors
/// 404; 409 for a batch that is over.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/cancel", operation_id = "openaiCancelBatch", tag = "openai",
    params(("batch_id" = String, Path, description = "The batch")),
    responses((status = 200, description = "The batch", body = schema::OpenAiBatch)))]
pub async fn cancel(
    Granted(user): Granted<BatchUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    Ok(Json(batch(&user.cancel(&id).await?)))
}

fn batch(row: &BatchRow) -> Value {
    let (order, times, counts, results) = (&row.order, &row.times, &row.counts, &row.results);
    let at = |at: Option<Timestamp>| at.map(Timestamp::seconds);
    let errors = results.errors.as_ref().map(|errors| json!({"object": "list", "data": errors.0}));
    json!({
        "id": row.id,
        "object": "batch",
        "endpoint": order.endpoint,
        "model": row.usage.model,
        "errors": errors,
        "input_file_id": order.input_file_id,
        "completion_window": order.completion_window,
        "status": row.status.name(),
        "output_file_id": results.output_file_id,
        "error_file_id": results.error_file_id,
        "created_at": times.created_at.seconds(),
        "in_progress_at": at(times.in_progress_at),
        "expires_at": times.expires_at.seconds(),
        "finalizing_at": at(times.finalizing_at),
        "completed_at": at(times.completed_at),
        "failed_at": at(times.failed_at),
        "expired_at": at(times.expired_at),
        "cancelling_at": at(times.cancelling_at),
        "cancelled_at": at(times.cancelled_at),
        "request_counts": {"total": counts.total, "completed": counts.completed, "failed": counts.failed},
        "usage": usage(&row.usage),
        "metadata": order.metadata.as_ref().map(|metadata| &metadata.0),
    })
}

/// What its requests used until now, where that was counted.
fn usage(used: &BatchUsage) -> Option<Value> {
    let (input, output) = (used.input_tokens?, used.output_tokens?);
    Some(json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": used.cached_tokens},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": input + output,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    fn right() -> Value {
        json!({"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h"})
    }

    #[test]
    fn what_is_right_is_read() {
        let mut body = right();
        body["metadata"] = json!({"run": "7"});
        body["output_expires_after"] = json!({"anchor": "created_at", "seconds": 7200});
        let new = read(body).expect("it is right");
        assert_eq!((new.window.as_secs(), new.output_seconds), (86_400, Some(7200)));
        assert_eq!(new.metadata, Some(json!({"run": "7"})));
        assert_eq!(read(right()).map(|new| new.metadata), Ok(None));
    }

    #[test]
    fn nothing_else_is_and_it_is_said_what() {
        for (name, value, param) in [
            ("endpoint", json!("/v1/images"), "endpoint"),
            ("endpoint", json!("v1/embeddings"), "endpoint"),
            ("completion_window", json!("1d"), "completion_window"),
            ("completion_window", json!("0h"), "completion_window"),
            ("completion_window", json!("169h"), "completion_window"),
            ("completion_window", json!("+1h"), "completion_window"),
            ("completion_window", json!(24), "completion_window"),
            ("input_file_id", json!("file\u{0}"), "input_file_id"),
            ("metadata", json!({"a": 1}), "metadata"),
            (
                "output_expires_after",
                json!({"anchor": "now", "seconds": 7200}),
                "output_expires_after.anchor",
            ),
            (
                "output_expires_after",
                json!({"anchor": "created_at", "seconds": 1}),
                "output_expires_after.seconds",
            ),
            ("output_expires_after", json!({"seconds": 7200}), "output_expires_after.anchor"),
            ("other", json!(1), "other"),
        ] {
            let mut body = right();
            body[name] = value.clone();
            let error = read(body).expect_err("it is wrong");
            assert_eq!(error.param(), Some(param), "{name}: {value}");
        }
    }
}
