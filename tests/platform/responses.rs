//! `/v1/responses`: shapes, events, conversations that go on, what is made in the background; whose answers are whose, and
//! what they cost.

use futures_util::future::join_all;
use reqwest::Response;
use sconce::clock::Clock;
use sconce::store::usage::{self, UsageFilter, UsageRow};
use sconce::store::{ListRequest, Order};
use serde_json::{Value, json};
use std::time::Duration;

use crate::api::Api;
use crate::app::{CHAT, TestApp, long, read_events, with};
use crate::rig;
use crate::shape::assert_like;

const PATH: &str = "/v1/responses";

/// A question whose answer goes on to its bound.
fn ask(input: impl Into<Value>) -> Value {
    json!({"model": CHAT, "input": input.into(), "temperature": 0, "max_output_tokens": 8})
}

fn id(response: &Value) -> String {
    response["id"].as_str().unwrap_or_else(|| panic!("no id: {response}")).to_owned()
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {response}"))
}

/// The data of all events; each is named by its type.
async fn events(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    read(&response.text().await.expect("it is text"))
}

fn read(text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for event in text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')) {
        let (name, data) = event.split_once('\n').unwrap_or_else(|| panic!("no name: {event}"));
        let data: Value = serde_json::from_str(data.trim_start_matches("data: ")).expect("it is JSON");
        assert_eq!(name.trim_start_matches("event: "), data["type"]);
        assert_eq!(data["sequence_number"], all.len(), "{data}");
        all.push(data);
    }
    all
}

fn names(events: &[Value]) -> Vec<&str> {
    let name = |event: &'_ Value| -> Option<String> { event["type"].as_str().map(str::to_owned) };
    assert!(events.iter().all(|event| name(event).is_some()));
    let mut names: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    names.dedup();
    names
}

