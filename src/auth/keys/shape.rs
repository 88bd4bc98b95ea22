//! An API key as it is shown, made, changed and rotated. What any of it is allowed to be is `limits.rs`'s business.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Permission;
use crate::auth::input::present;
use crate::clock::Timestamp;
use crate::store::api_keys::ApiKeyRow;

/// Whether a key is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// Accepted.
    Enabled,
    /// Refused, until it is enabled again.
    Disabled,
}

impl KeyStatus {
    /// As it is stored and sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

/// An API key, without the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiKey {
    /// The key's id.
    #[schema(example = "key_019aabcdef0123456789abcdef012345")]
    pub id: String,
    /// Whose it is.
    #[schema(example = "usr_019aabcdef0123456789abcdef012345")]
    pub user_id: String,
    /// The team it works for: it sees that team's models alone, and its usage is the team's.
    pub team_id: Option<String>,
    /// For people.
    #[schema(example = "laptop")]
    pub name: String,
    /// Its first characters, to know it by.
    #[schema(example = "sk-sconce-Ab12Cd")]
    pub prefix: String,
    /// What may be done with it, within what its owner may.
    #[schema(value_type = Vec<Permission>)]
    pub scopes: Vec<String>,
    /// The models it may use; null for all that its owner sees.
    pub models: Option<Vec<String>>,
    /// The networks it may be used from; null for all.
    #[schema(example = json!(["10.0.0.0/8"]))]
    pub cidrs: Option<Vec<String>>,
    /// Whether it is accepted.
    #[schema(value_type = KeyStatus)]
    pub status: String,
    /// Not accepted from then on; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Until then the key from before the last rotation is accepted too.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub previous_key_expires_at: Option<Timestamp>,
    /// Made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// By this user, or `system`.
    pub created_by: String,
    /// Last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Last used, give or take a few seconds.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    pub(in crate::auth) fn of(row: ApiKeyRow, now: Timestamp) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            team_id: row.team_id,
            name: row.name,
            prefix: row.prefix,
            scopes: row.scopes.0,
            models: row.models.map(|models| models.0),
            cidrs: row.cidrs.map(|cidrs| cidrs.0),
            status: row.status,
            expires_at: row.expires_at,
            previous_key_expires_at: row.previous_expires_at.filter(|end| *end > now),
            created_at: row.created_at,
            created_by: row.created_by,
            updated_at: row.updated_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// A key that was made or rotated.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeyWithSecret {
    /// The key itself: shown this once.
    #[schema(example = "sk-sconce-Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78St90Uv1Wx2Yz3")]
    pub key: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub kept: ApiKey,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// For people.
    #[schema(example = "laptop", min_length = 1, max_length = 128)]
    pub name: String,
    /// What may be done with it: `["inference"]` if it is left out. Only what its owner and its maker may do themselves.
    #[schema(min_items = 1, example = json!(["inference"]))]
    pub scopes: Option<Vec<Permission>>,
    /// The models it may use; null for all that its owner sees.
    #[schema(max_items = 100)]
    pub models: Option<Vec<String>>,
    /// The networks, or single addresses, it may be used from; null for all.
    #[schema(min_items = 1, max_items = 100, example = json!(["10.0.0.0/8"]))]
    pub cidrs: Option<Vec<String>>,
    /// The team it works for: one that its owner is in.
    pub team_id: Option<String>,
    /// Not accepted from then on; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Whether it is accepted: `enabled` if it is left out.
    pub status: Option<KeyStatus>,
}

/// What is to be changed of a key. What is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyChange {
    /// Whether it is accepted. Disabling ends within a second what runs by it.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub status: Option<KeyStatus>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    #[schema(min_length = 1, max_length = 128, nullable = false)]
    pub name: Option<String>,
    /// What may be done with it.
    #[serde(default, deserialize_with = "present")]
    #[schema(min_items = 1, nullable = false)]
    pub scopes: Option<Vec<Permission>>,
    /// The models it may use; null for all that its owner sees.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 100)]
    pub models: Option<Option<Vec<String>>>,
    /// The networks, or single addresses, it may be used from; null for all.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 100)]
    pub cidrs: Option<Option<Vec<String>>>,
    /// The team it works for; null for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub team_id: Option<Option<String>>,
    /// Not accepted from then on; null for never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Option<Timestamp>>,
}

/// How a key is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// For how long the old key is accepted beside the new one; an hour if it is left out.
    #[schema(minimum = 0, maximum = 604_800, example = 3600)]
    pub overlap_seconds: Option<u32>,
}
