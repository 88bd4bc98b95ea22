//! `sconce backup`: the whole SQLite database in one file, also while a server uses it.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Runtime;

use crate::cli::database::{DatabaseArguments, open_current};
use crate::cli::output;
use crate::config::Size;

/// What `sconce backup` takes.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// Where to write it; must not be there yet. It holds what signs access tokens: keep it as safe as the database
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// Makes a backup and says how large it is.
///
/// # Errors
/// For a file that is there already or cannot be written, and a database that is not SQLite.
pub fn backup(runtime: &Runtime, arguments: BackupArguments) -> Result<(), Box<dyn Error>> {
    let config = arguments.database.config()?;
    runtime.block_on(async {
        let store = open_current(&config).await?;
        let done = store.backup(&arguments.file).await;
        store.close().await;
        done?;
        let size = Size(arguments.file.metadata()?.len());
        output::line(format_args!("{}: {size}", arguments.file.display()))?;
        Ok(())
    })
}
