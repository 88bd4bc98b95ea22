//! From a credential to who it belongs to: looked up in the database, kept in memory until something changes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::auth::{AuthError, Permission, PermissionSet, Role};
use crate::clock::Timestamp;
use crate::store::api_keys::ApiKeyRow;
use crate::store::sessions::SessionRow;
use crate::store::users::UserRow;
use crate::store::{Store, StoreError, Tx, api_keys, sessions, teams, users};

/// Most subjects kept; one more and all are forgotten.
const MOST_KEPT: usize = 50_000;

/// A subject is looked up again after this, whatever happens.
const LONGEST_KEPT: Duration = Duration::from_secs(60);

/// What a credential names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectKey {
    /// The hash of an API key.
    ApiKey(String),
    /// A session and the token version of its token.
    Session {
        /// The session.
        session_id: String,
        /// The user it must belong to.
        user_id: String,
        /// The user's token version when the token was made.
        version: i64,
    },
}

impl SubjectKey {
    /// What is said of one that names nothing.
    pub fn unknown(&self) -> AuthError {
        match self {
            Self::ApiKey(_) => AuthError::InvalidApiKey,
            Self::Session { .. } => AuthError::AccessTokenInvalid,
        }
    }
}

/// A credential as it was shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What it names.
    pub key: SubjectKey,
    /// When it is shown too late: of an access token. Of a key, what is kept of it says so.
    pub until: Option<Timestamp>,
}

/// Who a credential belongs to, as the database says.
#[derive(Debug)]
pub struct Subject {
    /// The user.
    pub user: UserRow,
    /// Their role.
    pub role: Role,
    /// Their teams.
    pub teams: Vec<String>,
    /// The key or the session.
    pub credential: CredentialRow,
}

/// The row of a credential.
#[derive(Debug)]
pub enum CredentialRow {
    /// A key, with its lists read.
    ApiKey {
        /// The row.
        row: Box<ApiKeyRow>,
        /// Its scopes.
        scopes: PermissionSet,
        /// Its networks.
        networks: Option<Vec<IpNet>>,
    },
    /// A session.
    Session(SessionRow),
}

impl Subject {
    /// Whether the credential is good now.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn check(&self, key: &SubjectKey, now: Timestamp) -> Result<(), AuthError> {
        match (&self.credential, key) {
            (CredentialRow::ApiKey { row, .. }, SubjectKey::ApiKey(hash)) => {
                check_key(row, &self.user, hash, now)?;
                // Who has left the team works for it no more.
                let in_team = row.team_id.as_ref().is_none_or(|team| self.teams.contains(team));
                if in_team { Ok(()) } else { Err(AuthError::ApiKeyDisabled) }
            }
            (CredentialRow::Session(session), SubjectKey::Session { user_id, version, .. }) => {
                let is_good = session.revoked_at.is_none()
                    && session.expires_at > now
                    && session.user_id == *user_id
                    && self.user.id == *user_id
                    && self.user.status == "active"
                    && self.user.token_version == *version;
                if is_good { Ok(()) } else { Err(AuthError::AccessTokenInvalid) }
            }
            _ => Err(AuthError::AccessTokenInvalid),
        }
    }

    /// Whether it was a session that goes on only if it was refreshed since this was read: of that nobody is told.
    pub fn may_have_been_extended(&self, now: Timestamp) -> bool {
        matches!(&self.credential, CredentialRow::Session(row) if row.expires_at <= now && row.revoked_at.is_none())
    }

    /// Whether the credential may be used from there. Of an address that is not known, a list of networks has none.
    ///
    /// # Errors
    /// [`AuthError::AddressNotAllowed`].
    pub fn check_address(&self, address: IpAddr) -> Result<(), AuthError> {
        let CredentialRow::ApiKey { networks: Some(networks), .. } = &self.credential else { return Ok(()) };
        let address = address.to_canonical();
        let is_inside = networks.iter().any(|network| network.contains(&address));
        if is_inside && !address.is_unspecified() { Ok(()) } else { Err(AuthError::AddressNotAllowed) }
    }
}

