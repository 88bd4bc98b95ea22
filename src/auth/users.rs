//! Users, as those see and change them who administer them.
//!
//! The rules of rank live here: one changes only users who may do less than oneself, and gives only roles of which one
//! holds everything. The one thing to know: a change that makes earlier sign-ins wrong (role, status, password) ends the
//! user's sessions in the same transaction.

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::capability::{Act, Deed};
use crate::auth::first_run::make_password;
use crate::auth::input::{self, Password, present};
use crate::auth::sessions::{Session, list_sessions, revoke_session};
use crate::auth::{
    AuthError, Caller, Capability, Passwords, Permission, PermissionSet, Permit, Role, new_id, new_username,
};
use crate::clock::Timestamp;
use crate::store::users::{UserFilter, UserRow};
use crate::store::{
    ListRequest, Page, StoreError, Tx, api_keys, batches, files, responses, sessions, teams, users,
};

/// Longest display name, in characters.
const LONGEST_NAME: usize = 128;

/// Most teams a user is made with.
const MOST_TEAMS: usize = 100;

/// Whether a user is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    /// Let in.
    Active,
    /// Not let in, and neither are their keys.
    Disabled,
}

impl UserStatus {
    /// As it is stored and sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// The user's id.
    #[schema(example = "usr_019aabcdef0123456789abcdef012345")]
    pub id: String,
    /// What one signs in with: lower case, unique.
    #[schema(example = "ada")]
    pub username: String,
    /// What people call them.
    #[schema(example = "Ada Lovelace")]
    pub display_name: String,
    /// Where they can be reached.
    #[schema(example = "ada@example.com")]
    pub email: Option<String>,
    /// What they may do.
    #[schema(value_type = Role)]
    pub role: String,
    /// Whether they are let in.
    #[schema(value_type = UserStatus)]
    pub status: String,
    /// Nothing but a new password is accepted from them.
    pub must_change_password: bool,
    /// The teams they are in.
    pub team_ids: Vec<String>,
    /// Made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Last signed in.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_login_at: Option<Timestamp>,
}

impl User {
    fn of(row: UserRow, team_ids: Vec<String>) -> Self {
        Self {
            id: row.id,
            username: row.username,
            display_name: row.display_name,
            email: row.email,
            role: row.role,
            status: row.status,
            must_change_password: row.must_change_password,
            team_ids,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_login_at: row.last_login_at,
        }
    }
}

/// A user who was made or changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserWithPassword {
    /// As they are now.
    #[serde(flatten)]
    pub user: User,
    /// The password, if it was made by the server: shown this once, and to be changed at the first sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "kT7mWq3ZsxYp9RbnHd4e")]
    pub password: Option<String>,
}

/// A user to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What they sign in with: letters, digits, `.`, `_`, `-` and `@`; kept in lower case.
    #[schema(example = "ada", min_length = 1, max_length = 64)]
    pub username: String,
    /// What people call them; the user name if it is left out.
    #[schema(example = "Ada Lovelace", max_length = 128)]
    pub display_name: Option<String>,
    /// Where they can be reached.
    #[schema(example = "ada@example.com", max_length = 254)]
    pub email: Option<String>,
    /// What they may do: `user` if it is left out. Only a role of which the caller holds every permission.
    pub role: Option<Role>,
    /// Their password. If it is left out one is made, and shown in the answer.
    pub password: Option<Password>,
    /// Whether they must change the password first. So it is if it was made.
    pub must_change_password: Option<bool>,
    /// The teams they are in. Takes the permission `teams:manage` too.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub team_ids: Vec<String>,
}

