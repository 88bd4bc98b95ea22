//! Ollama's URLs, as its clients use them.

use reqwest::Response;
use serde_json::{Value, json};

use crate::altered::{coder, named};
use crate::app::{CHAT, EMBED, TestApp, golden, read_error, with};

pub fn chat(content: &str) -> Value {
    json!({"model": CHAT, "messages": [{"role": "user", "content": content}], "stream": false,
        "options": {"temperature": 0, "num_predict": 24}})
}

fn generate(prompt: &str) -> Value {
    json!({"model": CHAT, "prompt": prompt, "stream": false, "options": {"temperature": 0, "num_predict": 24}})
}

async fn lines(app: &TestApp, path: &str, body: &Value) -> Vec<Value> {
    let response = app.post(path, body).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.expect("it is text");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// Status and text of a refusal, after checking its shape.
pub async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("it is JSON");
    let names: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["error"], "{body}");
    (status, body["error"].as_str().expect("a text").to_owned())
}

#[tokio::test]
async fn a_conversation_is_answered_whole_and_in_lines() {
    let app = TestApp::start().await;
    let whole = app.ask("/api/chat", &chat("one two")).await;
    assert_eq!((&whole["model"], &whole["done"]), (&json!(CHAT), &json!(true)));
    assert_eq!(whole["message"]["role"], "assistant");
    let mut body = chat("one two");
    body.as_object_mut().expect("an object").remove("stream");
    let lines = lines(&app, "/api/chat", &body).await;
    let text: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!(text, whole["message"]["content"].as_str().expect("a text"));
    let (last, before) = lines.split_last().expect("there are lines");
    assert!(
        before.iter().all(|line| line["done"] == false && line.get("eval_count").is_none()),
        "{before:?}"
    );
    for name in ["done_reason", "prompt_eval_count", "eval_count"] {
        assert_eq!(last[name], whole[name], "{name}");
    }
    for answer in [last, &whole] {
        let of = |name: &str| answer[name].as_u64().unwrap_or_else(|| panic!("no `{name}`: {answer}"));
        let parts = of("load_duration") + of("prompt_eval_duration") + of("eval_duration");
        assert!(of("eval_duration") > 0 && of("prompt_eval_duration") > 0, "{answer}");
        assert!(parts <= of("total_duration"), "{answer}");
    }
}

#[tokio::test]
async fn a_prompt_is_answered_in_a_conversation_or_as_it_is() {
    let app = TestApp::start().await;
    let asked = app.ask("/api/generate", &generate("one two")).await;
    assert_eq!(asked["response"], app.ask("/api/chat", &chat("one two")).await["message"]["content"]);
    let raw = app.ask("/api/generate", &with(generate("one two"), "raw", true)).await;
    let completion = json!({"model": CHAT, "prompt": "one two", "temperature": 0, "max_tokens": 24});
    let completion = app.ask("/v1/completions", &completion).await;
    assert_eq!(raw["response"], completion["choices"][0]["text"]);
    assert_eq!(raw["prompt_eval_count"], completion["usage"]["prompt_tokens"]);
    let system = app.ask("/api/generate", &with(generate("one two"), "system", "three")).await;
    assert!(system["prompt_eval_count"].as_u64() > asked["prompt_eval_count"].as_u64());
    let streamed = lines(&app, "/api/generate", &with(generate("one two"), "stream", true)).await;
    let text: String = streamed.iter().filter_map(|line| line["response"].as_str()).collect();
    assert_eq!(text, asked["response"].as_str().expect("a text"));
}

#[tokio::test]
async fn options_have_their_effect() {
    let app = TestApp::start().await;
    let option = |name: &str, value: Value| {
        let mut body = generate("one two");
        body["options"][name] = value;
        body
    };
    let free = app.ask("/api/generate", &generate("one two")).await;
    let text = free["response"].as_str().expect("a text").to_owned();
    let cut = app.ask("/api/generate", &option("num_predict", json!(3))).await;
    assert_eq!((&cut["eval_count"], &cut["done_reason"]), (&json!(3), &json!("length")));
    let half = text.char_indices().nth(text.chars().count() / 2).expect("it is long enough").0;
    let stop: String = text[half..].chars().take(3).collect();
    let stopped = app.ask("/api/generate", &option("stop", json!([stop]))).await;
    assert_eq!(stopped["response"].as_str(), text.split(&stop).next());
    let mut warm = option("temperature", json!(1.5));
    let mut seeded = async |seed: u64| {
        warm["options"]["seed"] = json!(seed);
        app.ask("/api/generate", &warm).await["response"].clone()
    };
    let (one, same, other) = (seeded(1).await, seeded(1).await, seeded(2).await);
    assert!(one == same && one != other, "{one} {same} {other}");
    let told =
        app.ask("/api/generate", &with(with(generate("one two"), "logprobs", true), "top_logprobs", 2)).await;
    let first = &told["logprobs"][0];
    assert_eq!(first["top_logprobs"].as_array().map(Vec::len), Some(2), "{first}");
    assert_eq!(first["top_logprobs"][0]["token"], first["token"]);
}

