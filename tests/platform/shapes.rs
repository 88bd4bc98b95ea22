//! The shape of bodies: an object is an object and a name is a text, at every depth; and no message speaks of the types
//! that the program is made of.

use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::app::{OWNER, OWNER_PASSWORD, TestApp};

/// Number and field of a refusal, after a look at its words.
fn refused(answer: &Answer) -> (u64, String) {
    let (status, code) = answer.refusal();
    assert_eq!(status, 400, "{}", answer.text);
    let message = answer.json["message"].as_str().expect("a text");
    for word in ["struct", "enum", "variant", "elements", "u32", "u64", "i64", "f32", "sequence", "NewUser"] {
        assert!(!message.contains(word), "{message}");
    }
    (code, answer.json["data"]["errors"][0]["field"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_list_is_no_object_and_a_map_is_no_name() {
    let app = TestApp::start().await;
    let (owner, nobody) = (Api::owner(&app).await, Api::nobody(&app));
    let (user, _) = owner.colleague("ada", "user").await;
    let key = |name: &str, value: Value| {
        let mut body = json!({"user_id": user, "name": "k"});
        body[name] = value;
        body
    };

    for (who, path, body, field) in [
        (&nobody, "/auth/login", json!([OWNER, OWNER_PASSWORD]), ""),
        (&nobody, "/auth/login", json!([OWNER]), ""),
        (&nobody, "/auth/refresh", json!(["x"]), ""),
        (&nobody, "/auth/login", json!("x"), ""),
        (&nobody, "/auth/login", json!(7), ""),
        (&nobody, "/auth/login", json!({"username": ["a"], "password": "x"}), "username"),
        (&owner, "/admin/users", json!(["arr", null, null, null, null, null, []]), ""),
        (&owner, "/admin/users", json!(["arr"]), ""),
        (&owner, "/admin/users", json!({"username": "b", "role": {"admin": null}}), "role"),
        (&owner, "/admin/users", json!({"username": "b", "role": ["admin"]}), "role"),
        (&owner, "/admin/users", json!({"username": "b", "role": "root"}), "role"),
        (&owner, "/admin/users", json!({"username": "b", "role": 1}), "role"),
        (&owner, "/admin/users", json!({"username": "b", "team_ids": {}}), "team_ids"),
        (
            &owner,
            "/admin/users",
            json!({"username": "b", "must_change_password": "x"}),
            "must_change_password",
        ),
        (&owner, "/admin/keys", key("scopes", json!([{"inference": null}])), "scopes[0]"),
        (&owner, "/admin/keys", key("scopes", json!("inference")), "scopes"),
        (&owner, "/admin/keys", key("status", json!({"enabled": null})), "status"),
        (&owner, "/admin/keys", key("expires_at", json!([1])), "expires_at"),
        (&owner, "/admin/teams", json!(["t", ""]), ""),
        (&owner, "/admin/models", json!(["m"]), ""),
        (&owner, "/admin/models", json!({"id": ["m"]}), "id"),
        (&owner, "/admin/models", json!({"id": "m", "limits": [5, 2, 1.0]}), "limits"),
        (&owner, "/admin/models", json!({"id": "m", "defaults": [0.5, 1, 1, 1]}), "defaults"),
        (&owner, "/admin/models", json!({"id": "m", "visibility": {"teams": null}}), "visibility"),
        (&owner, "/admin/models", json!({"id": "m", "limits": {"max_tokens": -1}}), "limits.max_tokens"),
        (&owner, "/admin/models", json!({"id": "m", "context_length": "9"}), "context_length"),
        (&owner, "/me/password", json!([OWNER_PASSWORD, "velvet-anchor-sundial-7"]), ""),
        (&owner, "/me/keys", json!(["k", null, null, null, null, null, null]), ""),
    ] {
        let answer = who.post(path, body.clone()).await;
        assert_eq!(refused(&answer), (40003, field.to_owned()), "{path} {body} {}", answer.text);
    }
    let change = json!({"role": {"admin": null}});
    let answer = owner.put(&format!("/admin/users/{user}"), change).await;
    assert_eq!(refused(&answer), (40003, "role".to_owned()));
    // What is unknown or missing is still so called, with its whole name.
    for (body, code, field) in [
        (json!({"id": "m", "limits": {"x": 1}}), 40004, "limits.x"),
        (json!({"id": "m", "x": 1}), 40004, "x"),
        (json!({"id": "m", &"x".repeat(100): 1}), 40004, &"x".repeat(64)),
        (json!({"id": "m", "limits": {&"x".repeat(100): 1}}), 40004, &format!("limits.{}", "x".repeat(64))),
        (json!({"sources": []}), 40015, "id"),
    ] {
        let answer = owner.post("/admin/models", body).await;
        assert_eq!(refused(&answer), (code, field.to_owned()), "{}", answer.text);
    }
}
