//! What every handler can reach. The manager is private here: [`AppState::models`] is the only way to a model, and
//! wants to know who asks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::auth::records::SettingsReader;
use crate::auth::{Auth, Caller};
use crate::config::Explained;
use crate::engine::EngineStats;
use crate::generate::Generator;
use crate::http::Registry;
use crate::manager::{ManagerError, ModelLease, ModelManager, ModelStatus};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::MetricsPage;

/// What the edge needs of the configuration.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// Largest body accepted.
    pub max_body_bytes: usize,
    /// A body must have arrived within this time.
    pub body_timeout: Duration,
    /// Longest life of a request, waiting included.
    pub request_timeout: Duration,
    /// How often a silent stream sends a comment.
    pub keep_alive: Duration,
    /// A stream whose client reads nothing for this long is cut.
    pub slow_client_timeout: Duration,
    /// The address listened on.
    pub address: IpAddr,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Web origins whose pages may call this server.
    pub allowed_origins: Arc<[String]>,
    /// All settings as they are shown.
    pub explained: ExplainedSettings,
}

/// All settings with their origins, secrets masked, for those who may see them.
#[derive(Debug, Clone)]
pub struct ExplainedSettings(Arc<[Explained]>);

impl ExplainedSettings {
    /// Of a checked configuration.
    pub fn new(explained: &[Explained]) -> Self {
        Self(explained.into())
    }

    /// What is shown.
    pub fn to(&self, _: &SettingsReader) -> &[Explained] {
        &self.0
    }
}

/// Handles to everything. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    settings: EdgeSettings,
    registry: Arc<Registry>,
    generator: Generator,
    shutdown: Shutdown,
    metrics: MetricsPage,
    ready: watch::Receiver<bool>,
}

impl AppState {
    /// Puts the handles together. `ready` says whether the models asked for at the start are there.
    pub fn new(
        settings: EdgeSettings,
        registry: Arc<Registry>,
        generator: Generator,
        shutdown: Shutdown,
        ready: watch::Receiver<bool>,
    ) -> Self {
        let metrics = MetricsPage::of_process();
        Self(Arc::new(Inner { settings, registry, generator, shutdown, metrics, ready }))
    }

    /// The models as this caller may see and use them.
    pub fn models(&self, _caller: &Caller) -> Models<'_> {
        Models { manager: self.0.registry.manager() }
    }

    /// The registered models.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Text in, text out.
    pub fn generator(&self) -> &Generator {
        &self.0.generator
    }

    /// When a request that begins now is given up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.0.settings.request_timeout
    }

    /// The end of the program.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Limits.
    pub fn settings(&self) -> &EdgeSettings {
        &self.0.settings
    }

    /// What was measured.
    pub fn metrics(&self) -> &MetricsPage {
        &self.0.metrics
    }

    /// Whether new work is welcome: the models asked for are there and the end is not near.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow() && !self.0.shutdown.is_draining()
    }

    /// Figures of all running engines, for metrics.
    pub fn engines(&self) -> Vec<(String, EngineStats)> {
        self.0.registry.manager().engines()
    }

    /// All models with their state, for metrics and readiness; handlers use [`AppState::models`].
    pub fn model_states(&self) -> Vec<ModelStatus> {
        self.0.registry.manager().list()
    }

    /// Who is let in, and to what.
    pub fn auth(&self) -> &Auth {
        self.0.registry.auth()
    }
}

/// The models one caller may use.
pub struct Models<'a> {
    manager: &'a Arc<ModelManager>,
}

impl Models<'_> {
    /// All of them.
    pub fn list(&self) -> Vec<ModelStatus> {
        self.manager.list()
    }

    /// One of them, without loading it.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`].
    pub fn named(&self, id: &str) -> Result<ModelStatus, ManagerError> {
        self.manager.status(id).ok_or_else(|| ManagerError::Unknown { id: id.to_owned() })
    }

    /// One of them, ready to work; loads it if it must.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn lease(&self, id: &str) -> Result<ModelLease, ManagerError> {
        self.manager.lease(id).await
    }
}
