//! API keys: one's own, and those of others for whoever administers them.
//!
//! Not how a key is checked (`subject.rs`). The one thing to know: nobody gets more by a key than they have. What a key
//! may do is within what its owner may and within what its maker may; and whoever acts by a key that is itself bound to
//! models, networks, a team or a time makes none that is bound less.

mod limits;
mod shape;

use std::time::Duration;

use serde_json::json;

use crate::auth::capability::{Act, Deed};
use crate::auth::keys::limits::Draft;
use crate::auth::users::{is_self, may_administer};
use crate::auth::{AuthError, Capability, Permission, Permit, PlainKey, new_id, users};
use crate::clock::Timestamp;
use crate::store::api_keys::{ApiKeyFilter, ApiKeyRow};
use crate::store::users::UserRow;
use crate::store::{JsonText, ListRequest, Page, api_keys};

pub use crate::store::api_keys::SORTS;
pub(super) use limits::{LONGEST_NAME, is_bound};
pub use shape::{ApiKey, ApiKeyChange, ApiKeyWithSecret, KeyStatus, NewApiKey, Rotation};

/// Most keys that a user may have.
pub const MOST_KEYS: i64 = 1000;

/// How long the old key goes on after a rotation, at most.
pub const LONGEST_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3600);

const USUAL_OVERLAP: Duration = Duration::from_secs(3600);

/// May see all keys.
pub struct KeyReader(Permit);

impl Capability for KeyReader {
    const PERMISSION: Permission = Permission::KeysRead;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl KeyReader {
    /// One page of the keys.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(
        &self,
        filter: &ApiKeyFilter,
        request: &ListRequest,
    ) -> Result<Page<ApiKey>, AuthError> {
        list(&self.0, filter, request).await
    }

    /// One key.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn find(&self, id: &str) -> Result<ApiKey, AuthError> {
        let mut tx = self.0.store().read().await?;
        let row = api_keys::find(&mut tx, id).await?.ok_or(NO_KEY)?;
        Ok(ApiKey::of(row, self.0.now()))
    }
}

/// May make, change and delete keys: their own, or those of others too.
struct Keeper {
    permit: Permit,
    only_own: bool,
}

/// May make, change and delete anybody's keys.
pub struct KeyAdmin(Keeper);

impl Capability for KeyAdmin {
    const PERMISSION: Permission = Permission::KeysManage;

    fn of(permit: Permit) -> Self {
        Self(Keeper { permit, only_own: false })
    }
}

impl KeyAdmin {
    /// Makes a key for a user.
    ///
    /// # Errors
    /// [`AuthError::Invalid`]; [`AuthError::NotAbove`] by the rules of rank, and for scopes beyond those of caller or owner;
    /// [`AuthError::Conflict`] for too many keys.
    pub async fn create(&self, user_id: &str, new: NewApiKey) -> Result<ApiKeyWithSecret, AuthError> {
        self.0.create(user_id, new).await
    }

    /// Changes a key.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], and as for making one.
    pub async fn update(&self, id: &str, change: ApiKeyChange) -> Result<ApiKey, AuthError> {
        self.0.update(id, change).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::NotAbove`] by the rules of rank.
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        self.0.delete(id).await
    }

    /// Gives a key another secret; the old one goes on for a while.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Invalid`], [`AuthError::NotAbove`].
    pub async fn rotate(&self, id: &str, rotation: Rotation) -> Result<ApiKeyWithSecret, AuthError> {
        self.0.rotate(id, rotation).await
    }
}

/// May do so with their own. Others' keys are not there.
pub struct OwnKeys(Keeper);

impl Capability for OwnKeys {
    const PERMISSION: Permission = Permission::Account;

    fn of(permit: Permit) -> Self {
        Self(Keeper { permit, only_own: true })
    }
}

