//! Registered models as administrators say they are to be: the capabilities to see and to change them.
//!
//! The store's half of the registry. That a source may be used, and what becomes of a model, is the manager's business;
//! the edge brings the two together (`http/registry.rs`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::auth::capability::{Act, Deed};
use crate::auth::{Auth, AuthError, Caller, Capability, Permission, Permit};
use crate::clock::Timestamp;
use crate::store::models::ModelRow;
use crate::store::{JsonText, Tx, models, teams};

/// Most models, so that reading all of them stays cheap.
const MOST_MODELS: usize = 1000;

/// Who sees a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody who may use models.
    #[default]
    Everyone,
    /// The members of its teams.
    Teams,
}

impl Visibility {
    /// As it is stored and sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Teams => "teams",
        }
    }
}

/// The most that a request may ask of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelLimits {
    /// Most tokens of one answer.
    #[schema(minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Most choices of one request.
    #[schema(minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Highest temperature.
    #[schema(minimum = 0, maximum = 2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
}

/// What a registered model is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpecification {
    /// The name clients ask for.
    pub id: String,
    /// Where it may be had, tried in order; none: the catalogue's.
    pub sources: Vec<String>,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// For people.
    pub description: String,
    /// Checksum of its only file.
    pub sha256: Option<String>,
    /// A context length below its own.
    pub context_length: Option<u32>,
    /// Values for parameters that a request leaves open.
    pub defaults: Value,
    /// Most that a request may ask for.
    pub limits: ModelLimits,
    /// Who sees it.
    pub visibility: Visibility,
    /// The teams that see it, where not everyone does.
    pub team_ids: Vec<String>,
    /// Never unloaded to make room.
    pub pinned: bool,
    /// Not enabled: as if it were not there.
    pub enabled: bool,
    /// Loaded as soon as it is registered, and at start.
    pub preload: bool,
}

/// A registered model, with how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredModel {
    /// What it is to be.
    pub specification: ModelSpecification,
    /// Registered.
    pub created_at: Timestamp,
    /// By this user.
    pub created_by: String,
    /// Last changed.
    pub updated_at: Timestamp,
}

impl RegisteredModel {
    fn read(row: ModelRow, team_ids: Vec<String>) -> Self {
        // What a later version wrote and this one cannot read restricts nothing that it knows of.
        let limits = serde_json::from_value(row.limits.0).unwrap_or_default();
        let visibility = if row.visibility == "everyone" { Visibility::Everyone } else { Visibility::Teams };
        let specification = ModelSpecification {
            id: row.id,
            sources: row.sources.0,
            aliases: row.aliases.0,
            description: row.description,
            sha256: row.sha256,
            context_length: row.context_length.and_then(|length| u32::try_from(length).ok()),
            defaults: row.defaults.0,
            limits,
            visibility,
            team_ids,
            pinned: row.pinned,
            enabled: row.enabled,
            preload: row.preload,
        };
        let (created_at, created_by, updated_at) = (row.created_at, row.created_by, row.updated_at);
        Self { specification, created_at, created_by, updated_at }
    }

    fn row(&self) -> ModelRow {
        let model = &self.specification;
        ModelRow {
            id: model.id.clone(),
            sources: JsonText(model.sources.clone()),
            aliases: JsonText(model.aliases.clone()),
            description: model.description.clone(),
            sha256: model.sha256.clone(),
            context_length: model.context_length.map(i64::from),
            defaults: JsonText(model.defaults.clone()),
            limits: JsonText(json!(model.limits)),
            visibility: model.visibility.name().to_owned(),
            pinned: model.pinned,
            enabled: model.enabled,
            preload: model.preload,
            created_at: self.created_at,
            created_by: self.created_by.clone(),
            updated_at: self.updated_at,
        }
    }

    /// For the audit. An address may hold a token in its query: it is left out.
    fn record(&self) -> Value {
        let model = &self.specification;
        let sources: Vec<_> =
            model.sources.iter().map(|source| source.split('?').next().unwrap_or_default()).collect();
        json!({
            "id": model.id,
            "sources": sources,
            "aliases": model.aliases,
            "description": model.description,
            "sha256": model.sha256,
            "context_length": model.context_length,
            "defaults": model.defaults,
            "limits": model.limits,
            "visibility": model.visibility,
            "team_ids": model.team_ids,
            "pinned": model.pinned,
            "enabled": model.enabled,
            "preload": model.preload,
        })
    }
}

/// May see the registered models.
pub struct ModelViewer(Permit);

/// May change the registered models, and load, unload and fetch them.
pub struct ModelAdmin(Permit);

impl Capability for ModelViewer {
    const PERMISSION: Permission = Permission::ModelsRead;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl Capability for ModelAdmin {
    const PERMISSION: Permission = Permission::ModelsManage;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl ModelViewer {
    /// All of them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn all(&self) -> Result<Vec<RegisteredModel>, AuthError> {
        self.0.auth().registered_models().await
    }

    /// One of them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn find(&self, id: &str) -> Result<Option<RegisteredModel>, AuthError> {
        let mut tx = self.0.store().read().await?;
        find(&mut tx, id).await
    }
}

async fn find(tx: &mut Tx, id: &str) -> Result<Option<RegisteredModel>, AuthError> {
    let Some(row) = models::find(tx, id).await? else { return Ok(None) };
    let team_ids = models::teams(tx, id).await?;
    Ok(Some(RegisteredModel::read(row, team_ids)))
}

impl ModelAdmin {
    /// Who acts.
    pub fn caller(&self) -> &Caller {
        self.0.caller()
    }

