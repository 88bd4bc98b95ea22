//! What is described of a request is what its reader takes: each parameter, its default, its bounds.

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;

use crate::api::anthropic::count::CountRequest;
use crate::api::anthropic::messages::MessagesRequest;
use crate::api::openai::chat::ChatRequest;
use crate::api::openai::completions::CompletionRequest;
use crate::api::openai::embeddings::EmbeddingRequest;
use crate::api::openai::fields::{ASKED, ParameterError};
use crate::api::openai::rerank::RerankRequest;
use crate::api::openai::responses::request::{Question, ResponseRequest};
use crate::error::{Code, Failure};
use crate::http::openapi::{Documents, about};

type Object = Map<String, Value>;

/// What a reader made of a body, as text, or why it did not.
type Read = Result<String, (Code, String)>;

/// A request: the name of its schema, what reads it, and the least it can hold.
struct Request {
    schema: &'static str,
    read: fn(Value) -> Read,
    least: Value,
}

fn requests() -> [Request; 8] {
    fn shown<T: Debug>(read: Result<T, ParameterError>) -> Read {
        read.map(|request| format!("{request:?}")).map_err(|error| (error.code(), error.to_string()))
    }
    let message = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]});
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
        Request {
            schema: "ResponseRequest",
            read: |body| shown(ResponseRequest::read(body)),
            least: json!({"model": "m", "input": "Hello"}),
        },
        Request {
            schema: "ResponseQuestion",
            read: |body| shown(Question::read(body)),
            least: json!({"model": "m", "input": "Hello"}),
        },
        Request {
            schema: "AnthropicMessagesRequest",
            read: |body| shown(MessagesRequest::read(body)),
            least: message,
        },
        Request {
            schema: "AnthropicCountTokensRequest",
            read: |body| shown(CountRequest::read(body)),
            least: json!({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}),
        },
        Request {
            schema: "RerankRequest",
            read: |body| shown(RerankRequest::read(body)),
            least: json!({"model": "m", "query": "Hello", "documents": ["x"]}),
        },
    ]
}

impl Request {
    /// The least with one more member, and what that member cannot be without.
    fn with(&self, name: &str, value: &Value) -> Value {
        let mut body = self.least.clone();
        match name {
            "top_logprobs" if self.schema != "ResponseRequest" => body["logprobs"] = true.into(),
            "tool_choice" if self.schema.starts_with("Anthropic") => {
                body["tools"] = json!([{"name": "f", "input_schema": {"type": "object"}}]);
            }
            "stream_options" => body["stream"] = true.into(),
            "max_completion_tokens" => body["max_tokens"] = value.clone(),
            _ => {}
        }
        body[name] = value.clone();
        body
    }

    fn accepts(&self, name: &str, value: &Value) -> String {
        let body = self.with(name, value);
        (self.read)(body.clone()).unwrap_or_else(|(_, error)| {
            panic!("{}: {error}: {body:.400}", self.schema, body = body.to_string())
        })
    }

    fn refuses(&self, name: &str, value: &Value) {
        let body = self.with(name, value);
        let read = (self.read)(body.clone());
        assert!(
            read.is_err_and(|(_, error)| error.contains(name)),
            "{} accepts {body:.400}",
            self.schema,
            body = body.to_string()
        );
    }
}

/// The document of this room.
fn document() -> Value {
    let (_, collected) = OpenApiRouter::with_openapi(about()).merge(crate::api::routes()).split_for_parts();
    serde_json::from_slice(&Documents::new(&collected).newer).expect("it is JSON")
}

/// The schemas of the document.
fn schemas() -> Object {
    document()["components"]["schemas"].as_object().expect("there are schemas").clone()
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
        // A schema may have any members.
        if !description.starts_with("Accepted, without effect") && name != "guided_json" {
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
                items
                    if items["type"] == "object" && items["$ref"].is_null() && items["example"].is_null() =>
                {
                    json!({})
                }
                items => sample(schemas, items),
            };
            // No two functions have one name.
            let numbered = |number: u64| {
                let mut element = element.clone();
                for place in
                    ["/name", "/function/name"].iter().filter(|_| ["tools", "functions"].contains(&name))
                {
                    if let Some(Value::String(function)) = element.pointer_mut(place) {
                        *function = format!("{function}_{number}");
                    }
                }
                element
            };
            let list = |length: u64| json!((0..length).map(numbered).collect::<Vec<_>>());
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
    assert!(choices >= 4, "{choices}");
}

