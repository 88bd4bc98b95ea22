//! What every handler can reach. The manager is private here: [`AppState::models`] is the only way to a model, and
//! wants to know who asks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::auth::models::ModelLimits;
use crate::auth::records::SettingsReader;
use crate::auth::{Auth, Caller, Capability, ModelUser};
use crate::config::{BatchConfig, Explained};
use crate::engine::{EngineStats, Priority};
use crate::generate::Generator;
use crate::http::background::Background;
use crate::http::body::BodyMemory;
use crate::http::metered::Record;
use crate::http::registry::ModelTable;
use crate::http::sockets::Sockets;
use crate::http::{ApiError, Interruption, Registry};
use crate::manager::{Description, ManagerError, ModelLease, ModelManager, ModelStatus};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::MetricsPage;
use crate::usage::{Recorder, UsageError};

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
    /// A WebSocket on which nothing is said for this long is closed.
    pub socket_idle_timeout: Duration,
    /// How long answers are kept for those who do not say otherwise; none: not at all.
    pub response_retention: Option<Duration>,
    /// Most answers that are made in the background at the same time.
    pub max_background: usize,
    /// Whether Ollama's protocol is spoken, too.
    pub ollama: bool,
    /// The address listened on.
    pub address: IpAddr,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Web origins whose pages may call this server.
    pub allowed_origins: Arc<[String]>,
    /// Files and batches.
    pub batch: BatchConfig,
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

/// Handles to both wings.
#[derive(Clone)]
pub struct Handles {
    /// Who is let in, which models there are, and who may use which.
    pub registry: Arc<Registry>,
    /// What requests used.
    pub usage: Recorder,
    /// Text in, text out.
    pub generator: Generator,
}

/// Handles to everything. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    settings: EdgeSettings,
    handles: Handles,
    shutdown: Shutdown,
    metrics: MetricsPage,
    ready: watch::Receiver<bool>,
    bodies: BodyMemory,
    sockets: Sockets,
    background: Background,
}

impl Inner {
    fn manager(&self) -> &Arc<ModelManager> {
        self.handles.registry.manager()
    }
}

impl AppState {
    /// Puts the handles together. `ready` says whether the models asked for at the start are there.
    pub fn new(
        settings: EdgeSettings,
        handles: Handles,
        shutdown: Shutdown,
        ready: watch::Receiver<bool>,
    ) -> Self {
        let metrics = MetricsPage::of_process();
        let bodies = BodyMemory::new(settings.max_body_bytes);
        let background = Background::new(settings.max_background);
        Self(Arc::new(Inner {
            settings,
            handles,
            shutdown,
            metrics,
            ready,
            bodies,
            sockets: Sockets::default(),
            background,
        }))
    }

    /// The models as somebody who may use models sees them.
    pub fn models<'a>(&'a self, user: &'a ModelUser) -> Models<'a> {
        let interruption = Interruption::of_request(user.caller(), ModelUser::PERMISSION, &self.0.shutdown);
        Models {
            app: &self.0,
            table: self.registry().table(),
            user,
            interruption,
            is_waited_for: true,
            recorder: None,
        }
    }

    /// The registered models.
    pub fn registry(&self) -> &Registry {
        &self.0.handles.registry
    }

    /// Text in, text out.
    pub fn generator(&self) -> &Generator {
        &self.0.handles.generator
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

    /// The WebSockets that are open.
    pub fn sockets(&self) -> &Sockets {
        &self.0.sockets
    }

    /// What goes on though its client has left.
    pub fn background(&self) -> &Background {
        &self.0.background
    }

    /// The memory for bodies while they are read.
    pub fn bodies(&self) -> &BodyMemory {
        &self.0.bodies
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
        self.registry().manager().engines()
    }

    /// All models with their state, for metrics and readiness; handlers use [`AppState::models`].
    pub fn model_states(&self) -> Vec<ModelStatus> {
        self.registry().manager().list()
    }

    /// Who is let in, and to what.
    pub fn auth(&self) -> &Auth {
        self.registry().auth()
    }
}

/// The models one caller may see and use: the only way to a model.
pub struct Models<'a> {
    app: &'a Inner,
    table: Arc<ModelTable>,
    user: &'a ModelUser,
    interruption: Interruption,
    is_waited_for: bool,
    /// Where work is written down, if not where all is.
    recorder: Option<Recorder>,
}

