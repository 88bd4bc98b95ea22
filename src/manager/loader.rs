//! From files to a running model. Everything here blocks; it is called on a blocking thread.

use std::path::Path;
use std::sync::Arc;

use sconce_models::grammar::Grammars;
use sconce_models::{
    CacheType, Error, Inspection, LoadOptions, Loaded, LoadedModel, ModelFiles, inspect, load,
};

use crate::config::{EngineConfig, ModelsConfig};
use crate::engine::{EmbedderHandle, Engine, EngineError, EngineLimits, Speculation};
use crate::error::Code;
use crate::manager::lease::{LoadedEntry, Runner};
use crate::manager::memory::{MemoryNeed, MemoryPlan};
use crate::manager::profile::Profile;
use crate::manager::self_test::SelfTest;

/// Why a model could not be loaded: one text for its user, one for the log.
#[derive(Debug)]
pub(super) struct LoadFailure {
    /// No paths, no addresses.
    pub reason: String,
    /// Everything.
    pub detail: String,
    /// What kind of fault it is.
    pub code: Code,
}

impl From<Error> for LoadFailure {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Read { .. } => "its files cannot be read".into(),
            Error::NoModel { .. } => "its files hold no model that is known here".into(),
            Error::InvalidFile { format, .. } => format!("it has a damaged {format} file"),
            Error::Compute(_) | Error::Batch(_) => "it failed while it was loaded".into(),
            other => other.to_string(),
        };
        let code = match &error {
            Error::NoModel { .. }
            | Error::InvalidFile { .. }
            | Error::Config(_)
            | Error::MissingTensor { .. }
            | Error::Shape { .. }
            | Error::Tokenizer(_)
            | Error::Template(_) => Code::ModelFileInvalid,
            _ => Code::ModelFailed,
        };
        Self { reason, detail: error.to_string(), code }
    }
}

impl From<EngineError> for LoadFailure {
    fn from(error: EngineError) -> Self {
        let detail = match &error {
            EngineError::Failed { reason } => reason.clone(),
            other => other.to_string(),
        };
        Self { reason: "its engine could not be started".into(), detail, code: Code::ModelFailed }
    }
}

/// What lies at a path, and what it will need.
pub(super) struct Inspected {
    pub files: ModelFiles,
    pub need: MemoryNeed,
    /// As it will be served: with no longer context than is wanted.
    pub inspection: Arc<Inspection>,
}

/// How models are loaded here.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    options: LoadOptions,
    engine: EngineConfig,
}

impl Loader {
    pub(super) fn new(models: &ModelsConfig, engine: EngineConfig) -> Self {
        let options = LoadOptions {
            device: models.device,
            arithmetic: models.arithmetic,
            cache_type: models.cache_type,
            context_length: models.context_length,
        };
        Self { options, engine }
    }

    /// The same for a model that has a limit of its own: the smaller of the two holds.
    pub(super) fn bounded(&self, context_length: Option<usize>) -> Self {
        let mut bounded = self.clone();
        let limits = [self.options.context_length, context_length];
        bounded.options.context_length = limits.into_iter().flatten().min();
        bounded
    }

    /// Reads headers only.
    pub(super) fn inspect(&self, path: &Path) -> Result<Inspected, LoadFailure> {
        let files = ModelFiles::find(path)?;
        let mut inspection = inspect(&files)?;
        let own = inspection.spec.context_length;
        let context = self.options.context_length.map_or(own, |limit| limit.min(own));
        inspection.spec.context_length = context;
        let need = MemoryNeed::of(&inspection, &self.engine, self.options.cache_type, context);
        Ok(Inspected { files, need, inspection: Arc::new(inspection) })
    }

    /// Reads the weights and starts what runs them.
    pub(super) fn load(
        &self,
        id: &str,
        files: &ModelFiles,
        plan: MemoryPlan,
    ) -> Result<LoadedEntry, LoadFailure> {
        let Loaded {
            model,
            mut spec,
            device,
            tokenizer,
            chat_template,
            defaults,
            features,
            quantisation,
            cache_type,
        } = load(files, &self.options)?;
        let runner = match model {
            LoadedModel::Causal(model) => {
                let engine = Engine::spawn(model, &device, self.limits(plan, cache_type))?;
                spec = engine.spec().clone();
                Runner::Engine(engine)
            }
            LoadedModel::Embedder(model) => Runner::Embedder(EmbedderHandle::spawn(
                model,
                self.engine.embedding_batch_tokens,
                self.engine.max_waiting,
            )?),
            LoadedModel::CrossEncoder(model) => Runner::Embedder(EmbedderHandle::spawn_cross_encoder(
                model,
                self.engine.embedding_batch_tokens,
                self.engine.max_waiting,
            )?),
        };
        let grammars = Arc::new(Grammars::new(tokenizer.clone(), defaults.end_token_ids.clone()));
        let profile = Arc::new(Profile {
            quantisation,
            cache_type,
            self_test: SelfTest::run(spec.kind, chat_template.as_ref(), &tokenizer, &defaults),
            chat_template: chat_template.as_ref().map(|template| template.source().to_owned()),
            tool_format: defaults.tool_format.clone(),
            features,
        });
        let id = id.to_owned();
        Ok(LoadedEntry { id, spec, tokenizer, grammars, chat_template, defaults, runner, profile })
    }

    fn limits(&self, plan: MemoryPlan, cache_type: CacheType) -> EngineLimits {
        EngineLimits {
            cache_blocks: plan.cache_blocks,
            cache_type,
            max_batch_tokens: self.engine.max_batch_tokens,
            prefill_chunk: self.engine.prefill_chunk,
            max_running: self.engine.max_running,
            max_waiting: self.engine.max_waiting,
            queue_timeout: self.engine.queue_timeout,
            prefix_cache: self.engine.prefix_cache,
            speculation: if self.engine.speculation { Speculation::Auto } else { Speculation::Off },
        }
    }
}

/// Runs blocking work; a panic in it is a failure of that work alone.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadFailure> + Send + 'static,
) -> Result<T, LoadFailure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(LoadFailure {
            reason: "it failed while it was loaded".into(),
            detail: format!("the loading thread did not finish: {error}"),
            code: Code::ModelFailed,
        }),
    }
}
