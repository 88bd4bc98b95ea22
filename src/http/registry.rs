//! Where the registered models (platform) and the models that run (inference) meet: what the registry says is handed to
//! the manager to follow, and who may use which model is kept ready for each request.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use crate::auth::models::{
    ModelAdmin, ModelLimits, ModelSpecification, ModelViewer, RegisteredModel, Visibility,
};
use crate::auth::{Auth, AuthError, Caller};
use crate::error::Code;
use crate::http::ApiError;
use crate::manager::{
    Checksum, InvalidDefinition, ManagerError, ModelDefinition, ModelManager, ModelStatus, SamplingDefaults,
};

/// What the registry says of who may use which model, as of now.
#[derive(Debug, Default)]
pub struct ModelTable(HashMap<String, Policy>);

#[derive(Debug)]
struct Policy {
    /// None: everybody.
    teams: Option<Vec<String>>,
    limits: ModelLimits,
}

impl ModelTable {
    fn of(models: &[RegisteredModel]) -> Self {
        let policy = |model: &ModelSpecification| Policy {
            teams: (model.visibility == Visibility::Teams).then(|| model.team_ids.clone()),
            limits: model.limits.clone(),
        };
        Self(
            models
                .iter()
                .map(|model| (model.specification.id.clone(), policy(&model.specification)))
                .collect(),
        )
    }

    /// Whether this caller sees the model of this id. One that only the configuration names is seen by everybody.
    pub fn is_visible(&self, caller: &Caller, id: &str) -> bool {
        let Some(teams) = self.0.get(id).and_then(|policy| policy.teams.as_ref()) else { return true };
        caller.teams().iter().any(|team| teams.contains(team))
    }

    /// Whether everybody sees it.
    pub fn is_public(&self, id: &str) -> bool {
        self.0.get(id).is_none_or(|policy| policy.teams.is_none())
    }

    /// Whether this caller may use the model `id`, which was asked for as `name`. What is decided goes by its own id.
    ///
    /// # Errors
    /// 404 `model_not_found` for one that is not visible; 403 `model_not_allowed` for one that the key may not use.
    pub fn check(&self, caller: &Caller, id: &str, name: &str) -> Result<(), ApiError> {
        if !self.is_visible(caller, id) {
            return Err(ManagerError::Unknown { id: name.to_owned() }.into());
        }
        Ok(caller.check_model(id, name)?)
    }

    /// The most that a request may ask of it.
    pub fn limits(&self, id: &str) -> ModelLimits {
        self.0.get(id).map(|policy| policy.limits.clone()).unwrap_or_default()
    }
}

/// Keeps the manager and the table as the registry says.
pub struct Registry {
    auth: Auth,
    manager: Arc<ModelManager>,
    table: watch::Sender<Arc<ModelTable>>,
    /// One after the other, so that an older state never comes after a newer.
    turn: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Over the two. Nothing is followed before the first [`Registry::sync`].
    pub fn new(auth: Auth, manager: Arc<ModelManager>) -> Self {
        Self { auth, manager, table: watch::Sender::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// Who is let in.
    pub(super) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The models as they run.
    pub(super) fn manager(&self) -> &Arc<ModelManager> {
        &self.manager
    }

    /// Who may use which model.
    pub fn table(&self) -> Arc<ModelTable> {
        Arc::clone(&self.table.borrow())
    }

    /// Tells when that changes.
    pub fn watch(&self) -> watch::Receiver<Arc<ModelTable>> {
        self.table.subscribe()
    }

    /// Reads the registry, and makes it true.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sync(&self) -> Result<(), AuthError> {
        let _turn = self.turn.lock().await;
        let models = self.auth.registered_models().await?;
        // Who may see a model must be known before it is there to be seen.
        self.table.send_replace(Arc::new(ModelTable::of(&models)));
        let definitions = models.iter().filter_map(|model| match definition(&model.specification) {
            Ok(mut definition) => {
                definition.created = u64::try_from(model.created_at.seconds()).unwrap_or(0);
                Some(definition)
            }
            // Written by another version, or by hand.
            Err(error) => {
                tracing::warn!(model = model.specification.id, %error, "a registered model is left out");
                None
            }
        });
        self.manager.follow(definitions.collect());
        Ok(())
    }

    /// Whether sources that somebody names may be used.
    ///
    /// # Errors
    /// 400, for the first that is not allowed.
    pub async fn check_sources(&self, sources: &[String]) -> Result<(), ApiError> {
        self.manager.source_policy().check_all(sources).await?;
        Ok(())
    }

    /// Whether a specification makes sense. Its sources are not judged.
    ///
    /// # Errors
    /// 400, naming the field at fault; 409 for a name that is taken.
    pub fn check(&self, model: &ModelSpecification) -> Result<(), ApiError> {
        definition(model)?;
        // Names of registered models are compared where they are written; those of configured ones are known here.
        let is_taken = |alias: &&String| **alias != model.id && self.manager.one(alias).is_some();
        if let Some(alias) = model.aliases.iter().find(is_taken) {
            return Err(ApiError::new(Code::AlreadyExists, format!("a model `{alias}` exists already")));
        }
        Ok(())
    }

    /// Makes a change that was just written true, and says what has become of the model.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn adopt(&self, id: &str) -> Result<Option<ModelStatus>, AuthError> {
        self.sync().await?;
        Ok(self.manager.one(id))
    }

    /// Follows the registry until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.auth.model_changes();
        while changes.changed().await.is_ok() {
            if let Err(error) = self.sync().await {
                tracing::warn!(%error, "the registered models cannot be read; those known go on");
            }
        }
    }

    /// The models as they run, for one who may see them all.
    pub fn seen_by(&self, _viewer: &ModelViewer) -> &Arc<ModelManager> {
        &self.manager
    }

    /// The models as they run, for one who may change them.
    pub fn operated_by(&self, _admin: &ModelAdmin) -> &Arc<ModelManager> {
        &self.manager
    }
}

/// A specification as the manager understands it.
///
/// # Errors
/// [`InvalidDefinition`] with the field at fault.
pub fn definition(model: &ModelSpecification) -> Result<ModelDefinition, InvalidDefinition> {
    let invalid = |field, reason: String| InvalidDefinition { field, reason };
    let sources = model.sources.iter().map(|text| text.parse());
    let sources: Result<Vec<_>, String> = sources.collect();
    let checksum = model.sha256.as_deref().map(Checksum::of_only_file).transpose();
    let sampling = match &model.defaults {
        Value::Null => Ok(SamplingDefaults::default()),
        defaults => serde_json::from_value(defaults.clone()),
    };
    let definition = ModelDefinition {
        aliases: model.aliases.clone(),
        sources: sources.map_err(|reason| invalid("sources", reason))?,
        checksum: checksum.map_err(|reason| invalid("sha256", reason))?,
        context_length: model.context_length.map(|length| length as usize),
        sampling: sampling.map_err(|error| invalid("defaults", error.to_string()))?,
        pinned: model.pinned,
        enabled: model.enabled,
        preload: model.preload,
        ..ModelDefinition::new(model.id.clone())
    };
    definition.check()?;
    Ok(definition)
}
