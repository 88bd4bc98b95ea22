//! The composition root: builds the inference wing and the edge, serves, drains. Read this second.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use utoipa_axum::router::OpenApiRouter;

use crate::auth::{Auth, AuthError, FirstRun};
use crate::batch::Runner;
use crate::clock::Clock;
use crate::config::{AuthConfig, BatchConfig, Config, Explained, ServerConfig};
use crate::generate::Generator;
use crate::http::layers::{self, Neighbourhood};
use crate::http::openapi::{self, Documents};
use crate::http::{self, AppState, Bounds, EdgeSettings, ExplainedSettings, Handles, Registry};
use crate::manager::{ManagerError, ModelManager};
use crate::shutdown::Shutdown;
use crate::store::{ServingLock, Store, StoreError};
use crate::telemetry::metrics::MetricsPage;
use crate::usage::{Recorder, Scribe};
use crate::{admin, api};

/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a stream that was cut may go on being unread before its connection is given up: who reads on after all
/// still learns why it ended.
const UNREAD_GRACE: Duration = Duration::from_secs(30);

/// After the drain: time for the last events to leave and for engines to free their memory.
const LAST_GRACE: Duration = Duration::from_secs(5);

const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// How often it is said that work in the background goes on: others take it for lost after a minute.
const BACKGROUND_BEAT: Duration = Duration::from_secs(5);

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The models cannot be set up.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Users and keys cannot be set up.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The address cannot be listened on, or stopped being there.
    #[error("cannot serve on {address}: {source}")]
    Serve {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not one of the models asked for can be used.
    #[error("no model could be loaded: {}", reasons.join("; "))]
    NoModel {
        /// One line for each.
        reasons: Vec<String>,
    },
}

/// Builds everything, serves on `listener`, and returns once `shutdown` has been asked for and the drain is over.
///
/// # Errors
/// [`AppError`].
pub async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<(), AppError> {
    App::open(config).await?.serve(listener, shutdown).await
}

/// The server, built but not yet serving; for those who want to watch it come up.
pub struct App {
    server: ServerConfig,
    access: AuthConfig,
    batch: BatchConfig,
    max_waiting: usize,
    explained: Vec<Explained>,
    store: Store,
    /// The database is this server's alone, where it cannot be shared.
    _lock: Option<ServingLock>,
    auth: Auth,
    first_run: Option<FirstRun>,
    usage: Recorder,
    scribe: Option<Scribe>,
    manager: Arc<ModelManager>,
    ready: watch::Sender<bool>,
}

impl App {
    /// Builds both wings, brings the database's schema up to date, and makes the first user if there is none. Loads no
    /// model yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`AppError::Manager`], [`AppError::Store`], [`AppError::Auth`].
    pub async fn open(config: Config) -> Result<Self, AppError> {
        Self::open_by(config, Clock::System).await
    }

