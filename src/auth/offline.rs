//! What the person at the machine may do without signing in: who can read the database's file can do all of it anyway.
//! The way back in when nobody can sign in any more.
//!
//! It works beside running servers: they notice within a second, as they notice each other. In the audit the actor is the
//! system.

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::auth::first_run::{event, make_password};
use crate::auth::keys::{ApiKey, LONGEST_NAME, MOST_KEYS};
use crate::auth::users::seen;
use crate::auth::{
    Auth, AuthError, Checkpoint, Passwords, Permission, PermissionSet, PlainKey, Role, input, known_username,
    new_id, new_username, throttle,
};
use crate::clock::{Clock, Timestamp};
use crate::config::AuthConfig;
use crate::store::api_keys::ApiKeyRow;
use crate::store::audit::{self, AuditEvent};
use crate::store::users::{UserFilter, UserRow};
use crate::store::{JsonText, ListRequest, Order, Store, StoreError, Tx, api_keys, sessions, users};

/// The person at the machine.
pub struct Operator {
    auth: Auth,
}

/// A user and the password that was made for them, to be shown this once.
#[derive(Debug)]
pub struct MadePassword {
    /// The user.
    pub username: String,
    /// The password; it must be changed at the next sign-in.
    pub password: SecretString,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose; none: the only owner's.
    pub username: Option<String>,
    /// For people.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<Permission>,
    /// Not accepted from then on.
    pub expires_at: Option<Timestamp>,
}

/// A user as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUser {
    /// The name.
    pub username: String,
    /// The role.
    pub role: String,
    /// `active` or `disabled`.
    pub status: String,
    /// Last signed in.
    pub last_login_at: Option<Timestamp>,
}

impl Operator {
    /// Over a database of this version's schema.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn open(store: Store, config: AuthConfig) -> Result<Self, AuthError> {
        Ok(Self { auth: Auth::open(store, Clock::System, config).await? })
    }

    /// Makes a user. A password that is given is theirs; otherwise one is made.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::WeakPassword`], [`AuthError::Exists`], and [`AuthError::Conflict`] for a first
    /// user who is not an owner.
    pub async fn create_user(
        &self,
        username: &str,
        role: Role,
        password: Option<SecretString>,
    ) -> Result<Option<MadePassword>, AuthError> {
        let username = new_username(username)?;
        let made = password.is_none().then(make_password);
        let password_hash = match password.or_else(|| made.clone()) {
            Some(password) => {
                Passwords::check_new(&password, &username)?;
                self.auth.passwords().hash(password).await?
            }
            None => return Err(AuthError::Crypto("no password was made".into())),
        };
        let mut tx = self.auth.store().write().await?;
        if role != Role::Owner && users::count_ever(&mut tx).await? == 0 {
            return Err(AuthError::Conflict(
                "there is no owner yet: start the server once, or make one first with `--role owner`",
            ));
        }
        let user = new_user(&username, role, password_hash, made.is_some(), self.now());
        match users::insert(&mut tx, &user).await {
            Err(StoreError::Duplicate) => {
                return Err(AuthError::Exists { what: "the user", name: username });
            }
            inserted => inserted?,
        }
        let after = seen(&mut tx, user).await?;
        self.record(&mut tx, "user.create", ("user", &after.id), (None, json!(after))).await?;
        self.auth.commit_authority(tx).await?;
        Ok(made.map(|password| MadePassword { username, password }))
    }

    /// Makes a new password for a user (the only owner, where none is named), ends their sessions, and forgets
    /// how often somebody tried the old one.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], or [`AuthError::Conflict`] if it is not clear who is meant.
    pub async fn reset_password(&self, username: Option<&str>) -> Result<MadePassword, AuthError> {
        let password = make_password();
        let password_hash = self.auth.passwords().hash(password.clone()).await?;
        let (mut tx, now) = (self.auth.store().write().await?, self.now());
        let mut user = find(&mut tx, username).await?;
        let before = json!(seen(&mut tx, user.clone()).await?);
        user.password_hash = password_hash;
        user.must_change_password = true;
        user.token_version += 1;
        user.updated_at = now;
        users::update(&mut tx, &user).await?;
        sessions::revoke_all_but(&mut tx, &user.id, None, "password_reset", now).await?;
        throttle::forget_account(&mut tx, &user.username).await?;
        let after = seen(&mut tx, user).await?;
        let states = (Some(before), json!(after));
        self.record(&mut tx, "user.password_reset", ("user", &after.id), states).await?;
        self.auth.commit_authority(tx).await?;
        Ok(MadePassword { username: after.username, password })
    }

    /// Makes a key; gives it and whose it is.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for what a key cannot have, [`AuthError::NotFound`] and [`AuthError::Conflict`] for whom it
    /// cannot be made.
    pub async fn create_key(&self, new: NewKey) -> Result<(String, PlainKey), AuthError> {
        let name = input::name("name", &new.name, LONGEST_NAME)?;
        let (mut tx, now) = (self.auth.store().write().await?, self.now());
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(AuthError::invalid("expires", "is in the past"));
        }
        let user = find(&mut tx, new.username.as_deref()).await?;
        if user.status != "active" {
            return Err(AuthError::Conflict("the user is disabled: their keys are not accepted"));
        }
        if api_keys::count_of_user(&mut tx, &user.id).await? >= MOST_KEYS {
            return Err(AuthError::Conflict("the user has a thousand keys: delete some first"));
        }
        let scopes: PermissionSet = new.scopes.iter().copied().collect();
        let role: Role = user.role.parse().map_err(|reason| AuthError::invalid("role", reason))?;
        if let Some(beyond) = scopes.iter().find(|scope| !role.permissions().has(*scope)) {
            return Err(AuthError::invalid("scope", format!("`{beyond}` is not one of the role {role}")));
        }
        let key = PlainKey::generate();
        let row = new_key(&key, &user.id, name, (scopes, new.expires_at), now);
        api_keys::insert(&mut tx, &row).await?;
        let after = ApiKey::of(row, now);
        self.record(&mut tx, "key.create", ("key", &after.id), (None, json!(after))).await?;
        self.auth.commit_authority(tx).await?;
        Ok((user.username, key))
    }

    /// All users, by name.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn users(&self) -> Result<Vec<ListedUser>, AuthError> {
        let mut tx = self.auth.store().read().await?;
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let request = ListRequest { limit: 100, cursor, sort: "username", order: Order::Ascending };
            let page = users::list(&mut tx, &UserFilter::default(), &request).await?;
            listed.extend(page.items.into_iter().map(|user| ListedUser {
                username: user.username,
                role: user.role,
                status: user.status,
                last_login_at: user.last_login_at,
            }));
            cursor = match page.next {
                Some(next) => Some(next),
                None => return Ok(listed),
            };
        }
    }

    /// Notes in a backup that is about to take the database's place that it does, and ends the sessions that it knows:
    /// some of them have been ended since. `replaced` is the end of the replaced database's audit.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn record_restore(&self, backup: &str, replaced: Option<&Checkpoint>) -> Result<(), AuthError> {
        let mut tx = self.auth.store().write().await?;
        sessions::revoke_of_everybody(&mut tx, "restored", self.now()).await?;
        let end = |end: &Checkpoint| json!({"audit_seq": end.seq, "audit_hash": end.hash});
        let event = AuditEvent {
            target_id: None,
            before: replaced.map(end),
            after: Some(json!({"backup": backup})),
            ..self.event("database.restore", ("database", ""))
        };
        audit::append(&mut tx, event).await?;
        self.auth.commit_authority(tx).await
    }

    fn now(&self) -> Timestamp {
        self.auth.clock().now()
    }

    fn event(&self, action: &'static str, target: (&'static str, &str)) -> AuditEvent {
        AuditEvent { actor_name: "command line".to_owned(), ..event(self.now(), action, target) }
    }

    async fn record(
        &self,
        tx: &mut Tx,
        action: &'static str,
        target: (&'static str, &str),
        (before, after): (Option<Value>, Value),
    ) -> Result<(), AuthError> {
        let event = AuditEvent { before, after: Some(after), ..self.event(action, target) };
        Ok(audit::append(tx, event).await?)
    }
}

