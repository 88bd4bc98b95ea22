//! A crowd at the database: who waits too long is told that it is busy, not that it is lost; long reads and the turns of
//! writers leave room for everybody else; and whoever looks for what was revoked waits for nobody.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use reqwest::Url;
use sconce::auth::records::{AuditReader, UsageGrouping, UsageReader};
use sconce::auth::{Auth, Origin};
use sconce::config::{Config, Environment, RawConfig};
use sconce::error::{Code, Failure};
use sconce::store::audit::AuditFilter;
use sconce::store::usage::UsageFilter;
use sconce::store::{ListRequest, Order, Store, StoreError, Tx, revisions};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::api::Api;
use crate::app::{OWNER, OWNER_PASSWORD, TestApp};
use crate::rig::{add_key, add_user, change, number, store};

/// More than any server has connections.
const CROWD: usize = 40;

/// The promise of revocation.
const BOUND: Duration = Duration::from_secs(1);

fn is_sqlite(app: &TestApp) -> bool {
    app.database_url.starts_with("sqlite")
}

/// A second doorkeeper, and its own connections.
async fn beside(app: &TestApp) -> (Store, Auth) {
    let home = [("HOME".to_owned(), "/nonexistent".to_owned())];
    let config = Config::load_from(RawConfig::default(), &home.into_iter().collect::<Environment>());
    let (store, config) = (store(app).await, config.expect("the defaults are right"));
    let auth = Auth::open(store.clone(), app.auth.clock().clone(), config.auth).await;
    (store, auth.expect("it opens"))
}

fn origin() -> Origin {
    Origin {
        address: Ipv4Addr::LOCALHOST.into(),
        request: String::new(),
        request_id: "req_1".into(),
        user_agent: String::new(),
    }
}

/// Takes every reader there is; gives them.
async fn every_reader(store: &Store) -> Vec<Tx> {
    join_all((0..CROWD).map(|_| store.read())).await.into_iter().filter_map(Result::ok).collect()
}

#[tokio::test]
async fn a_database_whose_connections_are_all_in_use_is_busy_and_not_lost() {
    let app = TestApp::start().await;
    let store = store(&app).await;
    let held = every_reader(&store).await;
    assert!(!held.is_empty() && held.len() < CROWD, "{}", held.len());
    // None of them ends, and none begins.
    let waited = store.read().await.map(drop);
    assert!(matches!(waited, Err(StoreError::Busy)), "{waited:?}");
    drop(held);
    store.ping().await.expect("it is free again");
}

/// Passes on what it is sent to where a URL points; gives the URL that points to it. With the task it ends, and cuts all.
async fn passage(url: &str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut near = Url::parse(url).expect("it is a URL");
    let far = format!("{}:{}", near.host_str().unwrap_or("127.0.0.1"), near.port().unwrap_or(5432));
    near.set_host(Some("127.0.0.1")).expect("a host");
    near.set_port(listener.local_addr().ok().map(|address| address.port())).expect("a port");
    let task = tokio::spawn(async move {
        let mut all = JoinSet::new();
        while let Ok((mut one, _)) = listener.accept().await {
            let far = far.clone();
            all.spawn(async move {
                let mut other = TcpStream::connect(far).await.expect("the server is there");
                let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
            });
        }
    });
    (near.into(), task)
}

#[tokio::test]
async fn a_server_that_went_away_is_lost_and_not_busy_however_many_ask() {
    let app = TestApp::start().await;
    if is_sqlite(&app) {
        // A file does not go away.
        return;
    }
    let (url, passage) = passage(&app.database_url).await;
    let store = Store::open(&url.into()).await.expect("it is reached");
    let mut held = vec![store.read().await.expect("it is there"), store.read().await.expect("it is there")];
    passage.abort();
    let _ = passage.await;
    for tx in &mut held {
        let found = revisions::read(tx).await;
        assert!(matches!(found, Err(StoreError::Unreachable(_))), "{found:?}");
    }
    drop(held);
    for found in join_all((0..CROWD).map(|_| store.read())).await {
        let found = found.map(drop);
        assert!(matches!(found, Err(StoreError::Unreachable(_))), "{found:?}");
    }
}

