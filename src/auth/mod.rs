//! Who is calling, and what they may do: credentials in, [`Caller`]s out, and the capabilities a caller can be exchanged
//! for.
//!
//! Nothing is decided by what a token says but who it names: role, scopes and status are read live. What was read is kept
//! in memory until the database's `authority` revision changes, which every replica looks at four times a second.

mod api_key;
mod audit_chain;
mod caller;
mod capability;
mod error;
mod first_run;
mod inference;
mod input;
pub mod keys;
mod last_used;
pub mod models;
mod offline;
mod opaque_token;
mod origin;
mod password;
mod password_change;
mod permission;
mod proof;
pub mod records;
mod session;
pub mod sessions;
mod signing_keys;
mod standing;
mod subject;
pub mod teams;
mod throttle;
mod ticket;
mod token;
pub mod users;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::auth::last_used::LastUsed;
use crate::auth::subject::{CredentialRow, Subject, SubjectKey, Subjects};
use crate::auth::token::TokenKeys;
use crate::clock::Clock;
use crate::config::AuthConfig;
use crate::store::{Store, StoreError, Tx, revisions};

pub use api_key::{PlainKey, hash_of};
pub use audit_chain::{Break, ChainReport, Checkpoint, Flaw, verify_chain};
pub use caller::{Caller, Identity, UserIdentity};
pub use capability::{Capability, Permit};
pub use error::AuthError;
pub use first_run::FirstRun;
pub use inference::ModelUser;
pub use input::{is_plain, known_username, new_username};
pub use offline::{ListedUser, MadePassword, NewKey, Operator};
pub use opaque_token::{OpaqueToken, TokenKind};
pub use origin::Origin;
pub use password::Passwords;
pub use password_change::PasswordChanger;
pub use permission::{Permission, PermissionSet, Role};
pub use session::{SignOut, SignedIn, SignedInUser};
pub use signing_keys::{SigningKeyAdmin, SigningKeyRotated};
pub use standing::Standing;
pub use ticket::Ticket;
pub use token::ACCESS_LIFETIME;

/// How often a replica looks whether another changed something.
const POLL: Duration = Duration::from_millis(250);

/// The platform's doorkeeper. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    config: AuthConfig,
    passwords: Passwords,
    tokens: TokenKeys,
    /// When the keys that sign were last read for a token whose key was not known.
    keys_asked_for: Mutex<Option<Instant>>,
    subjects: Subjects,
    /// Counts changes of who may do what.
    authority: watch::Sender<u64>,
    /// Counts changes of the registered models.
    models: watch::Sender<u64>,
    /// When keys were last used, until it is written.
    last_used: LastUsed,
    /// Keys and sessions that were looked for in the database.
    lookups: AtomicU64,
}

