//! `sconce admin`: users, passwords and keys by the person at the machine, with a server running or not. What is made is
//! printed alone on standard output, so that a script can take it; what it is goes to standard error.

use std::error::Error;
use std::io::Read;

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Runtime;

use crate::auth::{AuthError, ListedUser, MadePassword, NewKey, Operator, Permission, Role};
use crate::cli::database::{DatabaseArguments, open_current};
use crate::cli::message::{Messages, language_of, messages};
use crate::cli::output;
use crate::clock::{Clock, Timestamp};
use crate::config::{Environment, Time};

/// Longest that is read as a password.
const LONGEST_PASSWORD: u64 = 4096;

/// What can be done at the machine without signing in.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make a user; prints the password that was made for them
    CreateUser(CreateUserArguments),
    /// Make a new password for a user, print it, and end their sessions
    ///
    /// It must be changed at the next sign-in. A running server knows within a second.
    ResetPassword {
        /// Whose; without it the only owner's
        #[arg(value_name = "USERNAME")]
        username: Option<String>,
        #[command(flatten)]
        database: DatabaseArguments,
    },
    /// Make an API key and print it
    CreateKey(CreateKeyArguments),
    /// List all users
    ListUsers {
        #[command(flatten)]
        database: DatabaseArguments,
    },
}

/// What `sconce admin create-user` takes.
#[derive(Debug, Args)]
pub struct CreateUserArguments {
    /// What they sign in with
    #[arg(value_name = "USERNAME")]
    username: String,
    /// owner, admin, operator, auditor or user
    #[arg(long, default_value = "user")]
    role: Role,
    /// Read the password from standard input (its first line) instead of making one
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// What `sconce admin create-key` takes.
#[derive(Debug, Args)]
pub struct CreateKeyArguments {
    /// Whose; without it the only owner's
    #[arg(long, value_name = "USERNAME")]
    user: Option<String>,
    /// What people know it by
    #[arg(long, default_value = "command line")]
    name: String,
    /// What it may be used for; repeatable [default: inference]
    #[arg(long = "scope", value_name = "PERMISSION")]
    scopes: Vec<Permission>,
    /// When it ends: a time from now such as 30d, or a moment such as 2030-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "TIME", value_parser = read_end)]
    expires: Option<End>,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// When something ends.
#[derive(Debug, Clone, Copy)]
enum End {
    After(Time),
    At(Timestamp),
}

fn read_end(text: &str) -> Result<End, String> {
    match text.parse::<Time>() {
        Ok(time) => Ok(End::After(time)),
        Err(_) if text.contains('T') => Timestamp::parse(text).map(End::At),
        Err(refused) => Err(refused),
    }
}

/// Runs one of the commands.
///
/// # Errors
/// For a database that is not there, and what cannot be made.
pub fn admin(runtime: &Runtime, command: AdminCommand) -> Result<(), Box<dyn Error>> {
    let messages = messages(language_of(&Environment::of_process()));
    runtime.block_on(async {
        match command {
            AdminCommand::CreateUser(arguments) => create_user(arguments, messages).await,
            AdminCommand::ResetPassword { username, database } => {
                let reset = async |operator: &Operator| operator.reset_password(username.as_deref()).await;
                show_password(&with_operator(database, reset).await?, messages.password_reset)
            }
            AdminCommand::CreateKey(arguments) => create_key(arguments, messages).await,
            AdminCommand::ListUsers { database } => {
                let users = with_operator(database, async |operator| operator.users().await).await?;
                Ok(output::show(table(&users))?)
            }
        }
    })
}

/// Does one thing with a database that is there, and lets go of it.
async fn with_operator<T>(
    database: DatabaseArguments,
    work: impl AsyncFnOnce(&Operator) -> Result<T, AuthError>,
) -> Result<T, Box<dyn Error>> {
    let config = database.config()?;
    let store = open_current(&config).await?;
    let done = match Operator::open(store.clone(), config.auth).await {
        Ok(operator) => work(&operator).await,
        Err(error) => Err(error),
    };
    store.close().await;
    Ok(done?)
}

async fn create_user(arguments: CreateUserArguments, messages: &Messages) -> Result<(), Box<dyn Error>> {
    let password = if arguments.password_stdin { Some(read_password()?) } else { None };
    let (username, role) = (arguments.username, arguments.role);
    let create = async |operator: &Operator| operator.create_user(&username, role, password).await;
    match with_operator(arguments.database, create).await? {
        Some(made) => show_password(&made, messages.user_made),
        None => Ok(()),
    }
}

fn read_password() -> Result<SecretString, Box<dyn Error>> {
    let mut text = String::new();
    std::io::stdin().take(LONGEST_PASSWORD).read_to_string(&mut text)?;
    Ok(SecretString::from(text.lines().next().unwrap_or_default()))
}

fn show_password(made: &MadePassword, what: &str) -> Result<(), Box<dyn Error>> {
    output::remark(format_args!("{}: {what}", made.username));
    Ok(output::line(made.password.expose_secret())?)
}

async fn create_key(arguments: CreateKeyArguments, messages: &Messages) -> Result<(), Box<dyn Error>> {
    let expires_at = arguments.expires.map(|end| match end {
        End::After(time) => Clock::System.now().after(time.0),
        End::At(moment) => moment,
    });
    let scopes = match arguments.scopes.is_empty() {
        true => vec![Permission::Inference],
        false => arguments.scopes,
    };
    let new = NewKey { username: arguments.user, name: arguments.name, scopes, expires_at };
    let create = async |operator: &Operator| operator.create_key(new).await;
    let (username, key) = with_operator(arguments.database, create).await?;
    output::remark(format_args!("{username}: {}", messages.key_made));
    Ok(output::line(key.reveal())?)
}

fn table(users: &[ListedUser]) -> String {
    let width = users.iter().map(|user| user.username.chars().count()).max().unwrap_or(0);
    let lines = users.iter().map(|user| {
        let last = user.last_login_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        format!("{:width$}  {:8}  {:8}  {last}\n", user.username, user.role, user.status)
    });
    lines.collect()
}
