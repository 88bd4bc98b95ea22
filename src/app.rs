//! The composition root: builds the inference wing and the edge, serves, drains. Read this second.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::api;
use crate::config::{Config, ServerConfig};
use crate::generate::Generator;
use crate::http::{self, AppState, Bounds, EdgeSettings};
use crate::manager::{ManagerError, ModelManager};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::MetricsPage;

/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A stream whose client reads nothing for this long is cut.
const SLOW_CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// After the drain: time for the last events to leave and for engines to free their memory.
const LAST_GRACE: Duration = Duration::from_secs(5);

const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The models cannot be set up.
    #[error(transparent)]
    Manager(#[from] ManagerError),
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
    App::open(config)?.serve(listener, shutdown).await
}

/// The server, built but not yet serving; for those who want to watch it come up.
pub struct App {
    server: ServerConfig,
    manager: Arc<ModelManager>,
    ready: watch::Sender<bool>,
}

impl App {
    /// Builds the inference wing. Loads nothing yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`AppError::Manager`].
    pub fn open(config: Config) -> Result<Self, AppError> {
        let manager = ModelManager::open(config.models, config.engine, &config.data_dir)?;
        Ok(Self { server: config.server, manager, ready: watch::Sender::new(false) })
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
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), AppError> {
        let address = listener.local_addr().map_err(|source| self.cannot_serve(source))?;
        let settings = self.edge_settings(address.ip());
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let generator = Generator::new(workers);
        let (manager, ready) = (Arc::clone(&self.manager), self.ready.subscribe());
        let state = AppState::new(settings, manager, generator, shutdown.clone(), ready);
        let upkeep = keep_metrics_tidy(state.metrics().clone());

        let drained = shutdown.clone();
        let server = http::serve(listener, api::router(state), Bounds::of_process(), async move {
            drained.drained().await;
        });
        let outcome = tokio::select! {
            () = server => Ok(()),
            error = self.load_models() => Err(error),
            () = self.overstayed(&shutdown) => Ok(()),
        };
        upkeep.abort();
        if timeout(LAST_GRACE, self.manager.shutdown()).await.is_err() {
            tracing::warn!("a model is still in use; ending without waiting for it");
        }
        outcome
    }

    fn edge_settings(&self, address: std::net::IpAddr) -> EdgeSettings {
        EdgeSettings {
            api_key: self.server.api_key.clone(),
            max_body_bytes: self.server.max_body_bytes,
            body_timeout: BODY_TIMEOUT.min(self.server.request_timeout),
            request_timeout: self.server.request_timeout,
            keep_alive: self.server.keep_alive,
            slow_client_timeout: SLOW_CLIENT_TIMEOUT,
            address,
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

fn keep_metrics_tidy(page: MetricsPage) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = interval(METRICS_UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            page.tidy();
        }
    })
}