#[tokio::test]
async fn a_change_is_seen_while_every_reader_is_held() {
    let app = TestApp::start().await;
    let (store, auth) = beside(&app).await;
    let mut changes = auth.changes();
    let watching = tokio::spawn(auth.clone().watch());
    changes.changed().await.expect("the first look");
    let held = every_reader(&store).await;
    changes.borrow_and_update();
    change(&app, "UPDATE users SET display_name = 'another'").await;
    let seen = tokio::time::timeout(3 * BOUND, changes.changed()).await;
    assert!(seen.is_ok(), "it was not seen within three times {BOUND:?}");
    drop(held);
    watching.abort();
}

#[tokio::test]
async fn long_reads_and_short_ones_do_not_wait_for_each_other() {
    let app = TestApp::start().await;
    let (store, auth) = beside(&app).await;
    let token = app.sign_in(OWNER, OWNER_PASSWORD).await;
    let caller = async || auth.authenticate(Some(&token), origin()).await.expect("it is good");
    let audit: AuditReader = caller().await.exchange(&auth).await.expect("the owner may");
    let usage: UsageReader = caller().await.exchange(&auth).await.expect("the owner may");
    let all = UsageFilter::default();

    let short = every_reader(&store).await;
    assert!(audit.verify(None).await.expect("it waits for none of them").is_intact);
    usage.totals(&all, UsageGrouping::Model).await.expect("it waits for none of them");
    drop(short);

    let long = join_all((0..CROWD).map(|_| store.read_long())).await;
    let long: Vec<Tx> = long.into_iter().filter_map(Result::ok).collect();
    let survey = store.survey().await.expect("nobody surveys");
    let page = ListRequest { limit: 1, cursor: None, sort: "seq", order: Order::Ascending };
    let everything = AuditFilter::default();
    let (verified, summed, listed) = tokio::join!(
        audit.verify(None),
        usage.totals(&all, UsageGrouping::Model),
        audit.list(&everything, &page)
    );
    for code in [verified.err(), summed.err(), listed.err()].map(|error| error.map(|error| error.code())) {
        assert_eq!(code, Some(Code::DatabaseBusy));
    }
    store.ping().await.expect("there is room");
    drop((long, survey));
    assert!(audit.verify(None).await.expect("nobody is before it").is_intact);
}

#[tokio::test]
async fn a_crowd_of_long_reads_leaves_room_for_others() {
    let app = TestApp::start().await;
    if is_sqlite(&app) {
        // There is no way to stop readers of a file.
        return;
    }
    let owner = Api::owner(&app).await;
    let mut obstacle = PgConnection::connect(&app.database_url).await.expect("it connects");
    let lock = "BEGIN; LOCK TABLE audit, usage_records IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut obstacle).await.expect("it locks");
    let paths = ["/admin/audit/verify", "/me/usage/totals", "/admin/usage/totals", "/admin/audit?action=a"];
    let long = async |path: &'static str| owner.get(path).await.number();
    let mut long: FuturesUnordered<_> = paths.into_iter().cycle().take(CROWD).map(long).collect();
    assert_eq!(long.next().await, Some((429, 42913)), "the first that has waited long enough");
    // All the others have a connection by now, or wait for one.
    let mut light = std::pin::pin!(owner.get("/admin/teams"));
    loop {
        tokio::select! {
            biased;
            answer = &mut light => break assert_eq!(answer.number(), (200, 0), "{}", answer.text),
            other = long.next() => assert_eq!(other, Some((429, 42913)), "before there was room"),
        }
    }
    drop(obstacle);
    while let Some(answer) = long.next().await {
        assert!([(200, 0), (429, 42913)].contains(&answer), "{answer:?}");
    }
    assert_eq!(owner.get("/me/usage/totals").await.number(), (200, 0), "there is room again");
}

