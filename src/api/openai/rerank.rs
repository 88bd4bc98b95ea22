//! `POST /v1/rerank` and `POST /v1/score`: how well documents answer a question, by a model that reads both together.
//!
//! The first sorts documents by it, in the shape that Cohere's and Jina's clients know; the second gives the scores as
//! they are, in vLLM's.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::api::inference;
use crate::api::openai::fields::{Fields, ParameterError, kind, string};
use crate::api::openai::sampling::end_user;
use crate::api::openai::schema;
use crate::auth::ModelUser;
use crate::engine::EngineError;
use crate::generate::{Attribution, Scores, TextPair};
use crate::http::{ApiError, AppState, Granted, JsonBody, OpenAiError};
use crate::usage::Outcome;

/// Most documents or pairs of one request.
pub const MAX_DOCUMENTS: usize = 2048;

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct RerankRequest {
    model: String,
    query: String,
    documents: Vec<Document>,
    /// How many of the best are shown; none: all.
    top_n: Option<usize>,
    return_documents: bool,
    /// How many tokens of each document are read; none: all, or the request is refused.
    document_tokens: Option<usize>,
    end_user: Option<String>,
}

/// A document and what is given back of it.
#[derive(Debug, PartialEq)]
struct Document {
    text: String,
    shown: Value,
}

/// Sorts documents by how well they answer a question.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/v1/rerank", operation_id = "rerank", tag = "openai",
    request_body(content = schema::RerankRequest, example = json!({"model": "bge-reranker", "top_n": 1,
        "query": "What is the capital of France?", "documents": ["Paris is France's capital.", "Berlin is large."]})),
    responses((status = 200, description = "The documents, best first", body = schema::Reranked)))]
pub async fn rerank(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    ranked(&app, &user, body, "/v1/rerank").await
}

/// Sorts documents by how well they answer a question: the same under the path of Cohere's newer clients.
///
/// # Errors
/// As those of `/v1/rerank`.
#[utoipa::path(post, path = "/v2/rerank", operation_id = "rerankV2", tag = "openai",
    request_body(content = schema::RerankRequest, example = json!({"model": "bge-reranker", "top_n": 1,
        "query": "What is the capital of France?", "documents": ["Paris is France's capital.", "Berlin is large."]})),
    responses((status = 200, description = "The documents, best first", body = schema::Reranked)))]
pub async fn rerank_v2(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    ranked(&app, &user, body, "/v2/rerank").await
}

async fn ranked(
    app: &AppState,
    user: &ModelUser,
    body: Value,
    path: &'static str,
) -> Result<Json<Value>, OpenAiError> {
    let RerankRequest { model, query, documents, top_n, return_documents, document_tokens, end_user } =
        RerankRequest::read(body)?;
    let (texts, shown): (Vec<String>, Vec<Value>) =
        documents.into_iter().map(|document| (document.text, document.shown)).unzip();
    let pairs = texts.into_iter().map(|document| TextPair { query: query.clone(), document }).collect();
    let asked = Asked { model: &model, path, blame: "documents", end_user };
    let Scores { scores, prompt_tokens } = scores(app, user, asked, pairs, document_tokens).await?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Stable: of equals the first.
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(top_n.unwrap_or(usize::MAX));
    let result = |index: usize| {
        let mut result = json!({"index": index, "relevance_score": scores[index]});
        if return_documents {
            result["document"] = shown[index].clone();
        }
        result
    };
    Ok(Json(json!({
        "id": inference::id("rerank"),
        "object": "list",
        "model": model,
        "results": order.into_iter().map(result).collect::<Vec<_>>(),
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    })))
}

/// A request, read and checked.
#[derive(Debug, PartialEq)]
pub struct ScoreRequest {
    model: String,
    pairs: Vec<TextPair>,
    end_user: Option<String>,
}