impl Models<'_> {
    /// The same, for work that is a part of something larger: what ends that ends this.
    #[must_use]
    pub fn interrupted_by(self, interruption: &Interruption) -> Self {
        Self { interruption: interruption.clone(), ..self }
    }

    /// The same, for work that nobody waits for: it runs when nobody else does, and waits for that as long as it takes.
    #[must_use]
    pub fn in_background(self) -> Self {
        Self { is_waited_for: false, ..self }
    }

    /// The same, for work that is written down by whoever has this recorder.
    #[must_use]
    pub fn recorded_by(self, recorder: Recorder) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// The highest priority that work with them may have.
    pub fn highest_priority(&self) -> Priority {
        if self.is_waited_for { Priority::High } else { Priority::Batch }
    }

    /// When a request that begins now is given up; none: it takes as long as it takes.
    pub fn deadline(&self) -> Option<Instant> {
        self.is_waited_for.then(|| Instant::now() + self.app.settings.request_timeout)
    }

    /// Whose they are.
    pub fn caller(&self) -> &Caller {
        self.user.caller()
    }

    /// All that may be used.
    pub fn list(&self) -> Vec<ModelStatus> {
        let mut models = self.app.manager().list();
        models.retain(|model| self.table.check(self.caller(), &model.id, &model.id).is_ok());
        models
    }

    /// One of them by any of its names, without loading it.
    ///
    /// # Errors
    /// 404 `model_not_found`, also for one that is not visible; 403 `model_not_allowed` for one that the key may not use.
    pub async fn named(&self, name: &str) -> Result<ModelStatus, ApiError> {
        let found = self.app.manager().status(name);
        let model = found.ok_or_else(|| ManagerError::Unknown { id: name.to_owned() })?;
        self.check(&model.id, name).await?;
        Ok(model)
    }

    /// What can be said of one of them without loading it, by its id; none where its files are not here, and for a model
    /// that the caller may not use.
    pub async fn describe(&self, id: &str) -> Option<Description> {
        self.table.check(self.caller(), id, id).ok()?;
        self.app.manager().describe(id).await
    }

    /// One of them, ready to work; loads it if it must.
    ///
    /// # Errors
    /// As [`Models::named`], and [`ManagerError`].
    pub async fn lease(&self, name: &str) -> Result<ModelLease, ApiError> {
        self.named(name).await?;
        let lease = self.app.manager().lease(name).await?;
        // The name may have come to mean another model meanwhile.
        self.check(&lease.id, name).await?;
        Ok(lease)
    }

    /// As [`ModelTable::check`]; a refusal is written down. Of a model that is not there for somebody nothing is.
    async fn check(&self, id: &str, name: &str) -> Result<(), ApiError> {
        let checked = self.table.check(self.caller(), id, name);
        if self.table.is_visible(self.caller(), id) && checked.is_err() {
            self.user.note_refusal(id).await;
        }
        checked
    }

    /// The most that a request may ask of the model `id`.
    pub fn limits(&self, id: &str) -> ModelLimits {
        self.table.limits(id)
    }

    /// A record of work with the model `id`, which was asked for as `name`.
    ///
    /// # Errors
    /// [`UsageError`] when no more can be recorded.
    pub fn record(&self, id: &str, name: &str, endpoint: &'static str) -> Result<Record, UsageError> {
        let recorder = self.recorder.as_ref().unwrap_or(&self.app.handles.usage);
        let tally = recorder.begin(self.caller(), id, name, endpoint)?;
        Ok(Record::new(tally, self.interruption.using(&self.app.handles.registry, id, name)))
    }
}
