//! One request as it stands in a batch: answered whole, by the same code as at its URL.

use serde_json::Value;

use crate::api::openai::{chat, completions, embeddings, responses};
use crate::auth::ModelUser;
use crate::error::Code;
use crate::http::state::Models;
use crate::http::{ApiError, AppState};

/// The URLs whose requests may stand in a batch.
pub const ENDPOINTS: [&str; 4] = [chat::PATH, responses::PATH, completions::PATH, embeddings::PATH];

/// Answers a request that is for one of [`ENDPOINTS`]. By its `name`, which no other line has, is kept what is to be kept
/// of the answer, so that a line that is answered again has it once.
///
/// # Errors
/// What its URL would answer in its place.
pub async fn answer(
    app: &AppState,
    user: &ModelUser,
    models: &Models<'_>,
    endpoint: &str,
    name: &str,
    body: Value,
) -> Result<Value, ApiError> {
    match endpoint {
        chat::PATH => chat::whole(app, user, models, name, body).await,
        responses::PATH => responses::whole(app, user, models, name, body).await,
        completions::PATH => completions::whole(app, models, body).await,
        embeddings::PATH => embeddings::whole(app, models, body).await,
        _ => Err(ApiError::of(Code::NotFound)),
    }
}