/// Scores pairs of texts: how well the second answers the first.
///
/// # Errors
/// In OpenAI's shape: for a wrong parameter, an unknown or busy model, a full queue.
#[utoipa::path(post, path = "/v1/score", operation_id = "score", tag = "openai",
    request_body(content = schema::ScoreRequest, example = json!({"model": "bge-reranker",
        "text_1": "What is the capital of France?", "text_2": ["Paris is France's capital.", "Berlin is large."]})),
    responses((status = 200, description = "The scores, in the order of the pairs", body = schema::Scored)))]
pub async fn score(
    State(app): State<AppState>,
    Granted(user): Granted<ModelUser>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, OpenAiError> {
    let ScoreRequest { model, pairs, end_user } = ScoreRequest::read(body)?;
    let asked = Asked { model: &model, path: "/v1/score", blame: "text_2", end_user };
    let Scores { scores, prompt_tokens } = scores(&app, &user, asked, pairs, None).await?;
    let data = scores.iter().enumerate();
    let data: Vec<Value> =
        data.map(|(index, score)| json!({"index": index, "object": "score", "score": score})).collect();
    Ok(Json(json!({
        "id": inference::id("score"),
        "object": "list",
        "created": inference::now(),
        "model": model,
        "data": data,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    })))
}

/// Which model is asked where and for whom, and which field is to blame for a pair that does not fit.
struct Asked<'a> {
    model: &'a str,
    path: &'static str,
    blame: &'static str,
    end_user: Option<String>,
}

async fn scores(
    app: &AppState,
    user: &ModelUser,
    asked: Asked<'_>,
    pairs: Vec<TextPair>,
    document_tokens: Option<usize>,
) -> Result<Scores, ApiError> {
    inference::refuse_while_draining(app)?;
    let models = app.models(user);
    let lease = models.lease(asked.model).await?;
    let mut record = models.record(&lease.id, asked.model, asked.path)?;
    record.attribute(Attribution { end_user: asked.end_user, ..Attribution::default() });
    let interruption = record.interruption().clone();
    let scores = app.generator().score(&lease, pairs, document_tokens, record.account());
    let scores = tokio::select! {
        biased;
        scores = scores => scores,
        () = tokio::time::sleep_until(app.deadline().into()) => Err(EngineError::DeadlineExceeded.into()),
        error = interruption.happened() => return Err(error),
    };
    let scores = scores.map_err(|error| {
        record.failed(&error);
        ApiError::from(error).or_param(asked.blame)
    })?;
    record.ended(Outcome::Stop);
    Ok(scores)
}

impl RerankRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let query = filled(fields.required("query")?, "query")?;
        let documents = documents(fields.required("documents")?)?;
        let top_n = fields.small_integer("top_n", 1..=u32::MAX)?;
        let return_documents = fields.boolean("return_documents")?.unwrap_or(false);
        let document_tokens = fields.small_integer("max_tokens_per_doc", 1..=u32::MAX)?;
        let end_user = end_user(&mut fields, "user")?;
        fields.refuse(&[
            ("truncate_prompt_tokens", "use `max_tokens_per_doc`"),
            ("truncation", "use `max_tokens_per_doc`"),
            ("max_chunks_per_doc", "a document is not read in parts; use `max_tokens_per_doc`"),
            ("rank_fields", "put what is to be read into `text`"),
            ("return_embeddings", "the models here that rank make none"),
            ("priority", "it is the administrator's to give"),
        ])?;
        fields.finish()?;
        Ok(Self {
            model,
            query,
            documents,
            top_n: top_n.map(|count| count as usize),
            return_documents,
            document_tokens: document_tokens.map(|count| count as usize),
            end_user,
        })
    }
}

