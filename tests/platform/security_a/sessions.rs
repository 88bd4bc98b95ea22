//! What becomes of tokens that were given out: A8–A10, A22.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::Method;
use sconce::auth::Origin;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::app::{OWNER, OWNER_PASSWORD, TestApp};
use crate::rig::{
    LOGOUT, ME, add_user, audited, change, ended, get, number, post, post_from, refresh, replica, request,
    send, sign_in, sign_in_from, start,
};

const USED: &str = "SELECT COUNT(*) FROM refresh_tokens WHERE used_at IS NOT NULL";
const ALL: &str = "SELECT COUNT(*) FROM refresh_tokens";
const GRACE: Duration = Duration::from_secs(10);

fn origin(address: [u8; 4]) -> Origin {
    Origin {
        address: address.into(),
        request: String::new(),
        request_id: "req_test".into(),
        user_agent: "test".into(),
    }
}

#[tokio::test]
async fn a8_a_refresh_token_used_twice_ends_the_family_and_is_recorded() {
    let clock = start();
    let app = TestApp::start_by(&[], clock.clone()).await.without_key();
    let (_, first) = sign_in(&app, OWNER).await;
    let (other_access, other_refresh) = sign_in(&app, OWNER).await;
    let second = refresh(&app, &first).await;
    assert_eq!(second.status, 200, "{}", second.body);
    clock.advance(GRACE + Duration::from_millis(1));
    assert_eq!(refresh(&app, &first).await.is(), (401, 40106));
    assert_eq!(refresh(&app, &second.text("refresh_token")).await.is(), (401, 40105), "the newest dies too");
    assert_eq!(get(&app, ME, &second.text("access_token")).await.is(), (401, 40104));
    assert_eq!(refresh(&app, &first).await.is(), (401, 40105), "of an ended session all tokens are alike");
    assert_eq!(audited(&app, "session.revoke").await, 1);
    let because = "SELECT COUNT(*) FROM sessions WHERE revoked_because = 'reused'";
    assert_eq!(number(&app, because).await, 1);
    // Another session of the same user is another family.
    assert_eq!(get(&app, ME, &other_access).await.status, 200);
    assert_eq!(refresh(&app, &other_refresh).await.status, 200);
}

#[tokio::test]
async fn a9_parallel_refreshes_are_one_rotation_and_a_lost_answer_is_given_again() {
    let clock = start();
    let app = TestApp::start_by(&[], clock.clone()).await.without_key();
    let (_, first) = sign_in(&app, OWNER).await;
    let other = replica(&app).await;
    let here = join_all((0..10).map(|_| refresh(&app, &first)));
    let from = origin([127, 0, 0, 1]);
    let there = join_all((0..10).map(|_| other.refresh(&first, &from)));
    let (here, there) = tokio::join!(here, there);
    let mut successors: Vec<String> = here.iter().map(|reply| reply.text("refresh_token")).collect();
    successors.extend(there.iter().map(|done| {
        let done = done.as_ref().unwrap_or_else(|error| panic!("{error}"));
        done.refresh_token.reveal().to_owned()
    }));
    successors.dedup();
    assert_eq!(successors.len(), 1, "all get the same successor");
    assert_ne!(successors[0], first);
    assert_eq!((number(&app, USED).await, number(&app, ALL).await), (1, 2), "exactly one rotation");

    clock.advance(GRACE);
    let again = refresh(&app, &first).await;
    assert_eq!((again.status, again.text("refresh_token")), (200, successors[0].clone()), "{}", again.body);
    assert_eq!(get(&app, ME, &again.text("access_token")).await.status, 200);
    assert_eq!((number(&app, USED).await, number(&app, ALL).await), (1, 2), "no new branch");
    clock.advance(Duration::from_millis(1));
    assert_eq!(refresh(&app, &first).await.is(), (401, 40106), "afterwards the rule of reuse");
    assert_eq!(refresh(&app, &successors[0]).await.is(), (401, 40105));
}

#[tokio::test]
async fn a9_an_answer_that_was_used_was_not_lost() {
    let app = TestApp::start_by(&[], start()).await.without_key();
    let (_, first) = sign_in(&app, OWNER).await;
    let second = refresh(&app, &first).await.text("refresh_token");
    let third = refresh(&app, &second).await.text("refresh_token");
    // Within the grace, but somebody has both the token and its successor.
    assert_eq!(refresh(&app, &first).await.is(), (401, 40106));
    assert_eq!(refresh(&app, &third).await.is(), (401, 40105));
}

