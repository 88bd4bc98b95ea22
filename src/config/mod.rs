//! What can be set, and what is true: every setting's checked value in one place, plain data for every room.
//!
//! Two stages: [`RawConfig`] is what was typed (default < file < environment < flag), [`Config`] is checked, with paths
//! resolved and secrets read. Nobody else reads the environment. To add a setting: a row in `setting.rs`, a field and
//! a line here.

mod environment;
mod error;
mod layers;
mod model_argument;
mod quantity;
mod raw;
mod sections;
mod setting;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::config::layers::Layers;
use crate::config::quantity::{Network, OrAuto, OrOff, Truth, WebOrigin};
use crate::config::sections::Filter;

pub use environment::Environment;
pub use error::ConfigError;
pub use layers::{Explained, Origin};
pub use model_argument::{ModelArgument, is_model_id};
pub use quantity::{MemoryBudget, Size, Time};
pub use raw::RawConfig;
pub use sections::{
    AuthConfig, BatchConfig, EngineConfig, FetchConfig, HubConfig, LogConfig, LogFormat, ModelsConfig,
    ServerConfig,
};

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The edge.
    pub server: ServerConfig,
    /// Who is let in.
    pub auth: AuthConfig,
    /// Files and batches.
    pub batch: BatchConfig,
    /// Where models and state are kept.
    pub data_dir: PathBuf,
    /// Where users, keys and records are kept. May hold a password.
    pub database_url: SecretString,
    /// Most bytes of a SQLite file; none: as many as the disk has.
    pub database_max_bytes: Option<u64>,
    /// Which models, and what they may take.
    pub models: ModelsConfig,
    /// How engines run.
    pub engine: EngineConfig,
    /// What is logged.
    pub log: LogConfig,
    explained: Vec<Explained>,
    unknown_variables: Vec<String>,
}

impl Config {
    /// Puts the flags over the process's environment, the settings file and the defaults, and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] naming the setting and where its value came from.
    pub fn load(arguments: RawConfig) -> Result<Self, ConfigError> {
        Self::load_from(arguments, &Environment::of_process())
    }

    /// The same with a given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(arguments: RawConfig, environment: &Environment) -> Result<Self, ConfigError> {
        let mut layers = Layers::read(arguments, environment)?;
        let data_dir = data_dir(&mut layers, environment)?;
        let database_url = database_url(&mut layers, &data_dir)?;
        let database_max_bytes = layers.value::<OrOff<Size>>("database-max-size")?.0.map(|size| size.0);
        let server = server(&mut layers)?;
        let auth = auth(&mut layers, environment)?;
        let batch = batch(&mut layers)?;
        let models = models(&mut layers, environment, &data_dir)?;
        let engine = engine(&mut layers)?;
        let log = LogConfig { filter: layers.value::<Filter>("log")?.0, format: layers.value("log-format")? };
        if !auth.required && !server.listen.ip().is_loopback() {
            return Err(ConfigError::Contradiction(format!(
                "`listen` is {}, which other machines can reach, but `auth` is off: set it to on, or listen on \
                 127.0.0.1",
                server.listen
            )));
        }
        if database_max_bytes.is_some() && database_url.expose_secret().starts_with("postgres") {
            let reason = "`database-max-size` is for SQLite: PostgreSQL's disk is PostgreSQL's to bound";
            return Err(ConfigError::Contradiction(reason.into()));
        }
        Ok(Self {
            server,
            auth,
            batch,
            data_dir,
            database_url,
            database_max_bytes,
            models,
            engine,
            log,
            explained: layers.into_explained(),
            unknown_variables: RawConfig::unknown_variables(environment),
        })
    }

    /// Variables named `SCONCE_…` that are no settings.
    pub fn unknown_variables(&self) -> &[String] {
        &self.unknown_variables
    }

    /// Every setting with its value and origin; secrets masked.
    pub fn explain(&self) -> &[Explained] {
        &self.explained
    }
}

fn data_dir(layers: &mut Layers, environment: &Environment) -> Result<PathBuf, ConfigError> {
    if let Some(folder) = layers.optional::<PathBuf>("data-dir")? {
        return Ok(folder);
    }
    let folder = match (environment.get("XDG_DATA_HOME"), environment.get("HOME")) {
        (Some(data), _) => PathBuf::from(data).join("sconce"),
        (None, Some(home)) => PathBuf::from(home).join(".local/share/sconce"),
        (None, None) => {
            return Err(ConfigError::Contradiction(
                "HOME is not set: say where data may be kept with `data-dir`".into(),
            ));
        }
    };
    layers.resolved("data-dir", folder.display());
    Ok(folder)
}

