//! Who is calling, and what that lets them do. A [`Caller`] has no dangerous methods: it is exchanged for a capability
//! that has them (`users.rs`, `keys.rs` …), and that exchange is where a permission is checked.

use std::net::IpAddr;

use crate::auth::{AuthError, Origin, Permission, PermissionSet, Role, Standing};
use crate::clock::Timestamp;
use crate::store::audit::AuditEvent;

/// What somebody showed to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// An access token of a session.
    Session {
        /// The session.
        session_id: String,
    },
    /// An API key.
    ApiKey {
        /// The key.
        key_id: String,
        /// Its name.
        name: String,
    },
    /// The key from the configuration.
    ConfiguredKey,
    /// Nothing: the configuration asks for nothing.
    Anonymous,
}

/// The user behind a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// `usr_…`
    pub id: String,
    /// The name.
    pub username: String,
    /// The role.
    pub role: Role,
    /// Nothing but a new password is accepted from them.
    pub must_change_password: bool,
}

/// Who is calling. Its existence proves that a credential was checked.
#[derive(Clone)]
pub struct Caller {
    pub(super) identity: Identity,
    pub(super) user: Option<UserIdentity>,
    /// Of the role.
    pub(super) role_permissions: PermissionSet,
    /// Of the role, and within the key's scopes.
    pub(super) permissions: PermissionSet,
    pub(super) models: Option<Vec<String>>,
    pub(super) teams: Vec<String>,
    pub(super) key_team: Option<String>,
    /// To models, networks, a team or a time: a key.
    pub(super) is_bound: bool,
    pub(super) origin: Origin,
    pub(super) standing: Standing,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("identity", &self.identity)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// What was shown.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The user, where there is one.
    pub fn user(&self) -> Option<&UserIdentity> {
        self.user.as_ref()
    }

    /// By what name things are the caller's: the user's id, or one for all who show what belongs to no user.
    pub fn owner(&self) -> &str {
        match (&self.user, &self.identity) {
            (Some(user), _) => &user.id,
            (None, Identity::ConfiguredKey) => "configured-key",
            (None, _) => "anonymous",
        }
    }

    /// What the caller may do.
    pub fn permissions(&self) -> PermissionSet {
        self.permissions
    }

    /// The teams whose models the caller sees: the user's; of a key that is bound to one, that alone.
    pub fn teams(&self) -> &[String] {
        match &self.key_team {
            Some(team) => std::slice::from_ref(team),
            None => &self.teams,
        }
    }

    /// The team that the caller's usage is counted for.
    pub fn key_team(&self) -> Option<&str> {
        self.key_team.as_deref()
    }

    /// The models that the key may use; none: all that are visible.
    pub fn allowed_models(&self) -> Option<&[String]> {
        self.models.as_deref()
    }

    /// Whether this is a key that is bound to models, networks, a team or a time.
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Where the request comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The address it comes from.
    pub fn address(&self) -> IpAddr {
        self.origin.address
    }

    /// Whether the credential goes on being good; for what lasts longer than a moment.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The caller's number for the engine's fair shares and for who shares cached prompts with whom: one a user.
    pub fn tenant(&self) -> u64 {
        let Some(user) = &self.user else { return 0 };
        let digest = blake3::hash(user.id.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest.as_bytes()[..8]);
        u64::from_le_bytes(bytes)
    }

    /// Checks one permission. Who signed in with a password that must be changed has none; keys go on, the first one too.
    ///
    /// # Errors
    /// [`AuthError::PasswordChangeRequired`], [`AuthError::ScopeMissing`], [`AuthError::PermissionMissing`].
    pub fn require(&self, permission: Permission) -> Result<(), AuthError> {
        let by_password = matches!(self.identity, Identity::Session { .. });
        if by_password && self.user.as_ref().is_some_and(|user| user.must_change_password) {
            return Err(AuthError::PasswordChangeRequired);
        }
        if self.permissions.has(permission) {
            return Ok(());
        }
        let by_scope = self.role_permissions.has(permission);
        Err(if by_scope {
            AuthError::ScopeMissing(permission)
        } else {
            AuthError::PermissionMissing(permission)
        })
    }

    /// Whether the credential allows the model of this id: its own, whatever name it was asked for by.
    ///
    /// # Errors
    /// [`AuthError::ModelNotAllowed`].
    pub fn check_model(&self, id: &str, asked_for: &str) -> Result<(), AuthError> {
        match &self.models {
            Some(allowed) if !allowed.iter().any(|allowed| allowed == id) => {
                Err(AuthError::ModelNotAllowed(asked_for.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// A row of the audit with this caller as the actor.
    pub(super) fn event(
        &self,
        at: Timestamp,
        action: &'static str,
        target: (&'static str, Option<&str>),
    ) -> AuditEvent {
        let (actor_kind, actor_id, actor_name) = match (&self.identity, &self.user) {
            (Identity::ApiKey { key_id, .. }, Some(user)) => {
                ("api_key", Some(key_id.clone()), user.username.clone())
            }
            (Identity::ConfiguredKey, _) => ("system", None, "configured key".to_owned()),
            (_, Some(user)) => ("user", Some(user.id.clone()), user.username.clone()),
            (_, None) => ("anonymous", None, "anonymous".to_owned()),
        };
        AuditEvent {
            at,
            actor_kind,
            actor_id,
            actor_name,
            action,
            target_kind: target.0,
            target_id: target.1.map(str::to_owned),
            outcome: "done",
            before: None,
            after: None,
            address: self.origin.address.to_string(),
            request_id: self.origin.request_id.clone(),
        }
    }
}
