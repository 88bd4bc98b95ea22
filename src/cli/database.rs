//! Which database a command is about, for the commands that need nothing else of the settings.

use std::error::Error;

use clap::Args;

use crate::config::{Config, RawConfig};
use crate::store::Store;

/// Where the database is; the server's settings, so that both mean the same one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct DatabaseArguments {
    /// Settings file (TOML), the same as the server's [env: SCONCE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// The server's data folder [env: SCONCE_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// sqlite://PATH or postgres://… [env: SCONCE_DATABASE_URL] [default: sconce.db in the data folder]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl DatabaseArguments {
    /// The settings as the server would read them.
    ///
    /// # Errors
    /// For settings that cannot be.
    pub fn config(self) -> Result<Config, Box<dyn Error>> {
        let given =
            [("config", self.config), ("data-dir", self.data_dir), ("database-url", self.database_url)];
        let raw = given.into_iter().fold(RawConfig::default(), |raw, (name, value)| match value {
            Some(value) => raw.with(name, value),
            None => raw,
        });
        Ok(Config::load(raw)?)
    }
}

/// Opens a database that is there and of this version's schema.
///
/// # Errors
/// For one that is not, or that cannot be reached.
pub async fn open_current(config: &Config) -> Result<Store, Box<dyn Error>> {
    let store = Store::open_existing(&config.database_url).await?;
    match store.require_current_schema().await {
        Ok(()) => Ok(store),
        Err(error) => {
            store.close().await;
            Err(error.into())
        }
    }
}
