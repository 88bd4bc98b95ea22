//! Using models: what a caller with the permission `inference` is exchanged for.

use crate::auth::capability::{Capability, Permit};
use crate::auth::{AuthError, Caller, Permission};

/// Somebody who may use models, as far as their credential allows.
pub struct ModelUser(pub(super) Permit);

impl Capability for ModelUser {
    const PERMISSION: Permission = Permission::Inference;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl ModelUser {
    /// Who it is.
    pub fn caller(&self) -> &Caller {
        self.0.caller()
    }

    /// Writes down that the credential does not allow the model of this id, which was asked for.
    pub async fn note_refusal(&self, id: &str) {
        self.0.note_refusal(("model", Some(id)), &AuthError::ModelNotAllowed(id.to_owned())).await;
    }
}
