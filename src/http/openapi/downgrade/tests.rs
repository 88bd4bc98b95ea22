//! Each rule of the way down, alone.

use serde_json::{Value, json};

use super::{MAX_DEPTH, VERSION, downgrade};

/// A document with this one schema.
fn around(schema: Value) -> Value {
    json!({"openapi": "3.1.0", "paths": {}, "components": {"schemas": {"One": schema}}})
}

fn schema(schema: Value) -> Value {
    downgrade(around(schema))["components"]["schemas"]["One"].take()
}

/// `given => expected` for schemas.
macro_rules! becomes {
    ($($name:ident: $given:tt => $expected:tt;)*) => {$(
        #[test]
        fn $name() {
            assert_eq!(schema(json!($given)), json!($expected));
        }
    )*};
}

becomes! {
    a_type_or_null_is_nullable:
        {"type": ["string", "null"], "minLength": 1} => {"type": "string", "minLength": 1, "nullable": true};
    a_list_of_one_type_is_that_type:
        {"type": ["string"]} => {"type": "string"};
    several_types_are_any_of_them:
        {"type": ["string", "integer", "null"], "title": "t"} =>
        {"title": "t", "nullable": true, "anyOf": [{"type": "string"}, {"type": "integer"}]};
    several_types_stand_beside_other_alternatives:
        {"type": ["string", "array"], "anyOf": [{"minLength": 1}]} =>
        {"anyOf": [{"minLength": 1}], "allOf": [{"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}]};
    only_null_is_an_enum_of_null:
        {"type": "null", "default": null} => {"default": null, "nullable": true, "enum": [null]};
    null_or_a_reference_is_that_reference_and_nullable:
        {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Role"}], "description": "d"} =>
        {"description": "d", "nullable": true, "allOf": [{"$ref": "#/components/schemas/Role"}]};
    what_stands_beside_such_a_reference_goes_round_it:
        {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Role", "description": "d"}]} =>
        {"nullable": true, "description": "d", "allOf": [{"$ref": "#/components/schemas/Role"}]};
    null_or_one_any_of_is_the_same:
        {"anyOf": [{"type": "string"}, {"type": "null"}]} => {"nullable": true, "allOf": [{"type": "string"}]};
    null_is_taken_out_of_more_alternatives:
        {"oneOf": [{"type": "null"}, {"type": "string"}, {"type": "integer"}]} =>
        {"nullable": true, "oneOf": [{"type": "string"}, {"type": "integer"}]};
    alternatives_without_null_stay:
        {"oneOf": [{"type": "string"}, {"type": "integer"}], "discriminator": {"propertyName": "type"}} =>
        {"oneOf": [{"type": "string"}, {"type": "integer"}], "discriminator": {"propertyName": "type"}};
    nothing_but_null_among_alternatives:
        {"oneOf": [{"type": "null"}]} => {"nullable": true, "enum": [null]};
    a_constant_is_an_enum_of_one:
        {"type": "string", "const": "chat"} => {"type": "string", "enum": ["chat"]};
    an_exclusive_bound_is_a_bound_and_a_flag:
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 2.5} =>
        {"type": "number", "exclusiveMinimum": true, "exclusiveMaximum": true, "minimum": 0, "maximum": 2.5};
    the_tighter_bound_holds:
        {"type": "integer", "exclusiveMinimum": 5, "minimum": 3, "exclusiveMaximum": 9, "maximum": 7} =>
        {"type": "integer", "exclusiveMinimum": true, "minimum": 5, "maximum": 7};
    a_bound_that_excludes_its_equal_is_the_tighter:
        {"type": "integer", "exclusiveMinimum": 3, "minimum": 3} =>
        {"type": "integer", "exclusiveMinimum": true, "minimum": 3};
    bounds_in_the_old_words_stay:
        {"type": "number", "minimum": 1, "exclusiveMinimum": true} =>
        {"type": "number", "minimum": 1, "exclusiveMinimum": true};
    a_tuple_is_an_array_of_its_length:
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false} =>
        {"type": "array", "minItems": 2, "maxItems": 2,
         "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}};
    a_tuple_of_equals_has_one_kind_of_item:
        {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "items": false} =>
        {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}};
    a_tuple_with_a_rest_may_be_longer:
        {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "boolean"}} =>
        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "boolean"}]}};
    an_array_says_what_its_items_are:
        {"type": "array"} => {"type": "array", "items": {}};
    beside_a_reference_stands_nothing:
        {"$ref": "#/components/schemas/Role", "description": "d", "default": "user"} =>
        {"description": "d", "default": "user", "allOf": [{"$ref": "#/components/schemas/Role"}]};
    a_lone_reference_stays:
        {"$ref": "#/components/schemas/Role"} => {"$ref": "#/components/schemas/Role"};
    a_reference_beside_words_that_go_stands_alone_again:
        {"$ref": "#/components/schemas/Role", "summary": "s"} => {"$ref": "#/components/schemas/Role"};
    the_first_example_is_the_example:
        {"type": "string", "examples": ["a", "b"]} => {"type": "string", "example": "a"};
    an_example_that_is_there_stays:
        {"type": "string", "example": "z", "examples": ["a"]} => {"type": "string", "example": "z"};
    bytes_in_text_have_a_format:
        {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"} =>
        {"type": "string", "format": "byte"};
    bytes_as_they_are_have_another:
        {"type": "string", "contentMediaType": "application/octet-stream"} =>
        {"type": "string", "format": "binary"};
    text_of_a_kind_stays_text:
        {"type": "string", "contentMediaType": "application/json", "contentSchema": {"type": "object"}} =>
        {"type": "string"};
    names_of_a_map_have_no_schema:
        {"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": {"type": ["integer", "null"]}} =>
        {"type": "object", "additionalProperties": {"type": "integer", "nullable": true}};
    no_more_names_stays_no_more_names:
        {"type": "object", "additionalProperties": false} => {"type": "object", "additionalProperties": false};
    names_of_a_pattern_open_the_object:
        {"type": "object", "patternProperties": {"^a": {}}, "additionalProperties": false} => {"type": "object"};
    true_and_false_are_written_out:
        {"type": "object", "properties": {"any": true, "none": false}} =>
        {"type": "object", "properties": {"any": {}, "none": {"not": {}}}};
    a_property_may_bear_any_name:
        {"type": "object", "properties": {"const": {"const": 1}, "type": {"type": "string"}, "examples": {}}} =>
        {"type": "object", "properties": {"const": {"enum": [1]}, "type": {"type": "string"}, "examples": {}}};
    values_are_left_as_they_are:
        {"type": "object", "example": {"type": ["string", "null"], "const": 1}, "default": {"$ref": "x", "y": 1},
         "enum": [{"examples": [1]}], "x-own": {"prefixItems": []}} =>
        {"type": "object", "example": {"type": ["string", "null"], "const": 1}, "default": {"$ref": "x", "y": 1},
         "enum": [{"examples": [1]}], "x-own": {"prefixItems": []}};
    rules_reach_every_place_of_a_schema:
        {"allOf": [{"anyOf": [{"not": {"items": {"const": 1}}}]}]} =>
        {"allOf": [{"anyOf": [{"not": {"items": {"enum": [1]}}}]}]};
}

