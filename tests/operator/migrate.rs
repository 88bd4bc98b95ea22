//! `sconce migrate`, and whether both folders of migrations mean the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::database::Backend;
use crate::process::{Machine, ask};

#[tokio::test]
async fn the_schema_is_brought_up_to_date_once() {
    let machine = Machine::new().await;
    let said = machine.run(&["migrate"]).await.ok();
    assert!(said.contains("applied 0001 platform"), "{said}");
    assert_eq!(machine.run(&["migrate"]).await.ok(), "the schema is up to date\n");
    assert_eq!(machine.run(&["migrate", "--check"]).await.ok(), "the schema is up to date\n");
}

#[tokio::test]
async fn a_check_tells_what_is_pending_and_changes_nothing() {
    let machine = Machine::new().await;
    for _ in 0..2 {
        let said = machine.run(&["migrate", "--check"]).await;
        assert!(said.out.contains("pending 0001 platform"), "{said:?}");
        let error = said.refused();
        assert!(error.contains("sconce migrate"), "{error}");
    }
    match Backend::under_test() {
        Backend::Sqlite => {
            let folder = machine.database_file().parent().unwrap().to_owned();
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "it made a file");
        }
        Backend::Postgres => {
            let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()";
            assert_eq!(machine.ask_database(tables).await, [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_check_leaves_a_database_that_is_there_as_it_is() {
    let machine = Machine::on(Backend::Sqlite).await;
    machine.run(&["migrate"]).await.ok();
    let before = std::fs::read(machine.database_file()).unwrap();
    machine.run(&["migrate", "--check"]).await.ok();
    assert!(std::fs::read(machine.database_file()).unwrap() == before, "it wrote to the file");
    let folder = machine.database_file().parent().unwrap().to_owned();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "it left a file");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_by_name() {
    let machine = Machine::new().await;
    machine.run(&["migrate"]).await.ok();
    machine
        .tamper(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
    for words in [&["migrate"][..], &["migrate", "--check"], &["audit", "verify"]] {
        let error = machine.run(words).await.refused();
        assert!(error.contains("newer") && error.contains("9999"), "{words:?}: {error}");
    }
    let error = machine.start(&[]).await.map(|server| server.banner).unwrap_err();
    assert!(error.contains("newer") && error.contains("9999"), "{error}");
}

#[tokio::test]
async fn without_a_database_commands_say_so_and_make_none() {
    let machine = Machine::on(Backend::Sqlite).await;
    let error = machine.run(&["audit", "verify"]).await.refused();
    assert!(error.contains("there is no database at") && error.contains("sconce migrate"), "{error}");
    assert!(!machine.database_file().exists());
}

/// `table.column type null|not-null key-position`, or `index NAME unique|not`.
const SQLITE_SCHEMA: &str = "
    SELECT t.name || '.' || c.name || ' ' || LOWER(c.type) || ' '
        || CASE c.\"notnull\" WHEN 1 THEN 'not-null' ELSE 'null' END || ' ' || c.pk
    FROM sqlite_master t JOIN pragma_table_info(t.name) c
    WHERE t.type = 'table' AND t.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    UNION ALL
    SELECT 'index ' || t.name || '.' || i.name || ' ' || CASE i.\"unique\" WHEN 1 THEN 'unique' ELSE 'not' END
    FROM sqlite_master t JOIN pragma_index_list(t.name) i
    WHERE t.type = 'table' AND i.origin = 'c'";

const POSTGRES_SCHEMA: &str = "
    SELECT c.table_name || '.' || c.column_name || ' ' || c.data_type || ' '
        || CASE c.is_nullable WHEN 'NO' THEN 'not-null' ELSE 'null' END || ' '
        || COALESCE((SELECT k.ordinal_position FROM information_schema.key_column_usage k
            JOIN information_schema.table_constraints p USING (constraint_schema, constraint_name)
            WHERE p.constraint_type = 'PRIMARY KEY' AND k.table_schema = c.table_schema
                AND k.table_name = c.table_name AND k.column_name = c.column_name), 0)
    FROM information_schema.columns c
    WHERE c.table_schema = current_schema() AND c.table_name NOT LIKE '\\_sqlx%'
    UNION ALL
    SELECT 'index ' || t.relname || '.' || i.relname || ' ' || CASE x.indisunique WHEN true THEN 'unique' ELSE 'not' END
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
    WHERE t.relnamespace = current_schema()::regnamespace AND NOT x.indisprimary AND t.relname NOT LIKE '\\_sqlx%'";

#[tokio::test]
async fn both_folders_of_migrations_make_the_same_tables() {
    let machine = Machine::on(Backend::Sqlite).await;
    machine.run(&["migrate"]).await.ok();
    let sqlite: BTreeSet<_> = ask(machine.database_url(), SQLITE_SCHEMA).await.into_iter().collect();
    let columns = sqlite.iter().filter(|line| !line.starts_with("index ")).count();
    assert!(columns > 50 && sqlite.len() > columns + 5, "{sqlite:#?}");
    // Types that mean the same on both.
    let mut types = BTreeMap::new();
    for line in sqlite.iter().filter(|line| !line.starts_with("index ")) {
        *types.entry(line.split(' ').nth(1).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(types.into_keys().collect::<Vec<_>>(), ["bigint", "boolean", "bytea", "text"]);
    if Backend::under_test() == Backend::Sqlite {
        return;
    }
    let machine = Machine::on(Backend::Postgres).await;
    machine.run(&["migrate"]).await.ok();
    let postgres: BTreeSet<_> = ask(machine.database_url(), POSTGRES_SCHEMA).await.into_iter().collect();
    let differ: Vec<_> = sqlite.symmetric_difference(&postgres).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}
