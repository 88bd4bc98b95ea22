//! `/v1/files`: what batches read and write.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::api::openai::fields::ParameterError;
use crate::api::openai::schema;
use crate::auth::files::{BATCH_OUTPUT, FOR_BATCHES, FileLimits, FileRow, FileUser, Order, Upload};
use crate::error::Code;
use crate::http::{ApiError, AppState, FormBody, FormPart, Granted, OpenAiError, Path, Query};

/// Most files of one page, as at OpenAI.
const MOST_LISTED: u32 = 10_000;

/// Shortest and longest time after which a file may be deleted by itself, in seconds; as at OpenAI.
pub const EXPIRY_SECONDS: std::ops::RangeInclusive<u64> = 3600..=2_592_000;

/// Longest name, in characters.
const LONGEST_NAME: usize = 255;

/// Purposes that OpenAI's clients know and that mean nothing here.
const OTHER_PURPOSES: [&str; 6] =
    ["assistants", "fine-tune", "vision", "user_data", "evals", "assistants_output"];

/// Uploads a file for batches.
///
/// # Errors
/// In OpenAI's shape: for a form that is not right, a file that is too large, and when there is no more room for the user.
#[utoipa::path(post, path = "/v1/files", operation_id = "openaiCreateFile", tag = "openai",
    request_body(content = schema::FileUpload, content_type = "multipart/form-data"),
    responses((status = 200, description = "The file", body = schema::OpenAiFile),
        (status = 409, description = "The user's files take all the room that they may")))]
pub async fn create(
    State(app): State<AppState>,
    Granted(user): Granted<FileUser>,
    form: FormBody,
) -> Result<Json<Value>, OpenAiError> {
    let batch = &app.settings().batch;
    let limits = FileLimits { file_bytes: batch.max_file_bytes, owner_bytes: batch.max_user_bytes };
    let mut fields = FormFields::default();
    let upload = match fields.read(&user, form, limits).await {
        Ok(()) => fields.upload()?,
        Err(error) => {
            if let Some(upload) = fields.file.take() {
                upload.give_up().await;
            }
            return Err(error.into());
        }
    };
    Ok(Json(file(&user.finish(upload).await?)))
}

