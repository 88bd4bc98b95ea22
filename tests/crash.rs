//! The server killed (`kill -9`) in the middle of administrative writes: what it acknowledged is there afterwards, what it
//! did not is there whole or not at all, and the audit has exactly what happened.
//!
//! On SQLite that is also the database's end; on PostgreSQL the server's process dies and the database lives.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod database;
mod process;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use database::Backend;
use process::{Machine, OWNER, OWNER_PASSWORD, Server, client};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Writes of a round that are sent in all, if the server lives.
const WRITES: u64 = 200;

/// Those who send them at the same time.
const WRITERS: usize = 4;

/// After so many acknowledged writes the server is killed, others being under way.
const MOMENTS: [u64; 5] = [1, 40, 97, 150, 190];

/// Something that is made and then changed.
#[derive(Debug)]
struct Kind {
    /// Its list; what is made is posted there, and changed below it.
    path: &'static str,
    /// As the audit's actions begin.
    noun: &'static str,
    /// How one is made, for this user.
    make: fn(name: &str, user_id: &str) -> Value,
    change: fn(name: &str) -> Value,
    is_changed: fn(&Value) -> bool,
}

const KINDS: [Kind; 2] = [
    Kind {
        path: "/api/v1/admin/teams",
        noun: "team",
        make: |name, _| json!({"name": name}),
        change: |name| json!({"description": name}),
        is_changed: |team| team["description"] == team["name"],
    },
    Kind {
        path: "/api/v1/admin/keys",
        noun: "key",
        make: |name, user_id| json!({"name": name, "user_id": user_id}),
        change: |_| json!({"status": "disabled"}),
        is_changed: |key| key["status"] == "disabled",
    },
];

/// How far something came, as whoever asked for it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// Sent; no answer came.
    Attempted,
    /// 201 came.
    Made,
    /// 201 came, and the change was sent.
    ChangeAttempted,
    /// 200 came.
    Changed,
}

/// What the writers know, by the name of the thing; of a key also the secret.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<String, (Known, Option<String>)>>);

impl Ledger {
    fn note(&self, name: &str, known: Known, secret: Option<&str>) {
        let mut all = self.0.lock().unwrap();
        let entry = all.entry(name.to_owned()).or_insert((known, None));
        entry.0 = known;
        if let Some(secret) = secret {
            entry.1 = Some(secret.to_owned());
        }
    }
}

/// One who writes.
struct Writer {
    kind: &'static Kind,
    label: String,
    url: String,
    token: String,
    user_id: String,
    ledger: Arc<Ledger>,
    /// How many writes were sent, by all.
    sent: Arc<AtomicU64>,
    /// How many were acknowledged, of all.
    acknowledged: watch::Sender<u64>,
}