impl ScoreRequest {
    /// Reads a body: the first text once and the second as often as is wished, or as many of one as of the other.
    ///
    /// # Errors
    /// Names the parameter at fault.
    pub fn read(body: Value) -> Result<Self, ParameterError> {
        let mut fields = Fields::of(body, "")?;
        let model = string(fields.required("model")?, || "model".to_owned())?;
        let newer = (fields.take("queries"), fields.take("documents"));
        let ((first, firsts), (second, seconds)) = match newer {
            (None, None) => (("text_1", fields.required("text_1")?), ("text_2", fields.required("text_2")?)),
            (Some(queries), Some(documents)) => {
                for (name, other) in [("text_1", "queries"), ("text_2", "documents")] {
                    if fields.take(name).is_some() {
                        let reason = format!("cannot be used together with `{other}`");
                        return Err(ParameterError::invalid(name, reason));
                    }
                }
                (("queries", queries), ("documents", documents))
            }
            (None, Some(_)) => return Err(ParameterError::invalid("queries", "is needed with `documents`")),
            (Some(_), None) => return Err(ParameterError::invalid("documents", "is needed with `queries`")),
        };
        let end_user = end_user(&mut fields, "user")?;
        fields.refuse(&[
            ("truncate_prompt_tokens", "a text is never cut"),
            ("priority", "it is the administrator's to give"),
        ])?;
        fields.finish()?;
        let pairs = paired(texts(firsts, first)?, texts(seconds, second)?, second)?;
        Ok(Self { model, pairs, end_user })
    }
}

fn paired(
    firsts: Vec<String>,
    seconds: Vec<String>,
    second: &'static str,
) -> Result<Vec<TextPair>, ParameterError> {
    if let [query] = firsts.as_slice() {
        let pair = |document| TextPair { query: query.clone(), document };
        return Ok(seconds.into_iter().map(pair).collect());
    }
    if firsts.len() != seconds.len() {
        let reason = format!("must have as many texts as the other, {}, not {}", firsts.len(), seconds.len());
        return Err(ParameterError::invalid(second, reason));
    }
    let pairs = firsts.into_iter().zip(seconds);
    Ok(pairs.map(|(query, document)| TextPair { query, document }).collect())
}

/// A text, or several.
fn texts(value: Value, name: &'static str) -> Result<Vec<String>, ParameterError> {
    match value {
        Value::Array(values) if (1..=MAX_DOCUMENTS).contains(&values.len()) => {
            values.into_iter().map(|value| filled(value, name)).collect()
        }
        Value::Array(values) => {
            let reason = format!("must have 1 to {MAX_DOCUMENTS} texts, not {}", values.len());
            Err(ParameterError::invalid(name, reason))
        }
        Value::String(_) => Ok(vec![filled(value, name)?]),
        _ => Err(ParameterError::invalid(name, "must be a string or an array of strings")),
    }
}

fn filled(value: Value, name: &str) -> Result<String, ParameterError> {
    let text = string(value, || name.to_owned())?;
    if text.is_empty() {
        return Err(ParameterError::invalid(name, "must not be an empty string"));
    }
    Ok(text)
}

fn documents(value: Value) -> Result<Vec<Document>, ParameterError> {
    let values = match value {
        Value::Array(values) if (1..=MAX_DOCUMENTS).contains(&values.len()) => values,
        Value::Array(values) => {
            let reason = format!("must have 1 to {MAX_DOCUMENTS} documents, not {}", values.len());
            return Err(ParameterError::invalid("documents", reason));
        }
        other => {
            let reason = format!("must be an array, not {}", kind(&other));
            return Err(ParameterError::invalid("documents", reason));
        }
    };
    let document = |(number, value)| {
        let name = format!("documents[{number}]");
        match value {
            Value::String(_) => {
                let text = filled(value, &name)?;
                Ok(Document { shown: json!({"text": text}), text })
            }
            // What else there is of it is its owner's, and comes back with it.
            Value::Object(ref members) => {
                let text = members.get("text").cloned().unwrap_or_default();
                let text = filled(text, &format!("{name}.text"))?;
                Ok(Document { text, shown: value })
            }
            other => {
                let reason = format!("must be a string or an object with `text`, not {}", kind(&other));
                Err(ParameterError::invalid(name, reason))
            }
        }
    };
    values.into_iter().enumerate().map(document).collect()
}