#[tokio::test]
async fn a9_a_session_slides_for_thirty_days_and_ends_after_ninety() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let clock = start();
    let app = TestApp::start_by(&[], clock.clone()).await.without_key();
    let (_, idle) = sign_in(&app, OWNER).await;
    let (_, mut token) = sign_in(&app, OWNER).await;
    for _ in 0..3 {
        clock.advance(29 * DAY);
        let reply = refresh(&app, &token).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        // What is kept in memory of the session is older than this.
        assert_eq!(get(&app, ME, &reply.text("access_token")).await.status, 200);
        token = reply.text("refresh_token");
    }
    assert_eq!(
        refresh(&app, &idle).await.is(),
        (401, 40105),
        "nobody refreshed it for more than thirty days"
    );
    clock.advance(3 * DAY);
    assert_eq!(refresh(&app, &token).await.is(), (401, 40105), "ninety days are over");
}

/// What ends, and how.
async fn dies_within_a_second(
    app: &TestApp,
    access: &str,
    refresh_token: &str,
    end: impl Future<Output = ()>,
) {
    let other = replica(app).await;
    let mut looked = other.changes();
    let watching = tokio::spawn(other.clone().watch());
    // Its first look finds everything new; what counts is the next.
    looked.changed().await.expect("the doorkeeper is there");
    let from = origin([127, 0, 0, 1]);
    let caller = other.authenticate(Some(access), from.clone()).await.expect("it is good");
    let here = app.auth.authenticate(Some(access), from.clone()).await.expect("it is good");
    let mut socket = opened(app, access).await;
    end.await;
    let begun = Instant::now();
    // What an open stream or WebSocket waits for, on this replica and on the other.
    let both = async { tokio::join!(ended(&here), ended(&caller)) };
    timeout(Duration::from_secs(1), both).await.expect("within a second on all replicas");
    assert!(other.authenticate(Some(access), from).await.is_err());
    let reply = get(app, ME, access).await;
    assert_eq!(reply.is(), (401, 40104), "{:?} {}", begun.elapsed(), reply.body);
    assert_eq!(refresh(app, refresh_token).await.is(), (401, 40105), "the refresh token, too");
    let close = timeout_at(begun + Duration::from_secs(2), close_code(&mut socket)).await;
    assert_eq!(close.expect("open sockets within two seconds"), Some(4401));
    watching.abort();
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket for conversations.
async fn opened(app: &TestApp, access: &str) -> Socket {
    let url = format!("ws://{}/api/v1/chat/stream", app.address());
    let mut request = url.into_client_request().expect("a URL");
    let value = format!("Bearer {access}").parse().expect("a header");
    request.headers_mut().insert("authorization", value);
    connect_async(request).await.expect("it opens").0
}

/// The code it is closed with.
async fn close_code(socket: &mut Socket) -> Option<u16> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = message {
            return frame.map(|frame| frame.code.into());
        }
    }
    None
}

