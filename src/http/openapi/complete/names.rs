//! Names that programs can use: paths without the router's own marks, and one name for each operation.

use std::collections::{BTreeMap, BTreeSet};

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
        let numbered = (2..).map(|number| format!("{wanted}{number}"));
        let free = std::iter::once(wanted.clone()).chain(numbered).find(|name| !taken.contains(name));
        let free = free.unwrap_or(wanted);
        taken.push(free.clone());
        operation.insert("operationId".into(), free.into());
    });
}

/// Of the groups the document describes, those that an operation is in.
pub(super) fn keep_used_tags(document: &mut Value) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    each_operation(document, |_, _, operation| {
        let tags = operation.get("tags").and_then(Value::as_array).into_iter().flatten();
        used.extend(tags.filter_map(Value::as_str).map(str::to_owned));
    });
    if let Some(tags) = document.get_mut("tags").and_then(Value::as_array_mut) {
        tags.retain(|tag| tag["name"].as_str().is_some_and(|name| used.contains(name)));
    }
}

fn given(operation: &Object) -> Option<&str> {
    operation.get("operationId").and_then(Value::as_str).filter(|name| !name.is_empty())
}

/// `get /api/v1/admin/users/{userId}` → `getAdminUsersByUserId`; what lies below `/v1/` has `Openai` after the method.
fn name(path: &str, method: &str) -> String {
    let path = path.strip_prefix("/api/v1").unwrap_or(path).replacen("/v1/", "/openai/", 1);
    let mut name = method.to_owned();
    for segment in path.split('/') {
        if segment.starts_with('{') {
            name.push_str("By");
        }
        for word in segment.split(|character: char| !character.is_ascii_alphanumeric()) {
            let (first, rest) = word.split_at(word.len().min(1));
            name.push_str(&first.to_ascii_uppercase());
            name.push_str(rest);
        }
    }
    name
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
            "/api/v1/admin/users": {"get": {"operationId": "list"}, "post": {"operationId": "createUser"}},
            "/api/v1/admin/keys": {"get": {"operationId": "list"}},
            "/api/v1/admin/keys/{keyId}": {"put": {}},
            "/v1/models": {"get": {"operationId": ""}},
            "/v1/models/{id}": {"get": {}},
            "/v1/models/by-id": {"get": {}},
            "/v1/models/by/id": {"get": {"operationId": "getOpenaiModelsById2"}}
        }});
        name_operations(&mut document);
        let mut names = Vec::new();
        each_operation(&mut document, |_, _, operation| {
            names.push(given(operation).unwrap_or("").to_owned())
        });
        let expected = [
            "getAdminUsers",
            "createUser",
            "getAdminKeys",
            "putAdminKeysByKeyId",
            "getOpenaiModels",
            "getOpenaiModelsById",
            "getOpenaiModelsById3",
            "getOpenaiModelsById2",
        ];
        assert_eq!(names, expected);
    }
    #[test]
    fn groups_without_operations_are_not_listed() {
        let mut document = json!({
            "tags": [{"name": "users"}, {"name": "keys"}],
            "paths": {"/a": {"get": {"tags": ["keys"]}}}
        });
        keep_used_tags(&mut document);
        assert_eq!(document["tags"], json!([{"name": "keys"}]));
    }
}
