//! What was used: rows, sums and a file for a spreadsheet, for those who may see it, and for oneself.

use sconce::clock::Timestamp;
use sconce::store::Store;
use sconce::store::usage::{UsageRow, insert};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::api::Api;
use crate::app::TestApp;

/// Two days, a user who has two keys, another who has none, and a model whose name is a formula.
pub async fn fill(app: &TestApp, first: &str, second: &str) {
    let row = |number: i64, day: i64, user: Option<&str>, key: Option<&str>, model: &str| UsageRow {
        id: format!("use_{number}"),
        at: Timestamp::from_millis(day * 86_400_000 + number),
        request_id: format!("req_{number}"),
        user_id: user.map(str::to_owned),
        key_id: key.map(str::to_owned),
        team_id: None,
        model: model.to_owned(),
        asked_for: "gpt-4o".to_owned(),
        endpoint: "/v1/chat/completions".to_owned(),
        prompt_tokens: 10 * number,
        cached_tokens: number,
        completion_tokens: 100 * number,
        outcome: "stop".to_owned(),
        duration_ms: 7,
        end_user: None,
        metadata: None,
    };
    let rows = [
        row(1, 20_000, Some(first), Some("key_1"), "tiny"),
        row(2, 20_000, Some(first), Some("key_2"), "tiny"),
        row(3, 20_001, Some(second), None, "=cmd(),\"x\""),
        row(4, 20_001, None, None, "tiny"),
    ];
    let store =
        Store::open(&SecretString::from(app.database_url.clone())).await.expect("the database is there");
    let mut tx = store.append().await.expect("it writes");
    insert(&mut tx, &rows).await.expect("they are new");
    tx.commit().await.expect("it commits");
    store.close().await;
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().map(|row| row["id"].as_str().expect("an id")).collect()
}

/// Subject, requests, prompt tokens, all tokens.
fn sums(totals: &Value) -> Vec<(Option<&str>, i64, i64, i64)> {
    let number = |sum: &Value, name: &str| sum[name].as_i64().expect("a number");
    let sum =
        |sum: &'_ Value| (number(sum, "requests"), number(sum, "prompt_tokens"), number(sum, "total_tokens"));
    let all = totals["items"].as_array().expect("items").iter();
    all.map(|item| (item["subject"].as_str(), sum(item))).map(|(name, (a, b, c))| (name, a, b, c)).collect()
}

#[tokio::test]
async fn usage_is_listed_and_summed_up() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (first, second) = (owner.make_user("ada", "user").await, owner.make_user("bob", "user").await);
    fill(&app, &first, &second).await;
    let list = async |query: &str| owner.get(&format!("/admin/usage?{query}")).await.data();
    assert_eq!(ids(&list("").await), ["use_4", "use_3", "use_2", "use_1"], "the newest first");
    assert_eq!(ids(&list("sort=at&limit=1").await), ["use_1"]);
    assert_eq!(ids(&list(&format!("user_id={first}")).await), ["use_2", "use_1"]);
    assert_eq!(ids(&list("key_id=key_2").await), ["use_2"]);
    assert_eq!(ids(&list("model=tiny&since=2024-10-05T00:00:00Z").await), ["use_4"]);
    assert_eq!(ids(&list("until=2024-10-05T00:00:00Z").await), ["use_2", "use_1"]);
    assert_eq!(ids(&list("request_id=req_3").await), ["use_3"]);
    let row = &list("request_id=req_2").await["items"][0];
    let expected = json!({
        "id": "use_2", "at": "2024-10-04T00:00:00.002Z", "request_id": "req_2", "user_id": first, "key_id": "key_2",
        "team_id": null, "model": "tiny", "asked_for": "gpt-4o", "endpoint": "/v1/chat/completions",
        "prompt_tokens": 20, "cached_tokens": 2, "completion_tokens": 200, "outcome": "stop", "duration_ms": 7, "end_user": null, "metadata": null,
    });
    assert_eq!(*row, expected);

    let totals = async |query: &str| owner.get(&format!("/admin/usage/totals?{query}")).await.data();
    let by_model = totals("").await;
    assert_eq!((&by_model["group_by"], &by_model["is_complete"]), (&json!("model"), &json!(true)));
    assert_eq!(sums(&by_model), [(Some("=cmd(),\"x\""), 1, 30, 330), (Some("tiny"), 3, 70, 770)]);
    let by_day = totals("group_by=day").await;
    assert_eq!(sums(&by_day), [(Some("2024-10-04"), 2, 30, 330), (Some("2024-10-05"), 2, 70, 770)]);
    let by_user = totals("group_by=user&model=tiny").await;
    assert_eq!(sums(&by_user), [(None, 1, 40, 440), (Some(first.as_str()), 2, 30, 330)]);
    let by_key = totals("group_by=key").await;
    assert_eq!(sums(&by_key), [(None, 2, 70, 770), (Some("key_1"), 1, 10, 110), (Some("key_2"), 1, 20, 220)]);
    assert_eq!(sums(&totals("group_by=team").await), [(None, 4, 100, 1100)]);
    assert_eq!(owner.get("/admin/usage/totals?group_by=password").await.refusal(), (400, 40003));
}

