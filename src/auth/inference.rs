//! Using models: what a caller with the permission `inference` is exchanged for.

use crate::auth::capability::{Capability, Permit};
use crate::auth::{AuthError, Caller, Permission};

/// Somebody who may use models, as far as their credential allows.
pub struct ModelUser(Permit);

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

    /// Whether the credential allows the model of this id: its own, whatever name it was asked for by.
    ///
    /// # Errors
    /// [`AuthError::ModelNotAllowed`].
    pub fn check_model(&self, id: &str, asked_for: &str) -> Result<(), AuthError> {
        match self.caller().allowed_models() {
            Some(allowed) if !allowed.iter().any(|allowed| allowed == id) => {
                Err(AuthError::ModelNotAllowed(asked_for.to_owned()))
            }
            _ => Ok(()),
        }
    }
}
