//! Answers held to a form, over HTTP: every way to ask for one, what is combined with it, and forms that only a hostile
//! client would send.

use serde_json::{Value, json};

use crate::app::{CHAT, TestApp, chat, with};

const CHAT_PATH: &str = "/v1/chat/completions";
const TEXT_PATH: &str = "/v1/completions";

fn schema_format(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})
}

fn content(answer: &Value, choice: usize) -> &str {
    answer["choices"][choice]["message"]["content"].as_str().expect("there is text")
}

#[tokio::test]
async fn each_way_to_ask_for_a_form_is_honoured() {
    let app = TestApp::start().await;
    let schema = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        "additionalProperties": false});
    let is_on = |text: &str| text == r#"{"on": true}"# || text == r#"{"on": false}"#;
    for (name, value) in [
        ("response_format", schema_format(schema.clone())),
        ("guided_json", schema.clone()),
        ("guided_json", json!(schema.to_string())),
        ("structured_outputs", json!({"json": schema})),
    ] {
        let answer = app.ask(CHAT_PATH, &with(chat("x"), name, value)).await;
        assert!(is_on(content(&answer, 0)), "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
    for (name, value) in [
        ("guided_regex", json!("[a-c]{2}(xyz|uvw)")),
        ("structured_outputs", json!({"regex": "[a-c]{2}(xyz|uvw)"})),
        ("guided_grammar", json!("start: LETTER LETTER (\"xyz\" | \"uvw\")\nLETTER: /[a-c]/")),
    ] {
        let answer = app.ask(CHAT_PATH, &with(chat("x"), name, value)).await;
        let text = content(&answer, 0);
        let (letters, rest) = text.split_at(2);
        assert!(letters.bytes().all(|letter| (b'a'..=b'c').contains(&letter)), "{text}");
        assert!(rest == "xyz" || rest == "uvw", "{text}");
    }
    for path in [CHAT_PATH, TEXT_PATH] {
        let body = if path == CHAT_PATH { chat("x") } else { json!({"model": CHAT, "prompt": [303, 324]}) };
        let body = with(body, "guided_choice", json!(["neither", "nor", "<end>"]));
        let answer = app.ask(path, &body).await;
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().or(choice["text"].as_str()).expect("there is text");
        assert!(["neither", "nor", "<end>"].contains(&text), "{answer}");
        assert_eq!(choice["finish_reason"], "stop", "{answer}");
    }
}

#[tokio::test]
async fn a_form_goes_with_choices_streams_seeds_and_log_probabilities() {
    let app = TestApp::start().await;
    let form = json!("[0-9]{4}-[0-9]{2}-[0-9]{2}");
    let body = with(chat("x"), "guided_regex", form);
    let body = with(with(with(body, "temperature", 1.5), "n", 5), "seed", 3);
    let whole = app.ask(CHAT_PATH, &body).await;
    let texts: Vec<&str> = (0..5).map(|choice| content(&whole, choice)).collect();
    assert!(texts.iter().all(|text| text.len() == 10 && text.as_bytes()[4] == b'-'), "{texts:?}");
    assert!(texts.windows(2).any(|pair| pair[0] != pair[1]), "{texts:?}");
    let events = app.events(CHAT_PATH, &with(body.clone(), "stream", true)).await;
    for (choice, text) in texts.iter().enumerate() {
        assert_eq!(events.text(choice as u64), *text);
        assert_eq!(events.finish_reason(choice as u64).as_deref(), Some("stop"));
    }
    let told = app.ask(CHAT_PATH, &with(with(body, "logprobs", true), "top_logprobs", 2)).await;
    for (choice, text) in texts.iter().enumerate() {
        assert_eq!(content(&told, choice), *text);
        let tokens = told["choices"][choice]["logprobs"]["content"].as_array().expect("there are tokens");
        let joined: String = tokens.iter().filter_map(|token| token["token"].as_str()).collect();
        assert_eq!(joined, *text);
        assert!(tokens.iter().all(|token| token["logprob"].as_f64().is_some_and(|logprob| logprob < 0.0)));
    }
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_before_anything_runs() {
    let app = TestApp::start().await;
    for (name, value, words) in [
        ("response_format", schema_format(json!({"not": {"type": "string"}})), "`not`"),
        (
            "response_format",
            schema_format(json!({"properties": {"a": {"uniqueItems": true}}})),
            "`uniqueItems`",
        ),
        ("response_format", schema_format(json!({"type": "string", "format": "path"})), "`format`"),
        ("guided_json", json!({"x-guidance": {"lenient": true}}), "`x-guidance`"),
        ("guided_regex", json!("("), "the regular expression"),
        ("guided_regex", json!("(?=a)b"), "the regular expression"),
        ("guided_grammar", json!("begin: \"a\""), "start"),
        ("guided_grammar", json!("start: missing"), "missing"),
        ("guided_choice", json!([""]), "the choice"),
        ("structured_outputs", json!({"regex": "("}), "the regular expression"),
    ] {
        let (status, error) = app.refused(CHAT_PATH, &with(chat("x"), name, value)).await;
        let message = error["message"].as_str().unwrap_or_default();
        assert_eq!((status, error["code"].as_str()), (400, Some("invalid_value")), "{error}");
        assert!(message.contains(words), "{words}: {message}");
        let blamed = if name == "structured_outputs" { "structured_outputs.regex" } else { name };
        assert_eq!(error["param"], blamed, "{error}");
    }
    assert_eq!(app.engine().await.stats().steps, 0);
}

/// What only shows when the first token is looked for is refused as well, streams included.
#[tokio::test]
async fn what_has_no_first_token_is_refused_in_words_that_name_it() {
    let app = TestApp::start().await;
    let optional: serde_json::Map<String, Value> =
        (0..1_000).map(|index| (format!("p{index}"), json!({"type": "integer"}))).collect();
    let patterns = json!({"type": "object", "patternProperties": {"^a+$": {"type": "integer"}},
        "additionalProperties": false, "minProperties": 2});
    let circle =
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
    for (name, value, words) in [
        ("guided_json", json!({"$ref": "#"}), "$ref"),
        ("guided_json", circle, "$ref"),
        ("guided_json", json!({"type": "object", "properties": optional}), "too complex"),
        ("guided_json", patterns, "`minProperties`"),
        ("guided_regex", json!("a\\"), "escape"),
        // Too much only at the second letter.
        ("guided_regex", json!("a?".repeat(2_000)), "too complex"),
    ] {
        for stream in [false, true] {
            let body = with(with(chat("x"), name, value.clone()), "stream", stream);
            let (status, error) = app.refused(CHAT_PATH, &body).await;
            let message = error["message"].as_str().unwrap_or_default();
            assert_eq!((status, &error["param"]), (400, &json!(name)), "{message}");
            assert!(message.contains(words) && message.len() < 300, "{name}: {message}");
        }
    }
    assert_eq!(app.engine().await.stats().steps, 0);
}

/// A part of a grammar of calls is held to what it would be held to alone, and what is refused is what was sent.
#[tokio::test]
async fn schemas_of_functions_have_the_same_limits() {
    let app = TestApp::start().await;
    let good = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let tool = |schema: &Value| json!([{"type": "function", "function": {"name": "f", "parameters": schema, "strict": true}}]);
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    let param = "tools[0].function.parameters";
    for (schema, words) in [
        (property(json!({"type": "string", "pattern": "a".repeat(5_000)})), "`pattern`"),
        (property(json!({"enum": (0..5_000).collect::<Vec<_>>()})), "`enum`s"),
        (property(json!({"x-guidance": {}})), "`x-guidance`"),
        (property(json!({"not": {}})), "`not` is not supported"),
    ] {
        for choice in ["required", "auto"] {
            let body = with(with(chat("x"), "tools", tool(&schema)), "tool_choice", choice);
            let (status, error) = app.refused(CHAT_PATH, &body).await;
            let message = error["message"].as_str().unwrap_or_default();
            assert_eq!((status, &error["param"]), (400, &json!(param)), "{message}");
            assert!(message.contains(words) && message.len() < 250, "{message}");
        }
    }
    let body = with(chat("x"), "tools", tool(&good));
    let pattern = schema_format(json!({"type": "string", "pattern": "a".repeat(5_000)}));
    for (name, value, choice) in [
        ("response_format", pattern, "auto"),
        ("guided_regex", json!("(a"), "auto"),
        ("guided_regex", json!("a"), "required"),
    ] {
        let body = with(with(body.clone(), name, value), "tool_choice", choice);
        let (status, error) = app.refused(CHAT_PATH, &body).await;
        assert_eq!((status, &error["param"]), (400, &json!(name)), "{error}");
    }
    let slash = with(with(body, "guided_regex", json!("a\\/b")), "max_tokens", 9);
    app.ask(CHAT_PATH, &slash).await;
}

/// An answer that is held to something is not ended by words within it, and one without a way on is not called whole.
#[tokio::test]
async fn an_answer_is_whole_or_says_that_it_is_not() {
    let app = TestApp::start().await;
    let held = with(chat("x"), "guided_choice", json!(["one, two, three"]));
    let answer = app.ask(CHAT_PATH, &with(held, "stop", "two")).await;
    assert_eq!(content(&answer, 0), "one, two, three");
}

/// Every protocol calls it by its own name.
#[tokio::test]
async fn what_cannot_be_honoured_is_blamed_on_what_was_sent() {
    let app = TestApp::start().await;
    let bad = json!({"type": "object", "not": {}});
    let messages = json!([{"role": "user", "content": "x"}]);
    let good = json!({"type": "object"});
    let tool = |name: &str, schema: &Value| json!({"type": "function", "function": {"name": name, "parameters": schema, "strict": true}});
    let named = |name: &str, schema: &Value| json!({"name": name, "parameters": schema, "strict": true});
    let flat = |name: &str, schema: &Value| json!({"type": "function", "name": name, "parameters": schema, "strict": true});
    let chat_with = |members: Value| with(with(chat("x"), "tools", members), "tool_choice", "required");
    let legacy = with(
        with(chat("x"), "functions", json!([named("f", &good), named("g", &bad)])),
        "function_call",
        json!({"name": "g"}),
    );
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": bad}});
    for (path, body, param) in [
        (
            CHAT_PATH,
            chat_with(json!([tool("f", &good), tool("g", &good), tool("h", &bad)])),
            "tools[2].function.parameters",
        ),
        (CHAT_PATH, legacy, "functions[1].parameters"),
        (
            "/v1/responses",
            json!({"model": CHAT, "input": "x", "tools": [flat("f", &good), flat("g", &bad)], "tool_choice": "required"}),
            "tools[1].parameters",
        ),
        ("/v1/responses", json!({"model": CHAT, "input": "x", "text": format}), "text.format"),
        (
            "/v1/responses",
            json!({"model": CHAT, "input": "x", "reasoning": {"effort": "low"}}),
            "reasoning.effort",
        ),
    ] {
        let (status, error) = app.refused(path, &body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(param.starts_with("reasoning") || message.contains("`not`"), "{message}");
    }
    // These have no place for a name but the text.
    let schema = json!({"type": "json_schema", "schema": bad});
    let anthropic = |name: &str, value: Value| {
        with(json!({"model": CHAT, "max_tokens": 9, "messages": messages}), name, value)
    };
    let tools = json!([{"name": "g", "input_schema": bad, "strict": true}]);
    for (path, body, param) in [
        ("/v1/messages", anthropic("output_format", schema.clone()), "output_format"),
        ("/v1/messages", anthropic("output_config", json!({"format": schema})), "output_config.format"),
        (
            "/v1/messages",
            with(anthropic("tools", tools), "tool_choice", json!({"type": "any"})),
            "tools[0].input_schema",
        ),
        ("/api/chat", json!({"model": CHAT, "messages": messages, "format": bad}), "format"),
    ] {
        let response = app.post(path, &body).await;
        let (status, text) = (response.status().as_u16(), response.text().await.expect("it is text"));
        assert!(status == 400 && text.contains(&format!("`{param}`")), "{path}: {status} {text}");
    }
    assert_eq!(app.engine().await.stats().steps, 0);
}

/// Each function is judged as it is used: by its whole schema only if it is strict, and not at all if it is not offered.
#[tokio::test]
async fn what_is_wrong_with_functions_is_blamed_on_the_one_that_has_it() {
    let app = TestApp::start().await;
    let (good, bad) = (json!({"type": "object"}), json!({"type": "object", "not": {}}));
    let tool = |name: &str, schema: &Value, strict: bool| json!({"type": "function", "function": {"name": name, "parameters": schema, "strict": strict}});
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    let allowed = |names: &[&str]| {
        let tools: Vec<Value> = names.iter().map(|name| named(name)).collect();
        json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}})
    };
    let ask = |tools: Value, choice: Value| with(with(chat("x"), "tools", tools), "tool_choice", choice);
    let loose_and_two = json!([tool("f", &bad, false), tool("g", &good, true), tool("h", &bad, true)]);
    let strict = json!([tool("f", &bad, true), tool("g", &good, true), tool("h", &bad, true)]);
    for (tools, choice) in
        [(&loose_and_two, json!("required")), (&strict, named("h")), (&strict, allowed(&["g", "h"]))]
    {
        let (status, error) = app.refused(CHAT_PATH, &ask(tools.clone(), choice)).await;
        assert_eq!((status, &error["param"]), (400, &json!("tools[2].function.parameters")), "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("`not` is not supported") && message.len() < 250, "{message}");
    }
    assert_eq!(app.engine().await.stats().steps, 0);
    for (tools, choice) in [(&strict, named("g")), (&loose_and_two, named("f"))] {
        app.ask(CHAT_PATH, &with(ask(tools.clone(), choice), "max_tokens", 1)).await;
    }
}

/// Schemas, expressions and grammars that are meant to take all of a server's time or memory.
fn bombs() -> Vec<(&'static str, Value)> {
    let nested =
        |depth: usize, leaf: Value, wrap: fn(Value) -> Value| (0..depth).fold(leaf, |inner, _| wrap(inner));
    let many = |count: usize| (0..count).map(|index| json!(format!("value-{index}"))).collect::<Vec<_>>();
    let properties: serde_json::Map<String, Value> =
        (0..3_000).map(|index| (format!("p{index}"), json!({"type": "string"}))).collect();
    let crossed = |count: usize| {
        let options =
            (0..count).map(|index| json!({"properties": {format!("p{index}"): {"type": "string"}}}));
        json!({"anyOf": options.collect::<Vec<_>>()})
    };
    let doubling: serde_json::Map<String, Value> = (0..40)
        .map(|index| {
            let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
            (format!("d{index}"), json!({"allOf": [next, next], "anyOf": [next, next]}))
        })
        .chain([("d40".to_owned(), json!({"type": "string"}))])
        .collect();
    vec![
        ("guided_json", nested(100, json!({}), |inner| json!({"properties": {"a": inner}}))),
        ("guided_json", nested(11, json!({"type": "string"}), |inner| json!({"anyOf": [inner, inner]}))),
        ("guided_json", json!({"enum": many(100_000)})),
        ("guided_json", json!({"enum": many(4_000)})),
        ("guided_json", json!({"type": "object", "properties": properties})),
        ("guided_json", json!({"$ref": "#"})),
        (
            "guided_json",
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        (
            "guided_json",
            json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}}, "$ref": "#/$defs/a"}),
        ),
        ("guided_json", json!({"$defs": doubling, "$ref": "#/$defs/d0"})),
        ("guided_json", json!({"allOf": [crossed(60), crossed(60), crossed(60), crossed(60)]})),
        ("guided_json", json!({"type": "string", "minLength": 1_000_000_000})),
        ("guided_json", json!({"type": "string", "maxLength": 1_000_000_000, "pattern": "^(a|b)*$"})),
        (
            "guided_json",
            json!({"type": "array", "minItems": 1_000_000_000, "items": {"type": "array", "minItems": 1_000_000}}),
        ),
        ("guided_json", json!({"type": "object", "minProperties": 1_000_000_000})),
        ("guided_json", json!({"type": "string", "pattern": "(a{1,1000}){1,1000}"})),
        ("guided_json", json!({"type": "string", "pattern": "(.*a){20}.{100}"})),
        ("guided_json", json!({"type": "number", "multipleOf": 1e-300})),
        (
            "guided_json",
            json!({"type": "integer", "multipleOf": 999_999_937, "minimum": 1, "maximum": 1e300}),
        ),
        ("guided_json", json!({"type": "integer", "minimum": -1e308, "maximum": 1e308})),
        ("guided_regex", json!("(a{1,1000}){1,1000}")),
        ("guided_regex", json!("((((a{1,100}){1,100}){1,100}){1,100}){1,100}")),
        ("guided_regex", json!("(a|aa|aaa|aaaa)*b".repeat(200))),
        ("guided_regex", json!("a?".repeat(2_000))),
        ("guided_regex", json!(format!("({}){}", "[ab]*a".repeat(30), "[ab]".repeat(600)))),
        ("guided_regex", json!(format!("{}a{}", "(".repeat(1_500), ")".repeat(1_500)))),
        ("guided_regex", json!("\\p{L}{1,5000}".repeat(50))),
        ("guided_grammar", json!(format!("start: {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000)))),
        ("guided_grammar", json!("start: start start | start start start | \"a\" | \"\"")),
        ("guided_grammar", json!("start: start")),
        ("guided_grammar", json!("start: x{1,100000}\nx: y{1,100000}\ny: \"a\"")),
        (
            "guided_grammar",
            json!(
                (0..900).fold("start: r0\n".to_owned(), |text, index| {
                    format!("{text}r{index}: r{next} r{next} | r{next} \"a\"\n", next = index + 1)
                }) + "r900: \"b\""
            ),
        ),
        ("guided_choice", json!(many(1_025))),
        ("guided_choice", json!(vec!["x".repeat(1_000); 1_000])),
        (
            "guided_choice",
            json!((0..1_000).map(|index| format!("{index}{}", "y".repeat(50))).collect::<Vec<_>>()),
        ),
    ]
}

/// Words of the limits that are there: how much a schema, an expression or a grammar may hold and how much work may be done
/// for it; see `models/src/grammar/limits.rs`.
const LIMITS: [&str; 8] =
    ["at most", "too complex", "too many", "too large", "too big", "too deep", "limit", "nested"];

#[tokio::test]
async fn a_bomb_is_refused_by_a_limit_or_answered_and_others_are_served() {
    let app = TestApp::start().await;
    let mut refused = 0;
    for (name, bomb) in bombs() {
        let body = with(with(chat("x"), name, bomb.clone()), "max_tokens", 40);
        let response = app.post(CHAT_PATH, &body).await;
        let status = response.status().as_u16();
        let text = response.text().await.expect("it is text");
        let shown = format!("{status} {text:.300}: {:.200}", bomb.to_string());
        match status {
            200 | 413 => {}
            400 => {
                let error: Value = serde_json::from_str(&text).expect("it is JSON");
                assert_eq!(error["error"]["param"], name, "{shown}");
                let message = error["error"]["message"].as_str().unwrap_or_default();
                refused += usize::from(LIMITS.iter().any(|limit| message.contains(limit)));
            }
            _ => panic!("{shown}"),
        }
        app.ask(CHAT_PATH, &chat("still there?")).await;
    }
    assert!(refused >= 10, "limits refused {refused}");
}
