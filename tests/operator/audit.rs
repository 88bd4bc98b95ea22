//! `sconce audit`: each way of tampering with the rows is found, and the first bad row is named.

use sconce::auth::{Break, ChainReport, Checkpoint, Flaw, verify_chain};
use sconce::clock::Timestamp;
use sconce::store::audit::{self, AuditEvent, AuditRow};
use sconce::store::{Store, Tx};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::database::Backend;
use crate::process::Machine;

const ROWS: i64 = 9;

/// Something that happened.
pub fn event(number: i64) -> AuditEvent {
    AuditEvent {
        at: Timestamp::from_millis(1_700_000_000_000 + number),
        actor_kind: "user",
        actor_id: Some("usr_1".into()),
        actor_name: "margaret".into(),
        action: "user.update",
        target_kind: "user",
        target_id: Some(format!("usr_{number}")),
        outcome: "done",
        before: Some(json!({"role": "user", "share": 0.1})),
        after: (number % 2 == 0).then(|| json!({"role": "admin", "name": "茶"})),
        address: "192.0.2.1".into(),
        request_id: format!("req_{number}"),
    }
}

/// A machine whose audit has nine rows, and its store.
async fn chain() -> (Machine, Store) {
    let machine = Machine::new().await;
    let store = Store::open(&SecretString::from(machine.database_url())).await.unwrap();
    store.migrate().await.unwrap();
    for number in 1..=ROWS {
        let mut tx = store.write().await.unwrap();
        audit::append(&mut tx, event(number)).await.unwrap();
        tx.commit().await.unwrap();
    }
    (machine, store)
}

async fn report(store: &Store, checkpoint: Option<&Checkpoint>) -> ChainReport {
    verify_chain(store, checkpoint).await.expect("the database answers")
}

async fn rows(tx: &mut Tx) -> Vec<AuditRow> {
    audit::after(tx, 0, 100).await.unwrap()
}