/// What is to be changed of a user. What is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// What people call them.
    #[serde(default, deserialize_with = "present")]
    #[schema(example = "Ada King", max_length = 128, nullable = false)]
    pub display_name: Option<String>,
    /// Where they can be reached; null for nowhere.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 254)]
    pub email: Option<Option<String>>,
    /// What they may do. Ends their sessions. Nobody changes their own.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub role: Option<Role>,
    /// Whether they are let in. Disabling ends their sessions, and their keys are refused meanwhile.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub status: Option<UserStatus>,
    /// Whether they must change the password first.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub must_change_password: Option<bool>,
    /// A new password. Ends their sessions. One's own is changed at `/api/v1/me/password`.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub password: Option<Password>,
    /// Makes a new password, which is shown in the answer and must be changed. Ends their sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub reset_password: Option<bool>,
}

/// What ending a user's sessions did.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndedSessions {
    /// How many went on until then.
    #[schema(example = 2)]
    pub ended: u64,
}

/// May see all users.
pub struct UserReader(Permit);

impl Capability for UserReader {
    const PERMISSION: Permission = Permission::UsersRead;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl UserReader {
    /// One page of the users.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(&self, filter: &UserFilter, request: &ListRequest) -> Result<Page<User>, AuthError> {
        let mut tx = self.0.store().read().await?;
        let page = users::list(&mut tx, filter, request).await?;
        let ids: Vec<&str> = page.items.iter().map(|row| row.id.as_str()).collect();
        let mut memberships = teams::of_users(&mut tx, &ids).await?;
        Ok(page.map(|row| {
            let team_ids = memberships.extract_if(.., |(user, _)| *user == row.id).map(|(_, team)| team);
            let team_ids = team_ids.collect();
            User::of(row, team_ids)
        }))
    }

    /// One user.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn find(&self, id: &str) -> Result<User, AuthError> {
        let mut tx = self.0.store().read().await?;
        let row = find(&mut tx, id).await?;
        seen(&mut tx, row).await
    }

    /// One page of a user's sessions that go on.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Page`].
    pub async fn sessions(&self, id: &str, request: &ListRequest) -> Result<Page<Session>, AuthError> {
        let mut tx = self.0.store().read().await?;
        find(&mut tx, id).await?;
        drop(tx);
        list_sessions(&self.0, Some(id), request).await
    }
}

/// May make, change and delete users.
pub struct UserAdmin(Permit);

impl Capability for UserAdmin {
    const PERMISSION: Permission = Permission::UsersManage;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl UserAdmin {
    /// Makes a user.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::WeakPassword`], [`AuthError::Exists`]; [`AuthError::NotAbove`] for a role that
    /// the caller does not hold.
    pub async fn create(&self, new: NewUser) -> Result<UserWithPassword, AuthError> {
        if !new.team_ids.is_empty() {
            self.0.caller().permit(self.0.auth(), Permission::TeamsManage).await?;
        }
        self.0.or_record_refusal(("user", None), self.try_create(new).await).await
    }

    async fn try_create(&self, mut new: NewUser) -> Result<UserWithPassword, AuthError> {
        may_create(self.0.caller(), &new)?;
        let mut row = read_new(&new, self.0.now())?;
        let made = self.set_password(&mut row, new.password.take()).await?;
        row.must_change_password = made.is_some() || new.must_change_password.unwrap_or(false);
        let mut act = self.0.write().await?;
        may_create(act.caller(), &new)?;
        insert(&mut act, &row, &new.team_ids).await?;
        let user = seen(&mut act, row).await?;
        act.record(deed("user.create", None, Some(&user))).await?;
        act.commit_authority().await?;
        Ok(UserWithPassword { user, password: made })
    }

    /// Changes a user.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Invalid`], [`AuthError::WeakPassword`]; [`AuthError::NotAbove`] by the rules of
    /// rank; [`AuthError::Conflict`] for the last owner.
    pub async fn update(&self, id: &str, change: UserChange) -> Result<UserWithPassword, AuthError> {
        self.0.or_record_refusal(("user", Some(id)), self.try_update(id, change).await).await
    }

    async fn try_update(&self, id: &str, mut change: UserChange) -> Result<UserWithPassword, AuthError> {
        let mut tx = self.0.store().read().await?;
        let mut hashed = find(&mut tx, id).await?;
        drop(tx);
        may_change(self.0.caller(), &hashed, &change)?;
        // Hashing takes long, and whoever writes is waited for by others: so it is done before.
        let is_reset = change.resets_password();
        let made =
            if is_reset { self.set_password(&mut hashed, change.password.take()).await? } else { None };
        let mut act = self.0.write().await?;
        let mut row = find(&mut act, id).await?;
        may_change(act.caller(), &row, &change)?;
        if is_reset {
            may_set_passwords(act.caller())?;
        }
        let before = seen(&mut act, row.clone()).await?;
        let was_owner = is_active_owner(&row);
        if is_reset {
            row.password_hash = hashed.password_hash;
            row.must_change_password = made.is_some();
        }
        apply(&mut row, &change)?;
        if was_owner && !is_active_owner(&row) {
            keep_an_owner(&mut act).await?;
        }
        if let Some(because) = ends_sessions(&before, &row, is_reset) {
            row.token_version += 1;
            sessions::revoke_all_but(&mut act, id, None, because, self.0.now()).await?;
        }
        row.updated_at = self.0.now();
        users::update(&mut act, &row).await?;
        let after = seen(&mut act, row).await?;
        record_change(&mut act, &before, &after, is_reset).await?;
        act.commit_authority().await?;
        Ok(UserWithPassword { user: after, password: made })
    }

    /// Deletes a user: the name is free again, the keys are deleted, the sessions end. What they did stays on record.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::NotAbove`] by the rules of rank; [`AuthError::Conflict`] for the last owner.
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        self.0.or_record_refusal(("user", Some(id)), self.try_delete(id).await).await
    }

