//! Adds to a document what holds for every operation, so that no handler has to say it: the errors it can give, the
//! headers every answer has, who may ask, and a name.
//!
//! What a handler says itself is kept. An error it names without a body gets the body and the headers of its surface; `security(())` on a
//! handler makes its operation public. The one thing to know: [`ERRORS`] decides which errors are documented where.

mod components;
mod generics;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::http::Surface;

type Object = Map<String, Value>;

/// The shared responses that were referred to, by name.
type Used = BTreeMap<String, (Surface, u16)>;

/// What decides which errors an operation can give.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    path: &'a str,
    method: &'a str,
    has_body: bool,
    has_parameters: bool,
    is_public: bool,
}

impl<'a> Facts<'a> {
    fn of(path: &'a str, method: &'a str, operation: &Object) -> Self {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        Self {
            path,
            method,
            has_body: operation.contains_key("requestBody"),
            has_parameters: path.contains('{') || parameters.is_some_and(|all| !all.is_empty()),
            is_public: operation.get("security").is_some_and(|security| *security == json!([])),
        }
    }

    /// Whether it makes a model work.
    fn asks_a_model(&self) -> bool {
        let is_native = Surface::of_path(self.path) == Surface::Envelope;
        self.has_body && (!is_native || self.path.starts_with("/api/v1/chat/"))
    }

    /// Whether it changes what is stored.
    fn changes_something(&self) -> bool {
        self.method != "get" && !self.is_public && !self.asks_a_model()
    }
}

/// One row: the status, what it means, which operations can give it.
type Row = (u16, &'static str, fn(&Facts<'_>) -> bool);

/// The errors that no handler needs to name. 405 is none of them: an operation's own method is always allowed.
const ERRORS: [Row; 14] = [
    (400, "The request is wrong", |facts| facts.has_body || facts.has_parameters),
    (401, "Nobody known is asking", |facts| !facts.is_public),
    (403, "Known, but not allowed", |facts| !facts.is_public),
    (404, "Not there, or not visible to the caller", |facts| {
        facts.path.contains('{') || facts.asks_a_model()
    }),
    (408, "The body did not arrive in time", |facts| facts.has_body),
    (409, "Contradicts the present state", |facts| facts.changes_something()),
    (
        413,
        "Larger than what is accepted: 16 KiB to sign in, refresh, sign out and rotate, 1 MiB for what asks no model, and else \
        as much as the setting `max-body-size` says",
        |facts| facts.has_body,
    ),
    (415, "The body is not JSON", |facts| facts.has_body),
    (421, "The host name is not one of this server's", |_| true),
    (429, "More than the caller, the model or the database may have now; later is better", |facts| {
        facts.has_body || !facts.is_public
    }),
    (
        HEAD_TOO_LARGE,
        "The headers are too large: more than 32 KiB. Of more than 64 KiB, or 100 headers, the answer has no \
        body, as that to what is no HTTP (400) and to an address of more than 64 KiB (414)",
        |_| true,
    ),
    (500, "The server's fault; the request id finds it in the log", |_| true),
    (503, "This replica cannot take work now", |facts| facts.has_body || !facts.is_public),
    (504, "A deadline passed", |facts| facts.asks_a_model()),
];

/// What Anthropic's clients are told instead of 503, and of some of 429.
const OVERLOADED: u16 = 529;

/// The status that stands for one of [`ERRORS`] on a surface.
fn shown(surface: Surface, status: u16) -> u16 {
    if surface == Surface::Anthropic && status == 503 { OVERLOADED } else { status }
}

/// What a status means, if it is one of [`ERRORS`].
fn meaning(status: u16) -> &'static str {
    if status == OVERLOADED {
        return "The model, the database or this replica cannot take more work now; later is better";
    }
    ERRORS.iter().find(|(known, ..)| *known == status).map_or("", |(_, meaning, _)| meaning)
}

/// Some of it is answered before there is a request to speak of: no body, no headers of ours. So none are promised.
const HEAD_TOO_LARGE: u16 = 431;

/// Adds to every operation what it does not say itself.
pub fn complete(document: &mut Value) {
    generics::name_arguments(document);
    names::plain_paths(document);
    names::name_operations(document);
    names::keep_used_tags(document);
    let mut used = Used::new();
    each_operation(document, |path, method, operation| {
        protect(Surface::of_path(path), operation);
        leave_out_errors(operation);
        let facts = Facts::of(path, method, operation);
        add_errors(&facts, operation, &mut used);
        fill_responses(Surface::of_path(path), operation);
    });
    components::add(document, &used);
}

/// Visits the path, the method and the operation of each.
fn each_operation(document: &mut Value, mut visit: impl FnMut(&str, &str, &mut Object)) {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if METHODS.contains(&method.as_str())
                && let Some(operation) = operation.as_object_mut()
            {
                visit(path, method, operation);
            }
        }
    }
}

/// Every operation wants a token unless it says that it may be asked without any.
fn protect(surface: Surface, operation: &mut Object) {
    let all = operation.get("security").and_then(Value::as_array);
    let security = match all {
        Some(all) if all.iter().any(|one| *one == json!({})) => json!([]),
        Some(_) => return,
        None if surface == Surface::Anthropic => {
            json!([{components::BEARER: []}, {components::API_KEY: []}])
        }
        None => json!([{components::BEARER: []}]),
    };
    operation.insert("security".into(), security);
}

/// What a handler says of its errors to those who read its code: the answers say it to all others.
fn leave_out_errors(operation: &mut Object) {
    let Some(Value::String(description)) = operation.get_mut("description") else { return };
    if let Some(at) = description.find("# Errors") {
        description.truncate(at);
        description.truncate(description.trim_end().len());
    }
    if description.is_empty() {
        operation.shift_remove("description");
    }
}

fn responses(operation: &mut Object) -> &mut Object {
    let responses = operation.entry("responses").or_insert(json!({}));
    if !responses.is_object() {
        *responses = json!({});
    }
    responses.as_object_mut().expect("it was made an object one line above")
}

/// A reference to the shared response for each error the operation can give and does not name.
fn add_errors(facts: &Facts<'_>, operation: &mut Object, used: &mut Used) {
    let surface = Surface::of_path(facts.path);
    let responses = responses(operation);
    for (status, _, can_be) in ERRORS {
        let status = shown(surface, status);
        let name = status.to_string();
        if can_be(facts) && !responses.contains_key(&name) {
            let shared = components::response_name(surface, status);
            responses.insert(name, json!({"$ref": format!("#/components/responses/{shared}")}));
            used.insert(shared, (surface, status));
        }
    }
    responses.sort_keys();
}

/// Headers for the answers the operation names itself, and a body for its errors that have none.
fn fill_responses(surface: Surface, operation: &mut Object) {
    for (status, response) in responses(operation) {
        let Some(response) = response.as_object_mut().filter(|response| !response.contains_key("$ref"))
        else {
            continue;
        };
        let status: u16 = status.parse().unwrap_or_default();
        response.entry("description").or_insert_with(|| meaning(status).into());
        // With a body of its own it is no error of the catalogue but an answer, like that of a probe.
        let is_error = status >= 400 && !response.contains_key("content");
        if is_error {
            response.insert("content".into(), components::error_body(surface));
        }
        let headers = response.entry("headers").or_insert(json!({}));
        for (name, header) in components::headers(if is_error { status } else { 200 }) {
            if let Some(headers) = headers.as_object_mut() {
                headers.entry(name).or_insert(header);
            }
        }
    }
}
