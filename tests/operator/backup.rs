//! `sconce backup` and `sconce restore`, and that a SQLite file is one server's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sconce::auth::verify_chain;
use sconce::store::{Store, audit};
use secrecy::SecretString;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::audit::event;
use crate::database::Backend;
use crate::process::{Machine, OWNER, OWNER_PASSWORD, ask};

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}

#[tokio::test]
async fn a_backup_made_while_a_server_runs_is_whole_and_nobody_elses() {
    let machine = Machine::on(Backend::Sqlite).await;
    let server = machine.serve().await;
    let file = machine.path("backup.db");
    machine.run(&["backup", text(&file)]).await.ok();
    let rows = machine.ask_database("SELECT CAST(COUNT(*) AS TEXT) FROM audit").await;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let url = format!("sqlite://{}", text(&file));
    assert_eq!(ask(&url, "PRAGMA integrity_check").await, ["ok"]);
    assert_eq!(ask(&url, "SELECT CAST(COUNT(*) AS TEXT) FROM audit").await, rows);
    let left: Vec<_> =
        std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("backup.db.")), "{left:?}");

    let before = std::fs::read(&file).unwrap();
    let error = machine.run(&["backup", text(&file)]).await.refused();
    assert!(error.contains("is there already"), "{error}");
    assert!(std::fs::read(&file).unwrap() == before, "it was overwritten");
    let error = machine.run(&["backup", text(&machine.path("no/such/folder.db"))]).await.refused();
    assert!(error.contains("no/such/folder.db"), "{error}");
    drop(server);
}