    async fn try_delete(&self, id: &str) -> Result<(), AuthError> {
        let now = self.0.now();
        let mut act = self.0.write().await?;
        let mut row = find(&mut act, id).await?;
        may_administer(act.caller(), &row)?;
        if is_active_owner(&row) {
            keep_an_owner(&mut act).await?;
        }
        let before = seen(&mut act, row.clone()).await?;
        row.deleted_at = Some(now);
        row.updated_at = now;
        row.token_version += 1;
        users::update(&mut act, &row).await?;
        api_keys::delete_of_user(&mut act, id, now).await?;
        batches::delete_of_owner(&mut act, id, now).await?;
        files::delete_of_owner(&mut act, id).await?;
        responses::delete_of_owner(&mut act, id).await?;
        sessions::revoke_all_but(&mut act, id, None, "user_deleted", now).await?;
        act.record(deed("user.delete", Some(&before), None)).await?;
        act.commit_authority().await
    }

    /// Ends one session of a user.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::NotAbove`] by the rules of rank.
    pub async fn end_session(&self, id: &str, session_id: &str) -> Result<(), AuthError> {
        let ended = self.try_end_session(id, session_id).await;
        self.0.or_record_refusal(("user", Some(id)), ended).await
    }

    async fn try_end_session(&self, id: &str, session_id: &str) -> Result<(), AuthError> {
        let mut act = self.0.write().await?;
        let row = find(&mut act, id).await?;
        may_administer(act.caller(), &row)?;
        revoke_session(act, session_id, Some(id), self.0.now()).await
    }

    /// Ends all sessions of a user, one's own included.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::NotAbove`] by the rules of rank.
    pub async fn end_sessions(&self, id: &str) -> Result<EndedSessions, AuthError> {
        self.0.or_record_refusal(("user", Some(id)), self.try_end_sessions(id).await).await
    }

    async fn try_end_sessions(&self, id: &str) -> Result<EndedSessions, AuthError> {
        let mut act = self.0.write().await?;
        let row = find(&mut act, id).await?;
        may_administer(act.caller(), &row)?;
        let ended = sessions::revoke_all_but(&mut act, id, None, "revoked", self.0.now()).await?;
        let (target, after) = (("user", id.to_owned()), Some(json!({"ended": ended})));
        act.record(Deed { action: "session.revoke", target, before: None, after }).await?;
        act.commit_authority().await?;
        Ok(EndedSessions { ended })
    }