    /// One of the registered models.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn find(&self, id: &str) -> Result<Option<RegisteredModel>, AuthError> {
        let mut tx = self.0.store().read().await?;
        find(&mut tx, id).await
    }

    /// Registers a model.
    ///
    /// # Errors
    /// [`AuthError::Exists`], [`AuthError::Invalid`] for a team that is not there.
    pub async fn create(&self, specification: ModelSpecification) -> Result<RegisteredModel, AuthError> {
        let mut act = self.0.write().await?;
        if models::find(&mut act, &specification.id).await?.is_some() {
            return Err(AuthError::Exists { what: "the model", name: specification.id });
        }
        self.insert(act, specification).await
    }

    /// Changes what a model is to be: from what is registered at that moment, so that of two changes at once neither is
    /// lost. One that is not registered is taken over into the registry, if `configured` says what it is without; none if
    /// there is neither.
    ///
    /// # Errors
    /// [`AuthError::Exists`], [`AuthError::Invalid`] for a team that is not there, and those of the change.
    pub async fn update<E: From<AuthError>>(
        &self,
        id: &str,
        configured: Option<ModelSpecification>,
        change: impl FnOnce(&mut ModelSpecification) -> Result<(), E>,
    ) -> Result<Option<RegisteredModel>, E> {
        let mut act = self.0.write().await?;
        if let Some(before) = find(&mut act, id).await? {
            let mut specification = before.specification.clone();
            change(&mut specification)?;
            return Ok(Some(self.replace(act, before, specification).await?));
        }
        let Some(mut specification) = configured else { return Ok(None) };
        change(&mut specification)?;
        Ok(Some(self.insert(act, specification).await?))
    }

    /// Writes a model that is not registered yet.
    async fn insert(
        &self,
        mut act: Act,
        specification: ModelSpecification,
    ) -> Result<RegisteredModel, AuthError> {
        let now = self.0.now();
        let created_by = self.0.caller().user().map_or_else(|| "system".to_owned(), |user| user.id.clone());
        let model = RegisteredModel { specification, created_at: now, created_by, updated_at: now };
        let all = models::all(&mut act).await?;
        if all.len() >= MOST_MODELS {
            return Err(AuthError::Conflict("there are 1000 registered models: delete one first"));
        }
        check_names(&model.specification, &all)?;
        models::insert(&mut act, &model.row()).await?;
        self.finish(act, "model.create", None, model).await
    }

    /// Writes a registered model anew.
    async fn replace(
        &self,
        mut act: Act,
        before: RegisteredModel,
        specification: ModelSpecification,
    ) -> Result<RegisteredModel, AuthError> {
        let model = RegisteredModel { specification, updated_at: self.0.now(), ..before.clone() };
        check_names(&model.specification, &models::all(&mut act).await?)?;
        models::update(&mut act, &model.row()).await?;
        self.finish(act, "model.update", Some(before), model).await
    }

    /// What is the same for a model that is new and one that was changed.
    async fn finish(
        &self,
        mut act: Act,
        action: &'static str,
        before: Option<RegisteredModel>,
        model: RegisteredModel,
    ) -> Result<RegisteredModel, AuthError> {
        self.write_teams(&mut act, &model.specification).await?;
        let target = ("model", model.specification.id.clone());
        let before = before.map(|model| model.record());
        act.record(Deed { action, target, before, after: Some(model.record()) }).await?;
        act.commit_models().await?;
        Ok(model)
    }

    /// Takes a model out of the registry.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        let mut act = self.0.write().await?;
        let model = find(&mut act, id).await?.ok_or(AuthError::NotFound("registered model"))?;
        models::set_teams(&mut act, id, &[]).await?;
        models::delete(&mut act, id).await?;
        let (target, before) = (("model", id.to_owned()), Some(model.record()));
        act.record(Deed { action: "model.delete", target, before, after: None }).await?;
        act.commit_models().await
    }

    /// Writes down that a model was loaded, unloaded or fetched on request.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn record(&self, action: &'static str, id: &str) -> Result<(), AuthError> {
        let mut act = self.0.write().await?;
        let deed = Deed { action, target: ("model", id.to_owned()), before: None, after: None };
        act.record(deed).await?;
        act.commit().await
    }

    async fn write_teams(&self, tx: &mut Tx, model: &ModelSpecification) -> Result<(), AuthError> {
        for team in &model.team_ids {
            if teams::find(tx, team).await?.is_none() {
                return Err(AuthError::invalid("team_ids", "names a team that is not there"));
            }
        }
        models::set_teams(tx, &model.id, &model.team_ids).await?;
        Ok(())
    }
}

/// No name leads to two models.
fn check_names(model: &ModelSpecification, all: &[ModelRow]) -> Result<(), AuthError> {
    let taken = |name: &String| {
        let others = all.iter().filter(|row| row.id != model.id);
        others.into_iter().any(|row| row.id == *name || row.aliases.0.contains(name))
    };
    let mut names = std::iter::once(&model.id).chain(&model.aliases);
    names
        .find(|name| taken(name))
        .map_or(Ok(()), |name| Err(AuthError::Exists { what: "a model of the name", name: name.clone() }))
}

impl Auth {
    /// All registered models, for the manager to follow and for deciding who may use which. The program's own knowledge:
    /// no caller is asked for.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn registered_models(&self) -> Result<Vec<RegisteredModel>, AuthError> {
        let mut tx = self.store().read().await?;
        let (rows, teams) = (models::all(&mut tx).await?, models::all_teams(&mut tx).await?);
        let of =
            |id: &str| teams.iter().filter(|(model, _)| model == id).map(|(_, team)| team.clone()).collect();
        Ok(rows
            .into_iter()
            .map(|row| {
                let team_ids = of(&row.id);
                RegisteredModel::read(row, team_ids)
            })
            .collect())
    }
}