#[tokio::test]
async fn writers_that_wait_for_their_turn_leave_room_for_readers() {
    let app = TestApp::start().await;
    let store = store(&app).await;
    let (sqlite, postgres) = turn(&app).await;
    let mut writers: FuturesUnordered<_> = (0..CROWD).map(|_| store.write()).collect();
    tokio::select! {
        biased;
        // Asked first, so that all of them wait before the reader comes.
        first = writers.next() => panic!("before there was room: {:?}", first.map(|write| write.map(drop))),
        read = store.read() => drop(read.expect("there is room")),
    }
    let first = writers.next().await.expect("there are some").map(drop);
    assert!(matches!(first, Err(StoreError::Busy)), "{first:?}");
    drop((sqlite, postgres));
    while let Some(write) = writers.next().await {
        let write = write.map(drop);
        assert!(matches!(write, Ok(()) | Err(StoreError::Busy)), "{write:?}");
    }
    drop(store.write().await.expect("its turn comes"));
}

/// Another process that has its turn at writing, until it is dropped.
async fn turn(app: &TestApp) -> (Option<SqliteConnection>, Option<PgConnection>) {
    if is_sqlite(app) {
        let mut connection = SqliteConnection::connect(&app.database_url).await.expect("it connects");
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.expect("it is its turn");
        return (Some(connection), None);
    }
    let mut connection = PgConnection::connect(&app.database_url).await.expect("it connects");
    let turn = "BEGIN; SELECT seq FROM audit_head FOR UPDATE";
    sqlx::raw_sql(turn).execute(&mut connection).await.expect("it is its turn");
    (None, Some(connection))
}

#[tokio::test]
async fn when_keys_were_used_is_written_without_waiting_for_a_turn_or_for_a_row() {
    let app = TestApp::start().await;
    if is_sqlite(&app) {
        // Whoever writes to the file has it alone.
        return;
    }
    let (_, auth) = beside(&app).await;
    let ada = add_user(&app, "ada", "user", |_| ()).await;
    for id in ["key_a", "key_b"] {
        let key = add_key(&app, &ada, |row| row.id = id.into()).await;
        auth.authenticate(Some(key.reveal()), origin()).await.expect("the key is good");
    }
    let (_, turn) = turn(&app).await;
    let mut turn = turn.expect("it is PostgreSQL");
    let change = "UPDATE api_keys SET name = 'another' WHERE id = 'key_a'";
    sqlx::raw_sql(change).execute(&mut turn).await.expect("it changes a key");
    let used = "SELECT COUNT(*) FROM api_keys WHERE id IN ('key_a', 'key_b') AND last_used_at IS NOT NULL";
    auth.write_last_used().await.expect("it waits for nobody");
    assert_eq!(number(&app, used).await, 1, "the one that nobody changes");
    sqlx::raw_sql("COMMIT").execute(&mut turn).await.expect("it commits");
    auth.write_last_used().await.expect("it waits for nobody");
    assert_eq!(number(&app, used).await, 2, "nothing is forgotten");
}

#[tokio::test]
async fn a_transaction_that_nobody_waits_for_any_more_is_not_left_open() {
    let app = TestApp::start().await;
    if is_sqlite(&app) {
        return;
    }
    let store = store(&app).await;
    store.ping().await.expect("it answers");
    // Given up at each moment between asking and having.
    for moment in 0..200 {
        let _ = tokio::time::timeout(Duration::from_micros(10 * moment), store.read()).await;
    }
    let mut other = PgConnection::connect(&app.database_url).await.expect("it answers");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND state LIKE 'idle in transaction%' AND clock_timestamp() - state_change > interval '1 second'";
    // Longer than any of the server's own goes on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut other).await.expect("it answers");
    assert_eq!(left, 0);
}