impl Writer {
    /// Sends writes, two to a thing, until there are enough or nobody answers.
    async fn write(self) {
        let client = client();
        for number in 0.. {
            if self.sent.fetch_add(2, Ordering::SeqCst) >= WRITES {
                return;
            }
            let name = format!("{} {number}", self.label);
            self.ledger.note(&name, Known::Attempted, None);
            let make = client.post(format!("{}{}", self.url, self.kind.path));
            let Some(made) = self.send(make, &(self.kind.make)(&name, &self.user_id), 201).await else {
                return;
            };
            self.ledger.note(&name, Known::Made, made["data"]["key"].as_str());
            self.acknowledged.send_modify(|count| *count += 1);

            self.ledger.note(&name, Known::ChangeAttempted, None);
            let id = made["data"]["id"].as_str().unwrap();
            let change = client.put(format!("{}{}/{id}", self.url, self.kind.path));
            if self.send(change, &(self.kind.change)(&name), 200).await.is_none() {
                return;
            }
            self.ledger.note(&name, Known::Changed, None);
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    /// The answer; none if nobody answers any more.
    async fn send(&self, request: RequestBuilder, body: &Value, expected: u16) -> Option<Value> {
        let answer = request.bearer_auth(&self.token).json(body).send().await.ok()?;
        assert_eq!(answer.status(), expected);
        answer.json().await.ok()
    }
}

/// One round: writes, the kill in the middle of them, and what the writers know then.
async fn round(server: Server, number: usize, kill_after: u64) -> BTreeMap<String, (Known, Option<String>)> {
    let (_, body) = server.sign_in(OWNER, OWNER_PASSWORD).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (token, user_id) = (text(&body["data"]["access_token"]), text(&body["data"]["user"]["id"]));
    let ledger = Arc::new(Ledger::default());
    let (sent, acknowledged) = (Arc::new(AtomicU64::new(0)), watch::Sender::new(0));
    let mut writers = JoinSet::new();
    for (writer, kind) in KINDS.iter().cycle().take(WRITERS).enumerate() {
        let writer = Writer {
            kind,
            label: format!("{} of round {number}, writer {writer},", kind.noun),
            url: server.url.clone(),
            token: token.clone(),
            user_id: user_id.clone(),
            ledger: Arc::clone(&ledger),
            sent: Arc::clone(&sent),
            acknowledged: acknowledged.clone(),
        };
        writers.spawn(writer.write());
    }
    acknowledged.subscribe().wait_for(|count| *count >= kill_after).await.unwrap();
    server.kill().await;
    while let Some(ended) = writers.join_next().await {
        ended.expect("no writer was answered wrongly");
    }
    let count = *acknowledged.borrow();
    assert!(count < WRITES, "it was killed when all was over");
    Arc::into_inner(ledger).unwrap().0.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_outlives_a_kill_and_the_audit_has_what_happened() {
    let machine = Machine::new().await;
    let mut known = BTreeMap::new();
    let mut server = machine.serve().await;
    for (number, kill_after) in MOMENTS.into_iter().enumerate() {
        known.extend(round(server, number, kill_after).await);

        // Before a server starts again, and by one that does.
        if Backend::under_test() == Backend::Sqlite {
            assert_eq!(machine.ask_database("PRAGMA integrity_check").await, ["ok"]);
        }
        machine.run(&["audit", "verify"]).await.ok();
        server = machine.serve().await;
        let mut expected = Vec::new();
        for kind in &KINDS {
            let prefix = format!("{} of round", kind.noun);
            let mut items = server.all(kind.path, &server.owner_token().await).await;
            items.retain(|item| item["name"].as_str().unwrap().starts_with(&prefix));
            is_as_known(&server, kind, &items, &known).await;
            expected.extend(rows_of(kind, &items));
        }
        expected.sort();
        assert_eq!(rows_in_the_audit(&machine).await, expected, "a write and its row happen together");
    }
}

/// What was acknowledged is there, and what is there was asked for.
async fn is_as_known(
    server: &Server,
    kind: &Kind,
    items: &[Value],
    known: &BTreeMap<String, (Known, Option<String>)>,
) {
    let there: BTreeMap<&str, &Value> =
        items.iter().map(|item| (item["name"].as_str().unwrap(), item)).collect();
    assert_eq!(there.len(), items.len(), "nothing is there twice");
    assert!(there.keys().all(|name| known.contains_key(*name)), "something is there that nobody made");
    for (name, (known, secret)) in known.iter().filter(|(name, _)| name.starts_with(kind.noun)) {
        let item = there.get(name.as_str());
        assert!(item.is_some() || *known == Known::Attempted, "{name} was acknowledged and is gone");
        let is_changed = item.is_some_and(|item| (kind.is_changed)(item));
        assert!(is_changed || *known < Known::Changed, "the change of {name} was acknowledged and is gone");
        assert!(!is_changed || *known >= Known::ChangeAttempted, "{name} is changed, which nobody asked for");
        if let Some(secret) = secret {
            let expected = if is_changed { 401 } else { 200 };
            assert_eq!(server.get("/api/v1/me", secret).await.0, expected, "{name}");
        }
    }
}

/// Actions and targets that the audit must have for what is there.
fn rows_of(kind: &Kind, items: &[Value]) -> Vec<(String, String)> {
    let row =
        |deed: &str, item: &Value| (format!("{}.{deed}", kind.noun), item["id"].as_str().unwrap().to_owned());
    let made = items.iter().map(|item| row("create", item));
    let changed = items.iter().filter(|item| (kind.is_changed)(item)).map(|item| row("update", item));
    made.chain(changed).collect()
}

/// Those that it has, but for the key of the first run.
async fn rows_in_the_audit(machine: &Machine) -> Vec<(String, String)> {
    let rows = machine.run(&["audit", "export"]).await.ok();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ours = rows.filter(|row| {
        let action = row["action"].as_str().unwrap();
        row["actor_kind"] != "system"
            && KINDS.iter().any(|kind| action.starts_with(&format!("{}.", kind.noun)))
    });
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let mut found: Vec<_> = ours.map(|row| (text(&row, "action"), text(&row, "target_id"))).collect();
    found.sort();
    found
}