#[tokio::test]
async fn own_usage_is_ones_own_alone() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let ((first, ada), second) = (owner.colleague("ada", "user").await, owner.make_user("bob", "user").await);
    fill(&app, &first, &second).await;
    assert_eq!(ids(&ada.get("/me/usage").await.data()), ["use_2", "use_1"]);
    assert_eq!(ids(&ada.get("/me/usage?key_id=key_1").await.data()), ["use_1"]);
    assert_eq!(sums(&ada.get("/me/usage/totals").await.data()), [(Some("tiny"), 2, 30, 330)]);
    for query in ["user_id", "request_id"] {
        assert_eq!(ada.get(&format!("/me/usage?{query}={second}")).await.refusal(), (400, 40003), "{query}");
        assert_eq!(
            ada.get(&format!("/me/usage/totals?{query}={second}")).await.refusal(),
            (400, 40003),
            "{query}"
        );
    }
    assert_eq!(ada.get("/admin/usage").await.refusal(), (403, 40301));
    assert_eq!(ada.get("/admin/usage/export").await.refusal(), (403, 40301));
}

#[tokio::test]
async fn c9_an_export_has_no_formulas() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    fill(&app, "usr_1", "usr_2").await;
    let answer = owner.get("/admin/usage/export?format=csv&since=2024-10-05T00:00:00Z").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/csv; charset=utf-8");
    let head = "id,at,request_id,user_id,key_id,team_id,model,asked_for,endpoint,prompt_tokens,cached_tokens,completion_tokens,outcome,duration_ms,end_user,metadata\r\n";
    let third = "use_3,2024-10-05T00:00:00.003Z,req_3,usr_2,,,\"'=cmd(),\"\"x\"\"\",gpt-4o,/v1/chat/completions,30,3,300,stop,7,,\r\n";
    let fourth =
        "use_4,2024-10-05T00:00:00.004Z,req_4,,,,tiny,gpt-4o,/v1/chat/completions,40,4,400,stop,7,,\r\n";
    assert_eq!(answer.text, format!("{head}{third}{fourth}"));
    assert_eq!(owner.get("/admin/usage/export?user_id=nobody").await.text, head);
    assert_eq!(owner.get("/admin/usage/export?format=exe").await.refusal(), (400, 40003));
}

#[tokio::test]
async fn an_export_of_many_pages_has_every_row_once() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let store =
        Store::open(&SecretString::from(app.database_url.clone())).await.expect("the database is there");
    let row = |number: i64| UsageRow {
        id: format!("use_{number:04}"),
        // Many at the same moment, so that pages end within one.
        at: Timestamp::from_millis(1_700_000_000_000 + number / 900),
        request_id: String::new(),
        user_id: None,
        key_id: None,
        team_id: None,
        model: "tiny".to_owned(),
        asked_for: "tiny".to_owned(),
        endpoint: "/v1/completions".to_owned(),
        prompt_tokens: number,
        cached_tokens: 0,
        completion_tokens: 0,
        outcome: "stop".to_owned(),
        duration_ms: 1,
        end_user: None,
        metadata: None,
    };
    let rows: Vec<_> = (0..2500).map(row).collect();
    let mut tx = store.append().await.expect("it writes");
    insert(&mut tx, &rows).await.expect("they are new");
    tx.commit().await.expect("it commits");
    store.close().await;
    let text = owner.get("/admin/usage/export").await.text;
    let ids: Vec<_> = text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let expected: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, expected);
}