fn database_url(layers: &mut Layers, data_dir: &Path) -> Result<SecretString, ConfigError> {
    let url = match layers.optional::<String>("database-url")? {
        Some(url) => url,
        None => format!("sqlite://{}", data_dir.join("sconce.db").display()),
    };
    // The record shows no password.
    let shown = match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://********@{place}"),
        _ => url.clone(),
    };
    layers.resolved("database-url", shown);
    Ok(SecretString::from(url))
}

fn server(layers: &mut Layers) -> Result<ServerConfig, ConfigError> {
    let listen: SocketAddr = layers.value("listen")?;
    // Tools that speak it ask for no key on the machine they run on; elsewhere somebody must want it.
    let ollama = layers.value::<OrAuto<Truth>>("ollama")?.0.map(|truth| truth.0);
    Ok(ServerConfig {
        listen,
        ollama: ollama.unwrap_or(listen.ip().is_loopback()),
        max_body_bytes: layers.value::<Size>("max-body-size")?.0.try_into().unwrap_or(usize::MAX),
        request_timeout: layers.value::<Time>("request-timeout")?.0,
        drain_timeout: layers.value::<Time>("drain-timeout")?.0,
        keep_alive: some_time(layers, "keep-alive")?,
        slow_client_timeout: layers.value::<Time>("slow-client-timeout")?.0,
        socket_idle_timeout: some_time(layers, "socket-idle-timeout")?,
        response_retention: layers
            .value::<OrOff<Time>>("response-retention")?
            .0
            .map(|time| time.0)
            .filter(|time| !time.is_zero()),
    })
}

fn batch(layers: &mut Layers) -> Result<BatchConfig, ConfigError> {
    Ok(BatchConfig {
        max_file_bytes: layers.value::<Size>("max-file-size")?.0,
        max_user_bytes: layers.value::<Size>("max-user-files")?.0,
        running: at_least_one(layers, "batch-running")?,
    })
}

/// Shortest secret that signs, in bytes: as long as the signature.
const SHORTEST_JWT_SECRET: usize = 32;

fn auth(layers: &mut Layers, environment: &Environment) -> Result<AuthConfig, ConfigError> {
    let api_key = layers.secret("api-key");
    let api_key = match (api_key, layers.optional::<PathBuf>("api-key-file")?) {
        (Some(_), Some(path)) => {
            let both = format!("both `api-key` and `api-key-file` ({}) are set", path.display());
            return Err(ConfigError::Contradiction(both));
        }
        (Some(key), None) => Some(key),
        (None, Some(path)) => Some(secret_file(path)?),
        (None, None) => None,
    };
    if api_key.as_ref().is_some_and(|key| key.expose_secret().is_empty()) {
        return Err(ConfigError::Contradiction("the API key is empty".into()));
    }
    let jwt_secret = layers.secret("jwt-secret");
    // Whoever sets it means to: that it is empty is a mistake somewhere else.
    let is_blank = environment.is_blank("SCONCE_JWT_SECRET");
    if is_blank || jwt_secret.as_ref().is_some_and(|secret| !is_good_jwt_secret(secret.expose_secret())) {
        return Err(ConfigError::Contradiction(format!(
            "`jwt-secret` must have at least {SHORTEST_JWT_SECRET} bytes that cannot be guessed, as `openssl rand \
             -base64 32` makes them; without it one is made and kept in the database"
        )));
    }
    Ok(AuthConfig {
        required: layers.value::<Truth>("auth")?.0,
        api_key,
        jwt_secret,
        admin_username: layers.value("admin-username")?,
        admin_password: layers.secret("admin-password"),
        trusted_proxies: layers
            .values::<Network>("trusted-proxy")?
            .into_iter()
            .map(|network| network.0)
            .collect(),
        allowed_origins: layers
            .values::<WebOrigin>("allowed-origin")?
            .into_iter()
            .map(|origin| origin.0)
            .collect(),
    })
}

/// Long enough, and no sample from a document.
fn is_good_jwt_secret(secret: &str) -> bool {
    let varied = secret.bytes().collect::<std::collections::BTreeSet<_>>().len() >= 10;
    let lower = secret.to_lowercase();
    let sample = ["secret", "changeme", "change-me", "change_me", "example", "sample", "your-"];
    secret.len() >= SHORTEST_JWT_SECRET && varied && !sample.iter().any(|word| lower.contains(word))
}

fn secret_file(path: PathBuf) -> Result<SecretString, ConfigError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(SecretString::from(text.trim().to_owned())),
        Err(error) => Err(ConfigError::File { path, reason: error.to_string() }),
    }
}

