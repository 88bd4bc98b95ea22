//! Rotating the keys that sign access tokens: who may, and that other replicas know at once.

use sconce::auth::Origin;
use serde_json::Value;

use crate::app::{KEY, OWNER, TestApp};
use crate::rig::{ME, add_user, audited, get, number, post, post_from, replica, sign_in};

const ROTATE: &str = "/api/v1/admin/signing-keys/rotate";

#[tokio::test]
async fn only_an_owner_rotates_and_it_is_on_record() {
    let app = TestApp::start().await.without_key();
    for role in ["admin", "operator", "auditor", "user"] {
        let name = format!("an-{role}");
        add_user(&app, &name, role, |_| {}).await;
        let (token, _) = sign_in(&app, &name).await;
        assert_eq!(post(&app, ROTATE, &token, &Value::Null).await.is(), (403, 40301), "{role}");
    }
    assert_eq!(post(&app, ROTATE, KEY, &Value::Null).await.is(), (403, 40301));
    assert_eq!(post_from(&app, None, ROTATE, &Value::Null).await.is(), (401, 40101));
    assert_eq!((audited(&app, "signing_key.rotate").await, audited(&app, "access.refused").await), (0, 5));
    let (token, _) = sign_in(&app, OWNER).await;
    let reply = post(&app, ROTATE, &token, &Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(audited(&app, "signing_key.rotate").await, 1);
    let secret =
        "SELECT COUNT(*) FROM audit JOIN signing_keys ON audit.after LIKE '%' || signing_keys.secret || '%'";
    assert_eq!(number(&app, secret).await, 0, "the secret is not");
}

#[tokio::test]
async fn another_replica_knows_a_new_key_when_it_first_sees_its_token() {
    let app = TestApp::start().await.without_key();
    // Nobody runs its `watch`: it learns of nothing by itself.
    let other = replica(&app).await;
    let (owner, _) = sign_in(&app, OWNER).await;
    let from = Origin {
        address: [127, 0, 0, 1].into(),
        request: String::new(),
        request_id: String::new(),
        user_agent: String::new(),
    };
    assert!(other.authenticate(Some(&owner), from.clone()).await.is_ok());
    assert_eq!(post(&app, ROTATE, &owner, &Value::Null).await.status, 200);
    let (new, _) = sign_in(&app, OWNER).await;
    assert!(other.authenticate(Some(&new), from.clone()).await.is_ok(), "at once, not at the next look");
    assert!(other.authenticate(Some(&owner), from).await.is_ok(), "and the old one goes on");
}

#[tokio::test]
async fn a_configured_secret_is_rotated_in_the_configuration() {
    const SECRET: &str = "Zq4v7Xw1Kp9Tn3Rb6Lm8Hc2Jd5Fg0Sy-of-the-tests";
    let app = TestApp::start_with(&[("jwt-secret", SECRET)]).await.without_key();
    let (token, _) = sign_in(&app, OWNER).await;
    let reply = post(&app, ROTATE, &token, &Value::Null).await;
    assert_eq!(reply.is(), (409, 40902), "{}", reply.body);
    assert!(reply.body["message"].as_str().expect("text").contains("jwt-secret"));
    assert_eq!(get(&app, ME, &token).await.status, 200);
    assert_eq!(number(&app, "SELECT COUNT(*) FROM signing_keys").await, 0);
}
