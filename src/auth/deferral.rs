//! Work that goes on when its caller is gone: what is kept of who asked for it, and who that is later.
//!
//! Nothing is kept that could be shown: of a key its id, so that another secret for it changes nothing. The one thing to
//! know: whoever takes such work up asks anew, and is told what the caller may do then; what ends the credential ends the
//! work.

use std::net::IpAddr;

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::auth::subject::{Shown, SubjectKey};
use crate::auth::{Auth, AuthError, Caller, Identity, Origin};
use crate::store::api_keys;

/// Who asked for work that goes on without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deferral {
    by: Credential,
    address: IpAddr,
    request: String,
    user_agent: String,
}

/// What finds a credential again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Credential {
    Key { id: String },
    Session { session_id: String, user_id: String, version: i64 },
    ConfiguredKey { hash: String },
    Anonymous,
}

impl Auth {
    /// What is to be kept of a caller whose work goes on without them.
    pub fn defer(&self, caller: &Caller) -> Deferral {
        let by = match (caller.identity(), caller.standing().shown().map(|shown| &shown.key)) {
            (Identity::ApiKey { key_id, .. }, _) => Credential::Key { id: key_id.clone() },
            (_, Some(SubjectKey::Session { session_id, user_id, version })) => Credential::Session {
                session_id: session_id.clone(),
                user_id: user_id.clone(),
                version: *version,
            },
            (Identity::ConfiguredKey, _) => Credential::ConfiguredKey { hash: self.configured_hash() },
            _ => Credential::Anonymous,
        };
        let origin = caller.origin().clone();
        Deferral { by, address: origin.address, request: origin.request, user_agent: origin.user_agent }
    }

    /// Who that is now, for a piece of the work that has an id of its own.
    ///
    /// # Errors
    /// As [`Auth::authenticate`], when the credential is no longer good.
    pub async fn resume(&self, deferral: &Deferral, request_id: String) -> Result<Caller, AuthError> {
        let Deferral { by, address, request, user_agent } = deferral.clone();
        let origin = Origin { address, request, request_id, user_agent };
        let key = match by {
            Credential::Key { id } => SubjectKey::ApiKey(self.hash_of_key(&id).await?),
            Credential::Session { session_id, user_id, version } => {
                SubjectKey::Session { session_id, user_id, version }
            }
            Credential::ConfiguredKey { hash } => {
                let is_same = self.config().api_key.is_some() && hash == self.configured_hash();
                let caller = is_same.then(|| self.of_inference_only(Identity::ConfiguredKey, origin));
                return caller.ok_or(AuthError::InvalidApiKey);
            }
            Credential::Anonymous => return self.anonymous(origin).ok_or(AuthError::MissingCredentials),
        };
        self.let_in(Shown { key, until: None }, origin).await
    }

    /// The hash of a key as it is now.
    async fn hash_of_key(&self, id: &str) -> Result<String, AuthError> {
        let mut tx = self.store().read().await?;
        let row = api_keys::find(&mut tx, id).await?;
        row.map(|row| row.hash).ok_or(AuthError::InvalidApiKey)
    }

    /// Tells whether the key of the configuration is another now, and nothing else of it.
    fn configured_hash(&self) -> String {
        let key = self.config().api_key.as_ref().map_or("", |key| key.expose_secret());
        blake3::derive_key("sconce 2026 configured key of deferred work", key.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
