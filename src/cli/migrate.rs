//! `sconce migrate`: brings the database's schema up to this version, or says whether that is still to be done.

use std::error::Error;

use clap::Args;
use tokio::runtime::Runtime;

use crate::cli::database::DatabaseArguments;
use crate::cli::output;
use crate::store::{Migration, Store};

/// What `sconce migrate` takes.
#[derive(Debug, Args)]
pub struct MigrateArguments {
    /// Change nothing, make no file; exit with 1 if steps are pending
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// Applies what is pending, or lists it.
///
/// # Errors
/// For a database that cannot be reached or that a newer version wrote; with `--check`, for steps that are pending.
pub fn migrate(runtime: &Runtime, arguments: MigrateArguments) -> Result<(), Box<dyn Error>> {
    let config = arguments.database.config()?;
    runtime.block_on(async {
        if arguments.check {
            let pending = Store::pending_at(&config.database_url).await?;
            say("pending", &pending)?;
            return match pending.len() {
                0 => Ok(()),
                steps => Err(format!("{steps} pending: `sconce migrate` applies them").into()),
            };
        }
        let store = Store::open(&config.database_url).await?;
        let applied = store.migrate().await;
        store.close().await;
        say("applied", &applied?)
    })
}

fn say(what: &str, steps: &[Migration]) -> Result<(), Box<dyn Error>> {
    for step in steps {
        output::line(format_args!("{what} {:04} {}", step.version, step.description))?;
    }
    if steps.is_empty() {
        output::line("the schema is up to date")?;
    }
    Ok(())
}
