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
use process::{Machine, Server, client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Writes of a round that are sent in all, if the server lives.
const WRITES: u64 = 200;

/// Those who send them at the same time.
const WRITERS: u64 = 4;

/// After so many acknowledged writes the server is killed, others being under way.
const MOMENTS: [u64; 5] = [1, 40, 97, 150, 190];

/// What is known of one team that was to be made and then renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// Sent; no answer came.
    Attempted,
    /// 201 came.
    Made,
    /// 201 came, and the renaming was sent.
    RenameAttempted,
    /// 200 came.
    Renamed,
}

/// What the writers know, by the name of the team.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<String, Known>>);

impl Ledger {
    fn note(&self, name: &str, known: Known) {
        self.0.lock().unwrap().insert(name.to_owned(), known);
    }
}

/// Sends writes, two to a team, until there are enough or nobody answers; counts what was acknowledged.
async fn write(
    url: String,
    token: String,
    (ledger, sent): (Arc<Ledger>, Arc<AtomicU64>),
    acknowledged: watch::Sender<u64>,
    label: String,
) {
    let client = client();
    for number in 0.. {
        if sent.fetch_add(2, Ordering::SeqCst) >= WRITES {
            return;
        }
        let name = format!("{label}-{number}");
        ledger.note(&name, Known::Attempted);
        let made =
            client.post(format!("{url}/api/v1/admin/teams")).bearer_auth(&token).json(&json!({"name": name}));
        let Ok(answer) = made.send().await else { return };
        assert_eq!(answer.status(), 201);
        let Ok(body) = answer.json::<Value>().await else { return };
        ledger.note(&name, Known::Made);
        acknowledged.send_modify(|count| *count += 1);
        let id = body["data"]["id"].as_str().unwrap();
        ledger.note(&name, Known::RenameAttempted);
        let renamed = client.put(format!("{url}/api/v1/admin/teams/{id}")).bearer_auth(&token);
        let renamed = renamed.json(&json!({"description": name}));
        let Ok(answer) = renamed.send().await else { return };
        assert_eq!(answer.status(), 200);
        ledger.note(&name, Known::Renamed);
        acknowledged.send_modify(|count| *count += 1);
    }
}

/// One round: writes, the kill in the middle of them, and what the writers know then.
async fn round(server: Server, number: usize, kill_after: u64) -> BTreeMap<String, Known> {
    let token = server.owner_token().await;
    let (ledger, sent) = (Arc::new(Ledger::default()), Arc::new(AtomicU64::new(0)));
    let acknowledged = watch::Sender::new(0);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let label = format!("round {number} writer {writer}");
        let shared = (Arc::clone(&ledger), Arc::clone(&sent));
        writers.spawn(write(server.url.clone(), token.clone(), shared, acknowledged.clone(), label));
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
    for (number, kill_after) in MOMENTS.into_iter().enumerate() {
        known.extend(round(machine.serve().await, number, kill_after).await);

        // Before a server starts again and after.
        if Backend::under_test() == Backend::Sqlite {
            assert_eq!(machine.ask_database("PRAGMA integrity_check").await, ["ok"]);
        }
        machine.run(&["audit", "verify"]).await.ok();
        let server = machine.serve().await;
        let token = server.owner_token().await;
        let teams = server.all("/api/v1/admin/teams", &token).await;
        let there: BTreeMap<&str, &Value> =
            teams.iter().map(|team| (team["name"].as_str().unwrap(), team)).collect();
        assert_eq!(there.len(), teams.len(), "no team is there twice");
        for (name, known) in &known {
            let team = there.get(name.as_str());
            assert!(team.is_some() || *known == Known::Attempted, "{name} was acknowledged and is gone");
            let renamed = team.is_some_and(|team| team["description"] == **name);
            assert!(renamed || *known < Known::Renamed, "{name}'s renaming was acknowledged and is gone");
            assert!(
                !renamed || *known >= Known::RenameAttempted,
                "{name} is renamed, which nobody asked for"
            );
        }
        assert!(there.keys().all(|name| known.contains_key(*name)), "a team is there that nobody made");
        the_audit_has_each_write_once(&machine, &teams).await;
        drop(server);
    }
}

/// A write and its row of the audit happen together or not at all.
async fn the_audit_has_each_write_once(machine: &Machine, teams: &[Value]) {
    let mut expected: Vec<(String, String)> = Vec::new();
    for team in teams {
        let id = team["id"].as_str().unwrap();
        expected.push(("team.create".into(), id.into()));
        if team["description"] == team["name"] {
            expected.push(("team.update".into(), id.into()));
        }
    }
    let rows = machine.run(&["audit", "export"]).await.ok();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = rows.map(|row| (text(&row, "action"), text(&row, "target_id")));
    let mut found: Vec<_> = rows.filter(|(action, _)| action.starts_with("team.")).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
