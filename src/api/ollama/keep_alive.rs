//! `keep_alive`: how long a model stays is the administrator's to say, and so is that it go: who asks for nothing else and
//! manages the models has it unloaded; anybody else is refused. Beside a question it is checked and has no effect.

use serde_json::Value;

use crate::api::openai::fields::{Fields, ParameterError};
use crate::auth::ModelUser;
use crate::auth::models::ModelAdmin;
use crate::http::{ApiError, AppState};

/// The units of Go's durations.
const UNITS: [&str; 7] = ["ns", "us", "\u{b5}s", "ms", "s", "m", "h"];

/// Has a model go that nobody uses; that it went is written down as any unloading is. One that is away already is what was
/// asked for.
///
/// # Errors
/// For a caller whose it is not to say, and a model that is used or pinned; those of the store.
pub async fn unload(app: &AppState, user: &ModelUser, id: &str) -> Result<(), ApiError> {
    let admin: ModelAdmin = user.caller().clone().exchange(app.auth()).await?;
    let Some(going) = app.registry().operated_by(&admin).let_go(id)? else { return Ok(()) };
    admin.record("model.unload", id).await?;
    // It fails only when the server ends, and the model with it.
    let _ = going.await;
    Ok(())
}

/// Takes it out of a body: whether the model is to go at once.
///
/// # Errors
/// For what is no time.
pub fn take(fields: &mut Fields) -> Result<bool, ParameterError> {
    let found = match fields.take("keep_alive") {
        None => return Ok(false),
        Some(Value::Number(seconds)) => seconds.as_f64().map(|seconds| seconds == 0.0),
        Some(Value::String(text)) => is_zero(&text),
        Some(_) => None,
    };
    let reason = "must be a number of seconds, or a time such as `5m`";
    found.ok_or_else(|| ParameterError::invalid(fields.path("keep_alive"), reason))
}

/// Whether a duration as Go writes it, `1h30m` or `-1s`, is none at all; nothing for what is no duration.
fn is_zero(text: &str) -> Option<bool> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(true);
    }
    if rest.is_empty() {
        return None;
    }
    let mut zero = true;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if !UNITS.contains(&unit) {
            return None;
        }
        zero &= number == 0.0;
        rest = after;
    }
    Some(zero)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_those_of_go_and_seconds() {
        let read = |value: Value| take(&mut Fields::of(json!({"keep_alive": value}), "").expect("an object"));
        for (value, unload) in [
            (json!(0), true),
            (json!("0"), true),
            (json!("0s"), true),
            (json!("0h0m"), true),
            (json!(null), false),
            (json!(-1), false),
            (json!(300), false),
            (json!("5m"), false),
            (json!("-1s"), false),
            (json!("1h30m"), false),
            (json!("1.5h"), false),
        ] {
            assert_eq!(read(value.clone()), Ok(unload), "{value}");
        }
        for value in [
            json!("bogus"),
            json!(""),
            json!("-"),
            json!("5"),
            json!("5 m"),
            json!("m"),
            json!("1d"),
            json!([]),
        ] {
            assert!(read(value.clone()).is_err(), "{value}");
        }
    }
}