/// The user of this name, or the only owner.
async fn find(tx: &mut Tx, username: Option<&str>) -> Result<UserRow, AuthError> {
    if let Some(name) = username {
        let found = users::find_by_username(tx, &known_username(name)?).await?;
        return found.ok_or(AuthError::NotFound("user"));
    }
    let filter = UserFilter { role: Some(Role::Owner.name().to_owned()), ..UserFilter::default() };
    let two = ListRequest { limit: 2, cursor: None, sort: "username", order: Order::Ascending };
    let mut owners = users::list(tx, &filter, &two).await?.items;
    match (owners.pop(), owners.is_empty()) {
        (Some(owner), true) => Ok(owner),
        (Some(_), false) => Err(AuthError::Conflict("there are several owners: say whom you mean")),
        (None, _) => Err(AuthError::Conflict("there is no owner yet: start the server once")),
    }
}

fn new_user(
    username: &str,
    role: Role,
    password_hash: String,
    must_change_password: bool,
    now: Timestamp,
) -> UserRow {
    UserRow {
        id: new_id("usr"),
        username: username.to_owned(),
        display_name: username.to_owned(),
        email: None,
        role: role.name().to_owned(),
        status: "active".to_owned(),
        password_hash,
        must_change_password,
        token_version: 0,
        created_at: now,
        updated_at: now,
        last_login_at: None,
        deleted_at: None,
    }
}

fn new_key(
    key: &PlainKey,
    user_id: &str,
    name: String,
    (scopes, expires_at): (PermissionSet, Option<Timestamp>),
    now: Timestamp,
) -> ApiKeyRow {
    ApiKeyRow {
        id: new_id("key"),
        user_id: user_id.to_owned(),
        team_id: None,
        name,
        prefix: key.prefix(),
        hash: key.hash(),
        previous_hash: None,
        previous_expires_at: None,
        scopes: JsonText(scopes.iter().map(|scope| scope.name().to_owned()).collect()),
        models: None,
        cidrs: None,
        status: "enabled".to_owned(),
        expires_at,
        created_at: now,
        created_by: "system".to_owned(),
        updated_at: now,
        last_used_at: None,
        deleted_at: None,
    }
}
