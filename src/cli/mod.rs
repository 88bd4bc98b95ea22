//! The command line: `serve`, `chat`, `pull`, `models`, `doctor`, `check-config`; and for the person who runs the machine
//! `migrate`, `backup`, `restore`, `admin`, `audit`. Without a command it serves.

mod admin;
mod audit;
mod backup;
mod chat;
mod check_config;
mod database;
mod doctor;
mod message;
mod migrate;
mod models;
mod output;
mod pull;
mod restore;
mod serve;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::RawConfig;

/// Serves large language models from this machine to anything that speaks OpenAI's API.
///
/// Without a command it serves, with the settings of the environment and the settings file; flags need `sconce serve`.
/// Every setting can also be given by a variable (SCONCE_LISTEN for --listen, and so on) or in a TOML file (--config);
/// `sconce check-config` shows what is set and where. Secrets have no flags: SCONCE_API_KEY, SCONCE_ADMIN_PASSWORD,
/// SCONCE_JWT_SECRET, SCONCE_HUB_TOKEN.
#[derive(Debug, Parser)]
#[command(name = "sconce", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve models over HTTP: OpenAI's API under /v1, the platform's under /api/v1, /health, /metrics
    ///
    /// The first start makes the first user and prints the password and a key, once. Models that are not on this machine
    /// are fetched. Once ready, prints the address and a line to try it with.
    /// Ctrl-C lets running answers finish and ends; a second one ends at once.
    Serve {
        #[command(flatten)]
        settings: RawConfig,
    },
    /// Talk with a model in the terminal
    ///
    /// Loads the model into this process, or talks to a running server with --url. The key of that server is read from
    /// SCONCE_API_KEY.
    Chat(chat::ChatArguments),
    /// Fetch models
    ///
    /// Sources are tried in turn; one that cannot be reached is passed over. Transfers go on where they were cut.
    Pull(pull::PullArguments),
    /// List the catalogue, and what of it is on this machine
    Models {
        #[command(flatten)]
        settings: RawConfig,
    },
    /// Say what this machine offers, and which sources it reaches
    Doctor {
        #[command(flatten)]
        settings: RawConfig,
    },
    /// Show every setting, its value, and where it comes from
    CheckConfig {
        #[command(flatten)]
        settings: RawConfig,
    },
    /// Bring the database's schema up to this version
    ///
    /// The server does so at its start; this is for pipelines that want it done, or checked, before.
    Migrate(migrate::MigrateArguments),
    /// Copy the SQLite database into a file, also while a server uses it
    Backup(backup::BackupArguments),
    /// Put a backup in the SQLite database's place; the old one stays beside it
    ///
    /// No server may be running. Everybody must sign in again, and what was changed since the backup is as it was then.
    Restore(restore::RestoreArguments),
    /// Users, passwords and keys, without signing in: for whoever runs the machine
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Check the audit, or print it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
}

/// Runs the command the program was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let serve = Command::Serve { settings: RawConfig::default() };
    let outcome = match arguments.command.unwrap_or(serve) {
        Command::Serve { settings } => serve::serve(&runtime, settings),
        Command::Chat(arguments) => chat::chat(&runtime, arguments),
        Command::Pull(arguments) => pull::pull(&runtime, arguments),
        Command::Models { settings } => models::models(settings),
        Command::Doctor { settings } => doctor::doctor(&runtime, settings),
        Command::CheckConfig { settings } => check_config::check_config(settings),
        Command::Migrate(arguments) => migrate::migrate(&runtime, arguments),
        Command::Backup(arguments) => backup::backup(&runtime, arguments),
        Command::Restore(arguments) => restore::restore(&runtime, arguments),
        Command::Admin(command) => admin::admin(&runtime, command),
        Command::Audit(command) => audit::audit(&runtime, command),
    };
    // Threads that read files or wait for a terminal must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_unread(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

/// Few threads: engines compute on theirs, and these only carry text.
fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(2, 8))
        .thread_name("edge")
        .enable_all()
        .build()
}

fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    output::remark(format_args!("error: {error}"));
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        // Many errors say their cause themselves.
        if !shown.contains(&text) {
            output::remark(format_args!("  because: {text}"));
        }
        shown = text;
        cause = source.source();
    }
    ExitCode::FAILURE
}