/// A text as SQL writes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn each_way_of_tampering_is_found_and_the_first_bad_row_named() {
    let (machine, store) = chain().await;
    machine
        .tamper(
            "CREATE TABLE kept AS SELECT * FROM audit; CREATE TABLE kept_head AS SELECT * FROM audit_head",
        )
        .await;
    let all = rows(&mut store.read().await.unwrap()).await;
    let last = &all[8];
    let extra = AuditRow { seq: 10, previous_hash: last.hash.clone(), ..last.clone() };
    let behind_the_end = format!(
        "INSERT INTO audit SELECT 10, at, actor_kind, actor_id, actor_name, action, target_kind, target_id, outcome, \
         before, after, address, request_id, {}, {} FROM audit WHERE seq = 9",
        quoted(&extra.previous_hash),
        quoted(&extra.expected_hash())
    );
    let elsewhere = AuditRow { previous_hash: last.hash.clone(), ..all[3].clone() };
    let unlinked = format!(
        "UPDATE audit SET previous_hash = {}, hash = {} WHERE seq = 4",
        quoted(&elsewhere.previous_hash),
        quoted(&elsewhere.expected_hash())
    );
    let mut cases = vec![
        ("DELETE FROM audit WHERE seq = 1".to_owned(), 1, Flaw::Missing),
        ("DELETE FROM audit WHERE seq IN (4, 6)".to_owned(), 4, Flaw::Missing),
        ("DELETE FROM audit WHERE seq >= 8".to_owned(), 8, Flaw::CutOff),
        ("DELETE FROM audit".to_owned(), 1, Flaw::CutOff),
        ("UPDATE audit SET seq = 0 WHERE seq = 5".to_owned(), 0, Flaw::Inserted),
        ("UPDATE audit SET seq = -7 WHERE seq = 9".to_owned(), -7, Flaw::Inserted),
        (
            "UPDATE audit SET seq = 99 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5; \
             UPDATE audit SET seq = 5 WHERE seq = 99"
                .to_owned(),
            4,
            Flaw::Changed,
        ),
        (behind_the_end, 10, Flaw::Inserted),
        (unlinked, 4, Flaw::Unlinked),
        ("UPDATE audit_head SET seq = 5".to_owned(), 6, Flaw::Inserted),
        ("UPDATE audit_head SET seq = 12".to_owned(), 10, Flaw::CutOff),
        ("UPDATE audit_head SET hash = ''".to_owned(), 9, Flaw::Changed),
    ];
    for column in [
        "actor_kind",
        "actor_id",
        "actor_name",
        "action",
        "target_kind",
        "target_id",
        "outcome",
        "before",
        "after",
        "address",
        "request_id",
        "previous_hash",
        "hash",
    ] {
        cases.push((format!("UPDATE audit SET {column} = {column} || ' ' WHERE seq = 4"), 4, Flaw::Changed));
    }
    cases.push(("UPDATE audit SET at = at + 1 WHERE seq = 4".to_owned(), 4, Flaw::Changed));
    cases.push(("UPDATE audit SET after = NULL WHERE seq = 4".to_owned(), 4, Flaw::Changed));
    // From one text to the next, so that all of them together are the same.
    cases.push((
        "UPDATE audit SET actor_name = actor_name || 'u', action = 'ser.update' WHERE seq = 4".to_owned(),
        4,
        Flaw::Changed,
    ));
    if Backend::under_test() == Backend::Sqlite {
        cases.push(("UPDATE audit SET at = 'soon' WHERE seq = 4".to_owned(), 4, Flaw::Unreadable));
    }
    for (tampering, seq, flaw) in cases {
        machine.tamper(&tampering).await;
        let found = report(&store, None).await.broken;
        assert_eq!(found, Some(Break { seq, flaw }), "{tampering}");
        let error = machine.run(&["audit", "verify"]).await.refused();
        assert!(error.contains(&format!("row {seq} {}", flaw.text())), "{tampering}: {error}");
        machine
            .tamper(
                "DELETE FROM audit; DELETE FROM audit_head; INSERT INTO audit SELECT * FROM kept; \
                 INSERT INTO audit_head SELECT * FROM kept_head",
            )
            .await;
        assert_eq!(report(&store, None).await.broken, None, "put right after {tampering}");
    }
}

#[tokio::test]
async fn a_checkpoint_shows_what_was_made_anew() {
    let (machine, store) = chain().await;
    let said = machine.run(&["audit", "verify"]).await.ok();
    let noted =
        said.lines().find_map(|line| line.strip_prefix("checkpoint: ")).expect("it is printed").to_owned();
    assert!(noted.starts_with("9:"), "{said}");
    machine.run(&["audit", "verify", "--checkpoint", &noted]).await.ok();

    // From row 4 on everything is written again as somebody who knows the rules would.
    let mut previous = String::new();
    let mut anew = Vec::new();
    for mut row in rows(&mut store.read().await.unwrap()).await {
        if row.seq == 4 {
            row.actor_name = "somebody else".into();
        }
        row.previous_hash = previous;
        row.hash = row.expected_hash();
        previous = row.hash.clone();
        anew.push(format!(
            "UPDATE audit SET actor_name = {}, previous_hash = {}, hash = {} WHERE seq = {}",
            quoted(&row.actor_name),
            quoted(&row.previous_hash),
            quoted(&row.hash),
            row.seq
        ));
    }
    anew.push(format!("UPDATE audit_head SET hash = {}", quoted(&previous)));
    machine.tamper(&anew.join(";")).await;
    machine.run(&["audit", "verify"]).await.ok();
    let error = machine.run(&["audit", "verify", "--checkpoint", &noted]).await.refused();
    assert!(error.contains("row 9") && error.contains(Flaw::Rewritten.text()), "{error}");

    // An end cut off together with what is kept of it.
    machine
        .tamper(
            "DELETE FROM audit WHERE seq > 7; \
             UPDATE audit_head SET seq = 7, hash = (SELECT hash FROM audit WHERE seq = 7)",
        )
        .await;
    machine.run(&["audit", "verify"]).await.ok();
    let error = machine.run(&["audit", "verify", "--checkpoint", &noted]).await.refused();
    assert!(error.contains("row 8") && error.contains(Flaw::CutOff.text()), "{error}");
    let wrong = machine.run(&["audit", "verify", "--checkpoint", "7"]).await;
    assert!(wrong.code == Some(2) && wrong.err.contains("SEQ:HASH"), "{wrong:?}");
}

