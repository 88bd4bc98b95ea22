//! `sconce chat`: a conversation in the terminal. It is a client of the HTTP API; without `--url` it first starts a
//! server for itself, on a free port of this machine and with a key of its own.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use reqwest::{Client, Response};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::{App, AppError};
use crate::cli::message::{Messages, language_of, messages};
use crate::cli::output;
use crate::cli::pull::Bars;
use crate::cli::serve::listen;
use crate::config::{Config, Environment, RawConfig};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Longest line of an event stream that is read.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What `sconce chat` takes.
#[derive(Debug, Args)]
pub struct ChatArguments {
    /// Talk to the server at this URL instead of loading the model here
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Begin the conversation with this system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How freely tokens are chosen; 0 takes the best each time
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f32>,
    /// Longest answer
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    #[command(flatten)]
    settings: RawConfig,
}

/// Talks until the person leaves.
///
/// # Errors
/// For settings that cannot be, a model that cannot be loaded, a server that cannot be reached.
pub fn chat(runtime: &Runtime, arguments: ChatArguments) -> Result<(), Box<dyn Error>> {
    let messages = messages(language_of(&Environment::of_process()));
    let mut config = Config::load(arguments.settings.clone())?;
    config.log.filter = "warn".to_owned();
    telemetry::start_logging(&config.log);
    let wanted = config.models.models.first().map(|model| model.id.clone().unwrap_or(model.target.clone()));
    let (own, url, key) = match &arguments.url {
        Some(url) => (None, url.trim_end_matches('/').to_owned(), config.auth.api_key.clone()),
        None => {
            output::remark(format_args!("{} …", messages.loading));
            let own = runtime.block_on(OwnServer::start(config))?;
            let (url, key) = (own.url.clone(), own.key.clone());
            (Some(own), url, Some(key))
        }
    };
    let client = Client::builder().no_proxy().build()?;
    let server = Server { client, url, key };
    let model = runtime.block_on(server.chat_model(wanted.filter(|_| arguments.url.is_some())))?;
    let conversation = Conversation { arguments, server, model, messages: Vec::new() };
    let outcome = converse(runtime, conversation, messages);
    if let Some(own) = own {
        runtime.block_on(own.end())?;
    }
    outcome
}

fn converse(
    runtime: &Runtime,
    mut conversation: Conversation,
    messages: &Messages,
) -> Result<(), Box<dyn Error>> {
    let mut editor = DefaultEditor::new()?;
    conversation.forget();
    output::line(format_args!("{} · {}", conversation.model, messages.chat_help))?;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let _ = editor.add_history_entry(&line);
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => return Ok(()),
            "/help" => output::line(messages.chat_help)?,
            "/reset" => {
                conversation.forget();
                output::line(messages.forgotten)?;
            }
            text => {
                let answer = runtime.block_on(async {
                    tokio::select! {
                        answer = conversation.ask(text) => answer.map(Some),
                        _ = tokio::signal::ctrl_c() => Ok(None),
                    }
                });
                match answer {
                    Ok(Some(answer)) => conversation.keep(text, answer),
                    Ok(None) => output::line(format_args!(" {}", messages.interrupted))?,
                    Err(error) if output::is_unread(error.as_ref()) => return Err(error),
                    Err(error) => output::remark(format_args!("error: {error}")),
                }
            }
        }
    }
}

/// A server of this process's own.
struct OwnServer {
    url: String,
    key: SecretString,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), AppError>>,
    state: PathBuf,
}

