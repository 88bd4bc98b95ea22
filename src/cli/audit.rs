//! `sconce audit`: whether the audit is what was written, and all of it as lines of JSON.

use std::error::Error;

use clap::Subcommand;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::auth::{Checkpoint, verify_chain};
use crate::cli::database::{DatabaseArguments, open_current};
use crate::cli::output;
use crate::store::audit::{self, AuditRow};
use crate::store::{Store, StoreError};

/// Rows read at once.
const STEP: i64 = 200;

/// What can be done with the audit: reading it.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the chain of all rows; exit with 1 and name the first bad row if it is broken
    ///
    /// Prints the end of the chain as SEQ:HASH. Noted somewhere else, and given to a later run with --checkpoint, it also
    /// shows a chain that was made anew from some row on.
    Verify {
        /// A place in the chain that was noted earlier
        #[arg(long, value_name = "SEQ:HASH")]
        checkpoint: Option<Checkpoint>,
        #[command(flatten)]
        database: DatabaseArguments,
    },
    /// Print all rows, each as a line of JSON
    Export {
        /// Only rows after this one
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: i64,
        #[command(flatten)]
        database: DatabaseArguments,
    },
}

/// Runs one of the commands.
///
/// # Errors
/// For a database that cannot be read, and a chain that is broken.
pub fn audit(runtime: &Runtime, command: AuditCommand) -> Result<(), Box<dyn Error>> {
    runtime.block_on(async {
        match command {
            AuditCommand::Verify { checkpoint, database } => {
                let store = open_current(&database.config()?).await?;
                let done = verify(&store, checkpoint.as_ref()).await;
                store.close().await;
                done
            }
            AuditCommand::Export { after, database } => {
                let store = open_current(&database.config()?).await?;
                let done = export(&store, after).await;
                store.close().await;
                done
            }
        }
    })
}

async fn verify(store: &Store, checkpoint: Option<&Checkpoint>) -> Result<(), Box<dyn Error>> {
    let report = verify_chain(store, checkpoint).await?;
    if let Some(broken) = report.broken {
        let text = broken.flaw.text();
        return Err(format!(
            "the audit is broken: row {} {text}; {} rows are sound",
            broken.seq, report.sound
        )
        .into());
    }
    output::line(format_args!("sound: {} rows", report.sound))?;
    if let Some(end) = report.end {
        output::line(format_args!("checkpoint: {end}"))?;
    }
    Ok(())
}

async fn export(store: &Store, mut after: i64) -> Result<(), Box<dyn Error>> {
    loop {
        let mut tx = store.read().await?;
        let rows = audit::after(&mut tx, after, STEP).await?;
        drop(tx);
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.seq;
        for row in &rows {
            output::line(line_of(row)?)?;
        }
    }
}

/// A row with its names as in the table, so that its hash can be computed again.
fn line_of(row: &AuditRow) -> Result<Value, StoreError> {
    let read = |text: &Option<String>| {
        let value = text.as_deref().map(serde_json::from_str::<Value>).transpose();
        value.map_err(|error| StoreError::Damaged {
            table: "audit",
            reason: format!("row {}: {error}", row.seq),
        })
    };
    Ok(json!({
        "seq": row.seq,
        "at": row.at,
        "actor_kind": row.actor_kind,
        "actor_id": row.actor_id,
        "actor_name": row.actor_name,
        "action": row.action,
        "target_kind": row.target_kind,
        "target_id": row.target_id,
        "outcome": row.outcome,
        "before": read(&row.before)?,
        "after": read(&row.after)?,
        "address": row.address,
        "request_id": row.request_id,
        "previous_hash": row.previous_hash,
        "hash": row.hash,
    }))
}
