//! One schema of JSON Schema 2020-12 → one of OpenAPI 3.0's own dialect. Its children are the walk's business.
//!
//! The one thing to know: in 3.0 nothing may stand beside a `$ref`, and `null` is no type but the word `nullable`.

use serde_json::{Map, Value, json};

/// Words of 2020-12 that 3.0 does not know and that nothing can stand for.
pub(super) const UNKNOWN: &[&str] = &[
    "$schema",
    "$id",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$vocabulary",
    "$comment",
    "$defs",
    "summary",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "dependentSchemas",
    "dependentRequired",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "contentSchema",
];

type Object = Map<String, Value>;

/// `true` and `false` are schemas in 3.1 only.
pub(super) fn spell_out(schema: &mut Value) {
    match schema {
        Value::Bool(true) => *schema = json!({}),
        Value::Bool(false) => *schema = json!({"not": {}}),
        _ => {}
    }
}

/// All rules for one schema, in the order in which they build upon each other.
pub(super) fn change(schema: &mut Object) {
    types(schema);
    alternatives(schema, "oneOf");
    alternatives(schema, "anyOf");
    if let Some(only) = schema.shift_remove("const") {
        schema.entry("enum").or_insert(json!([only]));
    }
    bound(schema, "exclusiveMinimum", "minimum", |exclusive, inclusive| exclusive >= inclusive);
    bound(schema, "exclusiveMaximum", "maximum", |exclusive, inclusive| exclusive <= inclusive);
    tuple(schema);
    patterns(schema);
    example(schema);
    content(schema);
    alone(schema);
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "null")
}

/// `type: [X, null]` → `type: X, nullable: true`; several types → `anyOf`.
fn types(schema: &mut Object) {
    let names = match schema.get("type") {
        Some(Value::Array(names)) => names.clone(),
        Some(Value::String(name)) if name == "null" => vec![json!("null")],
        _ => return,
    };
    let mut kept: Vec<Value> = names.iter().filter(|name| *name != "null").cloned().collect();
    if kept.len() < names.len() {
        schema.insert("nullable".into(), true.into());
    }
    match kept.len() {
        0 => {
            schema.shift_remove("type");
            schema.entry("enum").or_insert(json!([null]));
        }
        1 => {
            schema.insert("type".into(), kept.remove(0));
        }
        _ => {
            schema.shift_remove("type");
            let any = kept.into_iter().map(|name| json!({"type": name})).collect();
            require(schema, "anyOf", any);
        }
    }
}

/// `oneOf: [null, X]` → `allOf: [X], nullable: true`; of more, `null` alone is taken out.
fn alternatives(schema: &mut Object, word: &str) {
    let Some(Value::Array(all)) = schema.get(word) else { return };
    let mut kept: Vec<Value> = all.iter().filter(|one| !is_null(one)).cloned().collect();
    if kept.len() == all.len() {
        return;
    }
    schema.shift_remove(word);
    schema.insert("nullable".into(), true.into());
    match kept.len() {
        0 => drop(schema.entry("enum").or_insert(json!([null]))),
        1 => {
            let only = kept.remove(0);
            lift(schema, only);
        }
        _ => drop(schema.insert(word.into(), kept.into())),
    }
}

/// Adds `allOf: [only]`; what stands beside a reference in it goes to the schema itself.
fn lift(schema: &mut Object, only: Value) {
    match only {
        Value::Object(mut only) if only.contains_key("$ref") => {
            let reference = only.shift_remove("$ref");
            for (word, value) in only {
                schema.entry(word).or_insert(value);
            }
            all_of(schema).push(json!({"$ref": reference}));
        }
        only => all_of(schema).push(only),
    }
}

/// The schemas of `allOf`, which is made if it is not there.
fn all_of(schema: &mut Object) -> &mut Vec<Value> {
    let all = schema.entry("allOf").or_insert(json!([]));
    if !all.is_array() {
        *all = json!([]);
    }
    all.as_array_mut().expect("it was made an array one line above")
}

/// Adds `word: schemas`, beside one that may be there already.
fn require(schema: &mut Object, word: &str, schemas: Vec<Value>) {
    if schema.contains_key(word) {
        all_of(schema).push(json!({word: schemas}));
    } else {
        schema.insert(word.into(), schemas.into());
    }
}

/// `exclusiveMinimum: 1` → `minimum: 1, exclusiveMinimum: true`, unless the other bound is the tighter one.
fn bound(schema: &mut Object, exclusive: &str, inclusive: &str, is_tighter: fn(f64, f64) -> bool) {
    let Some(limit) = schema.get(exclusive).filter(|limit| limit.is_number()).cloned() else { return };
    let beside = schema.get(inclusive).and_then(Value::as_f64);
    if beside.is_none_or(|beside| limit.as_f64().is_some_and(|limit| is_tighter(limit, beside))) {
        schema.insert(inclusive.into(), limit);
        schema.insert(exclusive.into(), true.into());
    } else {
        schema.shift_remove(exclusive);
    }
}

/// A tuple becomes an array of its length whose items are any of the tuple's; an array always says what its items are.
fn tuple(schema: &mut Object) {
    if let Some(Value::Array(prefix)) = schema.shift_remove("prefixItems") {
        let rest = schema.shift_remove("items").unwrap_or(true.into());
        let length = json!(prefix.len());
        let mut any = prefix;
        if rest == Value::Bool(false) {
            schema.entry("minItems").or_insert(length.clone());
            schema.entry("maxItems").or_insert(length);
        } else {
            any.push(rest);
        }
        let mut different: Vec<Value> = Vec::new();
        for one in any {
            if !different.contains(&one) {
                different.push(one);
            }
        }
        let items = if different.len() == 1 { different.remove(0) } else { json!({"anyOf": different}) };
        schema.insert("items".into(), items);
    }
    if schema.get("type").is_some_and(|kind| kind == "array") {
        schema.entry("items").or_insert(json!({}));
    }
}

/// 3.0 cannot say what names of a pattern hold: they may then hold anything.
fn patterns(schema: &mut Object) {
    if schema.shift_remove("patternProperties").is_some() {
        schema.shift_remove("additionalProperties");
    }
}

/// 3.0 knows one example for a schema.
fn example(schema: &mut Object) {
    if let Some(Value::Array(mut all)) = schema.shift_remove("examples")
        && !all.is_empty()
    {
        schema.entry("example").or_insert(all.swap_remove(0));
    }
}

/// How text holds bytes is a format in 3.0.
fn content(schema: &mut Object) {
    let media = schema.shift_remove("contentMediaType");
    let encoding = schema.shift_remove("contentEncoding");
    let format = match (encoding.as_ref().and_then(Value::as_str), media.as_ref().and_then(Value::as_str)) {
        (Some("base64" | "base64url"), _) => "byte",
        (None, Some("application/octet-stream")) => "binary",
        _ => return,
    };
    schema.entry("format").or_insert(format.into());
}

/// What stands beside a reference goes round it.
fn alone(schema: &mut Object) {
    if schema.len() > 1
        && let Some(reference) = schema.shift_remove("$ref")
    {
        all_of(schema).push(json!({"$ref": reference}));
    }
}