/// Waits until a response is over.
async fn over(app: &TestApp, id: &str) -> Value {
    loop {
        let found: Value = get(app, &format!("{PATH}/{id}")).await.1;
        if !["queued", "in_progress"].contains(&found["status"].as_str().expect("a status")) {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

async fn get(app: &TestApp, path: &str) -> (u16, Value) {
    let answer = app.get(path).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("it is JSON"))
}

async fn rows(app: &TestApp) -> Vec<UsageRow> {
    app.usage.flushed().await;
    let mut tx = rig::store(app).await.read().await.expect("it reads");
    let all = ListRequest { limit: 1000, cursor: None, sort: "at", order: Order::Ascending };
    usage::list(&mut tx, &UsageFilter::default(), &all).await.expect("they are there").items
}

/// What is shown beside what is OpenAI's.
const OURS: [&str; 2] = [
    "response.usage.input_tokens_details.cache_write_tokens",
    "usage.input_tokens_details.cache_write_tokens",
];

#[tokio::test]
async fn a_stream_is_as_the_public_example_shows_it() {
    let app = TestApp::start().await;
    let example = include_str!("../wire/responses_text.jsonl").lines();
    let example: Vec<Value> = example.map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    // Without a bound of its own the answer ends where the model ends it, or where the context does.
    let body = json!({"model": CHAT, "input": "Hello", "temperature": 0, "stream": true});
    let mut events = events(app.post(PATH, &body).await).await;
    let is_cut = events.last().expect("events")["type"] == "response.incomplete";
    events.dedup_by(|event, before| {
        event["type"] == before["type"] && event["type"] == "response.output_text.delta"
    });
    assert_eq!(events.len(), example.len(), "{:?}", names(&events));
    for (number, (mut event, example)) in events.into_iter().zip(&example).enumerate() {
        event["sequence_number"] = number.into();
        if is_cut && number > 6 {
            let whole = event.to_string().replace("\"incomplete\"", "\"completed\"");
            let whole = whole.replace("response.incomplete", "response.completed");
            let whole = whole.replace(r#"{"reason":"max_output_tokens"}"#, "null");
            let whole = whole.replace(r#""completed_at":null"#, r#""completed_at":0"#);
            event = serde_json::from_str(&whole).expect("it is JSON");
        }
        assert_like(example, &event, &OURS);
    }
}

#[tokio::test]
async fn an_answer_is_the_same_whole_streamed_and_shown_again() {
    let app = TestApp::start().await;
    let whole = app.ask(PATH, &ask("Hello")).await;
    assert_eq!((&whole["object"], &whole["model"]), (&json!("response"), &json!(CHAT)));
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(whole["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(whole["usage"]["output_tokens"], 8);
    assert_eq!(get(&app, &format!("{PATH}/{}", id(&whole))).await, (200, whole.clone()));
    let events = events(app.post(PATH, &with(ask("Hello"), "stream", true)).await).await;
    let last = &events.last().expect("events")["response"];
    assert_eq!(text(last), text(&whole));
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    let streamed: String = deltas.filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(streamed, text(&whole));
    assert_eq!(get(&app, &format!("{PATH}/{}", id(last))).await, (200, last.clone()));
}

#[tokio::test]
async fn a_conversation_goes_on_from_what_was_kept() {
    let app = TestApp::start().await;
    let first = app.ask(PATH, &with(ask("One"), "instructions", "Count.")).await;
    let second = app.ask(PATH, &with(ask("Two"), "previous_response_id", id(&first))).await;
    let third = app.ask(PATH, &with(ask("Three"), "previous_response_id", id(&second))).await;
    // The same with everything said again; instructions are of one answer only.
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let again = json!([
        said("user", "One"),
        said("assistant", text(&first)),
        said("user", "Two"),
        said("assistant", text(&second)),
        said("user", "Three")
    ]);
    let whole = app.ask(PATH, &ask(again)).await;
    assert_eq!(whole["usage"]["input_tokens"], third["usage"]["input_tokens"]);
    assert_eq!(text(&whole), text(&third));
    assert_eq!(third["previous_response_id"], id(&second));

    let items = get(&app, &format!("{PATH}/{}/input_items", id(&third))).await.1;
    assert_eq!(items["data"][0]["content"], json!([{"type": "input_text", "text": "Three"}]));
    assert_eq!((&items["has_more"], &items["first_id"]), (&json!(false), &items["data"][0]["id"]));

    // Without the one in the middle there is no conversation.
    let path = format!("{PATH}/{}", id(&second));
    let deleted = app.client.delete(format!("{}{path}", app.url)).send().await.expect("an answer");
    let deleted: Value = deleted.json().await.expect("it is JSON");
    assert_eq!(deleted, json!({"id": id(&second), "object": "response", "deleted": true}));
    assert_eq!(get(&app, &path).await.0, 404);
    let (status, error) = app.refused(PATH, &with(ask("Four"), "previous_response_id", id(&third))).await;
    assert_eq!((status, &error["code"]), (400, &json!("previous_response_not_found")), "{error}");
    assert_eq!(error["param"], "previous_response_id");
    app.ask(PATH, &with(ask("Four"), "previous_response_id", id(&first))).await;
}

#[tokio::test]
async fn what_functions_gave_is_a_part_of_the_conversation() {
    let app = TestApp::start().await;
    let call = json!({"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Paris\"}"});
    let output = json!({"type": "function_call_output", "call_id": "call_1", "output": "sun"});
    let asked = json!([{"role": "user", "content": "Weather?"}, call, output]);
    let first = app.ask(PATH, &ask(asked.clone())).await;
    let next = with(ask(json!([output])), "previous_response_id", id(&first));
    let (status, error) = app.refused(PATH, &next).await;
    assert_eq!((status, &error["param"]), (400, &json!("input[0].call_id")), "it has an output: {error}");
    let (status, error) = app.refused(PATH, &ask(json!([call]))).await;
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains("No tool output found for function call call_1."), "{message}");
    assert_eq!((status, &error["param"]), (400, &json!("input")));
    let items = get(&app, &format!("{PATH}/{}/input_items?order=asc&limit=1", id(&first))).await.1;
    assert_eq!((&items["data"][0]["role"], &items["has_more"]), (&json!("user"), &json!(true)));
    let after = items["last_id"].as_str().expect("an id");
    let rest = get(&app, &format!("{PATH}/{}/input_items?order=asc&after={after}", id(&first))).await.1;
    assert_eq!(
        (&rest["data"][0]["call_id"], rest["data"].as_array().map(Vec::len)),
        (&json!("call_1"), Some(2))
    );
    let (status, error) = app.refused(PATH, &ask(json!([output]))).await;
    assert_eq!((status, &error["param"]), (400, &json!("input[0].call_id")), "{error}");
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_not() {
    let app = TestApp::start().await;
    let answer = app.ask(PATH, &with(ask("Hello"), "store", false)).await;
    assert_eq!(answer["store"], false);
    assert_eq!(get(&app, &format!("{PATH}/{}", id(&answer))).await.0, 404);
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM responses").await, 0);
    let keeps_none = TestApp::start_with(&[("response-retention", "off")]).await;
    let answer = keeps_none.ask(PATH, &ask("Hello")).await;
    assert_eq!(answer["store"], false);
    for name in ["store", "background"] {
        let (status, error) = keeps_none.refused(PATH, &with(ask("Hello"), name, true)).await;
        assert_eq!((status, &error["param"]), (400, &json!(name)), "{error}");
    }
}

#[tokio::test]
async fn answers_are_their_owners_whichever_key_asked_for_them() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, one) = owner.own_key(json!({"name": "one"})).await;
    let (_, two) = owner.own_key(json!({"name": "two"})).await;
    let (other_id, other) = owner.colleague("ada", "user").await;
    let (_, others_key) = other.own_key(json!({"name": "ada's"})).await;
    let kept = one.post(PATH, ask("Hello")).await.json;
    let path = format!("{PATH}/{}", id(&kept));
    assert_eq!(two.get(&path).await.json, kept);
    assert_eq!(owner.get(&path).await.json, kept);
    for stranger in [&other, &others_key, &Api::showing(&app, crate::app::KEY)] {
        assert_eq!(stranger.get(&path).await.number(), (404, 40401));
        assert_eq!(stranger.get(&format!("{path}/input_items")).await.number(), (404, 40401));
        assert_eq!(stranger.post(&format!("{path}/cancel"), json!({})).await.number(), (404, 40401));
        assert_eq!(stranger.delete(&path).await.number(), (404, 40401));
        let goes_on = with(ask("And?"), "previous_response_id", id(&kept));
        assert_eq!(stranger.post(PATH, goes_on).await.number(), (400, 40017));
    }
    // What a deleted user asked for is gone with them.
    others_key.post(PATH, ask("Hello")).await;
    let theirs = format!("SELECT COUNT(*) FROM responses WHERE owner = '{other_id}'");
    assert_eq!(rig::number(&app, &theirs).await, 1);
    assert_eq!(owner.delete(&format!("/admin/users/{other_id}")).await.status, 200);
    assert_eq!(rig::number(&app, &theirs).await, 0);
    assert_eq!(two.get(&path).await.status, 200);
}

#[tokio::test]
async fn what_is_made_in_the_background_is_there_when_it_is_done() {
    let app = TestApp::start().await;
    let whole = app.ask(PATH, &ask("Hello")).await;
    let queued = app.ask(PATH, &with(ask("Hello"), "background", true)).await;
    assert_eq!((&queued["status"], &queued["background"]), (&json!("queued"), &json!(true)));
    let found = over(&app, &id(&queued)).await;
    assert_eq!((&found["status"], text(&found)), (&json!("incomplete"), text(&whole)));
    let tiers = (&whole["service_tier"], &queued["service_tier"], &found["service_tier"]);
    assert_eq!(tiers, (&json!("default"), &json!("flex"), &json!("flex")), "nobody waits for it");
    // It is over: that it is taken back changes nothing.
    let cancelled = app.ask(&format!("{PATH}/{}/cancel", id(&queued)), &json!({})).await;
    assert_eq!(cancelled, found);
    let (status, _) = app.refused(&format!("{PATH}/{}/cancel", id(&whole)), &json!({})).await;
    assert_eq!(status, 400);
    let not_kept = with(with(ask("Hello"), "background", true), "store", false);
    assert_eq!(app.refused(PATH, &not_kept).await.1["param"], "store");
}

#[tokio::test]
async fn what_is_made_in_the_background_goes_on_without_its_client_and_can_be_followed_again() {
    let app = TestApp::start_with(&[("max-running", "1")]).await;
    // Waits behind something long, so that the client is gone before anything is made.
    let mut busy = app.post("/v1/completions", &long(8)).await.bytes_stream();
    read_events(&mut busy, 1).await;
    let body = with(with(ask("Hello"), "background", true), "stream", true);
    let mut stream = app.post(PATH, &body).await.bytes_stream();
    read_events(&mut stream, 2).await;
    drop(stream);
    drop(busy);
    let all = rig::number(&app, "SELECT COUNT(*) FROM responses").await;
    assert_eq!(all, 1);
    let list = rig::store(&app).await;
    drop(list);
    // Its id was in the events that were not read: the same owner finds it by the database.
    let id = crate::rig::text(&app, "SELECT id FROM responses").await;
    let found = over(&app, &id).await;
    assert_eq!(found["status"], "incomplete");
    let again = events(app.get(&format!("{PATH}/{id}?stream=true")).send().await.expect("an answer")).await;
    assert_eq!(names(&again)[..3], ["response.created", "response.queued", "response.in_progress"]);
    assert_eq!(again.last().expect("events")["response"], found);
    let rest = app.get(&format!("{PATH}/{id}?stream=true&starting_after=3")).send().await;
    let rest = rest.expect("an answer").text().await.expect("it is text");
    assert_eq!(rest.matches("event: ").count(), again.len() - 4);
    assert!(rest.contains("\"sequence_number\":4,"));
    let whole = app.ask(PATH, &ask("Hello")).await;
    let (status, error) = get(&app, &format!("{PATH}/{}?stream=true", self::id(&whole))).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("stream")));
}

#[tokio::test]
async fn what_is_taken_back_stops_and_costs_what_was_made() {
    let app = TestApp::start_with(&[("max-running", "1")]).await;
    let mut busy = app.post("/v1/completions", &long(8)).await.bytes_stream();
    read_events(&mut busy, 1).await;
    let waits = app.ask(PATH, &with(ask("Hello"), "background", true)).await;
    let cancelled = app.ask(&format!("{PATH}/{}/cancel", id(&waits)), &json!({})).await;
    assert_eq!((&cancelled["status"], &cancelled["output"]), (&json!("cancelled"), &json!([])));
    assert_eq!(get(&app, &format!("{PATH}/{}", id(&waits))).await.1, cancelled);
    drop(busy);
    app.is_idle_after(2).await;

    // Many at once, each as long as the context allows: some are running when they are taken back.
    let many = join_all((0..24).map(|number| {
        let body = with(ask(format!("Hello {number}")), "background", true);
        let app = &app;
        async move {
            let begun = app.ask(PATH, &with(body, "max_output_tokens", 200)).await;
            app.ask(&format!("{PATH}/{}/cancel", id(&begun)), &json!({})).await
        }
    }));
    let all = many.await;
    assert!(all.iter().any(|response| response["status"] == "cancelled"));
    let figures = app.is_idle_after(2 + 24).await;
    let rows = rows(&app).await;
    let made: i64 = rows.iter().map(|row| row.completion_tokens).sum();
    assert_eq!(u64::try_from(made).expect("no count is negative"), figures.generated_tokens);
    let own = rows.iter().filter(|row| row.endpoint == PATH);
    let told: i64 = all.iter().filter_map(|response| response["usage"]["output_tokens"].as_i64()).sum();
    assert_eq!(own.map(|row| row.completion_tokens).sum::<i64>(), told);
    assert!(rows.iter().any(|row| row.outcome == "cancelled" && row.endpoint == PATH));
}

#[tokio::test]
async fn what_is_deleted_while_it_is_made_stops() {
    let app = TestApp::start_with(&[("max-running", "1")]).await;
    let mut busy = app.post("/v1/completions", &long(8)).await.bytes_stream();
    read_events(&mut busy, 1).await;
    let waits = app.ask(PATH, &with(ask("Hello"), "background", true)).await;
    let path = format!("{PATH}/{}", id(&waits));
    let (status, error) = app.refused(PATH, &with(ask("And?"), "previous_response_id", id(&waits))).await;
    assert_eq!((status, &error["code"]), (409, &json!("state_conflict")), "{error}");
    assert_eq!(error["param"], "previous_response_id");
    let first = format!("msg_{}2710", id(&waits).trim_start_matches("resp_"));
    let (status, error) = app.refused(PATH, &ask(json!([{"type": "item_reference", "id": first}]))).await;
    assert_eq!((status, &error["code"]), (409, &json!("state_conflict")), "{error}");
    assert_eq!(error["param"], "input[0].id");
    let deleted = app.client.delete(format!("{}{path}", app.url)).send().await.expect("an answer");
    assert_eq!(deleted.status(), 200);
    assert_eq!(get(&app, &path).await.0, 404);
    drop(busy);
    app.is_idle_after(2).await;
}

#[tokio::test]
async fn what_another_server_takes_back_is_found_by_the_one_that_makes_it() {
    let app = TestApp::start_with(&[("max-running", "1")]).await;
    let mut busy = app.post("/v1/completions", &long(64)).await.bytes_stream();
    read_events(&mut busy, 1).await;
    let waits = app.ask(PATH, &with(ask("Hello"), "background", true)).await;
    rig::execute(&app, "UPDATE responses SET status = 'cancelled', beat_at = NULL").await;
    let found = get(&app, &format!("{PATH}/{}", id(&waits))).await.1;
    assert_eq!(found["status"], "cancelled");
    let ended = app.auth.responses_go_on(&[id(&waits)]).await.expect("it writes");
    assert_eq!(ended, [id(&waits)]);
}

#[tokio::test]
async fn what_nobody_makes_any_more_has_failed_and_what_is_old_goes() {
    let clock: Clock = rig::start();
    let app = TestApp::start_by(&[("response-retention", "2d")], clock).await;
    let first = app.ask(PATH, &ask("Hello")).await;
    let path = format!("{PATH}/{}", id(&first));
    rig::execute(&app, "UPDATE responses SET status = 'in_progress', beat_at = created_at").await;
    assert_eq!(get(&app, &path).await.1["status"], "in_progress");
    app.auth.clock().advance(Duration::from_secs(61));
    let lost = get(&app, &path).await.1;
    assert_eq!((&lost["status"], &lost["error"]["code"]), (&json!("failed"), &json!("server_error")));
    app.auth.sweep_responses().await.expect("it writes");
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM responses WHERE status = 'failed'").await, 1);

    // Whoever goes on from it keeps it.
    app.auth.clock().advance(Duration::from_secs(24 * 3600));
    let second = app.ask(PATH, &with(ask("And?"), "previous_response_id", id(&first))).await;
    let alone = app.ask(PATH, &ask("Alone")).await;
    app.auth.clock().advance(Duration::from_secs(36 * 3600));
    app.auth.sweep_responses().await.expect("it writes");
    assert_eq!(get(&app, &path).await.0, 200);
    app.auth.clock().advance(Duration::from_secs(24 * 3600));
    for gone in [&first, &second, &alone] {
        assert_eq!(get(&app, &format!("{PATH}/{}", id(gone))).await.0, 404);
    }
    app.auth.sweep_responses().await.expect("it writes");
    assert_eq!(rig::number(&app, "SELECT COUNT(*) FROM responses").await, 0);
}

#[tokio::test]
async fn every_parameter_is_honoured_or_refused_by_its_name() {
    let app = TestApp::start().await;
    let shown = |name: &'static str, value: Value| {
        let app = &app;
        async move { app.ask(PATH, &with(ask("Hello"), name, value)).await[name].clone() }
    };
    for (name, value) in [
        ("metadata", json!({"job": "nightly"})),
        ("user", json!("ada")),
        ("safety_identifier", json!("ada")),
        ("prompt_cache_key", json!("mine")),
        ("instructions", json!("Be brief.")),
        ("truncation", json!("disabled")),
        ("truncation", json!("auto")),
        ("parallel_tool_calls", json!(false)),
        ("temperature", json!(0.9)),
        ("top_p", json!(0.1)),
        ("max_tool_calls", json!(3)),
        ("service_tier", json!("flex")),
        ("prompt_cache_key", json!("k".repeat(512))),
    ] {
        assert_eq!(shown(name, value.clone()).await, value, "{name}");
    }
    assert_eq!(shown("service_tier", json!("auto")).await, "default");
    for (name, value, param) in [
        ("conversation", json!("conv_1"), "conversation"),
        ("prompt", json!({"id": "pmpt_1"}), "prompt"),
        ("truncation", json!("always"), "truncation"),
        ("service_tier", json!("scale"), "service_tier"),
        ("metadata", json!({"": "x"}), "metadata"),
        ("safety_identifier", json!("s".repeat(65)), "safety_identifier"),
        ("prompt_cache_key", json!("k".repeat(513)), "prompt_cache_key"),
        ("include", json!(["file_search_call.results"]), "include[0]"),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type"),
        ("text", json!({"verbosity": "low"}), "text.verbosity"),
        ("reasoning", json!({"summary": "concise"}), "reasoning.summary"),
        ("max_output_tokens", json!(0), "max_output_tokens"),
        ("temperature", json!(3), "temperature"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("metadata", json!({"k": 1}), "metadata"),
        ("stream_options", json!({"include_obfuscation": false}), "stream_options"),
        ("input", json!(7), "input"),
        ("max_tokens", json!(7), "max_tokens"),
        ("nonsense", json!(1), "nonsense"),
    ] {
        let (status, error) = app.refused(PATH, &with(ask("Hello"), name, value.clone())).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{name} {value}: {error}");
    }
}

#[tokio::test]
async fn a_conversation_that_is_too_long_loses_its_oldest_turns_where_it_may() {
    let app = TestApp::start().await;
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let turn =
        |number: usize| [said("user", &format!("{number} {}", "word ".repeat(5))), said("assistant", "Yes.")];
    let talk = |turns: std::ops::Range<usize>| -> Value {
        let rules = [said("developer", "Be good.")];
        rules.into_iter().chain(turns.flat_map(turn)).chain([said("user", "Well?")]).collect()
    };
    let asked = with(ask(talk(0..40)), "instructions", "Be brief.");
    let (status, error) = app.refused(PATH, &asked).await;
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    let cut = app.ask(PATH, &with(asked.clone(), "truncation", "auto")).await;
    assert_eq!(cut["truncation"], "auto");
    let tokens = cut["usage"]["input_tokens"].as_u64().expect("a count");
    assert!(tokens <= 256 - 8, "there is room for the answer: {tokens}");
    // As if only so much had been sent: a turn more would be too much.
    let mut first = 39;
    let shorter = loop {
        let shorter = app
            .ask(PATH, &with(with(ask(talk(first..40)), "instructions", "Be brief."), "store", false))
            .await;
        if shorter["usage"]["input_tokens"] == tokens {
            break shorter;
        }
        first -= 1;
    };
    assert_eq!(text(&shorter), text(&cut));
    let count = |turns| {
        with(
            with(json!({"model": CHAT, "input": talk(turns)}), "instructions", "Be brief."),
            "truncation",
            "disabled",
        )
    };
    let longer = app.post("/v1/responses/input_tokens", &count(first - 1..40)).await;
    let longer: Value = longer.json().await.expect("it is JSON");
    assert!(longer["input_tokens"].as_u64().is_none_or(|longer| longer > 256 - 8), "{longer}");
    // What was sent is kept whole, and may be gone on from.
    let items = get(&app, &format!("{PATH}/{}/input_items?limit=100", id(&cut))).await.1;
    assert_eq!(items["data"].as_array().map(Vec::len), Some(82));
    let next = with(ask("And?"), "previous_response_id", id(&cut));
    assert_eq!(app.refused(PATH, &next).await.1["code"], "context_length_exceeded");
    app.ask(PATH, &with(next, "truncation", "auto")).await;
    // Nothing can go of what is said last.
    let (status, error) = app.refused(PATH, &with(ask("word ".repeat(400)), "truncation", "auto")).await;
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_charged() {
    let app = TestApp::start().await;
    let first = app.ask(PATH, &ask("One")).await;
    let next = with(ask("Two"), "previous_response_id", id(&first));
    let second = app.ask(PATH, &with(next, "instructions", "Count.")).await;
    let question =
        json!({"model": CHAT, "input": "Two", "instructions": "Count.", "previous_response_id": id(&first)});
    let counted = app.ask("/v1/responses/input_tokens", &question).await;
    let tokens = second["usage"]["input_tokens"].clone();
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": tokens}));
    let (status, error) =
        app.refused("/v1/responses/input_tokens", &with(question, "personality", "kind")).await;
    assert_eq!((status, &error["param"]), (400, &json!("personality")));
}

#[tokio::test]
async fn log_probabilities_come_with_the_text() {
    let app = TestApp::start().await;
    let answer = app.ask(PATH, &with(ask("Hello"), "top_logprobs", 2)).await;
    let tokens = answer["output"][0]["content"][0]["logprobs"].as_array().expect("tokens").clone();
    assert_eq!(tokens.len(), 8);
    assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().map(Vec::len) == Some(2)));
    let asked = with(ask("Hello"), "include", json!(["message.output_text.logprobs"]));
    let events = events(app.post(PATH, &with(asked, "stream", true)).await).await;
    let told = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    let told: usize = told.filter_map(|event| event["logprobs"].as_array().map(Vec::len)).sum();
    assert_eq!(told, 8);
}

#[tokio::test]
async fn one_owner_may_have_so_many_made_in_the_background_and_waits_for_those_who_wait() {
    // Room for 16 in the background, a quarter of it for each.
    let app = TestApp::start_with(&[("max-running", "1"), ("max-waiting", "32")]).await;
    let mut busy = app.post("/v1/completions", &long(8)).await.bytes_stream();
    read_events(&mut busy, 1).await;
    let in_background = with(ask("Hello"), "background", true);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(app.ask(PATH, &in_background).await);
    }
    let refused = app.post(PATH, &in_background).await;
    assert!(refused.headers().contains_key("retry-after"));
    let (status, error) = crate::app::read_error(refused).await;
    assert_eq!((status, &error["param"]), (429, &json!("background")), "{error}");
    // Another has room, and so has who waits: they are served before what was there before them.
    let owner = Api::owner(&app).await;
    assert_eq!(owner.post(PATH, in_background.clone()).await.status, 200);
    drop(busy);
    let waited_for = app.ask(PATH, &ask("Who is there?")).await;
    assert_eq!(waited_for["status"], "incomplete");
    for begun in &all {
        assert_eq!(over(&app, &id(begun)).await["status"], "incomplete");
    }
    app.ask(PATH, &in_background).await;
}