#[tokio::test]
async fn what_curl_sends_is_taken_and_what_a_page_of_another_site_has_sent_is_not() {
    let app = TestApp::start_with(&[("allowed-origin", "https://console.example")]).await;
    let send = async |headers: &[(&str, &str)]| {
        let mut request = app.client.post(format!("{}/api/chat", app.url)).body(chat("one").to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer").status().as_u16()
    };
    let form = ("content-type", "application/x-www-form-urlencoded");
    for headers in [
        &[][..],
        &[form],
        &[("content-type", "text/plain")],
        &[form, ("origin", "https://console.example")],
        &[form, ("origin", app.url.as_str())],
        &[form, ("sec-fetch-site", "same-origin")],
    ] {
        assert_eq!(send(headers).await, 200, "{headers:?}");
    }
    for headers in [
        &[form, ("origin", "https://evil.example")][..],
        &[form, ("origin", "null")],
        &[form, ("sec-fetch-site", "cross-site")],
        &[("content-type", "application/json"), ("origin", "https://evil.example")],
    ] {
        assert_eq!(send(headers).await, 403, "{headers:?}");
    }
    let elsewhere =
        app.client.post(format!("{}/v1/chat/completions", app.url)).header(form.0, form.1).body("{}");
    assert_eq!(elsewhere.send().await.expect("an answer").status(), 415);
}

#[tokio::test]
async fn what_is_usual_there_may_be_said() {
    let app = TestApp::start().await;
    let usual = app.ask("/api/chat", &chat("one two")).await["message"].clone();
    let mut body = with(with(chat("one two"), "truncate", true), "shift", true);
    body["options"]["repeat_last_n"] = json!(64);
    assert_eq!(app.ask("/api/chat", &body).await["message"], usual);
    // Prompt and answer have so much room together.
    let prompt = app.ask("/api/chat", &chat("one two")).await["prompt_eval_count"].as_u64().expect("a count");
    body["options"] = json!({"temperature": 0, "num_ctx": prompt + 3});
    let cut = app.ask("/api/chat", &body).await;
    assert_eq!((&cut["eval_count"], &cut["done_reason"]), (&json!(3), &json!("length")));
    body["options"] = json!({"num_ctx": prompt});
    assert_eq!(refusal(app.post("/api/chat", &body).await).await.0, 400);
}

#[tokio::test]
async fn a_text_that_is_too_long_to_be_embedded_is_cut() {
    let app = TestApp::start().await;
    let long = "word ".repeat(5_000);
    let embed = |text: &str| json!({"model": EMBED, "input": text});
    let cut = app.ask("/api/embed", &with(embed(&long), "truncate", true)).await;
    assert_eq!(app.ask("/api/embed", &embed(&long)).await["embeddings"], cut["embeddings"], "it is usual");
    // What is behind the cut makes no difference.
    assert_eq!(app.ask("/api/embed", &embed(&format!("{long} end"))).await["embeddings"], cut["embeddings"]);
    assert_ne!(app.ask("/api/embed", &embed("word")).await["embeddings"], cut["embeddings"]);
    assert_eq!(refusal(app.post("/api/embed", &with(embed(&long), "truncate", false)).await).await.0, 400);
    let none = app.ask("/api/embeddings", &json!({"model": EMBED, "prompt": ""})).await;
    assert_eq!(none, json!({"embedding": []}));
}

#[tokio::test]
async fn texts_are_embedded_as_elsewhere() {
    let app = TestApp::start().await;
    let usual = app.ask("/v1/embeddings", &json!({"model": EMBED, "input": ["one", "two"]})).await;
    let embedded =
        app.ask("/api/embed", &json!({"model": EMBED, "input": ["one", "two"], "truncate": false})).await;
    for number in 0..2 {
        assert_eq!(embedded["embeddings"][number], usual["data"][number]["embedding"]);
    }
    assert_eq!(embedded["prompt_eval_count"], usual["usage"]["prompt_tokens"]);
    let one = app.ask("/api/embed", &json!({"model": EMBED, "input": "one"})).await;
    assert_eq!(one["embeddings"].as_array().map(Vec::len), Some(1));
    let older = app.ask("/api/embeddings", &json!({"model": EMBED, "prompt": "one"})).await;
    assert_eq!(older["embedding"], one["embeddings"][0]);
    let none = app.ask("/api/embed", &json!({"model": EMBED, "input": []})).await;
    assert_eq!(none["embeddings"], json!([]));
}

#[tokio::test]
async fn a_gap_is_filled_by_a_model_that_can() {
    let coder = coder();
    let thinker = format!("thinker={}", golden("qwen3").display());
    let app = TestApp::start_with(&[("model", &named("coder", &coder)), ("model", &thinker)]).await;
    let shown = app.ask("/api/show", &json!({"model": "coder"})).await;
    assert_eq!(shown["capabilities"], json!(["completion", "insert"]));
    let shown = app.ask("/api/show", &json!({"model": "thinker"})).await;
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));

    let body = with(with(generate("fn main() {"), "model", "coder"), "suffix", "}");
    let filled = app.ask("/api/generate", &body).await;
    let openai =
        json!({"model": "coder", "prompt": "fn main() {", "suffix": "}", "temperature": 0, "max_tokens": 24});
    let expected = app.ask("/v1/completions", &openai).await;
    assert_eq!(filled["response"], expected["choices"][0]["text"]);
    assert_eq!(filled["prompt_eval_count"], expected["usage"]["prompt_tokens"]);
    let only_after = app.ask("/api/generate", &with(body.clone(), "prompt", "")).await;
    assert!(only_after["prompt_eval_count"].as_u64() < filled["prompt_eval_count"].as_u64(), "{only_after}");
    let (status, message) = refusal(app.post("/api/generate", &with(body, "system", "x")).await).await;
    assert!(status == 400 && message.contains("`system`"), "{message}");
}