    /// Gives the user a password: the one that was said, or one that is made and returned.
    async fn set_password(
        &self,
        row: &mut UserRow,
        password: Option<Password>,
    ) -> Result<Option<String>, AuthError> {
        let (password, made) = match password {
            Some(password) => (password.into_secret(), None),
            None => {
                let made = make_password();
                let shown = made.expose_secret().to_owned();
                (made, Some(shown))
            }
        };
        Passwords::check_new(&password, &row.username)?;
        row.password_hash = self.0.auth().passwords().hash(password).await?;
        Ok(made)
    }
}

impl UserChange {
    fn resets_password(&self) -> bool {
        self.password.is_some() || self.reset_password == Some(true)
    }
}

async fn insert(tx: &mut Tx, row: &UserRow, team_ids: &[String]) -> Result<(), AuthError> {
    match users::insert(tx, row).await {
        Err(StoreError::Duplicate) => {
            return Err(AuthError::Exists { what: "the user", name: row.username.clone() });
        }
        done => done?,
    }
    for (index, team) in team_ids.iter().enumerate() {
        if teams::find(tx, team).await?.is_none() {
            return Err(AuthError::invalid(format!("team_ids[{index}]"), "names no team"));
        }
        teams::add_member(tx, team, &row.id, row.created_at).await?;
    }
    Ok(())
}

/// A user that is not deleted.
pub(super) async fn find(tx: &mut Tx, id: &str) -> Result<UserRow, AuthError> {
    users::find(tx, id).await?.ok_or(AuthError::NotFound("user"))
}

/// What may be shown of a user.
pub(super) async fn seen(tx: &mut Tx, row: UserRow) -> Result<User, AuthError> {
    let team_ids = teams::of_user(tx, &row.id).await?;
    Ok(User::of(row, team_ids))
}

fn deed(action: &'static str, before: Option<&User>, after: Option<&User>) -> Deed {
    let id = before.or(after).map_or_else(String::new, |user| user.id.clone());
    Deed {
        action,
        target: ("user", id),
        before: before.map(|user| json!(user)),
        after: after.map(|user| json!(user)),
    }
}

fn read_new(new: &NewUser, now: Timestamp) -> Result<UserRow, AuthError> {
    let username = new_username(&new.username)?;
    let display_name = match &new.display_name {
        Some(name) => input::line("display_name", name, LONGEST_NAME)?,
        None => username.clone(),
    };
    input::few("team_ids", &new.team_ids, MOST_TEAMS)?;
    Ok(UserRow {
        id: new_id("usr"),
        username,
        display_name,
        email: new.email.as_deref().map(input::email).transpose()?,
        role: new.role.unwrap_or(Role::User).name().to_owned(),
        status: UserStatus::Active.name().to_owned(),
        password_hash: String::new(),
        must_change_password: false,
        token_version: 0,
        created_at: now,
        updated_at: now,
        last_login_at: None,
        deleted_at: None,
    })
}

fn apply(row: &mut UserRow, change: &UserChange) -> Result<(), AuthError> {
    if let Some(name) = &change.display_name {
        row.display_name = input::line("display_name", name, LONGEST_NAME)?;
    }
    if let Some(email) = &change.email {
        row.email = email.as_deref().map(input::email).transpose()?;
    }
    if let Some(role) = change.role {
        role.name().clone_into(&mut row.role);
    }
    if let Some(status) = change.status {
        status.name().clone_into(&mut row.status);
    }
    if let Some(must_change) = change.must_change_password {
        // A password that the server made, and its administrator saw, does not stay.
        row.must_change_password = must_change || change.reset_password == Some(true);
    }
    Ok(())
}