#[tokio::test]
async fn a_backup_is_of_one_moment_whatever_is_written_meanwhile() {
    let machine = Machine::on(Backend::Sqlite).await;
    let store = Store::open(&SecretString::from(machine.database_url())).await.unwrap();
    store.migrate().await.unwrap();
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        loop {
            let mut tx = writer.write().await.unwrap();
            audit::append(&mut tx, event(1)).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    let mut rows = Vec::new();
    for name in ["1.db", "2.db", "3.db"] {
        let file = machine.path(name);
        machine.run(&["backup", text(&file)]).await.ok();
        let copy =
            Store::open_existing(&SecretString::from(format!("sqlite://{}", text(&file)))).await.unwrap();
        let report = verify_chain(&copy, None).await.unwrap();
        assert_eq!(report.broken, None);
        rows.push(report.sound);
    }
    assert!(!writing.is_finished(), "it was written to all the time");
    assert!(rows[0] < rows[1] && rows[1] < rows[2], "{rows:?}");
    writing.abort();
}

#[tokio::test]
async fn a_backup_is_restored_and_the_old_database_kept() {
    let machine = Machine::on(Backend::Sqlite).await;
    let server = machine.serve().await;
    let session = server.owner_token().await;
    let kept_key = machine.run(&["admin", "create-key"]).await.ok();
    let file = machine.path("backup.db");
    machine.run(&["backup", text(&file)]).await.ok();
    let lost_key = machine.run(&["admin", "create-key"]).await.ok();
    let end = machine.run(&["audit", "verify"]).await.ok();
    let error = machine.run(&["restore", text(&file)]).await.refused();
    let process = format!("process {}", server.process());
    assert!(error.contains("used by another sconce server") && error.contains(&process), "{error}");
    assert_eq!(server.get("/api/v1/me", lost_key.trim()).await.0, 200, "the server goes on");
    server.kill().await;

    let said = machine.run(&["restore", text(&file)]).await.ok();
    let old = format!("{}.before-restore", text(&machine.database_file()));
    assert!(said.contains(&old), "{said}");
    let url = format!("sqlite://{old}");
    assert_eq!(ask(&url, "SELECT CAST(COUNT(*) AS TEXT) FROM api_keys").await, ["3"], "the old one is whole");
    assert_eq!(Path::new(&old).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    machine.run(&["audit", "verify"]).await.ok();
    let rows = machine.run(&["audit", "export"]).await.ok();
    let row: serde_json::Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
    assert_eq!((&row["action"], &row["actor_kind"]), (&json!("database.restore"), &json!("system")), "{row}");
    let checkpoint =
        format!("{}:{}", row["before"]["audit_seq"], row["before"]["audit_hash"].as_str().unwrap());
    assert!(end.contains(&checkpoint), "what was replaced is on record: {row}, {end}");

    let server = machine.serve().await;
    assert_eq!(server.get("/api/v1/me", kept_key.trim()).await.0, 200);
    assert_eq!(server.get("/api/v1/me", lost_key.trim()).await.0, 401);
    assert_eq!(server.get("/api/v1/me", &session).await.0, 401, "sessions of before have ended");
    assert_eq!(server.sign_in(OWNER, OWNER_PASSWORD).await.0, 200);
    server.kill().await;

    // Once more: what was kept is not lost.
    let said = machine.run(&["restore", text(&file)]).await.ok();
    assert!(said.contains(&format!("{old}.2")), "{said}");
    assert_eq!(ask(&url, "SELECT CAST(COUNT(*) AS TEXT) FROM api_keys").await, ["3"]);
}

#[tokio::test]
async fn a_restore_can_be_undone_with_what_it_kept() {
    let machine = Machine::on(Backend::Sqlite).await;
    let server = machine.serve().await;
    let file = machine.path("backup.db");
    machine.run(&["backup", text(&file)]).await.ok();
    let later_key = machine.run(&["admin", "create-key"]).await.ok();
    // It was killed: not all is in the one file.
    server.kill().await;
    machine.run(&["restore", text(&file)]).await.ok();
    let kept = format!("{}.before-restore", text(&machine.database_file()));
    let beside = || {
        let all = std::fs::read_dir(machine.database_file().parent().unwrap()).unwrap();
        let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("test.db"));
        names.sort();
        names
    };
    assert_eq!(beside(), ["test.db", "test.db.before-restore", "test.db.lock"]);

    machine.run(&["restore", &kept]).await.ok();
    assert_eq!(beside(), ["test.db", "test.db.before-restore", "test.db.before-restore.2", "test.db.lock"]);
    machine.run(&["audit", "verify"]).await.ok();
    let server = machine.serve().await;
    assert_eq!(server.get("/api/v1/me", later_key.trim()).await.0, 200, "it is back");
}

#[tokio::test]
async fn a_backup_is_restored_where_nothing_was() {
    let machine = Machine::on(Backend::Sqlite).await;
    machine.run(&["migrate"]).await.ok();
    machine.run(&["admin", "create-user", "one", "--role", "owner"]).await.ok();
    let file = machine.path("backup.db");
    machine.run(&["backup", text(&file)]).await.ok();
    let elsewhere = Machine::on(Backend::Sqlite).await;
    elsewhere.run(&["restore", text(&file)]).await.ok();
    assert!(elsewhere.run(&["admin", "list-users"]).await.ok().starts_with("one "));
    assert_eq!(elsewhere.database_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let left = std::fs::read_dir(elsewhere.database_file().parent().unwrap()).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["test.db", "test.db.lock"]);
}

#[tokio::test]
async fn what_is_no_good_backup_is_refused_and_nothing_is_changed() {
    let machine = Machine::on(Backend::Sqlite).await;
    machine.run(&["migrate"]).await.ok();
    machine.run(&["admin", "create-user", "one", "--role", "owner"]).await.ok();
    let (good, file) = (machine.path("good.db"), machine.path("bad.db"));
    machine.run(&["backup", text(&good)]).await.ok();
    let before = std::fs::read(machine.database_file()).unwrap();
    let folder = machine.database_file().parent().unwrap().to_owned();
    let whole = std::fs::read(&good).unwrap();
    let in_the_middle = whole.len() / 4096 / 2 * 4096;
    let mut damaged = whole.clone();
    damaged[in_the_middle..in_the_middle + 4096].fill(0x5a);

    let cases: [(&str, Vec<u8>); 4] = [
        ("not a database", b"The quick brown fox jumps over the lazy dog. ".repeat(50)),
        ("no database of sconce", Vec::new()),
        ("damaged", damaged),
        ("malformed", whole[..whole.len() / 2].to_vec()),
    ];
    for (reason, bytes) in cases {
        std::fs::write(&file, bytes).unwrap();
        let error = machine.run(&["restore", text(&file)]).await.refused();
        assert!(error.contains("cannot be restored"), "{reason}: {error}");
        let _ = std::fs::remove_file(&file);
    }
    let url = format!("sqlite://{}", text(&file));
    for (reason, sql) in [
        ("newer", "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1"),
        ("modified", "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1"),
        ("no database of sconce", "DROP TABLE audit_head"),
        (
            "damaged",
            "PRAGMA foreign_keys = OFF; DELETE FROM users; INSERT INTO api_keys SELECT 'k', 'nobody', NULL, \
            '', '', '', NULL, NULL, '[]', NULL, NULL, '', NULL, 0, '', 0, NULL, NULL",
        ),
    ] {
        std::fs::copy(&good, &file).unwrap();
        let options: SqliteConnectOptions = url.parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let error = machine.run(&["restore", text(&file)]).await.refused();
        assert!(error.contains("cannot be restored") && error.contains(reason), "{reason}: {error}");
        std::fs::remove_file(&file).unwrap();
    }
    // A copy of a database in use: half of it is in the file beside it.
    std::fs::copy(&good, &file).unwrap();
    std::fs::write(machine.path("bad.db-wal"), "something").unwrap();
    let error = machine.run(&["restore", text(&file)]).await.refused();
    assert!(error.contains("-wal") && error.contains("sconce backup"), "{error}");
    let error = machine.run(&["restore", text(&machine.path("nothing"))]).await.refused();
    assert!(error.contains("nothing"), "{error}");

    assert!(std::fs::read(machine.database_file()).unwrap() == before, "it was changed");
    let mut left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["test.db", "test.db.lock"]);
}

