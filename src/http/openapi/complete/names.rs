//! Names that programs can use: paths without the router's own marks, and one name for each operation.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Object, each_operation};

/// `{*rest}`, the router's word for a parameter that may hold slashes, is `{rest}` to everyone else.
pub(super) fn plain_paths(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    *paths = std::mem::take(paths)
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect::<Map<_, _>>();
}

/// Gives a name to each operation that has none, or one that another has too.
pub(super) fn name_operations(document: &mut Value) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    each_operation(document, |_, _, operation| {
        if let Some(name) = given(operation) {
            *times.entry(name.to_owned()).or_default() += 1;
        }
    });
    let mut taken: Vec<String> =
        times.iter().filter(|(_, times)| **times == 1).map(|(name, _)| name.clone()).collect();
    each_operation(document, |path, method, operation| {
        if given(operation).is_some_and(|name| times[name] == 1) {
            return;
        }
        let wanted = name(path, method);
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let free = std::iter::once(wanted.clone()).chain(numbered).find(|name| !taken.contains(name));
        let free = free.unwrap_or(wanted);
        taken.push(free.clone());
        operation.insert("operationId".into(), free.into());
    });
}

fn given(operation: &Object) -> Option<&str> {
    operation.get("operationId").and_then(Value::as_str).filter(|name| !name.is_empty())
}

/// `get /api/v1/admin/users/{userId}` → `get_admin_users_by_user_id`; what lies below `/v1/` begins with `openai`.
fn name(path: &str, method: &str) -> String {
    let path = path.strip_prefix("/api/v1").unwrap_or(path).replacen("/v1/", "/openai/", 1);
    let mut words = vec![method.to_owned()];
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        if segment.starts_with('{') {
            words.push("by".to_owned());
        }
        words.push(snake(segment));
    }
    words.join("_")
}

/// Lower case, words parted by `_`, nothing else.
fn snake(text: &str) -> String {
    let mut snake = String::new();
    for character in text.trim_matches(['{', '}']).chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        match character.is_ascii_alphanumeric() {
            true => snake.push(character.to_ascii_lowercase()),
            false if snake.ends_with('_') => {}
            false => snake.push('_'),
        }
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_lose_the_mark_of_the_router() {
        let mut document = json!({"paths": {"/b/{id}": {}, "/a/{*id}": {"get": {}}}});
        plain_paths(&mut document);
        assert_eq!(document.to_string(), r#"{"paths":{"/b/{id}":{},"/a/{id}":{"get":{}}}}"#);
    }

    #[test]
    fn names_are_kept_if_they_are_the_only_ones() {
        let mut document = json!({"paths": {
            "/api/v1/admin/users": {"get": {"operationId": "list"}, "post": {"operationId": "create_user"}},
            "/api/v1/admin/keys": {"get": {"operationId": "list"}},
            "/api/v1/admin/keys/{keyId}": {"put": {}},
            "/v1/models": {"get": {"operationId": ""}},
            "/v1/models/{id}": {"get": {}},
            "/v1/models/by-id": {"get": {}},
            "/v1/models/by/id": {"get": {"operationId": "get_openai_models_by_id_2"}}
        }});
        name_operations(&mut document);
        let mut names = Vec::new();
        each_operation(&mut document, |_, _, operation| {
            names.push(given(operation).unwrap_or("").to_owned())
        });
        let expected = [
            "get_admin_users",
            "create_user",
            "get_admin_keys",
            "put_admin_keys_by_key_id",
            "get_openai_models",
            "get_openai_models_by_id",
            "get_openai_models_by_id_3",
            "get_openai_models_by_id_2",
        ];
        assert_eq!(names, expected);
    }
}
