//! In which order things are told, and what is shown in the end.

use super::*;
use crate::generate::TextToken;

fn request(body: Value) -> ResponseRequest {
    let mut whole = json!({"model": "m", "input": "x"});
    for (name, value) in body.as_object().expect("an object") {
        whole[name] = value.clone();
    }
    ResponseRequest::read(whole).expect("it is right")
}

fn made(request: &ResponseRequest, events: Vec<GenerationEvent>) -> (Maker, Vec<Value>) {
    let effective = Effective { temperature: 1.0, top_p: 0.9, service_tier: "flex" };
    let mut request = request.clone();
    request.stream = true;
    let mut maker = Maker::new("resp_1", &request, effective, true);
    maker.announce();
    events.into_iter().for_each(|event| maker.take(event));
    let events = maker.events();
    (maker, events)
}

fn names(events: &[Value]) -> Vec<&str> {
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).map(Some).collect::<Vec<_>>());
    events
        .iter()
        .map(|event| event["type"].as_str().expect("a name").trim_start_matches("response."))
        .collect()
}

fn text(text: &str) -> GenerationEvent {
    GenerationEvent::Text { choice: 0, text: text.to_owned(), tokens: Vec::<TextToken>::new() }
}

fn thought(text: &str) -> GenerationEvent {
    GenerationEvent::Reasoning { choice: 0, text: text.to_owned(), tokens: Vec::new() }
}

fn end(reason: EndReason) -> [GenerationEvent; 2] {
    let usage = Usage {
        prompt_tokens: 3,
        cached_tokens: 1,
        completion_tokens: 4,
        reasoning_tokens: 2,
        ..Usage::default()
    };
    [GenerationEvent::Ended { choice: 0, reason }, GenerationEvent::Done { usage }]
}

fn started() -> GenerationEvent {
    GenerationEvent::Started { choices: 0..1, usage: Usage::default() }
}

#[test]
fn a_text_is_told_in_the_sdks_order() {
    let mut given = vec![started(), text("Hel"), text("lo")];
    given.extend(end(EndReason::Stop));
    let (maker, events) = made(&request(json!({})), given);
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(names(&events), expected);
    assert_eq!(events[9]["response"], maker.body());
    let body = maker.body();
    assert_eq!(
        (&body["status"], &body["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("Hello"))
    );
    assert_eq!(body["usage"]["total_tokens"], 7);
    assert_eq!(events[2]["item"]["content"], json!([]));
    assert!(events[3..8].iter().all(|event| event["item_id"] == body["output"][0]["id"]));
}

#[test]
fn thoughts_calls_and_words_are_items_of_their_own() {
    let call = |number: u32| GenerationEvent::ToolCallBegun {
        choice: 0,
        call: number,
        id: format!("call_{number}"),
        name: "f".to_owned(),
    };
    let arguments =
        |call, text: &str| GenerationEvent::ToolCallArguments { choice: 0, call, text: text.to_owned() };
    let given = || {
        let mut given =
            vec![started(), thought("Hm"), thought("."), call(0), arguments(0, "{"), arguments(0, "}")];
        given.extend([call(1), arguments(1, "{}")]);
        given.extend(end(EndReason::ToolCalls));
        given
    };
    let (maker, events) = made(&request(json!({})), given());
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(names(&events), expected);
    let output = maker.body()["output"].clone();
    assert_eq!(output[0]["content"][0]["text"], "Hm.");
    assert_eq!((&output[1]["arguments"], &output[2]["call_id"]), (&json!("{}"), &json!("call_1")));

    let asked = json!({"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]});
    let (maker, events) = made(&request(asked), given());
    assert_eq!(
        names(&events)[2..9],
        [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done"
        ]
    );
    let thought = maker.body()["output"][0].clone();
    assert_eq!(thought["summary"], json!([{"type": "summary_text", "text": "Hm."}]));
    assert_eq!(thought["encrypted_content"], carried("Hm."));
}

#[test]
fn what_is_cut_breaks_or_is_taken_back_says_so() {
    let mut given = vec![started(), text("Hel")];
    given.extend(end(EndReason::Length));
    let (maker, events) = made(&request(json!({"max_output_tokens": 1})), given);
    assert_eq!(names(&events).last(), Some(&"incomplete"));
    let body = maker.body();
    assert_eq!(body["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!((&body["output"][0]["status"], &body["completed_at"]), (&json!("incomplete"), &Value::Null));

    let (mut maker, _) = made(&request(json!({"background": true})), vec![started(), text("Hel")]);
    maker.fail(&ApiError::of(Code::EngineLost));
    assert_eq!(maker.events().last().expect("events")["type"], "response.failed");
    assert_eq!(maker.body()["error"]["code"], "server_error");

    let (mut maker, events) = made(&request(json!({"background": true})), vec![started(), text("Hel")]);
    assert_eq!(names(&events)[..3], ["created", "queued", "in_progress"]);
    maker.cancel(Usage::default());
    assert_eq!(maker.body()["status"], "cancelled");
    assert_eq!(maker.events().last().expect("events")["type"], "error");
}

#[test]
fn numbers_are_shown_as_they_were_sent() {
    let sent = json!({"temperature": 0.9, "max_tool_calls": 3});
    let body = made(&request(sent), Vec::new()).0.body();
    assert_eq!((&body["temperature"], &body["top_p"]), (&json!(0.9), &json!(0.9)));
    assert_eq!((&body["max_tool_calls"], &body["service_tier"]), (&json!(3), &json!("flex")));
    let defaults = GenerationDefaults { temperature: Some(0.6), ..GenerationDefaults::default() };
    let effective = Effective::of(&defaults, "default");
    assert_eq!((json!(effective.temperature), json!(effective.top_p)), (json!(0.6), json!(1.0)));
}

#[test]
fn what_was_not_kept_says_so_wherever_its_end_is_told() {
    let mut given = vec![started(), text("Hel")];
    given.extend(end(EndReason::Stop));
    let (mut maker, _) = made(&request(json!({})), Vec::new());
    given.into_iter().for_each(|event| maker.take(event));
    maker.is_not_kept();
    let events = maker.events();
    assert_eq!(events.last().expect("events")["response"], maker.body());
    assert_eq!(maker.body()["store"], false);
}

#[test]
fn an_answer_of_nothing_is_an_empty_message() {
    let mut given = vec![started()];
    given.extend(end(EndReason::Stop));
    let (maker, _) = made(&request(json!({})), given);
    assert_eq!(maker.body()["output"][0]["content"][0]["text"], "");
}