/// Why the sessions of before the change must end, if they must.
fn ends_sessions(before: &User, after: &UserRow, is_reset: bool) -> Option<&'static str> {
    if is_reset {
        return Some("password_reset");
    }
    if before.role != after.role {
        return Some("role_changed");
    }
    (before.status != after.status && after.status == UserStatus::Disabled.name()).then_some("disabled")
}

/// One row for what may be seen, and one for the password, of which nothing may be.
async fn record_change(act: &mut Act, before: &User, after: &User, is_reset: bool) -> Result<(), AuthError> {
    let only_password = User {
        must_change_password: after.must_change_password,
        updated_at: after.updated_at,
        ..before.clone()
    };
    if !is_reset || only_password != *after {
        act.record(deed("user.update", Some(before), Some(after))).await?;
    }
    if is_reset {
        act.record(deed("user.password_reset", Some(before), Some(after))).await?;
    }
    Ok(())
}

/// The rules of rank for a change.
fn may_change(caller: &Caller, row: &UserRow, change: &UserChange) -> Result<(), AuthError> {
    may_administer(caller, row)?;
    if is_self(caller, row) {
        if change.role.is_some_and(|role| role.name() != row.role) {
            return Err(AuthError::NotAbove("your own role is for somebody else to change"));
        }
        if change.resets_password() {
            return Err(AuthError::NotAbove("your own password is changed at /api/v1/me/password"));
        }
    }
    if change.password.is_some() && change.reset_password == Some(true) {
        return Err(AuthError::invalid("reset_password", "makes a password, and `password` gives one"));
    }
    if change.resets_password() {
        may_set_passwords(caller)?;
    }
    change.role.map_or(Ok(()), |role| may_grant(caller, role))
}

/// The rules of rank for a new user, whose password the caller will know.
fn may_create(caller: &Caller, new: &NewUser) -> Result<(), AuthError> {
    may_set_passwords(caller)?;
    if !new.team_ids.is_empty() {
        caller.require(Permission::TeamsManage)?;
    }
    may_grant(caller, new.role.unwrap_or(Role::User))
}

/// Who knows a password can sign in by it, and is then bound by nothing that binds a key.
fn may_set_passwords(caller: &Caller) -> Result<(), AuthError> {
    match caller.is_bound() {
        true => Err(AuthError::NotAbove(
            "the key you act by is bound to models, networks, a team or a time, and so it gives nobody a password",
        )),
        false => Ok(()),
    }
}

pub(super) fn is_self(caller: &Caller, row: &UserRow) -> bool {
    caller.user().is_some_and(|user| user.id == row.id)
}

/// One administers those who may do less than oneself, and oneself.
pub(super) fn may_administer(caller: &Caller, row: &UserRow) -> Result<(), AuthError> {
    if is_self(caller, row) || caller.permissions().exceeds(permissions_of(row)) {
        return Ok(());
    }
    Err(AuthError::NotAbove("only users who may do less than you are yours to administer"))
}

fn may_grant(caller: &Caller, role: Role) -> Result<(), AuthError> {
    match caller.permissions().covers(role.permissions()) {
        true => Ok(()),
        false => Err(AuthError::NotAbove("only a role of which you hold every permission is yours to give")),
    }
}

/// Those of the user's role. A role of a later version, read by an earlier one, is above everybody.
pub(super) fn permissions_of(row: &UserRow) -> PermissionSet {
    row.role.parse().map_or(Role::Owner.permissions(), Role::permissions)
}

fn is_active_owner(row: &UserRow) -> bool {
    row.role == Role::Owner.name() && row.status == UserStatus::Active.name()
}

/// To be called before an active owner ceases to be one.
async fn keep_an_owner(tx: &mut Tx) -> Result<(), AuthError> {
    match users::count_active(tx, Role::Owner.name()).await? {
        0 | 1 => Err(AuthError::Conflict("this is the last active owner: make another first")),
        _ => Ok(()),
    }
}
