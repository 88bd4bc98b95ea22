//! What is described of a request is what its reader takes: each parameter, its default, its bounds.

use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;

use crate::api::openai::chat::ChatRequest;
use crate::api::openai::completions::CompletionRequest;
use crate::api::openai::embeddings::EmbeddingRequest;
use crate::http::openapi::{Documents, about};

type Object = Map<String, Value>;

/// What a reader made of a body, as text, or why it did not.
type Read = Result<String, String>;

/// A request: the name of its schema, what reads it, and the least it can hold.
struct Request {
    schema: &'static str,
    read: fn(Value) -> Read,
    least: Value,
}

fn requests() -> [Request; 3] {
    fn shown<T: std::fmt::Debug, E: ToString>(read: Result<T, E>) -> Read {
        read.map(|request| format!("{request:?}")).map_err(|error| error.to_string())
    }
    let chat = json!({"model": "m", "messages": [{"role": "assistant", "content": "Hello"}]});
    [
        Request { schema: "ChatCompletionRequest", read: |body| shown(ChatRequest::read(body)), least: chat },
        Request {
            schema: "CompletionRequest",
            read: |body| shown(CompletionRequest::read(body)),
            least: json!({"model": "m", "prompt": "Hello"}),
        },
        Request {
            schema: "EmbeddingRequest",
            read: |body| shown(EmbeddingRequest::read(body)),
            least: json!({"model": "m", "input": "Hello"}),
        },
    ]
}

impl Request {
    /// The least with one more member, and what that member cannot be without.
    fn with(&self, name: &str, value: &Value) -> Value {
        let mut body = self.least.clone();
        match name {
            "top_logprobs" => body["logprobs"] = true.into(),
            "stream_options" => body["stream"] = true.into(),
            "best_of" => body["n"] = value.clone(),
            "max_completion_tokens" => body["max_tokens"] = value.clone(),
            _ => {}
        }
        body[name] = value.clone();
        body
    }

    fn accepts(&self, name: &str, value: &Value) -> String {
        let body = self.with(name, value);
        (self.read)(body.clone()).unwrap_or_else(|error| panic!("{}: {error}: {body}", self.schema))
    }

    fn refuses(&self, name: &str, value: &Value) {
        let body = self.with(name, value);
        let read = (self.read)(body.clone());
        assert!(read.is_err_and(|error| error.contains(name)), "{} accepts {body}", self.schema);
    }
}

/// The schemas of the document.
fn schemas() -> Object {
    let (_, collected) = OpenApiRouter::with_openapi(about()).merge(crate::api::routes()).split_for_parts();
    let document: Value = serde_json::from_slice(&Documents::new(&collected).newer).expect("it is JSON");
    document["components"]["schemas"].as_object().expect("there are schemas").clone()
}

/// The schema itself, where another only names it.
fn resolved<'a>(schemas: &'a Object, schema: &'a Value) -> &'a Value {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let references = alternatives.chain([schema]).find_map(|one| one["$ref"].as_str());
    references.map_or(schema, |name| &schemas[name.trim_start_matches("#/components/schemas/")])
}

/// A value as the document shows it; all members of an object, one element of a list.
fn sample(schemas: &Object, schema: &Value) -> Value {
    let schema = resolved(schemas, schema);
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    if let Some(items) = schema.get("items") {
        return json!([sample(schemas, items)]);
    }
    let members = schema["properties"].as_object().unwrap_or_else(|| panic!("no example in {schema}"));
    members.iter().map(|(name, schema)| (name.clone(), sample(schemas, schema))).collect()
}

/// Each parameter that is described of each request.
fn each_parameter(mut check: impl FnMut(&Request, &str, &Value, &Object)) {
    let schemas = schemas();
    for request in requests() {
        let schema = &schemas[request.schema];
        assert_eq!(schema["additionalProperties"], false, "{}", request.schema);
        let parameters = schema["properties"].as_object().expect("it is an object");
        assert!(parameters.len() >= 5, "{}", request.schema);
        parameters.iter().for_each(|(name, schema)| check(&request, name, schema, &schemas));
    }
}

#[test]
fn every_parameter_that_is_described_is_accepted_as_it_is_shown() {
    each_parameter(|request, name, schema, schemas| {
        let shown = sample(schemas, schema);
        request.accepts(name, &shown);
        let description = resolved(schemas, schema)["description"].as_str();
        let description = description.unwrap_or_else(|| panic!("{} {name} is not explained", request.schema));
        if !description.starts_with("Accepted, without effect") {
            request.refuses(name, &json!({"neither": ["this", "nor that"]}));
        }
    });
}

#[test]
fn whatever_may_be_left_out_may_be_null() {
    let schemas = schemas();
    each_parameter(|request, name, schema, _| {
        let required = schemas[request.schema]["required"].as_array().expect("some are");
        if required.iter().any(|required| required == name) {
            request.refuses(name, &Value::Null);
            return;
        }
        request.accepts(name, &Value::Null);
        let may_be_null = json!(schema).to_string().contains("null");
        assert!(may_be_null, "{} {name}: {schema}", request.schema);
    });
}

#[test]
fn a_default_is_what_leaving_out_means() {
    let mut defaults = 0;
    each_parameter(|request, name, schema, _| {
        let Some(default) = schema.get("default") else { return };
        let without = (request.read)(request.least.clone());
        assert_eq!(Ok(request.accepts(name, default)), without, "{} {name}", request.schema);
        defaults += 1;
    });
    assert!(defaults > 15, "{defaults}");
}

#[test]
fn bounds_are_those_of_the_reader() {
    let mut bounds = 0;
    each_parameter(|request, name, schema, _| {
        for (bound, beyond) in [("minimum", -1.0), ("maximum", 1.0)] {
            let Some(limit) = schema.get(bound).and_then(Value::as_f64) else { continue };
            request.accepts(name, &json!(limit));
            request.refuses(name, &json!(limit + beyond));
            bounds += 1;
        }
    });
    assert!(bounds > 40, "{bounds}");
}

#[test]
fn lists_may_be_as_long_as_the_reader_takes_them() {
    let mut limits = 0;
    each_parameter(|request, name, schema, schemas| {
        let alternatives = schema["oneOf"].as_array().cloned().unwrap_or_default();
        for list in alternatives.iter().chain([schema]) {
            let Some(most) = list["maxItems"].as_u64() else { continue };
            let element = match &list["items"] {
                items if items["type"] == "integer" => json!(7),
                items if items["type"] == "string" && items["enum"].is_null() => json!("x"),
                items if items["type"] == "array" => json!([7]),
                items if items["type"] == "object" && items["$ref"].is_null() => json!({}),
                items => sample(schemas, items),
            };
            let list = |length: u64| json!((0..length).map(|_| element.clone()).collect::<Vec<_>>());
            request.accepts(name, &list(most));
            request.refuses(name, &list(most + 1));
            limits += 1;
        }
    });
    assert!(limits >= 10, "{limits}");
}

#[test]
fn of_a_choice_all_are_accepted_and_nothing_else() {
    let mut choices = 0;
    each_parameter(|request, name, schema, _| {
        if schema["description"].as_str().is_some_and(|said| said.starts_with("Only `false`")) {
            request.refuses(name, &json!(true));
            choices += 1;
        }
        let Some(all) = schema["enum"].as_array() else { return };
        all.iter().for_each(|one| drop(request.accepts(name, one)));
        request.refuses(name, &json!("other"));
        request.refuses(name, &json!(true));
        choices += 1;
    });
    assert!(choices >= 5, "{choices}");
}
