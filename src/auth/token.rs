//! Access tokens: JSON Web Tokens (RFC 7519) of one algorithm, HS256, signed with the key named by `kid`.
//!
//! A token says who and in which session; what they may do is looked up when it is shown, so that a change counts at
//! once.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::AuthError;
use crate::clock::Timestamp;
use crate::store::signing_keys::SigningKeyRow;

/// How long an access token is accepted.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How far the clocks of replicas may differ.
const LEEWAY: Duration = Duration::from_secs(5);

const ISSUER: &str = "sconce";
const AUDIENCE: &str = "sconce-api";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Issuer.
    iss: String,
    /// Audience.
    aud: String,
    /// The user's id.
    pub sub: String,
    /// The session's id.
    pub sid: String,
    /// The user's token version.
    pub ver: i64,
    /// Always `access`.
    r#use: String,
    /// Its own id.
    jti: String,
    /// Made, seconds since 1970.
    iat: i64,
    /// Not before.
    nbf: i64,
    /// Not after.
    pub exp: i64,
}

impl Claims {
    /// When the token is too old, whatever clock is asked.
    pub fn accepted_until(&self) -> Timestamp {
        Timestamp::from_millis(self.exp.saturating_mul(1000)).after(LEEWAY)
    }
}

struct Key {
    id: String,
    secret: SecretString,
    retires_at: Option<Timestamp>,
}

impl Key {
    fn bytes(&self) -> Result<Vec<u8>, AuthError> {
        STANDARD.decode(self.secret.expose_secret()).map_err(|error| AuthError::Crypto(error.to_string()))
    }
}

/// The keys that sign and check.
pub struct TokenKeys(RwLock<Vec<Key>>);

impl Default for TokenKeys {
    fn default() -> Self {
        Self(RwLock::new(Vec::new()))
    }
}

impl TokenKeys {
    /// A fresh key of 256 bits.
    pub fn generate(now: Timestamp) -> SigningKeyRow {
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        SigningKeyRow {
            id: format!("sig_{}", Uuid::now_v7().simple()),
            secret: STANDARD.encode(secret),
            created_at: now,
            retires_at: None,
        }
    }

    /// The key of a configured secret.
    pub fn configured(secret: &SecretString) -> SigningKeyRow {
        let bytes = secret.expose_secret().as_bytes();
        SigningKeyRow {
            // Tells two secrets apart, and tells nothing of either.
            id: format!(
                "cfg_{}",
                &blake3::derive_key("sconce signing key id", bytes).map(|b| format!("{b:02x}")).concat()
                    [..16]
            ),
            secret: STANDARD.encode(bytes),
            created_at: Timestamp::from_millis(0),
            retires_at: None,
        }
    }

    /// Takes other keys in place of those it had; the first that does not retire signs.
    pub fn replace(&self, rows: Vec<SigningKeyRow>) {
        let keys = rows.into_iter().map(|row| Key {
            id: row.id,
            secret: SecretString::from(row.secret),
            retires_at: row.retires_at,
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.collect();
    }

    /// Whether a token says that it was signed with a key that is not here: perhaps one that another replica made.
    pub fn lacks_key_of(&self, token: &str) -> bool {
        let Some(kid) = decode_header(token).ok().and_then(|header| header.kid) else { return false };
        !self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(|key| key.id == kid)
    }

    /// Signs a token for a session.
    ///
    /// # Errors
    /// [`AuthError::Crypto`] without a key that signs.
    pub fn issue(
        &self,
        user: &str,
        session: &str,
        version: i64,
        now: Timestamp,
    ) -> Result<String, AuthError> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.retires_at.is_none());
        let key = key.ok_or_else(|| AuthError::Crypto("there is no signing key".into()))?;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user.to_owned(),
            sid: session.to_owned(),
            ver: version,
            r#use: "access".to_owned(),
            jti: Uuid::new_v4().simple().to_string(),
            iat: now.seconds(),
            nbf: now.seconds(),
            exp: now.after(ACCESS_LIFETIME).seconds(),
        };
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims, &EncodingKey::from_secret(&key.bytes()?))
            .map_err(|error| AuthError::Crypto(error.to_string()))
    }

    /// Checks a token's form, signature, kind and times, by the given clock.
    ///
    /// # Errors
    /// [`AuthError::AccessTokenExpired`] for one that was good once, [`AuthError::AccessTokenInvalid`] for any other.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, AuthError> {
        let invalid = || AuthError::AccessTokenInvalid;
        let header = decode_header(token).map_err(|_| invalid())?;
        if header.alg != Algorithm::HS256 {
            return Err(invalid());
        }
        let kid = header.kid.ok_or_else(invalid)?;
        let secret = {
            let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let key = keys.iter().find(|key| key.id == kid).ok_or_else(invalid)?;
            if key.retires_at.is_some_and(|at| at <= now) {
                return Err(invalid());
            }
            key.bytes()?
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        // Times are checked below, by our own clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = decode::<Claims>(token, &DecodingKey::from_secret(&secret), &validation);
        let claims = claims.map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => AuthError::AccessTokenExpired,
            _ => invalid(),
        })?;
        check_times(claims.claims, now)
    }
}

fn check_times(claims: Claims, now: Timestamp) -> Result<Claims, AuthError> {
    let soon = now.after(LEEWAY).seconds();
    if claims.r#use != "access" || claims.nbf > soon || claims.iat > soon {
        return Err(AuthError::AccessTokenInvalid);
    }
    if claims.accepted_until() <= now {
        return Err(AuthError::AccessTokenExpired);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> TokenKeys {
        let keys = TokenKeys::default();
        keys.replace(vec![TokenKeys::generate(Timestamp::from_millis(0))]);
        keys
    }

    #[test]
    fn a_token_is_good_for_its_lifetime_and_no_longer() {
        let (keys, start) = (keys(), Timestamp::from_millis(1_700_000_000_000));
        let token = keys.issue("usr_1", "ses_1", 3, start).expect("it signs");
        let claims = keys.verify(&token, start).expect("it is good");
        assert_eq!((claims.sub.as_str(), claims.sid.as_str(), claims.ver), ("usr_1", "ses_1", 3));
        let end = start.after(ACCESS_LIFETIME);
        assert!(keys.verify(&token, end).is_ok(), "within the leeway");
        let late = keys.verify(&token, end.after(LEEWAY));
        assert!(matches!(late, Err(AuthError::AccessTokenExpired)), "{late:?}");
        let early = keys.verify(&token, start.before(Duration::from_secs(60)));
        assert!(matches!(early, Err(AuthError::AccessTokenInvalid)), "{early:?}");
    }

    #[test]
    fn a_retired_key_checks_until_its_time_and_signs_no_more() {
        let (now, overlap) = (Timestamp::from_millis(1_700_000_000_000), Duration::from_secs(60));
        let (old, new) = (TokenKeys::generate(now), TokenKeys::generate(now));
        let keys = TokenKeys::default();
        keys.replace(vec![old.clone()]);
        let token = keys.issue("u", "s", 0, now).expect("it signs");
        keys.replace(vec![new.clone(), SigningKeyRow { retires_at: Some(now.after(overlap)), ..old }]);
        assert!(keys.verify(&token, now).is_ok());
        assert!(keys.verify(&token, now.after(overlap)).is_err());
        let fresh = keys.issue("u", "s", 0, now).expect("it signs");
        assert_eq!(decode_header(&fresh).expect("ours").kid, Some(new.id));
    }
}