#[tokio::test]
async fn a_database_that_somebody_has_open_is_not_replaced() {
    let machine = Machine::on(Backend::Sqlite).await;
    machine.run(&["migrate"]).await.ok();
    let file = machine.path("backup.db");
    machine.run(&["backup", text(&file)]).await.ok();
    let options: SqliteConnectOptions = machine.database_url().parse().unwrap();
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("SELECT * FROM users").execute(&mut connection).await.unwrap();
    let error = machine.run(&["restore", text(&file)]).await.refused();
    assert!(error.contains("is in use"), "{error}");
    connection.close().await.unwrap();
    machine.run(&["restore", text(&file)]).await.ok();
}

#[tokio::test]
async fn a_database_that_cannot_be_read_any_more_is_replaced_and_kept() {
    let machine = Machine::on(Backend::Sqlite).await;
    machine.run(&["migrate"]).await.ok();
    machine.run(&["admin", "create-user", "one", "--role", "owner"]).await.ok();
    let file = machine.path("backup.db");
    machine.run(&["backup", text(&file)]).await.ok();
    std::fs::write(machine.database_file(), "a disk fault").unwrap();
    let wal = format!("{}-wal", text(&machine.database_file()));
    std::fs::write(&wal, "another").unwrap();
    let said = machine.run(&["restore", text(&file)]).await.ok();
    assert!(said.contains(".before-restore"), "{said}");
    assert!(machine.run(&["admin", "list-users"]).await.ok().starts_with("one "));
    let kept = format!("{}.before-restore", text(&machine.database_file()));
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "a disk fault");
}

#[tokio::test]
async fn a_sqlite_file_is_one_servers_and_free_again_when_that_is_killed() {
    let machine = Machine::on(Backend::Sqlite).await;
    let first = machine.serve().await;
    let error = machine.start(&[]).await.map(|server| server.banner).unwrap_err();
    let process = format!("process {}", first.process());
    assert!(error.contains("used by another sconce server") && error.contains(&process), "{error}");
    assert!(error.contains("postgres://"), "{error}");
    for words in [&["admin", "list-users"][..], &["audit", "verify"], &["migrate"], &["migrate", "--check"]] {
        machine.run(words).await.ok();
    }
    first.kill().await;
    machine.serve().await;
}

#[tokio::test]
async fn on_postgresql_its_own_tools_are_named() {
    // No server is needed to say so.
    let machine = Machine::on(Backend::Sqlite).await;
    let file = machine.path("backup.db");
    std::fs::write(&file, "").unwrap();
    let words = ["restore", text(&file), "--database-url", "postgres://nobody@127.0.0.1:1/none"];
    let error = machine.run(&words).await.refused();
    assert!(error.contains("pg_restore"), "{error}");
    if Backend::under_test() == Backend::Postgres {
        let machine = Machine::on(Backend::Postgres).await;
        machine.run(&["migrate"]).await.ok();
        let error = machine.run(&["backup", text(&machine.path("backup.db"))]).await.refused();
        assert!(error.contains("pg_dump"), "{error}");
        assert!(!machine.path("backup.db").exists());
    }
}
