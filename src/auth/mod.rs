//! Who is calling, and what they may do: credentials in, [`Caller`]s out, and the capabilities a caller can be exchanged
//! for.
//!
//! Nothing is decided by what a token says but who it names: role, scopes and status are read live. What was read is kept
//! in memory until the database's `authority` revision changes, which every replica looks at four times a second.

mod api_key;
mod audit_chain;
pub mod batches;
mod caller;
mod capability;
mod deferral;
mod error;
pub mod files;
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
mod refusals;
pub mod responses;
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
use tokio::sync::{Notify, watch};

use crate::auth::last_used::LastUsed;
use crate::auth::refusals::Refusals;
use crate::auth::subject::{CredentialRow, Shown, Subject, SubjectKey, Subjects};
use crate::auth::token::TokenKeys;
use crate::clock::{Clock, Timestamp};
use crate::config::AuthConfig;
use crate::store::{Store, StoreError, Tx, revisions};

pub use api_key::{PlainKey, hash_of};
pub use audit_chain::{Break, ChainReport, Checkpoint, Flaw, verify_chain};
pub use caller::{Caller, Identity, UserIdentity};
pub use capability::{Capability, Permit};
pub use deferral::Deferral;
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
    /// What was refused, until it is written.
    refusals: Refusals,
    /// Keys and sessions that were looked for in the database.
    lookups: AtomicU64,
    /// Told when a batch is made, or is to end.
    batches: Notify,
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
            refusals: Refusals::default(),
            authority: watch::Sender::new(0),
            models: watch::Sender::new(0),
            lookups: AtomicU64::new(0),
            batches: Notify::new(),
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
    /// it may know. Where no credential is asked for, what has the form of none is passed over: clients of OpenAI show
    /// something in any case.
    pub async fn authenticate(&self, credential: Option<&str>, origin: Origin) -> Result<Caller, AuthError> {
        let Some(credential) = credential else {
            return self.anonymous(origin).ok_or(AuthError::MissingCredentials);
        };
        if self.is_configured_key(credential) {
            return Ok(self.of_inference_only(Identity::ConfiguredKey, origin));
        }
        match self.read(credential).await {
            Ok(shown) => self.let_in(shown, origin).await,
            Err(_) if !self.0.config.required && !is_of_ours(credential) => {
                Ok(self.of_inference_only(Identity::Anonymous, origin))
            }
            Err(refusal) => {
                self.refused_stranger(&refusal, &origin);
                Err(refusal)
            }
        }
    }

    /// What a credential names, as far as it says so itself.
    async fn read(&self, credential: &str) -> Result<Shown, AuthError> {
        if PlainKey::looks_like(credential) {
            let key = PlainKey::parse(credential).ok_or(AuthError::InvalidApiKey)?;
            return Ok(Shown { key: SubjectKey::ApiKey(key.hash()), until: None });
        }
        if credential.split('.').count() == 3 {
            let claims = self.verify(credential).await?;
            let until = Some(claims.accepted_until());
            let key =
                SubjectKey::Session { session_id: claims.sid, user_id: claims.sub, version: claims.ver };
            return Ok(Shown { key, until });
        }
        let is_refresh_token = credential.starts_with(TokenKind::Refresh.mark());
        Err(if is_refresh_token { AuthError::AccessTokenInvalid } else { AuthError::InvalidApiKey })
    }

    /// The same caller as things stand now: role, teams, scopes and models may be others since.
    ///
    /// # Errors
    /// As [`Auth::authenticate`], when the credential is no longer good.
    pub async fn renew(&self, caller: &Caller) -> Result<Caller, AuthError> {
        let Some(shown) = caller.standing().shown() else { return Ok(caller.clone()) };
        self.let_in(shown.clone(), caller.origin().clone()).await
    }

    /// A caller for what was shown, if it is good now and there. Written down if it is not.
    async fn let_in(&self, shown: Shown, origin: Origin) -> Result<Caller, AuthError> {
        let found = self.find(&shown.key).await?;
        let now = self.0.clock.now();
        match self.admit(&shown, found.as_deref(), &origin, now) {
            Ok(caller) => {
                if let Identity::ApiKey { key_id, .. } = &caller.identity {
                    self.0.last_used.note(key_id, now);
                }
                Ok(caller)
            }
            Err(refusal) => {
                self.refused_credential(&shown, found.as_deref(), &refusal, &origin).await;
                Err(refusal)
            }
        }
    }

    /// The caller that a credential makes at this moment. Nothing is noted of it.
    pub(super) async fn as_of_now(&self, shown: &Shown, origin: &Origin) -> Result<Caller, AuthError> {
        let found = self.find(&shown.key).await?;
        self.admit(shown, found.as_deref(), origin, self.0.clock.now())
    }

    /// The same, as it is in a transaction: what is decided by that holds until it commits.
    pub(super) async fn as_of(&self, tx: &mut Tx, caller: &Caller) -> Result<Caller, AuthError> {
        let Some(shown) = caller.standing().shown() else { return Ok(caller.clone()) };
        let found = subject::look_up(tx, &shown.key).await?;
        self.admit(shown, found.as_ref(), caller.origin(), self.0.clock.now())
    }

    /// A caller for what was found, if the credential is good now and there.
    fn admit(
        &self,
        shown: &Shown,
        found: Option<&Subject>,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Caller, AuthError> {
        let subject = found.ok_or_else(|| shown.key.unknown())?;
        subject.check(&shown.key, now)?;
        subject.check_address(origin.address)?;
        Ok(self.caller(shown, subject, origin))
    }

    /// Who a credential belongs to, and what they may do by it.
    fn caller(&self, shown: &Shown, subject: &Subject, origin: &Origin) -> Caller {
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
            is_bound: false,
            origin: origin.clone(),
            standing: Standing::of(self.clone(), shown.clone()),
        };
        match &subject.credential {
            CredentialRow::Session(session) => {
                caller.identity = Identity::Session { session_id: session.id.clone() };
            }
            CredentialRow::ApiKey { row, scopes, .. } => {
                caller.identity = Identity::ApiKey { key_id: row.id.clone(), name: row.name.clone() };
                caller.permissions = role_permissions.and(*scopes);
                caller.models = row.models.as_ref().map(|models| models.0.clone());
                caller.key_team = row.team_id.clone();
                caller.is_bound = keys::is_bound(row);
            }
        }
        caller
    }

    /// Who a credential belongs to; none if it names nothing.
    async fn find(&self, key: &SubjectKey) -> Result<Option<Arc<Subject>>, AuthError> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        let found = self.0.subjects.get(&self.0.store, key).await?;
        if found.as_ref().is_some_and(|subject| subject.may_have_been_extended(self.0.clock.now())) {
            self.0.subjects.forget_one(key);
            return self.0.subjects.get(&self.0.store, key).await;
        }
        Ok(found)
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
            is_bound: false,
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

    /// Returns when a batch was made here, or is to end. Others' are found by looking.
    pub async fn batch_asked_for(&self) {
        self.0.batches.notified().await;
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

/// Whether a credential, good or not, has the form of one that this server gives: who shows such a one means to be somebody,
/// and is to learn that it is not good.
fn is_of_ours(credential: &str) -> bool {
    let marks = [api_key::PREFIX, TokenKind::Refresh.mark(), TokenKind::Ticket.mark()];
    marks.iter().any(|mark| credential.starts_with(mark)) || credential.split('.').count() == 3
}