#[tokio::test]
async fn what_waits_in_the_background_waits_as_long_as_it_must() {
    let app = TestApp::start_with(&[("max-running", "1"), ("request-timeout", "1s")]).await;
    let mut busy = app.post("/v1/completions", &long(1)).await.bytes_stream();
    read_events(&mut busy, 1).await;
    let waits = app.ask(PATH, &with(ask("Hello"), "background", true)).await;
    // Others who wait come first, one after the other, for longer than a request may take.
    let begun = std::time::Instant::now();
    let first = async {
        while begun.elapsed() < Duration::from_millis(1_500) {
            app.post("/v1/completions", &long(1)).await.bytes().await.expect("it is read");
        }
    };
    let second = async {
        while begun.elapsed() < Duration::from_millis(1_500) {
            app.post("/v1/completions", &long(1)).await.bytes().await.expect("it is read");
        }
    };
    futures_util::future::join(first, second).await;
    drop(busy);
    assert_eq!(over(&app, &id(&waits)).await["status"], "incomplete");
}

#[tokio::test]
async fn what_is_too_large_to_be_kept_is_refused_before_it_costs_anything() {
    let app = TestApp::start().await;
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "y"});
    let large = "x".repeat(sconce::auth::responses::MOST_BYTES);
    let mut body = ask(json!([call, output, {"role": "user", "content": large}]));
    let (status, error) = app.refused(PATH, &body).await;
    assert_eq!((status, &error["param"]), (400, &json!("input")), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("store: false")), "{error}");
    body["input"] = json!("x");
    let (status, error) = app.refused(PATH, &with(body, "instructions", large)).await;
    assert_eq!((status, &error["param"]), (400, &json!("instructions")), "{error}");
    assert!(rows(&app).await.is_empty(), "nothing was asked of the engine");
}

