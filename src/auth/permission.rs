//! Roles × permissions, one table. A key's scopes are names of permissions too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Permission {
    /// Use models: chat, completions, embeddings; see those one may use.
    #[serde(rename = "inference")]
    Inference,
    /// See and change oneself: own profile, password, keys, sessions, usage.
    #[serde(rename = "account")]
    Account,
    /// See the registered models and their state.
    #[serde(rename = "models:read")]
    ModelsRead,
    /// Register, change, load, unload, fetch and remove models.
    #[serde(rename = "models:manage")]
    ModelsManage,
    /// See all users and their sessions.
    #[serde(rename = "users:read")]
    UsersRead,
    /// Make, change and delete users; end their sessions.
    #[serde(rename = "users:manage")]
    UsersManage,
    /// See all keys (never the secret).
    #[serde(rename = "keys:read")]
    KeysRead,
    /// Make, change and delete anybody's keys.
    #[serde(rename = "keys:manage")]
    KeysManage,
    /// See all teams.
    #[serde(rename = "teams:read")]
    TeamsRead,
    /// Make, change and delete teams, and say who is in them.
    #[serde(rename = "teams:manage")]
    TeamsManage,
    /// See what everybody used.
    #[serde(rename = "usage:read")]
    UsageRead,
    /// Read the audit.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// See the server's settings, secrets masked.
    #[serde(rename = "settings:read")]
    SettingsRead,
    /// Rotate the keys that sign access tokens, and administer administrators.
    #[serde(rename = "owner")]
    OwnerOnly,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Inference,
        Self::Account,
        Self::ModelsRead,
        Self::ModelsManage,
        Self::UsersRead,
        Self::UsersManage,
        Self::KeysRead,
        Self::KeysManage,
        Self::TeamsRead,
        Self::TeamsManage,
        Self::UsageRead,
        Self::AuditRead,
        Self::SettingsRead,
        Self::OwnerOnly,
    ];

    /// As scopes and documents write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Account => "account",
            Self::ModelsRead => "models:read",
            Self::ModelsManage => "models:manage",
            Self::UsersRead => "users:read",
            Self::UsersManage => "users:manage",
            Self::KeysRead => "keys:read",
            Self::KeysManage => "keys:manage",
            Self::TeamsRead => "teams:read",
            Self::TeamsManage => "teams:manage",
            Self::UsageRead => "usage:read",
            Self::AuditRead => "audit:read",
            Self::SettingsRead => "settings:read",
            Self::OwnerOnly => "owner",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|permission| permission.name() == text)
            .ok_or_else(|| format!("is not a permission; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PermissionSet(u32);

impl PermissionSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// Those of a list.
    pub const fn of(permissions: &[Permission]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < permissions.len() {
            bits |= 1 << permissions[index] as u32;
            index += 1;
        }
        Self(bits)
    }

    /// Whether it has one.
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it has all of another.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has all of another, and more.
    pub fn exceeds(self, other: Self) -> bool {
        self.covers(other) && self != other
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.has(*permission))
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions.into_iter().fold(Self::NONE, |set, permission| Self(set.0 | 1 << permission as u32))
    }
}

/// A named set of permissions; every user has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, administrators included. The first user is one.
    Owner,
    /// Everything but what concerns owners and other administrators.
    Admin,
    /// Models, and the figures one needs to run them.
    Operator,
    /// Sees everything, changes nothing.
    Auditor,
    /// Uses models.
    User,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Admin, Self::Operator, Self::Auditor, Self::User];

    /// As it is stored and sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::User => "user",
        }
    }

    /// What it may do.
    pub const fn permissions(self) -> PermissionSet {
        match self {
            Self::Owner => PermissionSet::of(&Permission::ALL),
            Self::Admin => PermissionSet::of(&[
                Permission::Inference,
                Permission::Account,
                Permission::ModelsRead,
                Permission::ModelsManage,
                Permission::UsersRead,
                Permission::UsersManage,
                Permission::KeysRead,
                Permission::KeysManage,
                Permission::TeamsRead,
                Permission::TeamsManage,
                Permission::UsageRead,
                Permission::AuditRead,
                Permission::SettingsRead,
            ]),
            Self::Operator => PermissionSet::of(&[
                Permission::Inference,
                Permission::Account,
                Permission::ModelsRead,
                Permission::ModelsManage,
                Permission::UsageRead,
                Permission::SettingsRead,
            ]),
            Self::Auditor => PermissionSet::of(&[
                Permission::Account,
                Permission::ModelsRead,
                Permission::UsersRead,
                Permission::KeysRead,
                Permission::TeamsRead,
                Permission::UsageRead,
                Permission::AuditRead,
                Permission::SettingsRead,
            ]),
            Self::User => PermissionSet::of(&[Permission::Inference, Permission::Account]),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("is not a role; there are {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for permission in Permission::ALL {
            assert_eq!(permission.name().parse(), Ok(permission));
            assert_eq!(serde_json::json!(permission), permission.name());
        }
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(serde_json::json!(role), role.name());
        }
        assert!("root".parse::<Role>().is_err() && "*".parse::<Permission>().is_err());
    }

    #[test]
    fn an_owner_exceeds_an_admin_and_nobody_exceeds_an_equal() {
        let set = Role::permissions;
        assert!(set(Role::Owner).exceeds(set(Role::Admin)));
        for role in Role::ALL {
            assert!(!set(role).exceeds(set(role)));
            assert!(role == Role::Owner || set(Role::Owner).exceeds(set(role)));
        }
        assert!(!set(Role::Operator).covers(set(Role::Auditor)));
    }
}
