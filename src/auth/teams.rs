//! Teams: users who see the same models, and whose keys may work for the team.
//!
//! The one thing to know: a team goes only once nothing is bound to it, so that no key and no model is left with less, or
//! more, than somebody said.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::capability::Deed;
use crate::auth::input::present;
use crate::auth::{AuthError, Capability, Permission, Permit, input, new_id, users};
use crate::clock::Timestamp;
use crate::store::teams::{MemberRow, TeamRow};
use crate::store::{ListRequest, Page, StoreError, Tx, teams};

/// Longest name and longest description, in characters.
const LONGEST_NAME: usize = 64;
const LONGEST_DESCRIPTION: usize = 500;

/// A team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Team {
    /// The team's id.
    #[schema(example = "team_019aabcdef0123456789abcdef012345")]
    pub id: String,
    /// Unique.
    #[schema(example = "Research")]
    pub name: String,
    /// For people.
    pub description: String,
    /// Made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<TeamRow> for Team {
    fn from(row: TeamRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            description: row.description,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A team to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTeam {
    /// Unique.
    #[schema(example = "Research", min_length = 1, max_length = 64)]
    pub name: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub description: String,
}

/// What is to be changed of a team. What is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TeamChange {
    /// Unique.
    #[serde(default, deserialize_with = "present")]
    #[schema(min_length = 1, max_length = 64, nullable = false)]
    pub name: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    #[schema(max_length = 500, nullable = false)]
    pub description: Option<String>,
}

/// That a user is in a team.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Membership {
    /// The team.
    pub team_id: String,
    /// The user.
    pub user_id: String,
}

/// A user in a team.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Member {
    /// The user.
    pub user_id: String,
    /// The user's name.
    #[schema(example = "ada")]
    pub username: String,
    /// What people call them.
    #[schema(example = "Ada Lovelace")]
    pub display_name: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Self {
        Self {
            user_id: row.user_id,
            username: row.username,
            display_name: row.display_name,
            joined_at: row.joined_at,
        }
    }
}

/// May see all teams, and who is in them.
pub struct TeamReader(Permit);

impl Capability for TeamReader {
    const PERMISSION: Permission = Permission::TeamsRead;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl TeamReader {
    /// One page of the teams.
    ///
    /// # Errors
    /// [`AuthError::Page`].
    pub async fn list(&self, search: Option<&str>, request: &ListRequest) -> Result<Page<Team>, AuthError> {
        let mut tx = self.0.store().read().await?;
        Ok(teams::list(&mut tx, search, request).await?.map(Team::from))
    }

    /// One team.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn find(&self, id: &str) -> Result<Team, AuthError> {
        let mut tx = self.0.store().read().await?;
        find(&mut tx, id).await.map(Team::from)
    }

    /// One page of a team's members.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Page`].
    pub async fn members(&self, id: &str, request: &ListRequest) -> Result<Page<Member>, AuthError> {
        let mut tx = self.0.store().read().await?;
        find(&mut tx, id).await?;
        Ok(teams::members(&mut tx, id, request).await?.map(Member::from))
    }
}

/// May make, change and delete teams, and say who is in them.
pub struct TeamAdmin(Permit);

impl Capability for TeamAdmin {
    const PERMISSION: Permission = Permission::TeamsManage;

    fn of(permit: Permit) -> Self {
        Self(permit)
    }
}

