//! The first start: one owner, with a password from the configuration or one that is made and shown once, and a key to
//! try the server with. There is no default password, and nothing for a stranger to claim.

use std::net::{IpAddr, Ipv4Addr};

use rand::Rng;
use secrecy::SecretString;

use crate::auth::{Auth, AuthError, Passwords, Permission, PlainKey, Role, new_id};
use crate::clock::Timestamp;
use crate::store::api_keys::ApiKeyRow;
use crate::store::audit::AuditEvent;
use crate::store::users::UserRow;
use crate::store::{JsonText, api_keys, audit, users};

/// Characters of a made password: none that is easily taken for another.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

const MADE_LENGTH: usize = 20;

/// What the operator must be told once.
#[derive(Debug)]
pub struct FirstRun {
    /// The owner's name.
    pub username: String,
    /// The owner's password, if it was made here; it must be changed at the first sign-in.
    pub password: Option<SecretString>,
    /// A key of the owner's that may use models.
    pub key: PlainKey,
}

impl Auth {
    /// Makes the owner if there never was a user. None if there was.
    ///
    /// # Errors
    /// [`AuthError::WeakPassword`] for a configured password, and those of the store.
    pub async fn first_run(&self) -> Result<Option<FirstRun>, AuthError> {
        let mut tx = self.store().read().await?;
        if users::count_ever(&mut tx).await? > 0 {
            return Ok(None);
        }
        drop(tx);
        let (config, now) = (self.config(), self.clock().now());
        let username = super::new_username(&config.admin_username)?;
        let (password, made) = match &config.admin_password {
            Some(password) => (password.clone(), None),
            None => {
                let made = make_password();
                (made.clone(), Some(made))
            }
        };
        Passwords::check_new(&password, &username).map_err(|error| error.of_password_in("admin-password"))?;
        let password_hash = self.passwords().hash(password).await?;
        let mut tx = self.store().write().await?;
        // Another replica may have been quicker.
        if users::count_ever(&mut tx).await? > 0 {
            return Ok(None);
        }
        let user = owner(&username, password_hash, made.is_some(), now);
        users::insert(&mut tx, &user).await?;
        let (key, row) = first_key(&user.id, now);
        api_keys::insert(&mut tx, &row).await?;
        audit::append(&mut tx, event(now, "user.create", ("user", &user.id))).await?;
        audit::append(&mut tx, event(now, "key.create", ("key", &row.id))).await?;
        self.commit_authority(tx).await?;
        Ok(Some(FirstRun { username, password: made, key }))
    }
}

/// A password that nobody can guess and anybody can type.
pub(super) fn make_password() -> SecretString {
    let mut random = rand::rng();
    let mut character = || char::from(ALPHABET[random.random_range(0..ALPHABET.len())]);
    SecretString::from((0..MADE_LENGTH).map(|_| character()).collect::<String>())
}

fn owner(username: &str, password_hash: String, must_change_password: bool, now: Timestamp) -> UserRow {
    UserRow {
        id: new_id("usr"),
        username: username.to_owned(),
        display_name: username.to_owned(),
        email: None,
        role: Role::Owner.name().to_owned(),
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

fn first_key(user_id: &str, now: Timestamp) -> (PlainKey, ApiKeyRow) {
    let key = PlainKey::generate();
    let row = ApiKeyRow {
        id: new_id("key"),
        user_id: user_id.to_owned(),
        team_id: None,
        name: "first key".to_owned(),
        prefix: key.prefix(),
        hash: key.hash(),
        previous_hash: None,
        previous_expires_at: None,
        scopes: JsonText(vec![Permission::Inference.name().to_owned()]),
        models: None,
        cidrs: None,
        status: "enabled".to_owned(),
        expires_at: None,
        created_at: now,
        created_by: "system".to_owned(),
        updated_at: now,
        last_used_at: None,
        deleted_at: None,
    };
    (key, row)
}

/// A row of the audit for what the program does by itself.
pub(super) fn event(at: Timestamp, action: &'static str, target: (&'static str, &str)) -> AuditEvent {
    AuditEvent {
        at,
        actor_kind: "system",
        actor_id: None,
        actor_name: "system".to_owned(),
        action,
        target_kind: target.0,
        target_id: Some(target.1.to_owned()),
        outcome: "done",
        before: None,
        after: None,
        address: IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
        request_id: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_made_password_would_be_accepted_and_is_another_each_time() {
        let made = make_password();
        assert_eq!(made.expose_secret().len(), MADE_LENGTH);
        assert!(Passwords::check_new(&made, "admin").is_ok());
        assert_ne!(made.expose_secret(), make_password().expose_secret());
    }
}