#[tokio::test]
async fn what_is_shown_again_may_be_asked_for_as_clients_ask() {
    let app = TestApp::start().await;
    let first = app.ask(PATH, &ask("One")).await;
    let path = format!("{PATH}/{}", id(&first));
    let included = "include%5B%5D=message.output_text.logprobs&include[]=reasoning.encrypted_content";
    assert_eq!(
        get(&app, &format!("{path}?{included}&include_obfuscation=false")).await,
        (200, first.clone())
    );
    let items = get(&app, &format!("{path}/input_items?{included}&limit=1")).await;
    assert_eq!((items.0, items.1["data"].as_array().map(Vec::len)), (200, Some(1)));
    for (query, param) in [
        ("include[]=file_search_call.results", "include[]"),
        ("include_obfuscation=true", "include_obfuscation"),
        ("colour=red", "colour"),
    ] {
        let (status, body) = get(&app, &format!("{path}?{query}")).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!(param)), "{body}");
    }
    // There need be nothing new to say.
    let mut next = with(ask("x"), "previous_response_id", id(&first));
    next["input"] = json!([]);
    let empty = app.ask(PATH, &next).await;
    next.as_object_mut().expect("an object").remove("input");
    assert_eq!(text(&app.ask(PATH, &next).await), text(&empty));
    next.as_object_mut().expect("an object").remove("previous_response_id");
    assert_eq!(app.refused(PATH, &next).await.1["param"], "input");
    let said = |text: &str| json!({"role": "user", "content": text, "id": "msg_1"});
    let (status, error) = app.refused(PATH, &ask(json!([said("a"), said("b")]))).await;
    assert_eq!((status, &error["param"]), (400, &json!("input[1].id")), "{error}");
}
