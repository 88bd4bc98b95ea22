//! The sections of the checked settings: plain data, no logic.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use sconce_models::{Arithmetic, CacheType, DeviceSpec};
use secrecy::SecretString;

use crate::config::{MemoryBudget, ModelArgument};

/// The edge.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether Ollama's protocol is spoken, too.
    pub ollama: bool,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Longest time one request may take, streaming included.
    pub request_timeout: Duration,
    /// How long running requests may go on after a stop signal.
    pub drain_timeout: Duration,
    /// How often a silent stream sends a comment.
    pub keep_alive: Duration,
    /// A stream whose client reads nothing for this long is cut.
    pub slow_client_timeout: Duration,
    /// A WebSocket on which nothing is said for this long is closed.
    pub socket_idle_timeout: Duration,
    /// How long answers are kept that somebody may come back to; none: not at all.
    pub response_retention: Option<Duration>,
}

/// What is kept for users besides their requests, and what is done while nobody waits.
#[derive(Debug, Clone)]
pub struct BatchConfig {
    /// Largest file.
    pub max_file_bytes: u64,
    /// What one user's files may take together.
    pub max_user_bytes: u64,
    /// Requests of batches that run at the same time.
    pub running: usize,
}

/// Who is let in.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// Whether a credential is asked for. If not, `listen` is a loopback address.
    pub required: bool,
    /// A key that may use models, besides those in the database.
    pub api_key: Option<SecretString>,
    /// Signs access tokens; none: one made and kept in the database.
    pub jwt_secret: Option<SecretString>,
    /// The first user's name.
    pub admin_username: String,
    /// The first user's password; none: one made and printed once.
    pub admin_password: Option<SecretString>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Web origins whose pages may call this server.
    pub allowed_origins: Vec<String>,
}

/// Which models, and what they may take.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// What to serve; empty for the catalogue's defaults.
    pub models: Vec<ModelArgument>,
    /// Where models run.
    pub device: DeviceSpec,
    /// How keys and values are stored.
    pub cache_type: CacheType,
    /// How products are computed on the CPU.
    pub arithmetic: Arithmetic,
    /// A context length below the models' own.
    pub context_length: Option<usize>,
    /// What all loaded models may take together.
    pub memory_budget: MemoryBudget,
    /// Unload models that nobody used for this long.
    pub idle_timeout: Option<Duration>,
    /// Never unloaded to make room.
    pub pinned: Vec<String>,
    /// How long a request waits for its model to load.
    pub load_wait: Duration,
    /// Entries added to the built-in catalogue.
    pub catalog: Option<PathBuf>,
    /// Where the files lie that administrators may register by their path.
    pub roots: Vec<PathBuf>,
    /// The hub.
    pub hub: HubConfig,
    /// Every other way of fetching.
    pub fetch: FetchConfig,
}

/// The hub and its cache.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Its address, or a mirror's; without a slash at the end.
    pub endpoint: String,
    /// Sent to the endpoint alone.
    pub token: Option<SecretString>,
    /// The cache folder, shared with other programs.
    pub cache: PathBuf,
    /// Use only what the cache holds.
    pub offline: bool,
}

/// How model files are fetched.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// Nothing is fetched from any network.
    pub offline: bool,
    /// ModelScope's address, or a mirror's; without a slash at the end.
    pub modelscope_endpoint: String,
    /// How pip is called: program and first arguments.
    pub pip: Vec<String>,
    /// `host` or `host:port` that files may come from though the address is private or the connection plain.
    pub private_hosts: Vec<String>,
    /// Proxies in use, as the environment names them: they may have private addresses.
    pub proxies: Vec<String>,
    /// Largest model that is fetched.
    pub max_bytes: u64,
    /// A transfer that brings nothing for this long is broken off and resumed.
    pub stall_timeout: Duration,
}

/// How engines run; the manager turns this into each engine's limits.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Memory of one model's keys and values; none leaves it to the memory plan.
    pub cache_bytes: Option<u64>,
    /// Most tokens in one step.
    pub max_batch_tokens: usize,
    /// Most prompt tokens in a step that others are waiting for.
    pub prefill_chunk: usize,
    /// Most sequences in one step.
    pub max_running: usize,
    /// Most requests waiting for one model.
    pub max_waiting: usize,
    /// How long a request may wait before its first step.
    pub queue_timeout: Duration,
    /// Whether common beginnings are kept.
    pub prefix_cache: bool,
    /// Whether tokens are guessed where an answer repeats its prompt or itself, as far as it pays.
    pub speculation: bool,
    /// Most tokens in one pass of an embedding model.
    pub embedding_batch_tokens: usize,
}

/// What is logged and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A level, or levels by module.
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// [`LogConfig::filter`] as it is typed.
pub(super) struct Filter(pub String);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("`{text}` is no filter: {error}; use a level, or `module=level`")),
        }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("log format `{other}` is not known; use text or json")),
        }
    }
}

/// [`EngineConfig::speculation`] as it is typed.
pub(super) struct SpeculationName(pub bool);

impl FromStr for SpeculationName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            other => Err(format!("speculation `{other}` is not known; use auto or off")),
        }
    }
}

/// [`Arithmetic`] as it is typed.
pub(super) struct ArithmeticName(pub Arithmetic);

impl FromStr for ArithmeticName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(Arithmetic::Auto)),
            "integer" => Ok(Self(Arithmetic::Integer)),
            "float" => Ok(Self(Arithmetic::Float)),
            other => Err(format!("arithmetic `{other}` is not known; use auto, integer or float")),
        }
    }
}