#[tokio::test]
async fn errors_are_one_text_wherever_they_come_from() {
    let app = TestApp::start().await;
    let with_option = |name: &str, value: Value| {
        let mut body = chat("x");
        body["options"][name] = value;
        body
    };
    for (path, body, status, said) in [
        ("/api/chat", json!({}), 400, "`model`"),
        ("/api/chat", json!([]), 400, "object"),
        ("/api/chat", with(chat("x"), "model", "nobody"), 404, "nobody"),
        ("/api/chat", with(chat("x"), "model", EMBED), 400, EMBED),
        ("/api/chat", with(chat("x"), "truncate", 1), 400, "`truncate`"),
        ("/api/chat", with(chat("x"), "colour", "red"), 400, "`colour`"),
        ("/api/chat", with(chat("x"), "keep_alive", json!([])), 400, "`keep_alive`"),
        ("/api/chat", with(chat("x"), "keep_alive", "bogus"), 400, "`keep_alive`"),
        ("/api/chat", with_option("num_ctx", json!(257)), 400, "`options.num_ctx`"),
        ("/api/chat", with_option("mirostat", json!(1)), 400, "`options.mirostat`"),
        ("/api/chat", with_option("warmth", json!(1)), 400, "`options.warmth`"),
        ("/api/generate", with(generate("x"), "images", json!(["x"])), 400, "`images`"),
        ("/api/generate", with(generate("x"), "template", "x"), 400, "`template`"),
        ("/api/generate", with(generate("x"), "suffix", "x"), 400, "`suffix`"),
        ("/api/generate", with(generate("x"), "context", json!([1])), 400, "`context`"),
        ("/api/generate", with(generate(&"word ".repeat(600)), "raw", true), 400, "256"),
        ("/api/embed", json!({"model": EMBED, "input": "x", "truncate": "yes"}), 400, "`truncate`"),
        ("/api/embed", json!({"model": EMBED, "input": "x", "dimensions": 1}), 400, "`dimensions`"),
        ("/api/embed", json!({"model": EMBED, "input": [7]}), 400, "`input`"),
        ("/api/embed", json!({"model": CHAT, "input": "x"}), 400, CHAT),
        ("/api/embeddings", json!({"model": EMBED}), 400, "`prompt`"),
        ("/api/show", json!({"model": "nobody"}), 404, "nobody"),
        ("/api/pull", json!({"model": "x"}), 404, "/api/v1/admin/models"),
        ("/api/delete", json!({"model": "x"}), 404, "/api/v1/admin/models"),
        ("/api/blobs/sha256:00", json!({}), 404, "/api/v1/admin/models"),
    ] {
        let (got, error) = refusal(app.post(path, &body).await).await;
        assert_eq!(got, status, "{path} {body:.200}: {error}", body = body.to_string());
        assert!(error.contains(said), "{path} {body:.200}: {error}", body = body.to_string());
    }
    assert_eq!(refusal(app.get("/api/chat").send().await.expect("an answer")).await.0, 405);
    let broken =
        app.client.post(format!("{}/api/chat", app.url)).header("content-type", "application/json").body("{");
    assert_eq!(refusal(broken.send().await.expect("an answer")).await.0, 400);
}

#[tokio::test]
async fn keys_are_asked_for() {
    let app = TestApp::start().await.without_key();
    for path in ["/api/tags", "/api/ps", "/api/version"] {
        assert_eq!(refusal(app.get(path).send().await.expect("an answer")).await.0, 401, "{path}");
    }
    for path in ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"] {
        assert_eq!(refusal(app.post(path, &json!({})).await).await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn it_is_spoken_if_it_is_wanted() {
    let app = TestApp::start_with(&[("ollama", "off")]).await;
    assert_eq!(refusal(app.get("/api/tags").send().await.expect("an answer")).await.0, 404);
    assert_eq!(read_error(app.get("/").send().await.expect("an answer")).await.0, 404);
    assert_eq!(refusal(app.post("/api/chat", &chat("x")).await).await.0, 404);
    let document: Value =
        app.get("/api/v1/openapi.json").send().await.expect("an answer").json().await.expect("it is JSON");
    assert!(document["paths"].get("/api/chat").is_none(), "what is not served is not described");
}
