//! `/v1/rerank`, `/v2/rerank` and `/v1/score` against the reference's own scores, and what is refused.

use serde_json::{Value, json};

use crate::altered::{alter, copied, named};
use crate::api::Api;
use crate::app::{CHAT, EMBED, TestApp, answers, golden, with};

const RANK: &str = "tiny-rank";
const PATH: &str = "/v1/rerank";

async fn start() -> TestApp {
    let model = format!("{RANK}={}", golden("bert_cross_encoder").display());
    TestApp::start_with(&[("model", &model)]).await
}

/// Query, document and score of the reference; no empty texts.
fn pairs() -> Vec<(String, String, f64)> {
    let golden = answers("bert_cross_encoder");
    let text = |pair: &Value, name: &str| pair[name].as_str().unwrap_or_default().to_owned();
    let pairs = golden["pairs"].as_array().expect("pairs").iter().map(|pair| {
        (text(pair, "query"), text(pair, "document"), pair["sigmoid"].as_f64().expect("a number"))
    });
    pairs.filter(|(query, document, _)| !query.is_empty() && !document.is_empty()).collect()
}

fn near(found: &Value, expected: f64) {
    let found = found.as_f64().expect("a number");
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
}

#[tokio::test]
async fn scores_are_the_references() {
    let app = start().await;
    let pairs = pairs();
    assert!(pairs.len() > 4);
    let queries: Vec<&String> = pairs.iter().map(|(query, _, _)| query).collect();
    let documents: Vec<&String> = pairs.iter().map(|(_, document, _)| document).collect();
    let older = json!({"model": RANK, "text_1": queries, "text_2": documents});
    let newer = json!({"model": RANK, "queries": queries, "documents": documents});
    for body in [older, newer] {
        let answer = app.ask("/v1/score", &body).await;
        assert_eq!((answer["object"].as_str(), answer["model"].as_str()), (Some("list"), Some(RANK)));
        for (index, (_, _, score)) in pairs.iter().enumerate() {
            let found = &answer["data"][index];
            assert_eq!(
                (found["index"].as_u64(), found["object"].as_str()),
                (Some(index as u64), Some("score"))
            );
            near(&found["score"], *score);
        }
    }
    let (query, document, score) = &pairs[0];
    let body = json!({"model": RANK, "text_1": query, "text_2": document});
    near(&app.ask("/v1/score", &body).await["data"][0]["score"], *score);
}

#[tokio::test]
async fn documents_come_best_first_and_cut_to_what_was_asked_for() {
    let app = start().await;
    let golden = pairs();
    let (query, _, _) = &golden[0];
    let documents: Vec<&String> = golden.iter().take(4).map(|(_, document, _)| document).collect();
    let body = json!({"model": RANK, "query": query, "documents": documents});
    let scored = app.ask("/v1/score", &json!({"model": RANK, "text_1": query, "text_2": documents})).await;
    let score = |index: u64| scored["data"][index as usize]["score"].as_f64().expect("a number");
    let answer = app.ask(PATH, &body).await;
    let results = answer["results"].as_array().expect("results");
    let order: Vec<u64> = results.iter().map(|result| result["index"].as_u64().expect("a place")).collect();
    assert_eq!(order.len(), 4);
    assert!(order.windows(2).all(|pair| score(pair[0]) >= score(pair[1])), "{answer}");
    for result in results {
        near(&result["relevance_score"], score(result["index"].as_u64().expect("a place")));
        assert!(result.get("document").is_none(), "{result}");
    }
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("rerank-")));
    assert_eq!(answer["usage"]["total_tokens"], scored["usage"]["total_tokens"]);

    let cut = app.ask("/v2/rerank", &with(body.clone(), "top_n", 2)).await;
    assert_eq!(cut["results"], json!([results[0], results[1]]));
    let shown = app.ask(PATH, &with(body.clone(), "return_documents", true)).await;
    for result in shown["results"].as_array().expect("results") {
        let index = result["index"].as_u64().expect("a place") as usize;
        assert_eq!(result["document"], json!({"text": documents[index]}));
    }
    let objects: Vec<Value> = documents.iter().map(|text| json!({"text": text, "page": 7})).collect();
    let body = with(with(body, "documents", json!(objects)), "return_documents", true);
    let answer = app.ask(PATH, &body).await;
    assert_eq!(answer["results"][0]["index"], order[0]);
    assert_eq!(answer["results"][0]["document"]["page"], 7);
}

#[tokio::test]
async fn a_document_is_cut_only_where_that_is_asked_for() {
    let app = start().await;
    let body = json!({"model": RANK, "query": "what is a river?", "documents": ["the river runs past the old mill ".repeat(60)]});
    let (status, error) = app.refused(PATH, &body).await;
    let found = (status, error["code"].as_str(), error["param"].as_str());
    assert_eq!(found, (400, Some("context_length_exceeded"), Some("documents")), "{error}");
    let short = app.ask(PATH, &with(body.clone(), "max_tokens_per_doc", 5)).await;
    let query = json!({"model": RANK, "prompt": "what is a river?", "add_special_tokens": false});
    let query = app.ask("/v1/tokenize", &query).await["count"].as_u64().expect("a count");
    // [CLS] query [SEP] five tokens [SEP]
    assert_eq!(short["usage"]["prompt_tokens"], query + 5 + 3);
    let same = app.ask(PATH, &with(body, "max_tokens_per_doc", 50)).await;
    assert_eq!(same["usage"]["prompt_tokens"], query + 50 + 3);
}