    /// The same, with expiries by another clock.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_by(config: Config, clock: Clock) -> Result<Self, AppError> {
        let explained = config.explain().to_vec();
        let max_waiting = config.engine.max_waiting;
        let manager = ModelManager::open(config.models, config.engine, &config.data_dir)?;
        let store = Store::open_within(&config.database_url, config.database_max_bytes).await?;
        let lock = store.lock_for_serving()?;
        for step in store.migrate().await? {
            tracing::info!(version = step.version, "brought the database up to {}", step.description);
        }
        let auth = Auth::open(store.clone(), clock.clone(), config.auth.clone()).await?;
        let first_run = auth.first_run().await?;
        auth.end_lost_responses().await?;
        let (usage, scribe) = Recorder::open(store.clone(), clock);
        Ok(Self {
            server: config.server,
            access: config.auth,
            batch: config.batch,
            max_waiting,
            explained,
            store,
            _lock: lock,
            auth,
            first_run,
            usage,
            scribe: Some(scribe),
            manager,
            ready: watch::Sender::new(false),
        })
    }

    /// What the operator must be told once, if this was the first start.
    pub fn take_first_run(&mut self) -> Option<FirstRun> {
        self.first_run.take()
    }

    /// Who is let in.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// What requests used, to watch it being written.
    pub fn usage(&self) -> &Recorder {
        &self.usage
    }

    /// The models, to watch them.
    pub fn manager(&self) -> &Arc<ModelManager> {
        &self.manager
    }

    /// Whether the models asked for at the start are there.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Serves until the end. Models are loaded meanwhile: `/health` answers from the first moment.
    ///
    /// # Errors
    /// [`AppError::Serve`], [`AppError::NoModel`].
    pub async fn serve(mut self, listener: TcpListener, shutdown: Shutdown) -> Result<(), AppError> {
        let address = listener.local_addr().map_err(|source| self.cannot_serve(source))?;
        let settings = self.edge_settings(address.ip());
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let generator = Generator::new(workers);
        let registry = Arc::new(Registry::new(self.auth.clone(), Arc::clone(&self.manager)));
        // What is registered, hidden or disabled counts from the first request on.
        registry.sync().await?;
        let handles = Handles { registry: Arc::clone(&registry), usage: self.usage.clone(), generator };
        let state = AppState::new(settings, handles, shutdown.clone(), self.ready.subscribe());
        let batches = Runner::new(state.clone(), self.store.clone(), self.usage.clone());
        let mut upkeep = JoinSet::new();
        upkeep.spawn(Arc::clone(&batches).sweep());
        upkeep.spawn(keep_metrics_tidy(state.metrics().clone()));
        upkeep.spawn(self.auth.clone().watch());
        upkeep.spawn(self.auth.clone().keep_last_used());
        upkeep.spawn(self.auth.clone().keep_refusals());
        upkeep.spawn(self.auth.clone().keep_responses_few());
        upkeep.spawn(say_what_goes_on(state.clone()));
        upkeep.spawn(registry.run());
        let scribe = self.scribe.take().map(|scribe| tokio::spawn(scribe.run()));

        let drained = shutdown.clone();
        let bounds = Bounds::of_process(self.server.slow_client_timeout + UNREAD_GRACE);
        let background = state.background().clone();
        let server = http::serve(listener, router(state), bounds, async move {
            drained.drained().await;
        });
        // What a batch has begun may end, too.
        let batches = tokio::spawn(batches.run());
        let server = async {
            let _ = tokio::join!(server, batches);
            background.finished().await;
        };
        let outcome = tokio::select! {
            () = server => Ok(()),
            error = self.load_models() => Err(error),
            () = self.overstayed(&shutdown) => Ok(()),
        };
        upkeep.shutdown().await;
        if let Ok(Err(error)) = timeout(LAST_GRACE, self.auth.write_last_used()).await {
            tracing::warn!(%error, "when keys were last used could not be written");
        }
        if !matches!(timeout(LAST_GRACE, self.auth.write_refusals()).await, Ok(Ok(()))) {
            tracing::warn!("what was refused lately could not be written");
        }
        if timeout(LAST_GRACE, self.manager.shutdown()).await.is_err() {
            tracing::warn!("a model is still in use; ending without waiting for it");
        }
        if timeout(LAST_GRACE, self.usage.flushed()).await.is_err() {
            tracing::warn!("what some requests used is not written; ending without waiting for it");
        }
        if let Some(scribe) = scribe {
            scribe.abort();
        }
        if timeout(LAST_GRACE, self.store.close()).await.is_err() {
            tracing::warn!("the database is still in use; ending without waiting for it");
        }
        outcome
    }

    fn edge_settings(&self, address: std::net::IpAddr) -> EdgeSettings {
        EdgeSettings {
            max_body_bytes: self.server.max_body_bytes,
            body_timeout: BODY_TIMEOUT.min(self.server.request_timeout),
            request_timeout: self.server.request_timeout,
            keep_alive: self.server.keep_alive,
            slow_client_timeout: self.server.slow_client_timeout,
            socket_idle_timeout: self.server.socket_idle_timeout,
            response_retention: self.server.response_retention,
            // Who waits for an answer finds a place in the queue.
            max_background: self.max_waiting / 2,
            ollama: self.server.ollama,
            address,
            trusted_proxies: self.access.trusted_proxies.clone().into(),
            allowed_origins: self.access.allowed_origins.clone().into(),
            batch: self.batch.clone(),
            explained: ExplainedSettings::new(&self.explained),
        }
    }

    fn cannot_serve(&self, source: io::Error) -> AppError {
        AppError::Serve { address: self.server.listen.to_string(), source }
    }

    /// Loads what is served from the start; returns only if nothing of it can be used.
    async fn load_models(&self) -> AppError {
        let failures = self.manager.preload().await;
        let reasons: Vec<String> = failures.iter().map(|(_, error)| error.to_string()).collect();
        for reason in &reasons {
            tracing::error!("{reason}");
        }
        let usable = self.manager.list().len() > failures.len();
        if !usable && !failures.is_empty() {
            return AppError::NoModel { reasons };
        }
        self.ready.send_replace(true);
        std::future::pending().await
    }

    /// Cuts what still runs when the drain has lasted long enough, and returns a little later.
    async fn overstayed(&self, shutdown: &Shutdown) {
        shutdown.drained().await;
        self.ready.send_replace(false);
        tokio::select! {
            () = sleep(self.server.drain_timeout) => tracing::warn!("the drain took too long; running requests are cut"),
            () = shutdown.ended() => {}
        }
        shutdown.end();
        sleep(LAST_GRACE).await;
    }
}

/// Keeps alive what goes on in the background, and ends there what was ended elsewhere.
async fn say_what_goes_on(state: AppState) {
    let mut ticks = interval(BACKGROUND_BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running = state.background().running();
        if running.is_empty() {
            continue;
        }
        match state.auth().responses_go_on(&running).await {
            Ok(ended) => {
                for work in ended.iter().filter_map(|id| state.background().find(id)) {
                    work.cancel();
                }
            }
            Err(error) => tracing::warn!(%error, "it cannot be said that work in the background goes on"),
        }
    }
}

/// All URLs, with what is done to every request.
fn router(state: AppState) -> Router {
    let settings = state.settings();
    let neighbourhood = Neighbourhood {
        address: settings.address,
        trusted_proxies: Arc::clone(&settings.trusted_proxies),
        allowed_origins: Arc::clone(&settings.allowed_origins),
    };
    let described = OpenApiRouter::with_openapi(openapi::about()).merge(api::routes()).merge(admin::routes());
    let described = if settings.ollama { described.merge(api::ollama::routes()) } else { described };
    let (routes, collected) = described.split_for_parts();
    let routes = routes.merge(openapi::routes(Documents::new(&collected)));
    layers::wrap(routes, neighbourhood).with_state(state)
}

async fn keep_metrics_tidy(page: MetricsPage) {
    let mut ticks = interval(METRICS_UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        page.tidy();
    }
}