fn models(
    layers: &mut Layers,
    environment: &Environment,
    data_dir: &Path,
) -> Result<ModelsConfig, ConfigError> {
    let context_length = layers.optional::<usize>("context-length")?;
    if context_length == Some(0) {
        return Err(ConfigError::Contradiction("`context-length` must be at least 1".into()));
    }
    Ok(ModelsConfig {
        models: layers.values("model")?,
        device: layers.value("device")?,
        cache_type: layers.value("cache-type")?,
        arithmetic: layers.value::<sections::ArithmeticName>("arithmetic")?.0,
        context_length,
        memory_budget: layers.value("memory-budget")?,
        idle_timeout: layers.value::<OrOff<Time>>("idle-timeout")?.0.map(|time| time.0),
        pinned: layers.values("pin")?,
        load_wait: layers.value::<Time>("load-wait")?.0,
        catalog: layers.optional("catalog")?,
        roots: model_roots(layers, data_dir)?,
        hub: hub(layers, environment)?,
        fetch: fetch(layers, environment)?,
    })
}

fn model_roots(layers: &mut Layers, data_dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let roots: Vec<PathBuf> = layers.values("model-root")?;
    if !roots.is_empty() {
        return Ok(roots);
    }
    let own = data_dir.join("models");
    layers.resolved("model-root", own.display());
    Ok(vec![own])
}

fn hub(layers: &mut Layers, environment: &Environment) -> Result<HubConfig, ConfigError> {
    let endpoint: String = layers.value("hub-endpoint")?;
    let token = layers.secret("hub-token");
    let home = environment.get("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = environment.get("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(environment.get("HOME")?).join(".cache")));
        Some(cache?.join("huggingface"))
    });
    let cache = match (layers.optional::<PathBuf>("hub-cache")?, &home) {
        (Some(cache), _) => cache,
        (None, Some(home)) => home.join("hub"),
        (None, None) => {
            return Err(ConfigError::Contradiction("HOME is not set: set `hub-cache`".into()));
        }
    };
    layers.resolved("hub-cache", cache.display());
    // What the hub's own command line leaves behind after a sign-in; absent for most.
    let token_file =
        environment.get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
    let token = token.or_else(|| {
        let text = std::fs::read_to_string(token_file?).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty()).map(SecretString::from)
    });
    Ok(HubConfig {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        token,
        cache,
        offline: layers.value::<Truth>("hub-offline")?.0,
    })
}

fn fetch(layers: &mut Layers, environment: &Environment) -> Result<FetchConfig, ConfigError> {
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    Ok(FetchConfig {
        offline: layers.value::<Truth>("offline")?.0,
        modelscope_endpoint: layers.value::<String>("modelscope-endpoint")?.trim_end_matches('/').to_owned(),
        pip: layers.value::<String>("pip")?.split_whitespace().map(str::to_owned).collect(),
        private_hosts: layers.values("private-host")?,
        proxies: proxies.iter().filter_map(|name| environment.get(name)).map(str::to_owned).collect(),
        max_bytes: layers.value::<Size>("max-download")?.0,
        stall_timeout: layers.value::<Time>("stall-timeout")?.0,
    })
}

fn engine(layers: &mut Layers) -> Result<EngineConfig, ConfigError> {
    Ok(EngineConfig {
        cache_bytes: layers.value::<OrAuto<Size>>("cache-memory")?.0.map(|size| size.0),
        max_batch_tokens: at_least_one(layers, "max-batch-tokens")?,
        prefill_chunk: at_least_one(layers, "prefill-chunk")?,
        max_running: at_least_one(layers, "max-running")?,
        max_waiting: at_least_one(layers, "max-waiting")?,
        queue_timeout: layers.value::<Time>("queue-timeout")?.0,
        prefix_cache: layers.value::<Truth>("prefix-cache")?.0,
        speculation: layers.value::<sections::SpeculationName>("speculation")?.0,
        embedding_batch_tokens: at_least_one(layers, "embedding-batch-tokens")?,
    })
}

/// Between what happens again and again.
fn some_time(layers: &mut Layers, name: &'static str) -> Result<Duration, ConfigError> {
    let time = layers.value::<Time>(name)?.0;
    if time.is_zero() {
        return Err(ConfigError::Contradiction(format!("`{name}` must be longer than no time at all")));
    }
    Ok(time)
}

fn at_least_one(layers: &mut Layers, name: &'static str) -> Result<usize, ConfigError> {
    match layers.value(name)? {
        0 => Err(ConfigError::Contradiction(format!("`{name}` must be at least 1"))),
        number => Ok(number),
    }
}
