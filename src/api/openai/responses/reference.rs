//! References to items that were kept: each is replaced by its item, so that what is kept of a request stands by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::api::openai::fields::ParameterError;
use crate::api::openai::responses::item::{self, Given, Item};
use crate::api::openai::responses::item_id::place_of;
use crate::auth::responses::sides::Sides;
use crate::auth::responses::{OwnResponses, StoredResponse};
use crate::error::Code;
use crate::http::ApiError;

/// Most responses that one request may refer to: each is looked up.
const MOST_RESPONSES: usize = 256;

/// The items of a request, of which each that is a reference is the item that it refers to.
///
/// # Errors
/// 404 for an item that is not there, or not theirs; 409 for one of an answer that is still being made; 400 for one that the
/// conversation has `earlier`, and for references to too much.
pub async fn resolved(
    responses: &OwnResponses,
    given: &[Given],
    earlier: &[Item],
    retention: Duration,
) -> Result<Vec<Item>, ApiError> {
    let kept = look_up(responses, given, retention).await?;
    let mut known: HashSet<&str> = HashSet::new();
    if given.iter().any(|given| given.reference().is_some()) {
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
            Given::Reference(id) => kept.item(number, id)?,
        });
    }
    Ok(items)
}

/// What is said to whoever goes on too early from `what` a parameter names.
pub fn still_being_made(param: &str, what: &str) -> ApiError {
    let message = format!("`{param}` names {what} that is still being made");
    ApiError::new(Code::StateConflict, message).about(param)
}

/// In OpenAI's words, which its clients may look for.
fn not_found(param: &str, id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("Item with id '{id}' not found.")).about(param)
}

/// What is there of what is referred to.
struct Kept {
    /// The items, by their ids.
    items: HashMap<String, Item>,
    /// The responses whose answers may get more items yet.
    running: HashSet<String>,
}

impl Kept {
    /// The item that item `number` of a request refers to.
    fn item(&self, number: usize, id: &str) -> Result<Item, ApiError> {
        if let Some(item) = self.items.get(id) {
            return Ok(item.clone());
        }
        let param = format!("input[{number}].id");
        let may_come = place_of(id)
            .is_some_and(|place| place.is_of_answer && self.running.contains(place.response.as_str()));
        Err(if may_come { still_being_made(&param, "an item of a response") } else { not_found(&param, id) })
    }
}

/// The items that are referred to, as far as they are there.
async fn look_up(responses: &OwnResponses, given: &[Given], retention: Duration) -> Result<Kept, ApiError> {
    let wanted: HashSet<String> = given.iter().filter_map(Given::reference).map(str::to_owned).collect();
    let sides = sides_of(&wanted);
    if sides.len() > MOST_RESPONSES {
        let reason = format!(
            "refers to items of {} responses, at most {MOST_RESPONSES} are allowed: go on by `previous_response_id`",
            sides.len()
        );
        return Err(ParameterError::invalid("input", reason).into());
    }
    let wanted = Arc::new(wanted);
    let all = responses.read_each(&sides, retention, move |stored| take(stored, &wanted)).await?;
    let (mut found, mut running) = (Vec::new(), HashSet::new());
    for taken in all {
        found.extend(taken.items);
        if taken.is_running {
            running.insert(taken.response);
        }
    }
    let items = item::read(found, "input")?.into_iter();
    let items = items.filter_map(|item| Some((item.id.clone()?, item))).collect();
    Ok(Kept { items, running })
}

/// The responses that have these items, and the sides that they have them on.
fn sides_of(wanted: &HashSet<String>) -> BTreeMap<String, Sides> {
    let mut responses: BTreeMap<String, Sides> = BTreeMap::new();
    for place in wanted.iter().filter_map(|id| place_of(id)) {
        let sides = responses.entry(place.response).or_default();
        if place.is_of_answer {
            sides.body = true;
        } else {
            sides.input = true;
        }
    }
    responses
}

/// What is taken of a response.
struct Taken {
    response: String,
    is_running: bool,
    items: Vec<Value>,
}

/// Takes the items that are wanted. One that came from another response is that one's to give.
fn take(mut stored: StoredResponse, wanted: &HashSet<String>) -> Taken {
    let output = match stored.body.get_mut("output").map(Value::take) {
        Some(Value::Array(output)) => output,
        _ => Vec::new(),
    };
    let response = stored.id;
    let is_own = |id: &str| place_of(id).is_some_and(|place| place.response == response);
    let all = stored.input.into_iter().chain(output);
    let items =
        all.filter(|item| item["id"].as_str().is_some_and(|id| wanted.contains(id) && is_own(id))).collect();
    Taken { is_running: stored.status.is_running(), items, response }
}