/// What a form has said so far.
#[derive(Default)]
struct FormFields {
    file: Option<Upload>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl FormFields {
    async fn read(
        &mut self,
        user: &FileUser,
        mut form: FormBody,
        limits: FileLimits,
    ) -> Result<(), ApiError> {
        while let Some(part) = form.next().await? {
            let name = part.name().to_owned();
            match name.as_str() {
                "file" => self.read_file(user, part, limits).await?,
                "purpose" => once(&mut self.purpose, &name, part).await?,
                "expires_after[anchor]" => once(&mut self.anchor, &name, part).await?,
                "expires_after[seconds]" => once(&mut self.seconds, &name, part).await?,
                _ => {
                    let name: String = name.chars().take(64).collect();
                    let error =
                        ApiError::new(Code::UnknownParameter, format!("`{name}` is not a known field"));
                    return Err(error.or_param(&name));
                }
            }
        }
        self.check()
    }

    async fn read_file(
        &mut self,
        user: &FileUser,
        mut part: FormPart,
        limits: FileLimits,
    ) -> Result<(), ApiError> {
        if self.file.is_some() {
            return Err(ParameterError::invalid("file", "stands there twice").into());
        }
        let name = part.file_name().map(shown_name);
        let name = name.ok_or_else(|| ParameterError::invalid("file", "must be a file, with a name"))?;
        // What is said after the file is added when all has been read.
        let upload = self.file.insert(user.upload(name, limits).await?);
        while let Some(bytes) = part.chunk().await? {
            upload.push(&bytes).await?;
        }
        Ok(())
    }

    /// Whether all is there, and right.
    fn check(&mut self) -> Result<(), ApiError> {
        let purpose = self.purpose.as_deref().ok_or_else(|| missing("purpose"))?;
        if OTHER_PURPOSES.contains(&purpose) {
            let reason =
                format!("files are for batches here (`{FOR_BATCHES}`), and `{purpose}` means nothing");
            return Err(ParameterError::unsupported("purpose", reason).into());
        }
        if purpose != FOR_BATCHES {
            return Err(ParameterError::invalid("purpose", format!("must be `{FOR_BATCHES}`")).into());
        }
        let expiry = expiry(self.anchor.as_deref(), self.seconds.as_deref())?;
        let upload = self.file.as_mut().ok_or_else(|| missing("file"))?;
        if upload.bytes() == 0 {
            return Err(ParameterError::invalid("file", "must not be empty").into());
        }
        upload.expire_after(expiry);
        Ok(())
    }

    fn upload(&mut self) -> Result<Upload, ApiError> {
        self.file.take().ok_or_else(|| missing("file"))
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::new(Code::MissingParameter, format!("`{name}` is missing")).or_param(name)
}

async fn once(slot: &mut Option<String>, name: &str, part: FormPart) -> Result<(), ApiError> {
    if slot.is_some() {
        return Err(ParameterError::invalid(name, "stands there twice").into());
    }
    *slot = Some(part.text().await?);
    Ok(())
}

/// After what time a file is deleted, where a form says it.
fn expiry(anchor: Option<&str>, seconds: Option<&str>) -> Result<Option<Duration>, ParameterError> {
    let Some(seconds) = seconds else {
        return match anchor {
            None => Ok(None),
            Some(_) => Err(ParameterError::invalid("expires_after[seconds]", "must go with the anchor")),
        };
    };
    if anchor != Some("created_at") {
        return Err(ParameterError::invalid("expires_after[anchor]", "must be `created_at`"));
    }
    match seconds.parse::<u64>() {
        Ok(seconds) if EXPIRY_SECONDS.contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
        _ => {
            let (least, most) = (EXPIRY_SECONDS.start(), EXPIRY_SECONDS.end());
            let reason = format!("must be a whole number from {least} to {most}");
            Err(ParameterError::invalid("expires_after[seconds]", reason))
        }
    }
}

/// A name as it is shown: nobody's folders, and nothing that moves a cursor. No file of this name is ever made.
fn shown_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
    if plain.trim_matches('.').is_empty() { "upload".to_owned() } else { plain }
}

/// Which files are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FileQuery {
    /// Only those for this: `batch` or `batch_output`.
    purpose: Option<String>,
    /// Most files.
    #[param(minimum = 1, maximum = 10000, default = 10000, example = 20)]
    limit: Option<u32>,
    /// By the time of their making: `desc`, the newest first, or `asc`.
    #[param(example = "desc")]
    order: Option<String>,
    /// The id of a file; the list begins behind it.
    after: Option<String>,
}

/// Lists files.
///
/// # Errors
/// 400 for a query that is not right.
#[utoipa::path(get, path = "/v1/files", operation_id = "openaiListFiles", tag = "openai", params(FileQuery),
    responses((status = 200, description = "The files", body = schema::OpenAiFiles)))]
pub async fn list(
    Granted(user): Granted<FileUser>,
    Query(query): Query<FileQuery>,
) -> Result<Json<Value>, OpenAiError> {
    let purpose = query.purpose.as_deref();
    if purpose.is_some_and(|purpose| ![FOR_BATCHES, BATCH_OUTPUT].contains(&purpose)) {
        let reason = format!("must be `{FOR_BATCHES}` or `{BATCH_OUTPUT}`");
        return Err(ParameterError::invalid("purpose", reason).into());
    }
    let limit = limit(query.limit, MOST_LISTED, MOST_LISTED)?;
    let order = match query.order.as_deref() {
        None | Some("desc") => Order::Descending,
        Some("asc") => Order::Ascending,
        Some(_) => return Err(ParameterError::invalid("order", "must be `asc` or `desc`").into()),
    };
    let part = user.list(purpose, query.after.as_deref(), (limit, order)).await?;
    Ok(Json(listed(part.items.iter().map(file).collect(), part.has_more)))
}

