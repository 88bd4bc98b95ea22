//! `utoipa` writes the argument of a generic type out in full: `Envelope_User` holds a whole user instead of naming it, and
//! a client made from that would have two classes for one thing. Here the name is put back.

use serde_json::{Map, Value, json};

use super::Object;

/// Puts a reference wherever a schema `A_B` holds what the schema `B` says.
pub(super) fn name_arguments(document: &mut Value) {
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else {
        return;
    };
    let known = schemas.clone();
    for (name, schema) in schemas.iter_mut() {
        let arguments = arguments(name, &known);
        if let (false, Some(parts)) = (arguments.is_empty(), schema.as_object_mut()) {
            parts.values_mut().for_each(|part| name_within(part, &arguments));
        }
    }
}

type Argument<'a> = (&'a str, &'a Object);

/// The schemas whose names end this one's, the longest first: `Envelope_Page_User` → `Page_User`, `User`.
fn arguments<'a>(name: &'a str, known: &'a Map<String, Value>) -> Vec<Argument<'a>> {
    let ends = name.match_indices('_').map(|(at, _)| &name[at + 1..]);
    let schemas = ends.filter_map(|end| Some((end, known.get(end)?.as_object()?)));
    schemas.filter(|(_, schema)| says_much(schema)).collect()
}

/// Whether it is not met by chance: any text is like any other.
fn says_much(schema: &Object) -> bool {
    ["properties", "oneOf", "anyOf", "allOf", "enum"].iter().any(|word| schema.contains_key(*word))
}

fn name_within(value: &mut Value, arguments: &[Argument<'_>]) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| name_within(one, arguments)),
        Value::Object(object) => match arguments.iter().find(|(_, schema)| is_same(object, schema)) {
            Some(argument) => *value = reference(object, argument),
            None => object.values_mut().for_each(|one| name_within(one, arguments)),
        },
        _ => {}
    }
}

/// Whether both say the same, whatever they are described as.
fn is_same(one: &Object, other: &Object) -> bool {
    let bare = |schema: &Object| -> Object {
        schema
            .iter()
            .filter(|(word, _)| *word != "description")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    says_much(one) && bare(one) == bare(other)
}

/// The reference, with the description if it is not that of the schema itself.
fn reference(written_out: &Object, (name, schema): &Argument<'_>) -> Value {
    let mut reference = json!({"$ref": format!("#/components/schemas/{name}")});
    match written_out.get("description") {
        Some(own) if Some(own) != schema.get("description") => reference["description"] = own.clone(),
        _ => {}
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_named_where_it_was_written_out() {
        let user = || json!({"type": "object", "properties": {"name": {"type": "string"}}, "description": "A user."});
        let page = || json!({"type": "object", "properties": {"items": {"type": "array", "items": user()}}});
        let mut described = user();
        described["description"] = "The one asked for.".into();
        let mut document = json!({"components": {"schemas": {
            "User": user(),
            "Id": {"type": "string"},
            "Page_User": page(),
            "Envelope_User": {"type": "object", "properties": {"data": described}},
            "Envelope_Page_User": {"type": "object", "properties": {"data": page()}},
            "Envelope_Id": {"type": "object", "properties": {"data": {"type": "string"}}},
            "Other": {"type": "object", "properties": {"user": user()}}
        }}});
        name_arguments(&mut document);
        let schemas = &document["components"]["schemas"];
        let named = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        assert_eq!(schemas["User"], user(), "what it says of itself stays");
        assert_eq!(schemas["Page_User"]["properties"]["items"]["items"], named("User"));
        assert_eq!(schemas["Envelope_Page_User"]["properties"]["data"], named("Page_User"));
        let data = &schemas["Envelope_User"]["properties"]["data"];
        assert_eq!(data["$ref"], named("User")["$ref"]);
        assert_eq!(data["description"], "The one asked for.");
        assert_eq!(schemas["Envelope_Id"]["properties"]["data"], json!({"type": "string"}), "met by chance");
        assert_eq!(schemas["Other"]["properties"]["user"], user(), "no generic type");
    }
}
