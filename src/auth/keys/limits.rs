//! What a key may be: its fields checked, and nobody getting more by a key than they have.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::auth::capability::Act;
use crate::auth::input;
use crate::auth::keys::ApiKeyChange;
use crate::auth::users::permissions_of;
use crate::auth::{AuthError, Identity, Permission, PermissionSet};
use crate::clock::Timestamp;
use crate::store::api_keys::ApiKeyRow;
use crate::store::users::UserRow;
use crate::store::{JsonText, api_keys, teams};

/// Longest name, in characters; and longest name of a model in a key's list.
pub(in crate::auth) const LONGEST_NAME: usize = 128;
const LONGEST_MODEL: usize = 256;

/// Most models, and most networks, in a key's lists.
const MOST_ITEMS: usize = 100;

/// A key that is being made or changed, and whose it is.
pub(super) struct Draft<'a> {
    /// Whose it is.
    pub owner: &'a UserRow,
    /// The present.
    pub now: Timestamp,
}

impl Draft<'_> {
    /// Writes a change into a row, if it may be so.
    pub async fn apply(
        &self,
        act: &mut Act,
        row: &mut ApiKeyRow,
        change: ApiKeyChange,
    ) -> Result<(), AuthError> {
        if let Some(name) = change.name {
            row.name = input::name("name", &name, LONGEST_NAME)?;
        }
        if let Some(status) = change.status {
            status.name().clone_into(&mut row.status);
        }
        if let Some(scopes) = change.scopes {
            row.scopes = JsonText(read_scopes(&scopes, self.owner)?);
        }
        if let Some(models) = change.models {
            row.models = models.map(read_models).transpose()?.map(JsonText);
        }
        if let Some(cidrs) = change.cidrs {
            row.cidrs = cidrs.map(read_networks).transpose()?.map(JsonText);
        }
        if let Some(team) = change.team_id {
            if let Some(team) = &team
                && !teams::of_user(act, &self.owner.id).await?.contains(team)
            {
                return Err(AuthError::invalid("team_id", "must be a team that the key's owner is in"));
            }
            row.team_id = team;
        }
        if let Some(end) = change.expires_at {
            if end.is_some_and(|end| end <= self.now) {
                return Err(AuthError::invalid("expires_at", "must be in the future"));
            }
            row.expires_at = end;
        }
        self.check_reach(act, row).await
    }

    /// Checks that a key may do no more than the caller.
    pub async fn check_reach(&self, act: &mut Act, row: &ApiKeyRow) -> Result<(), AuthError> {
        let caller = act.caller();
        let scopes: PermissionSet = row.scopes.0.iter().filter_map(|name| name.parse().ok()).collect();
        if !caller.permissions().covers(scopes.and(permissions_of(self.owner))) {
            return Err(AuthError::NotAbove("a key's scopes must be within what you may do yourself"));
        }
        let Identity::ApiKey { key_id, .. } = caller.identity().clone() else { return Ok(()) };
        let own = api_keys::find(act, &key_id).await?.ok_or(AuthError::InvalidApiKey)?;
        match is_bound_by(row, &own) {
            true => Ok(()),
            false => {
                let reason = "the key you act by is bound to models, networks, a team or a time, and so must be any \
                              key it makes or changes";
                Err(AuthError::NotAbove(reason))
            }
        }
    }
}

fn read_scopes(scopes: &[Permission], owner: &UserRow) -> Result<Vec<String>, AuthError> {
    let set: PermissionSet = scopes.iter().copied().collect();
    if set == PermissionSet::NONE {
        return Err(AuthError::invalid("scopes", "must name at least one"));
    }
    if !permissions_of(owner).covers(set) {
        return Err(AuthError::NotAbove("a key's scopes must be within what its owner may do"));
    }
    Ok(set.iter().map(|scope| scope.name().to_owned()).collect())
}

fn read_models(models: Vec<String>) -> Result<Vec<String>, AuthError> {
    input::few("models", &models, MOST_ITEMS)?;
    let name =
        |(index, model): (usize, &String)| input::name(&format!("models[{index}]"), model, LONGEST_MODEL);
    models.iter().enumerate().map(name).collect()
}

fn read_networks(texts: Vec<String>) -> Result<Vec<String>, AuthError> {
    input::few("cidrs", &texts, MOST_ITEMS)?;
    if texts.is_empty() {
        return Err(AuthError::invalid("cidrs", "must name a network, or be null for all"));
    }
    let network = |(index, text): (usize, &String)| {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let reason = "must be a network such as 10.0.0.0/8, or an address";
        let refused = |_| AuthError::invalid(format!("cidrs[{index}]"), reason);
        network.map(|network: IpNet| network.trunc().to_string()).map_err(refused)
    };
    texts.iter().enumerate().map(network).collect()
}

/// Whether a key is bound to models, networks, a team or a time.
pub(in crate::auth) fn is_bound(row: &ApiKeyRow) -> bool {
    row.models.is_some() || row.cidrs.is_some() || row.team_id.is_some() || row.expires_at.is_some()
}

/// Whether a key is bound at least as much as another.
fn is_bound_by(row: &ApiKeyRow, other: &ApiKeyRow) -> bool {
    let models = other.models.as_ref().is_none_or(|allowed| {
        row.models.as_ref().is_some_and(|models| models.0.iter().all(|model| allowed.0.contains(model)))
    });
    let within = |inner: &str, outer: &str| match (inner.parse::<IpNet>(), outer.parse::<IpNet>()) {
        (Ok(inner), Ok(outer)) => outer.contains(&inner),
        _ => false,
    };
    let networks = other.cidrs.as_ref().is_none_or(|allowed| {
        let inside = |inner: &String| allowed.0.iter().any(|outer| within(inner, outer));
        row.cidrs.as_ref().is_some_and(|cidrs| cidrs.0.iter().all(inside))
    });
    let team = other.team_id.is_none() || row.team_id == other.team_id;
    let time = other.expires_at.is_none_or(|end| row.expires_at.is_some_and(|own| own <= end));
    models && networks && team && time
}