#[tokio::test]
async fn what_cannot_be_ranked_is_refused_by_name() {
    let app = start().await;
    let rerank = json!({"model": RANK, "query": "x", "documents": ["y"]});
    let score = json!({"model": RANK, "text_1": "x", "text_2": ["y", "z"]});
    for (path, body, name, value, code) in [
        (PATH, &rerank, "query", json!(null), "missing_required_parameter"),
        (PATH, &rerank, "query", json!(""), "invalid_value"),
        (PATH, &rerank, "query", json!(["x"]), "invalid_value"),
        (PATH, &rerank, "documents", json!(null), "missing_required_parameter"),
        (PATH, &rerank, "documents", json!([]), "invalid_value"),
        (PATH, &rerank, "documents", json!("y"), "invalid_value"),
        (PATH, &rerank, "documents", json!(vec!["y"; 2049]), "invalid_value"),
        (PATH, &rerank, "top_n", json!(0), "invalid_value"),
        (PATH, &rerank, "top_n", json!("1"), "invalid_value"),
        (PATH, &rerank, "return_documents", json!("yes"), "invalid_value"),
        (PATH, &rerank, "max_tokens_per_doc", json!(0), "invalid_value"),
        (PATH, &rerank, "rank_fields", json!(["title"]), "unsupported_parameter"),
        (PATH, &rerank, "max_chunks_per_doc", json!(3), "unsupported_parameter"),
        (PATH, &rerank, "truncate_prompt_tokens", json!(3), "unsupported_parameter"),
        (PATH, &rerank, "colour", json!("red"), "unknown_parameter"),
        (PATH, &rerank, "model", json!(CHAT), "unsupported_model"),
        (PATH, &rerank, "model", json!(EMBED), "unsupported_model"),
        ("/v1/score", &score, "text_1", json!(["a", "b", "c"]), "invalid_value"),
        ("/v1/score", &score, "text_1", json!(7), "invalid_value"),
        ("/v1/score", &score, "text_2", json!([]), "invalid_value"),
        ("/v1/score", &score, "queries", json!("x"), "invalid_value"),
        ("/v1/score", &score, "truncate_prompt_tokens", json!(3), "unsupported_parameter"),
    ] {
        let (status, error) = app.refused(path, &with(body.clone(), name, value.clone())).await;
        let found = (status, error["code"].as_str());
        assert_eq!(found, (400, Some(code)), "{path} {name} {value} {error}");
        let param = error["param"].as_str().unwrap_or_default();
        let other = [("text_1", "text_2"), ("queries", "documents")].contains(&(name, param));
        assert!(param == name || other, "{path} {name} {value} {error}");
    }
    for (documents, param) in [
        (json!(["y", 7]), "documents[1]"),
        (json!([{"title": "y"}]), "documents[0].text"),
        (json!([""]), "documents[0]"),
    ] {
        let (_, error) = app.refused(PATH, &with(rerank.clone(), "documents", documents)).await;
        assert_eq!(error["param"], param, "{error}");
    }
}

#[tokio::test]
async fn raw_scores_are_shown_where_the_models_files_say_so() {
    let folder = copied("bert_cross_encoder");
    alter(&folder, "config.json", |config| {
        config["sentence_transformers"] = json!({"activation_fn": "torch.nn.modules.linear.Identity"});
    });
    let app = TestApp::start_with(&[("model", &named(RANK, &folder))]).await;
    let pair = &answers("bert_cross_encoder")["pairs"][0];
    let body = json!({"model": RANK, "text_1": pair["query"], "text_2": pair["document"]});
    let answer = app.ask("/v1/score", &body).await;
    near(&answer["data"][0]["score"], pair["logits"][0].as_f64().expect("a number"));
    let shown = model(&app).await;
    assert_eq!(shown["capabilities"]["ranking"]["activation"], "identity");
}

async fn model(app: &TestApp) -> Value {
    app.get(&format!("/v1/models/{RANK}")).send().await.expect("it answers").json().await.expect("it is JSON")
}

#[tokio::test]
async fn what_was_ranked_is_in_the_ledger() {
    let app = start().await;
    let body = json!({"model": RANK, "query": "what is a river?", "documents": ["a mill", "a stone"]});
    let tokens = app.ask(PATH, &body).await["usage"]["total_tokens"].clone();
    app.usage.flushed().await;
    let owner = Api::owner(&app).await;
    let list = owner.get("/admin/usage").await;
    let records = list.data()["items"].as_array().expect("records").clone();
    let record = records.iter().find(|record| record["endpoint"] == PATH).expect("it is there");
    assert_eq!(record["prompt_tokens"], tokens, "{record}");
}

#[tokio::test]
async fn whom_it_is_for_is_written_down() {
    let app = start().await;
    let ranked = json!({"model": RANK, "query": "a", "documents": ["b"], "user": "reader"});
    app.ask(PATH, &ranked).await;
    app.ask("/v1/score", &json!({"model": RANK, "text_1": "a", "text_2": "b", "user": "judge"})).await;
    let message = json!({"model": CHAT, "max_tokens": 4, "messages": [{"role": "user", "content": "x"}],
        "metadata": {"user_id": "writer"}});
    app.ask("/v1/messages", &message).await;
    app.usage.flushed().await;
    let list = Api::owner(&app).await.get("/admin/usage?limit=100").await.data();
    for (path, user) in [(PATH, "reader"), ("/v1/score", "judge"), ("/v1/messages", "writer")] {
        let records = list["items"].as_array().expect("records");
        let is_there = records.iter().any(|record| record["endpoint"] == path && record["end_user"] == user);
        assert!(is_there, "{user} is not in the ledger of {path}: {list}");
    }
}
