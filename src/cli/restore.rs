//! `sconce restore`: a backup in the place of the SQLite database, which stays beside it under another name.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Runtime;

use crate::auth::{Checkpoint, Operator, verify_chain};
use crate::cli::database::DatabaseArguments;
use crate::cli::message::{language_of, messages};
use crate::cli::output;
use crate::config::Environment;
use crate::store::{Replacement, audit};

/// What `sconce restore` takes.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// A backup that `sconce backup` made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// Checks the backup, notes in its audit that it was restored, and puts it in the database's place.
///
/// # Errors
/// For a file that is no good backup, a database in use, and one that is not SQLite.
pub fn restore(runtime: &Runtime, arguments: RestoreArguments) -> Result<(), Box<dyn Error>> {
    let config = arguments.database.config()?;
    let messages = messages(language_of(&Environment::of_process()));
    let file = arguments.file;
    runtime.block_on(async {
        let replacement = Replacement::prepare(&config.database_url, &file).await?;
        let report = verify_chain(replacement.store(), None).await?;
        let replaced = end_of_replaced(&replacement).await;
        let operator = Operator::open(replacement.store().clone(), config.auth).await?;
        operator.record_restore(&file.display().to_string(), replaced.as_ref()).await?;
        drop(operator);
        let old = replacement.install().await?;
        output::line(format_args!("{}: {}", file.display(), messages.restored))?;
        if let Some(broken) = report.broken {
            let text = broken.flaw.text();
            output::remark(format_args!(
                "warning: the backup's audit was broken already: row {} {text}",
                broken.seq
            ));
        }
        if let Some(old) = old {
            output::line(format_args!("{}: {}", messages.before_restore, old.display()))?;
        }
        Ok(())
    })
}

/// Where the audit ends that is about to be replaced, if that can be read.
async fn end_of_replaced(replacement: &Replacement) -> Option<Checkpoint> {
    let store = replacement.replaced().await?;
    let end = async {
        let mut tx = store.read().await?;
        audit::head(&mut tx).await
    };
    let end = end.await;
    store.close().await;
    end.ok().map(|(seq, hash)| Checkpoint { seq, hash })
}