/// One of every kind of value.
fn values() -> [Value; 10] {
    [
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(0.5),
        json!("x"),
        json!("none"),
        json!(["x"]),
        json!([]),
        json!({}),
    ]
}

/// Whether a name such as `messages[0].role` is in the schema.
fn is_described(schemas: &Object, schema: &Value, name: &str) -> bool {
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    let (first, is_element) = first.split_once('[').map_or((first, false), |(first, _)| (first, true));
    let Some(mut member) = resolved(schemas, schema)["properties"].get(first) else { return false };
    if is_element {
        let alternatives = member["oneOf"].as_array().into_iter().flatten();
        let lists = alternatives.chain([member]);
        let Some(items) = lists.filter_map(|list| list.get("items")).next() else { return false };
        member = items;
    }
    rest.is_empty() || is_described(schemas, member, rest)
}

/// The body with the member of this name being so.
fn with_inner(mut body: Value, name: &str, value: Value) -> Value {
    let pointer = format!("/{}", name.replace('[', "/").replace(']', "").replace('.', "/"));
    let (parent, last) = pointer.rsplit_once('/').expect("it begins with a slash");
    let parent = body.pointer_mut(parent).expect("the reader was there");
    parent[last] = value;
    body
}

#[test]
fn what_a_reader_knows_is_described_or_refused_whatever_it_holds() {
    let schemas = schemas();
    let mut refused = 0;
    for request in requests() {
        let schema = &schemas[request.schema];
        let properties = schema["properties"].as_object().expect("it is an object");
        // Everything inside everything is asked for once each parameter was there as it is described.
        let mut bodies: Vec<Value> =
            properties.iter().map(|(name, schema)| request.with(name, &sample(&schemas, schema))).collect();
        let parts = json!([{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]);
        bodies.extend(properties.get("messages").map(|_| request.with("messages", &parts)));
        let mut known: BTreeSet<(String, usize)> = BTreeSet::new();
        for (number, body) in bodies.iter().enumerate() {
            ASKED.take();
            (request.read)(body.clone()).unwrap_or_else(|(_, error)| panic!("{error}: {body}"));
            for name in ASKED.take() {
                if !known.iter().any(|(other, _)| *other == name) {
                    known.insert((name, number));
                }
            }
        }
        assert!(known.len() > properties.len(), "the reader was not watched");
        for (name, number) in known.into_iter().filter(|(name, _)| !is_described(&schemas, schema, name)) {
            for value in values() {
                let body = with_inner(bodies[number].clone(), &name, value);
                let read = (request.read)(body.clone());
                let is_refused = read.is_err_and(|(code, error)| {
                    code == Code::UnsupportedParameter && error.contains(&format!("`{name}`"))
                });
                assert!(is_refused, "{} knows `{name}`, and nobody is told: {body}", request.schema);
            }
            refused += 1;
        }
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn the_requests_that_are_shown_are_good_ones() {
    let document = document();
    let mut shown = 0;
    for path in document["paths"].as_object().expect("there are paths").values() {
        let content = &path["post"]["requestBody"]["content"]["application/json"];
        let schema = content["schema"]["$ref"].as_str().unwrap_or_default();
        let Some(request) =
            requests().into_iter().find(|request| schema.ends_with(&format!("/{}", request.schema)))
        else {
            continue;
        };
        let several = content["examples"].as_object().into_iter().flatten().map(|(_, one)| &one["value"]);
        for example in several.chain(content.get("example")) {
            (request.read)(example.clone()).unwrap_or_else(|(_, error)| panic!("{error}: {example}"));
            shown += 1;
        }
    }
    assert_eq!(shown, 16);
}