#[tokio::test]
async fn an_audit_that_was_emptied_is_cut_off_where_there_ever_was_a_user() {
    let machine = Machine::new().await;
    machine.run(&["migrate"]).await.ok();
    assert!(machine.run(&["audit", "verify"]).await.ok().contains("sound: 0 rows"), "nothing has happened");
    machine.run(&["admin", "create-user", "one", "--role", "owner"]).await.ok();
    machine.run(&["audit", "verify"]).await.ok();
    for emptied in [
        "DELETE FROM audit; UPDATE audit_head SET seq = 0, hash = ''",
        "DELETE FROM audit; DELETE FROM audit_head",
    ] {
        machine.tamper(emptied).await;
        let error = machine.run(&["audit", "verify"]).await.refused();
        assert!(error.contains(&format!("row 1 {}", Flaw::CutOff.text())), "{emptied}: {error}");
    }
}

#[tokio::test]
async fn without_the_end_that_is_kept_apart_no_row_is_led_to() {
    let (machine, store) = chain().await;
    machine.tamper("DELETE FROM audit_head").await;
    let found = report(&store, None).await.broken;
    assert_eq!(found, Some(Break { seq: 1, flaw: Flaw::Inserted }));
}

#[tokio::test]
async fn rows_that_are_added_meanwhile_are_part_of_the_chain() {
    let (_machine, store) = chain().await;
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for number in 10..=400 {
            let mut tx = writer.write().await.unwrap();
            audit::append(&mut tx, event(number)).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    while !writing.is_finished() {
        let found = report(&store, None).await;
        assert_eq!(found.broken, None);
        assert_eq!(found.end.map(|end| end.seq), Some(found.sound));
    }
    writing.await.unwrap();
    assert_eq!(report(&store, None).await.sound, 400);
}

#[tokio::test]
async fn an_export_has_every_row_as_it_was_hashed() {
    let (machine, store) = chain().await;
    let said = machine.run(&["audit", "export"]).await.ok();
    let exported: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept = rows(&mut store.read().await.unwrap()).await;
    assert_eq!(exported.len(), kept.len());
    for (line, row) in exported.iter().zip(&kept) {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let again = AuditRow {
            seq: line["seq"].as_i64().unwrap(),
            at: Timestamp::parse(line["at"].as_str().unwrap()).unwrap(),
            actor_kind: text("actor_kind").unwrap(),
            actor_id: text("actor_id"),
            actor_name: text("actor_name").unwrap(),
            action: text("action").unwrap(),
            target_kind: text("target_kind").unwrap(),
            target_id: text("target_id"),
            outcome: text("outcome").unwrap(),
            before: Some(line["before"].to_string()).filter(|text| text != "null"),
            after: Some(line["after"].to_string()).filter(|text| text != "null"),
            address: text("address").unwrap(),
            request_id: text("request_id").unwrap(),
            previous_hash: text("previous_hash").unwrap(),
            hash: text("hash").unwrap(),
        };
        assert_eq!(again, *row);
        assert_eq!(again.expected_hash(), again.hash);
    }
    let rest = machine.run(&["audit", "export", "--after", "7"]).await.ok();
    assert_eq!(rest.lines().count(), 2);
}