impl OwnServer {
    async fn start(mut config: Config) -> Result<Self, Box<dyn Error>> {
        let key = SecretString::from(Uuid::new_v4().simple().to_string());
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.auth.api_key = Some(key.clone());
        // Nothing of a conversation is kept, so neither are users.
        let state = std::env::temp_dir().join(format!("sconce-chat-{}", Uuid::new_v4().simple()));
        config.database_url = SecretString::from(format!("sqlite://{}/sconce.db", state.display()));
        let listener = listen(config.server.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shutdown = Shutdown::new();
        let app = App::open(config).await?;
        app.manager().report_to(Arc::new(Bars::default()));
        let mut ready = app.ready();
        let task = tokio::spawn(app.serve(listener, shutdown.clone()));
        // Ready, or ended before it was.
        if ready.wait_for(|ready| *ready).await.is_err() {
            task.await??;
            return Err("the server ended before it was ready".into());
        }
        Ok(Self { url, key, shutdown, task, state })
    }

    async fn end(self) -> Result<(), Box<dyn Error>> {
        self.shutdown.end();
        let outcome = self.task.await?;
        // What is left in a temporary folder is the system's to clear away.
        let _ = std::fs::remove_dir_all(&self.state);
        Ok(outcome?)
    }
}

/// The server talked to.
struct Server {
    client: Client,
    url: String,
    key: Option<SecretString>,
}

impl Server {
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Box<dyn Error>> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        };
        let response = request.send().await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        let message = body["error"]["message"].as_str().unwrap_or("no reason given");
        Err(format!("{} ({})", message, status.as_u16()).into())
    }

    /// The model of this name, or the first that can chat.
    async fn chat_model(&self, wanted: Option<String>) -> Result<String, Box<dyn Error>> {
        if let Some(wanted) = wanted {
            return Ok(wanted);
        }
        let list = self.send(self.client.get(format!("{}/v1/models", self.url))).await?;
        let list: Value = list.json().await?;
        let models = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let chats = |model: &&Value| model["kind"].as_str().is_none_or(|kind| kind == "causal");
        let first = models.iter().find(chats).and_then(|model| model["id"].as_str());
        first.map(str::to_owned).ok_or_else(|| "the server has no model to talk with".into())
    }
}

struct Conversation {
    arguments: ChatArguments,
    server: Server,
    model: String,
    messages: Vec<Value>,
}

impl Conversation {
    fn forget(&mut self) {
        let system = self.arguments.system.iter().map(|text| json!({"role": "system", "content": text}));
        self.messages = system.collect();
    }

    fn keep(&mut self, question: &str, answer: String) {
        self.messages.push(json!({"role": "user", "content": question}));
        self.messages.push(json!({"role": "assistant", "content": answer}));
    }

    /// Asks, shows the answer as it comes, and gives it whole.
    async fn ask(&self, question: &str) -> Result<String, Box<dyn Error>> {
        let mut messages = self.messages.clone();
        messages.push(json!({"role": "user", "content": question}));
        let body = json!({
            "model": self.model,
            "messages": messages,
            "stream": true,
            "temperature": self.arguments.temperature,
            "max_tokens": self.arguments.max_tokens,
        });
        let url = format!("{}/v1/chat/completions", self.server.url);
        let response = self.server.send(self.server.client.post(url).json(&body)).await?;
        let mut bytes = response.bytes_stream();
        let (mut unread, mut answer) = (Vec::new(), String::new());
        while let Some(chunk) = bytes.next().await {
            unread.extend_from_slice(&chunk?);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let Some(text) = text_of(&line)? else { continue };
                output::show(&text)?;
                answer.push_str(&text);
            }
            if unread.len() > MAX_EVENT_BYTES {
                return Err("the server sends too long an event".into());
            }
        }
        output::line("")?;
        Ok(answer)
    }
}

/// The text in one line of an event stream, if there is any.
fn text_of(line: &[u8]) -> Result<Option<String>, Box<dyn Error>> {
    let Some(data) = line.strip_prefix(b"data: ") else { return Ok(None) };
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return Ok(None) };
    if let Some(message) = event["error"]["message"].as_str() {
        return Err(message.to_owned().into());
    }
    Ok(event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn events_are_read_for_their_text_and_errors() {
        let text = |line: &[u8]| text_of(line).map_err(|error| error.to_string());
        assert_eq!(
            text(b"data: {\"choices\":[{\"delta\":{\"content\":\"Yes\"}}]}\n"),
            Ok(Some("Yes".into()))
        );
        for line in [&b"\n"[..], b": keep-alive\n", b"data: [DONE]\n", b"data: {\"choices\":[]}\n"] {
            assert_eq!(text(line), Ok(None));
        }
        assert_eq!(text(b"data: {\"error\":{\"message\":\"gone\"}}\n"), Err("gone".into()));
    }
}
