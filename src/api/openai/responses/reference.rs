//! References to items that were kept: each is replaced by its item, so that what is kept of a request stands by itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use crate::api::openai::fields::ParameterError;
use crate::api::openai::responses::item::{self, Given, Item};
use crate::api::openai::responses::item_id::response_of;
use crate::auth::responses::OwnResponses;
use crate::error::Code;
use crate::http::ApiError;

/// Most responses that one request may refer to: each is looked up.
const MOST_RESPONSES: usize = 256;

/// The items of a request, of which each that is a reference is the item that it refers to.
///
/// # Errors
/// 404 for an item that is not there, or not theirs; 400 for one that the conversation has `earlier`, and for references to
/// too much.
pub async fn resolved(
    responses: &OwnResponses,
    given: &[Given],
    earlier: &[Item],
    retention: Duration,
) -> Result<Vec<Item>, ApiError> {
    let kept = kept(responses, given, retention).await?;
    let mut known: HashSet<&str> = HashSet::new();
    if !kept.is_empty() {
        known.extend(earlier.iter().filter_map(|item| item.id.as_deref()));
    }
    let mut items = Vec::with_capacity(given.len());
    for (number, given) in given.iter().enumerate() {
        items.push(match given {
            Given::Item(item) => item.clone(),
            Given::Reference(id) if known.contains(id.as_str()) => {
                let reason = format!("stands twice: Duplicate item found with id {id}.");
                return Err(ParameterError::invalid(format!("input[{number}].id"), reason).into());
            }
            Given::Reference(id) => kept.get(id).cloned().ok_or_else(|| not_found(number, id))?,
        });
    }
    Ok(items)
}

/// In OpenAI's words, which its clients may look for.
fn not_found(number: usize, id: &str) -> ApiError {
    let message = format!("Item with id '{id}' not found.");
    ApiError::new(Code::NotFound, message).about(&format!("input[{number}].id"))
}

/// The items that are referred to, by their ids, as far as they are there.
async fn kept(
    responses: &OwnResponses,
    given: &[Given],
    retention: Duration,
) -> Result<HashMap<String, Item>, ApiError> {
    let wanted: HashSet<&str> = given.iter().filter_map(Given::reference).collect();
    let of: BTreeSet<String> = wanted.iter().filter_map(|id| response_of(id)).collect();
    if of.len() > MOST_RESPONSES {
        let reason = format!(
            "refers to items of {} responses, at most {MOST_RESPONSES} are allowed: go on by `previous_response_id`",
            of.len()
        );
        return Err(ParameterError::invalid("input", reason).into());
    }
    let mut found = Vec::new();
    for mut stored in responses.find_all(&of, retention).await? {
        let output = match stored.body.get_mut("output").map(Value::take) {
            Some(Value::Array(output)) => output,
            _ => Vec::new(),
        };
        let all = stored.input.into_iter().chain(output);
        found.extend(all.filter(|item| item["id"].as_str().is_some_and(|id| wanted.contains(id))));
    }
    let items = item::read(found, "input")?.into_iter();
    Ok(items.filter_map(|item| Some((item.id.clone()?, item))).collect())
}
