//! What is asked of lists that no client of ours would ask: searches that are too long, cursors that were made up, times
//! beyond the calendar. Each is refused by name; none is a fault of the server.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::app::TestApp;

/// Refused as a wrong value, and says which it is.
fn is_refused(answer: &Answer, name: &str, what: &str) {
    assert_eq!(answer.refusal(), (400, 40003), "{what}");
    assert!(answer.text.contains(&format!("`{name}`")), "{what}: {}", answer.text);
}

#[tokio::test]
async fn a_search_has_at_most_two_hundred_characters() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for path in ["/admin/users", "/admin/keys", "/me/keys", "/admin/teams"] {
        for text in ["a".repeat(51_000), "_".repeat(26_000), "a".repeat(201), "%25".repeat(201)] {
            let answer = owner.get(&format!("{path}?search={text}")).await;
            is_refused(&answer, "search", &format!("{path} {} bytes", text.len()));
        }
        for text in ["a".repeat(200), "_".repeat(200), "茶".repeat(200)] {
            let found = owner.get(&format!("{path}?search={text}")).await.data();
            assert_eq!(found["items"], json!([]), "{path}");
        }
    }
}

#[tokio::test]
async fn a_cursor_that_was_made_up_is_refused() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for (path, cursor) in [
        ("/admin/users", json!(["created_at", 7, 7])),
        ("/admin/users", json!(["created_at", "7", "usr_1"])),
        ("/admin/users?sort=username", json!(["username", "a", 7])),
        ("/admin/users?sort=username", json!(["username", "a\0", "usr_1"])),
        ("/admin/users?sort=username", json!(["username", "a", "usr\0"])),
        ("/admin/users", json!(["created_at", 1e300, "usr_1"])),
        ("/admin/users", json!(["created_at", u64::MAX, "usr_1"])),
        ("/admin/keys", json!(["created_at", 7, 7])),
        ("/me/keys", json!(["created_at", 7, 7])),
        ("/me/sessions", json!(["created_at", 7, 7])),
        ("/admin/teams", json!(["created_at", 7, 7])),
        ("/admin/usage", json!(["at", 7, 7])),
        ("/me/usage", json!(["at", 7, 7])),
        ("/admin/audit", json!(["seq", 7, "x"])),
        ("/admin/audit", json!(["seq", "7", 7])),
        ("/admin/audit", json!(["seq", 7])),
        ("/admin/audit", Value::Null),
    ] {
        let (text, join) =
            (URL_SAFE_NO_PAD.encode(cursor.to_string()), if path.contains('?') { '&' } else { '?' });
        let answer = owner.get(&format!("{path}{join}cursor={text}")).await;
        is_refused(&answer, "cursor", &format!("{path} {cursor}"));
    }
    // Of the right kinds it is a place in the list, if nobody's.
    let text = URL_SAFE_NO_PAD.encode(json!(["created_at", 7, "usr_1"]).to_string());
    assert_eq!(owner.get(&format!("/admin/users?cursor={text}")).await.data()["items"], json!([]));
}

#[tokio::test]
async fn a_time_beyond_the_calendar_is_refused() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    for time in ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999-00:01", "0000-01-01T00:00:00+00:01"] {
        let answer = owner.post("/me/keys", json!({"name": "a", "expires_at": time})).await;
        is_refused(&answer, "expires_at", time);
        let answer = owner.get(&format!("/me/usage?since={}", time.replace('+', "%2B"))).await;
        is_refused(&answer, "since", time);
    }
    let last = "9999-12-31T23:59:59.999Z";
    let made = owner.post("/me/keys", json!({"name": "a", "expires_at": last})).await.data();
    assert_eq!(made["expires_at"], last);
}