/// How many items a page has.
pub(super) fn limit(asked: Option<u32>, usual: u32, most: u32) -> Result<u32, ParameterError> {
    let limit = asked.unwrap_or(usual);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    Err(ParameterError::invalid("limit", format!("must be 1 to {most}")))
}

/// A page as OpenAI's clients turn it over.
pub(super) fn listed(data: Vec<Value>, has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more})
}

/// Describes one file.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/files/{file_id}", operation_id = "openaiGetFile", tag = "openai",
    params(("file_id" = String, Path, description = "The file")),
    responses((status = 200, description = "The file", body = schema::OpenAiFile)))]
pub async fn retrieve(
    Granted(user): Granted<FileUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    Ok(Json(file(&user.find(&id).await?)))
}

/// Deletes a file.
///
/// # Errors
/// 404; 409 while a batch reads it.
#[utoipa::path(delete, path = "/v1/files/{file_id}", operation_id = "openaiDeleteFile", tag = "openai",
    params(("file_id" = String, Path, description = "The file")),
    responses((status = 200, description = "It is deleted", body = schema::OpenAiFileDeleted)))]
pub async fn delete(
    Granted(user): Granted<FileUser>,
    Path(id): Path<String>,
) -> Result<Json<Value>, OpenAiError> {
    user.delete(&id).await?;
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}

/// Sends the content of a file.
///
/// # Errors
/// 404.
#[utoipa::path(get, path = "/v1/files/{file_id}/content", operation_id = "openaiDownloadFile", tag = "openai",
    params(("file_id" = String, Path, description = "The file")),
    responses((status = 200, description = "Its content", content_type = "application/octet-stream", body = String)))]
pub async fn content(
    Granted(user): Granted<FileUser>,
    Path(id): Path<String>,
) -> Result<Response, OpenAiError> {
    let file = user.find(&id).await?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_LENGTH, HeaderValue::from(file.bytes)),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    let pieces = stream::try_unfold(user.content(file), async |mut reader| {
        Ok::<_, crate::auth::AuthError>(reader.read().await?.map(|bytes| (bytes, reader)))
    });
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn file(row: &FileRow) -> Value {
    json!({
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": row.created_at.seconds(),
        "expires_at": row.expires_at.map(|at| at.seconds()),
        "filename": row.name,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_only_a_name() {
        for (given, shown) in [
            ("requests.jsonl", "requests.jsonl"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\me\\a b.jsonl", "a b.jsonl"),
            ("..", "upload"),
            ("", "upload"),
            ("a/", "upload"),
            ("a\r\nset-cookie: b\u{0}\u{1b}[2J", "aset-cookie: b[2J"),
            ("文件.jsonl", "文件.jsonl"),
        ] {
            assert_eq!(shown_name(given), shown);
        }
        assert_eq!(shown_name(&"ä".repeat(1000)).chars().count(), LONGEST_NAME);
    }

    #[test]
    fn an_expiry_is_whole_or_none() {
        assert_eq!(expiry(None, None), Ok(None));
        assert_eq!(expiry(Some("created_at"), Some("3600")), Ok(Some(Duration::from_secs(3600))));
        for (anchor, seconds) in [
            (Some("created_at"), None),
            (None, Some("3600")),
            (Some("last_active_at"), Some("3600")),
            (Some("created_at"), Some("3599")),
            (Some("created_at"), Some("2592001")),
            (Some("created_at"), Some("-1")),
            (Some("created_at"), Some("1e9")),
        ] {
            assert!(expiry(anchor, seconds).is_err(), "{anchor:?} {seconds:?}");
        }
    }
}