impl OwnKeys {
    /// One page of one's keys.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(
        &self,
        status: Option<KeyStatus>,
        search: Option<String>,
        request: &ListRequest,
    ) -> Result<Page<ApiKey>, AuthError> {
        let user_id = Some(self.0.own_id()?.to_owned());
        let status = status.map(|status| status.name().to_owned());
        let filter = ApiKeyFilter { user_id, status, search, ..ApiKeyFilter::default() };
        list(&self.0.permit, &filter, request).await
    }

    /// Makes a key.
    ///
    /// # Errors
    /// As [`KeyAdmin::create`].
    pub async fn create(&self, new: NewApiKey) -> Result<ApiKeyWithSecret, AuthError> {
        self.0.create(self.0.own_id()?, new).await
    }

    /// Changes a key.
    ///
    /// # Errors
    /// As [`KeyAdmin::update`].
    pub async fn update(&self, id: &str, change: ApiKeyChange) -> Result<ApiKey, AuthError> {
        self.0.update(id, change).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As [`KeyAdmin::delete`].
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        self.0.delete(id).await
    }

    /// Gives a key another secret.
    ///
    /// # Errors
    /// As [`KeyAdmin::rotate`].
    pub async fn rotate(&self, id: &str, rotation: Rotation) -> Result<ApiKeyWithSecret, AuthError> {
        self.0.rotate(id, rotation).await
    }
}

const NO_KEY: AuthError = AuthError::NotFound("API key");

impl Keeper {
    fn own_id(&self) -> Result<&str, AuthError> {
        let user = self.permit.caller().user();
        user.map(|user| user.id.as_str()).ok_or(AuthError::PermissionMissing(Permission::Account))
    }

    async fn create(&self, user_id: &str, new: NewApiKey) -> Result<ApiKeyWithSecret, AuthError> {
        self.permit.or_record_refusal(("user", Some(user_id)), self.try_create(user_id, new).await).await
    }

    async fn try_create(&self, user_id: &str, new: NewApiKey) -> Result<ApiKeyWithSecret, AuthError> {
        let now = self.permit.now();
        let mut act = self.permit.write().await?;
        let owner = match users::find(&mut act, user_id).await {
            Err(AuthError::NotFound(_)) => return Err(AuthError::invalid("user_id", "names no user")),
            found => found?,
        };
        may_administer(act.caller(), &owner)?;
        if api_keys::count_of_user(&mut act, user_id).await? >= MOST_KEYS {
            return Err(AuthError::Conflict("the user has a thousand keys: delete some first"));
        }
        let change = ApiKeyChange {
            status: new.status,
            name: Some(new.name),
            scopes: Some(new.scopes.unwrap_or_else(|| vec![Permission::Inference])),
            models: Some(new.models),
            cidrs: Some(new.cidrs),
            team_id: Some(new.team_id),
            expires_at: Some(new.expires_at),
        };
        let (key, mut row) = self.blank(user_id, now);
        Draft { owner: &owner, now }.apply(&mut act, &mut row, change).await?;
        api_keys::insert(&mut act, &row).await?;
        let kept = ApiKey::of(row, now);
        act.record(deed("key.create", None, Some(&kept))).await?;
        act.commit_authority().await?;
        Ok(ApiKeyWithSecret { key: key.reveal().to_owned(), kept })
    }

    async fn update(&self, id: &str, change: ApiKeyChange) -> Result<ApiKey, AuthError> {
        self.permit.or_record_refusal(("key", Some(id)), self.try_update(id, change).await).await
    }

    async fn try_update(&self, id: &str, change: ApiKeyChange) -> Result<ApiKey, AuthError> {
        let now = self.permit.now();
        let mut act = self.permit.write().await?;
        let (mut row, owner) = self.find(&mut act, id).await?;
        let before = ApiKey::of(row.clone(), now);
        Draft { owner: &owner, now }.apply(&mut act, &mut row, change).await?;
        row.updated_at = now;
        api_keys::update(&mut act, &row).await?;
        let after = ApiKey::of(row, now);
        act.record(deed("key.update", Some(&before), Some(&after))).await?;
        act.commit_authority().await?;
        Ok(after)
    }

    async fn delete(&self, id: &str) -> Result<(), AuthError> {
        self.permit.or_record_refusal(("key", Some(id)), self.try_delete(id).await).await
    }

