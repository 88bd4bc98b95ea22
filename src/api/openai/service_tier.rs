//! `service_tier`: who goes first, and who went.

use crate::api::openai::fields::{Fields, ParameterError};
use crate::generate::Priority;
use crate::http::state::Models;

/// Who goes first.
///
/// # Errors
/// For a tier that is not there.
pub fn take(fields: &mut Fields) -> Result<Priority, ParameterError> {
    match fields.string("service_tier")?.as_deref() {
        None | Some("auto" | "default") => Ok(Priority::Normal),
        Some("flex") => Ok(Priority::Batch),
        Some("priority") => Ok(Priority::High),
        Some(_) => {
            let reason = "there are the tiers `auto`, `default`, `flex` and `priority`";
            Err(ParameterError::unsupported("service_tier", reason))
        }
    }
}

/// The tier of a request of this priority: what nobody waits for comes after all others, whatever was asked for.
pub fn used(priority: Priority, models: &Models<'_>) -> &'static str {
    match priority.min(models.highest_priority()) {
        Priority::Batch => "flex",
        Priority::Normal => "default",
        Priority::High => "priority",
    }
}
