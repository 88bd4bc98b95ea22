//! Whoever waits for their turn to change something is looked up again when it comes: what they may do then is what counts.

use futures_util::future::join_all;
use sconce::auth::Permission;
use sconce::store::{JsonText, Tx, revisions, users};
use serde_json::{Value, json};
use tokio::task::yield_now;

use crate::api::{Answer, Api, password_of};
use crate::app::{CHAT, TestApp};
use crate::rig::{add_key, number, store};

/// Everything that is changed, as somebody sends it at once.
type Deed = (&'static str, String, Value);

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {value}")).to_owned()
}

/// Sends all of it while somebody else writes, lets them change who the sender is, and gives what is answered.
async fn while_waiting(
    app: &TestApp,
    by: &Api<'_>,
    deeds: &[Deed],
    change: impl AsyncFnOnce(&mut Tx),
) -> Vec<Answer> {
    let other = store(app).await;
    // Known before, so that nothing but the turn is waited for.
    by.get("/me").await;
    let mut turn = other.write().await.expect("the turn is free");
    let seen = app.auth.lookups();
    let all_came = async {
        while app.auth.lookups() < seen + deeds.len() as u64 {
            yield_now().await;
        }
        change(&mut turn).await;
        revisions::bump(&mut turn, revisions::AUTHORITY).await.expect("it counts");
        turn.commit().await.expect("it commits");
    };
    let sent = deeds.iter().map(|(method, path, body)| by.send(method, path, Some(body)));
    tokio::join!(join_all(sent), all_came).0
}

async fn change_user(tx: &mut Tx, name: &str, status: &str, role: &str) {
    let mut row = users::find_by_username(tx, name).await.expect("it reads").expect("they are there");
    row.status = status.to_owned();
    row.role = role.to_owned();
    users::update(tx, &row).await.expect("it writes");
}

/// What an administrator can change, of each kind.
async fn deeds(owner: &Api<'_>, by: &Api<'_>) -> Vec<Deed> {
    let victim = owner.make_user("victim", "user").await;
    let new = json!({"user_id": victim, "name": "a"});
    let key = text(&owner.post("/admin/keys", new.clone()).await.data(), "id");
    let team = text(&owner.post("/admin/teams", json!({"name": "first"})).await.data(), "id");
    let (own, _) = by.own_key(json!({"name": "own"})).await;
    let user = format!("/admin/users/{victim}");
    let deed = |method, path: &str, body: Value| (method, path.to_owned(), body);
    vec![
        deed(
            "POST",
            "/admin/users",
            json!({"username": "eve", "role": "user", "password": password_of("eve")}),
        ),
        deed("PUT", &user, json!({"display_name": "Eve"})),
        deed("PUT", &user, json!({"password": password_of("another")})),
        deed("DELETE", &format!("{user}/sessions"), Value::Null),
        deed("POST", "/admin/keys", new),
        deed("PUT", &format!("/admin/keys/{key}"), json!({"name": "b"})),
        deed("POST", &format!("/admin/keys/{key}/rotate"), json!({})),
        deed("POST", "/admin/teams", json!({"name": "second"})),
        deed("PUT", &format!("/admin/teams/{team}"), json!({"name": "third"})),
        deed("PUT", &format!("/admin/teams/{team}/members/{victim}"), json!({})),
        deed("PUT", &format!("/admin/models/{CHAT}"), json!({"description": "eve's"})),
        deed("POST", "/me/keys", json!({"name": "c"})),
        deed("DELETE", &format!("/me/keys/{own}"), Value::Null),
        deed("DELETE", &user, Value::Null),
    ]
}

/// How much was done so far.
async fn done(app: &TestApp) -> i64 {
    number(app, "SELECT COUNT(*) FROM audit WHERE outcome = 'done'").await
}

#[tokio::test]
async fn who_is_disabled_while_they_wait_changes_nothing() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (_, admin) = owner.colleague("fallen", "admin").await;
    let deeds = deeds(&owner, &admin).await;
    let before = done(&app).await;
    let change = async |tx: &mut Tx| change_user(tx, "fallen", "disabled", "admin").await;
    let answers = while_waiting(&app, &admin, &deeds, change).await;
    for (deed, answer) in deeds.iter().zip(&answers) {
        assert_eq!(answer.refusal(), (401, 40104), "{deed:?}");
    }
    assert_eq!(done(&app).await, before);
}

#[tokio::test]
async fn who_is_made_a_user_while_they_wait_does_nothing_as_an_administrator() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, admin) = owner.colleague("fallen", "admin").await;
    let mut deeds = deeds(&owner, &admin).await;
    // What everybody may do with their own is theirs.
    deeds.retain(|(_, path, _)| path.starts_with("/admin/"));
    let all = Permission::ALL.iter().filter(|scope| **scope != Permission::OwnerOnly);
    let scopes = JsonText(all.map(ToString::to_string).collect());
    let key = add_key(&app, &id, |row| row.scopes = scopes).await;
    let by_key = Api::showing(&app, key.reveal());
    let before = done(&app).await;
    let change = async |tx: &mut Tx| change_user(tx, "fallen", "active", "user").await;
    let answers = while_waiting(&app, &by_key, &deeds, change).await;
    for (deed, answer) in deeds.iter().zip(&answers) {
        assert_eq!(answer.refusal(), (403, 40301), "{deed:?}");
    }
    assert_eq!(done(&app).await, before);
}

#[tokio::test]
async fn an_owner_who_is_made_an_administrator_while_they_wait_makes_no_owner() {
    let app = TestApp::start().await;
    let owner = Api::owner(&app).await;
    let (id, _) = owner.colleague("fallen", "owner").await;
    let scopes = JsonText(Permission::ALL.map(|scope| scope.to_string()).into());
    let key = add_key(&app, &id, |row| row.scopes = scopes).await;
    let by_key = Api::showing(&app, key.reveal());
    let new = |role: &str| json!({"username": role, "role": role, "password": password_of("eve")});
    let peer = owner.make_user("peer", "admin").await;
    let deeds = [
        ("POST", "/admin/users".to_owned(), new("owner")),
        ("DELETE", format!("/admin/users/{peer}"), Value::Null),
        ("POST", "/admin/users".to_owned(), new("user")),
    ];
    let change = async |tx: &mut Tx| change_user(tx, "fallen", "active", "admin").await;
    let answers = while_waiting(&app, &by_key, &deeds, change).await;
    assert_eq!(answers[0].refusal(), (403, 40301));
    assert_eq!(answers[1].refusal(), (403, 40301));
    assert_eq!(answers[2].status, 201, "what an administrator may do is done");
}