    async fn try_delete(&self, id: &str) -> Result<(), AuthError> {
        let now = self.permit.now();
        let mut act = self.permit.write().await?;
        let (mut row, _) = self.find(&mut act, id).await?;
        let before = ApiKey::of(row.clone(), now);
        row.deleted_at = Some(now);
        row.updated_at = now;
        api_keys::update(&mut act, &row).await?;
        act.record(deed("key.delete", Some(&before), None)).await?;
        act.commit_authority().await
    }

    async fn rotate(&self, id: &str, rotation: Rotation) -> Result<ApiKeyWithSecret, AuthError> {
        self.permit.or_record_refusal(("key", Some(id)), self.try_rotate(id, rotation).await).await
    }

    async fn try_rotate(&self, id: &str, rotation: Rotation) -> Result<ApiKeyWithSecret, AuthError> {
        let overlap = rotation.overlap_seconds.map_or(USUAL_OVERLAP, |s| Duration::from_secs(s.into()));
        if overlap > LONGEST_OVERLAP {
            let reason = format!("must be at most {}", LONGEST_OVERLAP.as_secs());
            return Err(AuthError::invalid("overlap_seconds", reason));
        }
        let now = self.permit.now();
        let mut act = self.permit.write().await?;
        let (mut row, owner) = self.find(&mut act, id).await?;
        // Who rotates a key has it: it may do no more than they.
        Draft { owner: &owner, now }.check_reach(&mut act, &row).await?;
        let before = ApiKey::of(row.clone(), now);
        let key = PlainKey::generate();
        let old = std::mem::replace(&mut row.hash, key.hash());
        let goes_on = !overlap.is_zero();
        row.previous_hash = goes_on.then_some(old);
        row.previous_expires_at = goes_on.then(|| now.after(overlap));
        row.prefix = key.prefix();
        row.updated_at = now;
        api_keys::update(&mut act, &row).await?;
        let kept = ApiKey::of(row, now);
        act.record(deed("key.rotate", Some(&before), Some(&kept))).await?;
        act.commit_authority().await?;
        Ok(ApiKeyWithSecret { key: key.reveal().to_owned(), kept })
    }

    /// A key within reach, and its owner.
    async fn find(&self, act: &mut Act, id: &str) -> Result<(ApiKeyRow, UserRow), AuthError> {
        let row = api_keys::find(act, id).await?.ok_or(NO_KEY)?;
        let owner = users::find(act, &row.user_id).await?;
        if self.only_own && !is_self(act.caller(), &owner) {
            return Err(NO_KEY);
        }
        may_administer(act.caller(), &owner)?;
        Ok((row, owner))
    }

    fn blank(&self, user_id: &str, now: Timestamp) -> (PlainKey, ApiKeyRow) {
        let key = PlainKey::generate();
        let row = ApiKeyRow {
            id: new_id("key"),
            user_id: user_id.to_owned(),
            team_id: None,
            name: String::new(),
            prefix: key.prefix(),
            hash: key.hash(),
            previous_hash: None,
            previous_expires_at: None,
            scopes: JsonText(Vec::new()),
            models: None,
            cidrs: None,
            status: KeyStatus::Enabled.name().to_owned(),
            expires_at: None,
            created_at: now,
            created_by: self.permit.caller().user().map_or("system", |user| &user.id).to_owned(),
            updated_at: now,
            last_used_at: None,
            deleted_at: None,
        };
        (key, row)
    }
}

async fn list(
    permit: &Permit,
    filter: &ApiKeyFilter,
    request: &ListRequest,
) -> Result<Page<ApiKey>, AuthError> {
    let mut tx = permit.store().read().await?;
    let now = permit.now();
    Ok(api_keys::list(&mut tx, filter, request).await?.map(|row| ApiKey::of(row, now)))
}

fn deed(action: &'static str, before: Option<&ApiKey>, after: Option<&ApiKey>) -> Deed {
    let id = before.or(after).map_or_else(String::new, |key| key.id.clone());
    Deed {
        action,
        target: ("key", id),
        before: before.map(|key| json!(key)),
        after: after.map(|key| json!(key)),
    }
}
