//! Tickets: what a browser opens a WebSocket with. Here they are redeemed as the WebSocket's route does it.

use std::time::Duration;

use sconce::auth::{AuthError, Identity, Origin, Permission, PlainKey};
use sconce::store::JsonText;
use serde_json::{Value, json};

use crate::app::{KEY, OWNER, TestApp};
use crate::rig::{
    LOGOUT, ME, add_key, add_user, change, ended, get, number, post, post_from, replica, sign_in, start,
};

const TICKET: &str = "/api/v1/auth/ticket";

fn origin(address: [u8; 4]) -> Origin {
    Origin {
        address: address.into(),
        request: String::new(),
        request_id: "req_test".into(),
        user_agent: "test".into(),
    }
}

fn here() -> Origin {
    origin([127, 0, 0, 1])
}

async fn ticket(app: &TestApp, token: &str) -> String {
    let reply = post(app, TICKET, token, &Value::Null).await;
    assert_eq!((reply.status, &reply.body["data"]["expires_in"]), (200, &json!(30)), "{}", reply.body);
    reply.text("ticket")
}

#[tokio::test]
async fn a_ticket_stands_for_its_credential_once() {
    let app = TestApp::start().await.without_key();
    let owner = get(&app, ME, &sign_in(&app, OWNER).await.0).await.text("id");
    let key = add_key(&app, &owner, |row| row.models = Some(JsonText(vec!["tiny".into()]))).await;
    for shown in [sign_in(&app, OWNER).await.0.as_str(), key.reveal(), KEY] {
        let ticket = ticket(&app, shown).await;
        let direct = app.auth.authenticate(Some(shown), here()).await.expect("it is good");
        let caller = app.auth.redeem_ticket(&ticket, here()).await.expect("it is good");
        assert_eq!(caller.identity(), direct.identity());
        assert_eq!(caller.user(), direct.user());
        assert_eq!(
            (caller.permissions(), caller.allowed_models()),
            (direct.permissions(), direct.allowed_models())
        );
        let again = app.auth.redeem_ticket(&ticket, here()).await;
        assert!(matches!(again, Err(AuthError::TicketInvalid)), "{again:?}");
    }
}

#[tokio::test]
async fn of_many_who_show_the_same_ticket_one_gets_in() {
    let app = TestApp::start().await.without_key();
    let ticket = ticket(&app, &sign_in(&app, OWNER).await.0).await;
    let other = replica(&app).await;
    let tries = (0..20).map(|number| {
        let auth = if number % 2 == 0 { app.auth.clone() } else { other.clone() };
        let ticket = ticket.clone();
        async move { auth.redeem_ticket(&ticket, here()).await.is_ok() }
    });
    let done = futures_util::future::join_all(tries).await;
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
}

#[tokio::test]
async fn a_ticket_is_good_for_half_a_minute_and_does_not_lie_about() {
    let clock = start();
    let app = TestApp::start_by(&[], clock.clone()).await.without_key();
    let (early, late, later) = (ticket(&app, KEY).await, ticket(&app, KEY).await, ticket(&app, KEY).await);
    assert_eq!(
        number(&app, &format!("SELECT COUNT(*) FROM tickets WHERE hash = '{early}'")).await,
        0,
        "only a hash"
    );
    clock.advance(Duration::from_millis(29_999));
    assert!(app.auth.redeem_ticket(&early, here()).await.is_ok());
    clock.advance(Duration::from_millis(1));
    let refused = app.auth.redeem_ticket(&late, here()).await;
    assert!(matches!(refused, Err(AuthError::TicketInvalid)), "{refused:?}");
    clock.advance(Duration::from_secs(3600));
    assert!(app.auth.redeem_ticket(&later, here()).await.is_err());
    ticket(&app, KEY).await;
    assert_eq!(number(&app, "SELECT COUNT(*) FROM tickets").await, 1, "those whose time is over are gone");
}

#[tokio::test]
async fn what_ends_the_credential_ends_the_ticket_and_the_caller_it_gave() {
    let app = TestApp::start().await.without_key();
    let ada = add_user(&app, "ada", "user", |_| {}).await;
    let key = add_key(&app, &ada, |_| {}).await;
    let (access, _) = sign_in(&app, "ada").await;
    let [of_key, of_key_open, of_session, of_session_open] = [
        ticket(&app, key.reveal()).await,
        ticket(&app, key.reveal()).await,
        ticket(&app, &access).await,
        ticket(&app, &access).await,
    ];
    let by_key = app.auth.redeem_ticket(&of_key_open, here()).await.expect("it is good");
    let by_session = app.auth.redeem_ticket(&of_session_open, here()).await.expect("it is good");
    change(&app, &format!("UPDATE api_keys SET status = 'disabled' WHERE user_id = '{ada}'")).await;
    assert!(matches!(ended(&by_key).await, AuthError::ApiKeyDisabled));
    let refused = app.auth.redeem_ticket(&of_key, here()).await;
    assert!(matches!(refused, Err(AuthError::ApiKeyDisabled)), "{refused:?}");
    assert_eq!(post(&app, LOGOUT, &access, &Value::Null).await.status, 200);
    assert!(matches!(ended(&by_session).await, AuthError::AccessTokenInvalid));
    let refused = app.auth.redeem_ticket(&of_session, here()).await;
    assert!(matches!(refused, Err(AuthError::AccessTokenInvalid)), "{refused:?}");
}