impl Auth {
    /// Opens it over a migrated store.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn open(store: Store, clock: Clock, config: AuthConfig) -> Result<Self, AuthError> {
        let auth = Self(Arc::new(Inner {
            passwords: Passwords::open().await?,
            tokens: TokenKeys::default(),
            keys_asked_for: Mutex::default(),
            subjects: Subjects::default(),
            last_used: LastUsed::default(),
            authority: watch::Sender::new(0),
            models: watch::Sender::new(0),
            lookups: AtomicU64::new(0),
            store,
            clock,
            config,
        }));
        auth.read_signing_keys().await?;
        Ok(auth)
    }

    /// Who shows this credential.
    ///
    /// # Errors
    /// [`AuthError::MissingCredentials`] for none, and for one that is not good the reason, as far as somebody who knows
    /// it may know.
    pub async fn authenticate(&self, credential: Option<&str>, origin: Origin) -> Result<Caller, AuthError> {
        let Some(credential) = credential else {
            return self.anonymous(origin).ok_or(AuthError::MissingCredentials);
        };
        if self.is_configured_key(credential) {
            return Ok(self.of_inference_only(Identity::ConfiguredKey, origin));
        }
        let key = if PlainKey::looks_like(credential) {
            SubjectKey::ApiKey(PlainKey::parse(credential).ok_or(AuthError::InvalidApiKey)?.hash())
        } else if credential.split('.').count() == 3 {
            let claims = self.verify(credential).await?;
            SubjectKey::Session { session_id: claims.sid, user_id: claims.sub, version: claims.ver }
        } else if credential.starts_with(TokenKind::Refresh.mark()) {
            return Err(AuthError::AccessTokenInvalid);
        } else {
            return Err(AuthError::InvalidApiKey);
        };
        let subject = self.check(&key).await?;
        self.admit(key, &subject, origin)
    }

    /// The same caller as things stand now: role, teams, scopes and models may be others since.
    ///
    /// # Errors
    /// As [`Auth::authenticate`], when the credential is no longer good.
    pub async fn renew(&self, caller: &Caller) -> Result<Caller, AuthError> {
        let Some(key) = caller.standing().key() else { return Ok(caller.clone()) };
        let subject = self.check(key).await?;
        self.admit(key.clone(), &subject, caller.origin().clone())
    }

    /// A caller for a subject whose credential is good.
    fn admit(&self, key: SubjectKey, subject: &Subject, origin: Origin) -> Result<Caller, AuthError> {
        let role_permissions = subject.role.permissions();
        let user = UserIdentity {
            id: subject.user.id.clone(),
            username: subject.user.username.clone(),
            role: subject.role,
            must_change_password: subject.user.must_change_password,
        };
        let mut caller = Caller {
            identity: Identity::Anonymous,
            user: Some(user),
            role_permissions,
            permissions: role_permissions,
            models: None,
            teams: subject.teams.clone(),
            key_team: None,
            origin,
            standing: Standing::of(self.clone(), key),
        };
        match &subject.credential {
            CredentialRow::Session(session) => {
                caller.identity = Identity::Session { session_id: session.id.clone() };
            }
            CredentialRow::ApiKey { row, scopes, networks } => {
                let address = caller.origin.address.to_canonical();
                if networks.as_ref().is_some_and(|all| !all.iter().any(|network| network.contains(&address)))
                {
                    return Err(AuthError::AddressNotAllowed);
                }
                self.0.last_used.note(&row.id, self.0.clock.now());
                caller.identity = Identity::ApiKey { key_id: row.id.clone(), name: row.name.clone() };
                caller.permissions = role_permissions.and(*scopes);
                caller.models = row.models.as_ref().map(|models| models.0.clone());
                caller.key_team = row.team_id.clone();
            }
        }
        Ok(caller)
    }

    /// Whether a credential is good now, and whose it is.
    async fn check(&self, key: &SubjectKey) -> Result<Arc<Subject>, AuthError> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        let unknown = match key {
            SubjectKey::ApiKey(_) => AuthError::InvalidApiKey,
            SubjectKey::Session { .. } => AuthError::AccessTokenInvalid,
        };
        let now = self.0.clock.now();
        let mut found = self.0.subjects.get(&self.0.store, key).await?;
        if found.as_ref().is_some_and(|subject| subject.may_have_been_extended(now)) {
            self.0.subjects.forget_one(key);
            found = self.0.subjects.get(&self.0.store, key).await?;
        }
        let subject = found.ok_or(unknown)?;
        subject.check(key, now)?;
        Ok(subject)
    }

    /// Somebody without a credential, where none is asked for: may use models, and nothing else.
    pub fn anonymous(&self, origin: Origin) -> Option<Caller> {
        (!self.0.config.required).then(|| self.of_inference_only(Identity::Anonymous, origin))
    }

    fn of_inference_only(&self, identity: Identity, origin: Origin) -> Caller {
        let permissions = PermissionSet::of(&[Permission::Inference]);
        Caller {
            identity,
            user: None,
            role_permissions: permissions,
            permissions,
            models: None,
            teams: Vec::new(),
            key_team: None,
            origin,
            standing: Standing::for_ever(),
        }
    }

    fn is_configured_key(&self, given: &str) -> bool {
        let Some(expected) = &self.0.config.api_key else { return false };
        let (given, expected) = (blake3::hash(given.as_bytes()), expected.expose_secret().as_bytes());
        given.as_bytes().ct_eq(blake3::hash(expected).as_bytes()).into()
    }

    /// Changes whenever who may do what may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.authority.subscribe()
    }

    /// Changes whenever the registered models may have changed.
    pub fn model_changes(&self) -> watch::Receiver<u64> {
        self.0.models.subscribe()
    }

    /// How often a credential's form was good enough to look for it.
    pub fn lookups(&self) -> u64 {
        self.0.lookups.load(Ordering::Relaxed)
    }

    /// How many passwords were checked, those of unknown users among them.
    pub fn password_checks(&self) -> u64 {
        self.0.passwords.checks()
    }

    /// The clock that expiries go by.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Settings.
    pub(crate) fn config(&self) -> &AuthConfig {
        &self.0.config
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(super) fn tokens(&self) -> &TokenKeys {
        &self.0.tokens
    }

    /// Commits a change of who may do what; here it counts at once, on other replicas when they next look.
    pub(super) async fn commit_authority(&self, mut tx: Tx) -> Result<(), AuthError> {
        revisions::bump(&mut tx, revisions::AUTHORITY).await?;
        tx.commit().await?;
        self.authority_changed();
        Ok(())
    }

    /// Commits a change of the registered models.
    pub(super) async fn commit_models(&self, mut tx: Tx) -> Result<(), AuthError> {
        revisions::bump(&mut tx, revisions::MODELS).await?;
        tx.commit().await?;
        self.0.models.send_modify(|count| *count += 1);
        Ok(())
    }

    fn authority_changed(&self) {
        self.0.subjects.forget();
        self.0.authority.send_modify(|count| *count += 1);
    }

    /// Looks for changes made elsewhere, until it is dropped.
    pub async fn watch(self) {
        let mut seen: Option<(i64, i64)> = None;
        let mut failing = false;
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.look_for_changes(&mut seen).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "changes made by others cannot be seen; known keys go on");
                    }
                }
            }
        }
    }

    async fn look_for_changes(&self, seen: &mut Option<(i64, i64)>) -> Result<(), AuthError> {
        // By a connection of its own: whatever takes all others, what is revoked is revoked.
        let mut tx = self.0.store.read_changes().await?;
        let found = revisions::read(&mut tx).await?;
        let (authority, models) = seen.map_or((true, true), |seen| (seen.0 != found.0, seen.1 != found.1));
        if authority {
            // The keys that sign are part of it.
            self.read_signing_keys_again(&mut tx).await?;
            self.authority_changed();
        }
        drop(tx);
        if models {
            self.0.models.send_modify(|count| *count += 1);
        }
        *seen = Some(found);
        Ok(())
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.0.store.ping().await
    }
}

/// A fresh id: a prefix, and a number that grows with time.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::now_v7().simple())
}