#[tokio::test]
async fn a10_a_new_password_ends_tokens_everywhere_within_a_second() {
    let app = TestApp::start().await.without_key();
    add_user(&app, "ada", "user", |_| {}).await;
    let (elsewhere, its_refresh) = sign_in(&app, "ada").await;
    let (this, this_refresh) = sign_in(&app, "ada").await;
    let body = json!({"current_password": OWNER_PASSWORD, "new_password": "velvet-anchor-sundial-7"});
    let mut fresh = Value::Null;
    dies_within_a_second(&app, &elsewhere, &its_refresh, async {
        let reply = post(&app, "/api/v1/me/password", &this, &body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        fresh = reply.body["data"].clone();
    })
    .await;
    assert_eq!(get(&app, ME, &this).await.is(), (401, 40104), "the token it was asked with");
    assert_eq!(refresh(&app, &this_refresh).await.is(), (401, 40105));
    let new = |name: &str| fresh[name].as_str().expect("new tokens").to_owned();
    assert_eq!(get(&app, ME, &new("access_token")).await.status, 200, "this session goes on with new ones");
    assert_eq!(refresh(&app, &new("refresh_token")).await.status, 200);
}

/// What an owner changes of a user.
async fn administer(app: &TestApp, user_id: &str, change: &Value) {
    let (owner, _) = sign_in(app, OWNER).await;
    let path = format!("/api/v1/admin/users/{user_id}");
    let reply = send(request(app, Method::PUT, &path, &owner, change)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn a10_a_disabled_user_is_out_everywhere_within_a_second() {
    let app = TestApp::start().await.without_key();
    let ada = add_user(&app, "ada", "admin", |_| {}).await;
    let (access, refresh_token) = sign_in(&app, "ada").await;
    let disable = json!({"status": "disabled"});
    dies_within_a_second(&app, &access, &refresh_token, administer(&app, &ada, &disable)).await;
    assert_eq!(sign_in_from(&app, None, "ada", OWNER_PASSWORD).await.is(), (403, 40305));
}

#[tokio::test]
async fn a10_a_lower_role_counts_everywhere_within_a_second() {
    let app = TestApp::start().await.without_key();
    let ada = add_user(&app, "ada", "admin", |_| {}).await;
    let (access, refresh_token) = sign_in(&app, "ada").await;
    let demote = json!({"role": "user"});
    dies_within_a_second(&app, &access, &refresh_token, administer(&app, &ada, &demote)).await;
    let (access, _) = sign_in(&app, "ada").await;
    assert_eq!(get(&app, "/api/v1/admin/models", &access).await.is(), (403, 40301));
}

#[tokio::test]
async fn a10_what_another_replica_wrote_counts_here_within_a_second() {
    const ADMIN_ONLY: &str = "/api/v1/admin/models";
    let app = TestApp::start().await.without_key();
    add_user(&app, "ada", "admin", |_| {}).await;
    let (access, _) = sign_in(&app, "ada").await;
    assert_eq!(get(&app, ADMIN_ONLY, &access).await.status, 200);
    change(&app, "UPDATE users SET role = 'user' WHERE username = 'ada'").await;
    // Nobody's session was ended: the role is read live.
    let demoted = async { while get(&app, ADMIN_ONLY, &access).await.is() != (403, 40301) {} };
    timeout(Duration::from_secs(1), demoted).await.expect("within a second");
    change(&app, "UPDATE users SET status = 'disabled' WHERE username = 'ada'").await;
    let disabled = async { while get(&app, ME, &access).await.is() != (401, 40104) {} };
    timeout(Duration::from_secs(1), disabled).await.expect("within a second");
}

#[tokio::test]
async fn a22_after_signing_out_neither_token_is_good() {
    let app = TestApp::start().await.without_key();
    let (access, refresh_token) = sign_in(&app, OWNER).await;
    let (other_access, other_refresh) = sign_in(&app, OWNER).await;
    let reply = post(&app, LOGOUT, &access, &Value::Null).await;
    assert_eq!((reply.status, &reply.body["data"]), (200, &json!({"sessions_ended": 1})));
    assert_eq!(get(&app, ME, &access).await.is(), (401, 40104));
    assert_eq!(refresh(&app, &refresh_token).await.is(), (401, 40105));
    assert_eq!(post(&app, LOGOUT, &access, &Value::Null).await.is(), (401, 40104));
    assert_eq!(get(&app, ME, &other_access).await.status, 200, "the other session goes on");

    // By the refresh token alone: the access token may have expired.
    let reply = post_from(&app, None, LOGOUT, &json!({"refresh_token": other_refresh})).await;
    assert_eq!((reply.status, &reply.body["data"]), (200, &json!({"sessions_ended": 1})));
    assert_eq!(get(&app, ME, &other_access).await.is(), (401, 40104));
    assert_eq!(refresh(&app, &other_refresh).await.is(), (401, 40105));

    // Everywhere.
    let all = [sign_in(&app, OWNER).await, sign_in(&app, OWNER).await, sign_in(&app, OWNER).await];
    let reply = post(&app, LOGOUT, &all[0].0, &json!({"everywhere": true})).await;
    assert_eq!((reply.status, &reply.body["data"]), (200, &json!({"sessions_ended": 3})));
    for (access, refresh_token) in &all {
        assert_eq!(get(&app, ME, access).await.is(), (401, 40104));
        assert_eq!(refresh(&app, refresh_token).await.is(), (401, 40105));
    }
    assert_eq!(audited(&app, "user.sign_out").await, 3);
    assert_eq!(post_from(&app, None, LOGOUT, &json!({})).await.is(), (401, 40101));
}