impl TeamAdmin {
    /// Makes a team.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::Exists`].
    pub async fn create(&self, new: NewTeam) -> Result<Team, AuthError> {
        let now = self.0.now();
        let row = TeamRow {
            id: new_id("team"),
            name: input::name("name", &new.name, LONGEST_NAME)?,
            description: input::line("description", &new.description, LONGEST_DESCRIPTION)?,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let mut act = self.0.write().await?;
        unless_taken(teams::insert(&mut act, &row).await, &row.name)?;
        let team = Team::from(row);
        act.record(deed("team.create", None, Some(&team))).await?;
        act.commit_authority().await?;
        Ok(team)
    }

    /// Changes a team.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Invalid`], [`AuthError::Exists`].
    pub async fn update(&self, id: &str, change: TeamChange) -> Result<Team, AuthError> {
        let mut act = self.0.write().await?;
        let mut row = find(&mut act, id).await?;
        let before = Team::from(row.clone());
        if let Some(name) = change.name {
            row.name = input::name("name", &name, LONGEST_NAME)?;
        }
        if let Some(description) = change.description {
            row.description = input::line("description", &description, LONGEST_DESCRIPTION)?;
        }
        row.updated_at = self.0.now();
        unless_taken(teams::update(&mut act, &row).await, &row.name)?;
        let after = Team::from(row);
        act.record(deed("team.update", Some(&before), Some(&after))).await?;
        act.commit_authority().await?;
        Ok(after)
    }

    /// Deletes a team that nothing is bound to.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::Conflict`] while keys or models are bound to it.
    pub async fn delete(&self, id: &str) -> Result<(), AuthError> {
        let mut act = self.0.write().await?;
        let mut row = find(&mut act, id).await?;
        if teams::count_bound(&mut act, id).await? != (0, 0) {
            return Err(AuthError::Conflict(
                "keys or models are bound to this team: free or delete them first",
            ));
        }
        let before = Team::from(row.clone());
        row.deleted_at = Some(self.0.now());
        row.updated_at = self.0.now();
        teams::update(&mut act, &row).await?;
        act.record(deed("team.delete", Some(&before), None)).await?;
        act.commit_authority().await
    }

    /// Takes a user into a team. Who is in stays in.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn add_member(&self, id: &str, user_id: &str) -> Result<Membership, AuthError> {
        let mut act = self.0.write().await?;
        let membership = membership(&mut act, id, user_id).await?;
        if teams::add_member(&mut act, id, user_id, self.0.now()).await? {
            let after = Some(json!(membership));
            let target = ("team", id.to_owned());
            act.record(Deed { action: "team.member_add", target, before: None, after }).await?;
            act.commit_authority().await?;
        }
        Ok(membership)
    }

    /// Takes a user out of a team: at once they see its models no more, and their keys that work for it are refused.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], also if the user is not in it.
    pub async fn remove_member(&self, id: &str, user_id: &str) -> Result<(), AuthError> {
        let mut act = self.0.write().await?;
        let membership = membership(&mut act, id, user_id).await?;
        if !teams::remove_member(&mut act, id, user_id).await? {
            return Err(AuthError::NotFound("member"));
        }
        let before = Some(json!(membership));
        let target = ("team", id.to_owned());
        act.record(Deed { action: "team.member_remove", target, before, after: None }).await?;
        act.commit_authority().await
    }
}

async fn find(tx: &mut Tx, id: &str) -> Result<TeamRow, AuthError> {
    teams::find(tx, id).await?.ok_or(AuthError::NotFound("team"))
}

/// Of a team and a user that both are there.
async fn membership(tx: &mut Tx, id: &str, user_id: &str) -> Result<Membership, AuthError> {
    let (team, user) = (find(tx, id).await?, users::find(tx, user_id).await?);
    Ok(Membership { team_id: team.id, user_id: user.id })
}

fn unless_taken(written: Result<(), StoreError>, name: &str) -> Result<(), AuthError> {
    match written {
        Err(StoreError::Duplicate) => Err(AuthError::Exists { what: "the team", name: name.to_owned() }),
        other => Ok(other?),
    }
}

fn deed(action: &'static str, before: Option<&Team>, after: Option<&Team>) -> Deed {
    let id = before.or(after).map_or_else(String::new, |team| team.id.clone());
    let (before, after) = (before.map(|team| json!(team)), after.map(|team| json!(team)));
    Deed { action, target: ("team", id), before, after }
}