fn check_key(row: &ApiKeyRow, user: &UserRow, hash: &str, now: Timestamp) -> Result<(), AuthError> {
    let by_previous = row.hash != hash;
    if row.deleted_at.is_some() || (by_previous && row.previous_expires_at.is_none_or(|end| end <= now)) {
        return Err(AuthError::InvalidApiKey);
    }
    if row.status != "enabled" || user.status != "active" {
        return Err(AuthError::ApiKeyDisabled);
    }
    if row.expires_at.is_some_and(|end| end <= now) {
        return Err(AuthError::ApiKeyExpired);
    }
    Ok(())
}

/// Subjects in memory.
#[derive(Default)]
pub struct Subjects {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Counts how often all was forgotten: what was looked up before that is not kept after it.
    generation: u64,
    subjects: HashMap<SubjectKey, (Arc<Subject>, Instant)>,
}

impl Subjects {
    /// The subject of a credential; none if there is no such credential, or its owner is gone.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn get(&self, store: &Store, key: &SubjectKey) -> Result<Option<Arc<Subject>>, AuthError> {
        let generation = {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((subject, since)) = kept.subjects.get(key)
                && since.elapsed() < LONGEST_KEPT
            {
                return Ok(Some(Arc::clone(subject)));
            }
            kept.generation
        };
        let mut tx = store.read().await?;
        let Some(subject) = look_up(&mut tx, key).await? else { return Ok(None) };
        drop(tx);
        let subject = Arc::new(subject);
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation == generation {
            if kept.subjects.len() >= MOST_KEPT {
                kept.subjects.clear();
            }
            kept.subjects.insert(key.clone(), (Arc::clone(&subject), Instant::now()));
        }
        Ok(Some(subject))
    }

    /// Forgets one.
    pub fn forget_one(&self, key: &SubjectKey) {
        self.kept.write().unwrap_or_else(PoisonError::into_inner).subjects.remove(key);
    }

    /// Forgets all: something changed.
    pub fn forget(&self) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.generation += 1;
        kept.subjects.clear();
    }
}

/// Reads the subject of a credential, as it is in this transaction.
///
/// # Errors
/// [`AuthError::Store`].
pub async fn look_up(tx: &mut Tx, key: &SubjectKey) -> Result<Option<Subject>, AuthError> {
    let (user_id, credential) = match key {
        SubjectKey::ApiKey(hash) => {
            let Some(row) = api_keys::find_by_hash(tx, hash).await? else { return Ok(None) };
            let (scopes, networks) = read_lists(&row)?;
            (row.user_id.clone(), CredentialRow::ApiKey { row: Box::new(row), scopes, networks })
        }
        SubjectKey::Session { session_id, .. } => {
            let Some(row) = sessions::find(tx, session_id).await? else { return Ok(None) };
            (row.user_id.clone(), CredentialRow::Session(row))
        }
    };
    let Some(user) = users::find(tx, &user_id).await? else { return Ok(None) };
    let role = user.role.parse().map_err(|reason| damaged("users", reason))?;
    let teams = teams::of_user(tx, &user_id).await?;
    Ok(Some(Subject { user, role, teams, credential }))
}

fn read_lists(row: &ApiKeyRow) -> Result<(PermissionSet, Option<Vec<IpNet>>), AuthError> {
    // A scope of a later version, read by an earlier one, grants nothing.
    let scopes = row.scopes.0.iter().filter_map(|name| name.parse::<Permission>().ok()).collect();
    let read = |texts: &Vec<String>| texts.iter().map(|text| text.parse()).collect::<Result<Vec<IpNet>, _>>();
    let networks = row.cidrs.as_ref().map(|texts| read(&texts.0)).transpose();
    Ok((scopes, networks.map_err(|error| damaged("api_keys", error.to_string()))?))
}

fn damaged(table: &'static str, reason: String) -> AuthError {
    AuthError::Store(StoreError::Damaged { table, reason })
}