#[tokio::test]
async fn a_ticket_opens_no_more_than_its_credential_and_from_no_other_network() {
    let app = TestApp::start().await.without_key();
    let ada = add_user(&app, "ada", "auditor", |_| {}).await;
    let (access, _) = sign_in(&app, "ada").await;
    assert_eq!(
        post(&app, TICKET, &access, &Value::Null).await.is(),
        (403, 40301),
        "an auditor uses no models"
    );
    let scoped = add_key(&app, &ada, |row| row.scopes = JsonText(vec!["account".into()])).await;
    assert_eq!(post(&app, TICKET, scoped.reveal(), &Value::Null).await.is(), (403, 40301));
    assert_eq!(post_from(&app, None, TICKET, &Value::Null).await.is(), (401, 40101));
    let user = add_user(&app, "bob", "user", |_| {}).await;
    let local = add_key(&app, &user, |row| row.cidrs = Some(JsonText(vec!["127.0.0.0/8".into()]))).await;
    let account_only = add_key(&app, &user, |row| row.scopes = JsonText(vec!["account".into()])).await;
    assert_eq!(post(&app, TICKET, account_only.reveal(), &Value::Null).await.is(), (403, 40302));
    let elsewhere =
        app.auth.redeem_ticket(&ticket(&app, local.reveal()).await, origin([203, 0, 113, 5])).await;
    assert!(matches!(elsewhere, Err(AuthError::AddressNotAllowed)), "{elsewhere:?}");
    let caller =
        app.auth.redeem_ticket(&ticket(&app, local.reveal()).await, here()).await.expect("it is good");
    assert!(
        caller.permissions().has(Permission::Inference) && !caller.permissions().has(Permission::Account)
    );
}

#[tokio::test]
async fn without_authentication_a_ticket_stands_for_nobody_and_is_no_credential_elsewhere() {
    let app = TestApp::start_with(&[("auth", "off")]).await.without_key();
    let reply = post_from(&app, None, TICKET, &Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let ticket = reply.text("ticket");
    assert_eq!(get(&app, ME, &ticket).await.is(), (401, 40001), "not as a header");
    let caller = app.auth.redeem_ticket(&ticket, here()).await.expect("it is good");
    assert_eq!(caller.identity(), &Identity::Anonymous);
    for wrong in ["", "tk-", "tk-x", KEY, &format!("tk-{}", "A".repeat(43)), &format!("{ticket}A")] {
        let refused = app.auth.redeem_ticket(wrong, here()).await;
        assert!(matches!(refused, Err(AuthError::TicketInvalid)), "{wrong}: {refused:?}");
    }
}

/// Clients of OpenAI and Anthropic show something in any case; what was one of this server's must be good nevertheless.
#[tokio::test]
async fn without_authentication_what_is_no_credential_at_all_is_passed_over() {
    let app = TestApp::start_with(&[("auth", "off")]).await.without_key();
    for placeholder in ["none", "sk-no-key-required", "ollama", "sk-", "x.y"] {
        let reply = get(&app, "/v1/models", placeholder).await;
        assert_eq!(reply.status, 200, "{placeholder}: {}", reply.body);
        let caller = app.auth.authenticate(Some(placeholder), here()).await.expect("nothing is asked for");
        assert_eq!(caller.identity(), &Identity::Anonymous);
        assert_eq!(
            get(&app, "/api/v1/admin/users", placeholder).await.status,
            403,
            "{placeholder}: it may use models, no more"
        );
    }
    let unknown = PlainKey::generate();
    let cut = &unknown.reveal()[..40];
    for ours in [unknown.reveal(), cut, "sk-sconce-", "a.b.c", "rt-x", "tk-x"] {
        assert_eq!(get(&app, "/v1/models", ours).await.status, 401, "{ours}");
    }
    let asking = TestApp::start().await.without_key();
    assert_eq!(get(&asking, "/v1/models", "none").await.status, 401);
}