#[test]
fn what_only_the_newer_document_knows_is_dropped() {
    let given = json!({
        "openapi": "3.1.0", "jsonSchemaDialect": "x", "webhooks": {}, "$self": "x", "$schema": "x",
        "info": {"title": "t", "version": "1", "summary": "s", "license": {"name": "n", "identifier": "MIT"}},
        "servers": [{"url": "/", "name": "n"}],
        "tags": [{"name": "a", "summary": "s", "parent": "p", "kind": "k"}],
        "paths": {"/a": {"query": {}, "additionalOperations": {}}},
        "components": {"pathItems": {}, "mediaTypes": {}, "securitySchemes": {"b": {"type": "http", "deprecated": true}}}
    });
    let expected = json!({
        "openapi": VERSION,
        "info": {"title": "t", "version": "1", "license": {"name": "n"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": "a"}],
        "paths": {"/a": {}},
        "components": {"securitySchemes": {"b": {"type": "http"}}}
    });
    assert_eq!(downgrade(given), expected);
}

#[test]
fn every_response_has_a_description() {
    let given = json!({"paths": {"/a": {"get": {"responses": {
        "200": {"summary": "s"}, "404": {"description": "gone"}, "500": {"$ref": "#/x", "description": "beside"}
    }}}}});
    let responses = downgrade(given)["paths"]["/a"]["get"]["responses"].take();
    let expected =
        json!({"200": {"description": ""}, "404": {"description": "gone"}, "500": {"$ref": "#/x"}});
    assert_eq!(responses, expected);
}

#[test]
fn schemas_are_found_wherever_they_hang() {
    let one = || json!({"const": 1});
    let media = || json!({"application/json": {"schema": one(), "itemSchema": {}, "encoding": {"a": {"headers": {"H": {"schema": one()}}}}}});
    let operation = || {
        json!({
            "parameters": [{"name": "p", "in": "query", "schema": one(), "examples": {"e": {"dataValue": 1}}}],
            "requestBody": {"content": media()},
            "responses": {"200": {"description": "", "headers": {"H": {"schema": one()}}, "content": media()}},
            "callbacks": {"c": {"{$request.body#/url}": {"post": {"parameters": [{"schema": one()}]}}}}
        })
    };
    let given = json!({
        "paths": {"/a": {"parameters": [{"schema": one()}], "post": operation(), "delete": operation()}},
        "components": {"parameters": {"p": {"schema": one()}}, "responses": {"r": {"content": media()}},
            "requestBodies": {"b": {"content": media()}}, "headers": {"h": {"schema": one()}}}
    });
    let before = given.to_string().matches("\"const\"").count();
    let after = downgrade(given).to_string();
    assert_eq!(before, 21);
    assert_eq!(after.matches("{\"enum\":[1]}").count(), before, "{after}");
    assert!(!after.contains("itemSchema") && !after.contains("dataValue"), "{after}");
}

#[test]
fn a_second_time_changes_nothing() {
    let schema = json!({"type": "object", "properties": {
        "a": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/One"}]},
        "b": {"type": "array", "prefixItems": [{"type": ["string", "null"]}, {"const": 1}], "items": false},
        "c": {"type": "number", "exclusiveMinimum": 0}
    }});
    let once = downgrade(around(schema));
    assert_eq!(downgrade(once.clone()), once);
}

#[test]
fn the_walk_ends_at_its_bound() {
    let mut deep = json!({"const": 1});
    for _ in 0..500 {
        deep = json!({"items": deep});
    }
    let given = around(deep);
    let mut node = &downgrade(given)["components"]["schemas"]["One"];
    let mut levels = 0;
    while let Some(items) = node.get("items") {
        node = items;
        levels += 1;
    }
    // The document, its components and the schemas' map come first.
    assert_eq!(levels, MAX_DEPTH - 2);
    assert_eq!(*node, json!({}));
}
