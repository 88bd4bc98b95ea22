//! `sconce serve`: starts the server and says how to use it once it is ready.

use std::error::Error;
use std::fmt::Write;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sconce_models::ModelKind;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

use crate::app::{App, AppError};
use crate::auth::{FirstRun, PlainKey};
use crate::cli::message::{Messages, language_of, messages};
use crate::cli::output;
use crate::cli::pull::Bars;
use crate::config::{Config, Environment, RawConfig};
use crate::manager::{ModelManager, ModelState, ModelStatus};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// What the line to paste asks: short, and even a very small model of any make knows the answer. In English whatever the
/// terminal speaks, because small models know that best.
const QUESTION: &str = "What is the capital of France? Answer in one sentence.";

/// Serves until a signal ends it.
///
/// # Errors
/// For settings that cannot be, an address that is taken, and models that cannot be loaded.
pub fn serve(runtime: &Runtime, settings: RawConfig) -> Result<(), Box<dyn Error>> {
    let config = Config::load(settings)?;
    telemetry::start_logging(&config.log);
    let unknown = config.unknown_variables().to_vec();
    let messages = messages(language_of(&Environment::of_process()));
    runtime.block_on(async {
        let listener = listen(config.server.listen).await?;
        let address = listener.local_addr()?;
        let asks_for_key = config.auth.required;
        let shutdown = Shutdown::new();
        shutdown.follow_signals();
        let mut app = App::open(config).await?;
        let first_run = app.take_first_run();
        if let Some(first) = &first_run {
            // Now, and not once the models are there: whatever becomes of those, this is never shown again.
            let _ = output::show(first_access(messages, first));
        }
        if std::io::stderr().is_terminal() {
            app.manager().report_to(Arc::new(Bars::default()));
        }
        for name in &unknown {
            tracing::warn!(%name, "this variable is no setting, and is ignored");
        }
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening; loading models");
        let (mut ready, manager) = (app.ready(), Arc::clone(app.manager()));
        let announcement = tokio::spawn(async move {
            if ready.wait_for(|ready| *ready).await.is_ok() {
                // Nobody may be reading; that is no reason not to serve.
                let access = Access { asks_for_key, first_key: first_run.map(|first| first.key) };
                let _ = output::line(banner(messages, address, &access, &manager));
            }
        });
        let outcome = app.serve(listener, shutdown).await;
        announcement.abort();
        if outcome.is_ok() {
            let _ = output::line(format_args!("sconce: {}", messages.stopped));
        }
        Ok(outcome?)
    })
}

/// What the system keeps of an answer for a client that does not read: little, so that such a client is noticed soon.
const SEND_BUFFER: u32 = 128 * 1024;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens, or says which address could not be had.
///
/// # Errors
/// [`AppError::Serve`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let cannot = |source| AppError::Serve { address: address.to_string(), source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(cannot)?;
    // As the library's own `bind` does: a restart need not wait for the last connections' addresses.
    #[cfg(unix)]
    socket.set_reuseaddr(true).map_err(cannot)?;
    socket.set_send_buffer_size(SEND_BUFFER).map_err(cannot)?;
    socket.bind(address).map_err(cannot)?;
    socket.listen(BACKLOG).map_err(cannot)
}

/// How one gets in.
struct Access {
    asks_for_key: bool,
    /// Made at this very start.
    first_key: Option<PlainKey>,
}

/// What was made at the first start, shown this once.
fn first_access(messages: &Messages, first: &FirstRun) -> String {
    let (password, note) = match &first.password {
        Some(made) => (made.expose_secret(), messages.owner_once),
        None => (messages.configured_password, messages.key_once),
    };
    let (owner, key) = (messages.owner, messages.first_api_key);
    let (username, api_key) = (&first.username, first.key.reveal());
    format!("\n  {owner}: {username} / {password}\n  {key}: {api_key}\n  ({note})\n")
}

/// What a person at the terminal needs to know.
fn banner(messages: &Messages, address: SocketAddr, access: &Access, manager: &ModelManager) -> String {
    let models = manager.list();
    let url = format!("http://{}", reachable(address));
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("\nsconce {version} {} {url}\n\n", messages.ready);
    let sign_in = match (&access.first_key, access.asks_for_key) {
        (_, false) => messages.no_key,
        (Some(_), true) => messages.first_key,
        (None, true) => messages.key,
    };
    let mut line = |label: &str, content: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  {label}: {content}");
    };
    line(messages.models, &names(messages, &models));
    line(messages.sign_in, sign_in);
    let key = match access {
        Access { asks_for_key: false, .. } => None,
        Access { first_key: Some(key), .. } => Some(key.reveal()),
        Access { first_key: None, .. } => Some("$SCONCE_API_KEY"),
    };
    if let Some(command) = example(&url, key, &models) {
        line(messages.try_it, &format!("\n\n{command}\n"));
    }
    line("Ctrl-C", messages.stop);
    text
}

/// An address that this machine can reach itself by.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn names(messages: &Messages, models: &[ModelStatus]) -> String {
    let named = models.iter().map(|model| match model.state {
        ModelState::Ready => model.id.clone(),
        _ => format!("{} ({})", model.id, messages.on_demand),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// A line to paste that the first ready model answers.
fn example(url: &str, key: Option<&str>, models: &[ModelStatus]) -> Option<String> {
    let ready =
        |kind| models.iter().find(|model| model.state == ModelState::Ready && model.kind == Some(kind));
    let (path, body) = if let Some(model) = ready(ModelKind::Causal) {
        let messages = json!([{"role": "user", "content": QUESTION}]);
        (
            "chat/completions",
            json!({"model": model.id, "stream": true, "temperature": 0.2, "messages": messages}),
        )
    } else {
        let model = ready(ModelKind::Embedding)?;
        ("embeddings", json!({"model": model.id, "input": QUESTION}))
    };
    let key = key.map_or_else(String::new, |key| format!(" -H \"Authorization: Bearer {key}\""));
    // Within single quotes a shell reads everything but a single quote as it is.
    let body = body.to_string().replace('\'', "'\\''");
    Some(format!("curl -N {url}/v1/{path}{key} -H 'Content-Type: application/json' -d '{body}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, kind: ModelKind, state: ModelState) -> ModelStatus {
        ModelStatus { id: id.into(), kind: Some(kind), state, ..ModelStatus::default() }
    }

    #[test]
    fn the_example_uses_a_model_that_is_ready() {
        let absent = model("a", ModelKind::Causal, ModelState::Absent);
        let embed = model("e", ModelKind::Embedding, ModelState::Ready);
        let chat = model("c", ModelKind::Causal, ModelState::Ready);
        assert_eq!(example("u", None, std::slice::from_ref(&absent)), None);
        let line = example("http://h", None, &[absent.clone(), embed.clone()]).expect("it can embed");
        assert!(line.contains("http://h/v1/embeddings") && line.contains("\"model\":\"e\""), "{line}");
        let line = example("http://h", Some("$SCONCE_API_KEY"), &[absent, embed, chat]).expect("it can chat");
        assert!(line.contains("/v1/chat/completions") && line.contains("Bearer $SCONCE_API_KEY"), "{line}");
    }

    #[test]
    fn an_address_of_all_interfaces_is_shown_as_one_that_can_be_called() {
        let shown = |address: &str| reachable(address.parse().expect("an address")).to_string();
        assert_eq!(shown("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(shown("[::]:80"), "[::1]:80");
        assert_eq!(shown("10.1.2.3:80"), "10.1.2.3:80");
    }
}
