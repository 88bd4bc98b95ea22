//! Refusals, on their way to the audit. Anybody can be refused as often as they like, and a row is dear: so the first
//! refusal of its kind is written at once, and those that follow within a minute are counted, and written as one row.
//!
//! Of those who have not shown who they are none is written at once, only how many there were from each address. The one
//! thing to know: writing waits for nobody. A refusal whose row cannot be written now is a refusal all the same, and is
//! counted among those that follow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

use crate::auth::proof::anonymous_event;
use crate::auth::subject::{CredentialRow, Shown, Subject};
use crate::auth::throttle::network;
use crate::auth::{Auth, AuthError, Caller, Origin};
use crate::clock::Timestamp;
use crate::error::Failure;
use crate::store::audit::{self, AuditEvent};

/// How long refusals of one kind are counted before there is a row of them.
const WINDOW: Duration = Duration::from_secs(60);

/// Most kinds that are counted apart within that time.
const MOST: usize = 10_000;

/// How long a refusal waits for its row.
const PATIENCE: Duration = Duration::from_secs(1);

/// Rows that are being written at once, at most; a refusal beyond that is counted.
const AT_ONCE: usize = 4;

/// Rows in one transaction, so that others get their turn.
const BATCH: usize = 100;

/// What refusals have in common that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    /// Of somebody known: who, the code, what was asked for, and a target's kind.
    Known(String, u32, String, &'static str),
    /// Of somebody unknown: the address (of version 6: the network), and the code.
    Stranger(String, u32),
    /// Of whoever found no place of their own: by code.
    Others(u32),
}

/// Refusals of one kind.
struct Folded {
    /// The row of the first of those that are counted.
    event: AuditEvent,
    code: u32,
    request: String,
    /// Those that have no row yet.
    count: u64,
    last: Timestamp,
}

/// What is being written; what is left when this is dropped is counted again.
struct Taken<'a> {
    refusals: &'a Refusals,
    rest: Vec<(Kind, Folded)>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.refusals.put_back(self.rest.drain(..));
    }
}

/// One refusal.
struct Refusal {
    kind: Kind,
    event: AuditEvent,
    code: u32,
    request: String,
}

/// What was refused and is not yet written.
pub(super) struct Refusals {
    kinds: Mutex<HashMap<Kind, Folded>>,
    places: Arc<Semaphore>,
    writing: TaskTracker,
}

impl Default for Refusals {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { kinds: Mutex::default(), places, writing: TaskTracker::new() }
    }
}

impl Refusals {
    /// Whether this is the first of its kind. If it is not, it was counted.
    fn is_first(&self, refusal: &Refusal) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = matches!(refusal.kind, Kind::Known(..));
        if !is_known || kinds.contains_key(&refusal.kind) || kinds.len() >= MOST {
            count(&mut kinds, refusal, 1);
            return false;
        }
        count(&mut kinds, refusal, 0);
        true
    }

    /// Counts one that was to be written and was not.
    fn count(&self, refusal: &Refusal) {
        count(&mut self.kinds.lock().unwrap_or_else(PoisonError::into_inner), refusal, 1);
    }

    /// All that were counted. What comes now is the first of its kind again.
    fn take(&self) -> Vec<(Kind, Folded)> {
        let kinds = std::mem::take(&mut *self.kinds.lock().unwrap_or_else(PoisonError::into_inner));
        kinds.into_iter().filter(|(_, folded)| folded.count > 0).collect()
    }

    fn put_back(&self, rest: impl Iterator<Item = (Kind, Folded)>) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, folded) in rest {
            let Folded { event, code, request, count: number, last } = folded;
            let refusal = Refusal { kind, event, code, request };
            count(&mut kinds, &refusal, number).last = last;
        }
    }
}

fn count<'a>(kinds: &'a mut HashMap<Kind, Folded>, refusal: &Refusal, number: u64) -> &'a mut Folded {
    let is_full = kinds.len() >= MOST && !kinds.contains_key(&refusal.kind);
    let kind = if is_full { Kind::Others(refusal.code) } else { refusal.kind.clone() };
    let folded = kinds.entry(kind).or_insert_with(|| Folded {
        event: if is_full { of_others(&refusal.event) } else { refusal.event.clone() },
        code: refusal.code,
        request: if is_full { String::new() } else { refusal.request.clone() },
        count: 0,
        last: refusal.event.at,
    });
    if folded.count == 0 {
        folded.event.at = refusal.event.at;
        folded.event.request_id.clone_from(&refusal.event.request_id);
    }
    folded.count += number;
    folded.last = folded.last.max(refusal.event.at);
    folded
}

/// A row for those who found no place of their own.
fn of_others(event: &AuditEvent) -> AuditEvent {
    AuditEvent {
        actor_kind: "anonymous",
        actor_id: None,
        actor_name: "others".to_owned(),
        target_id: None,
        address: "various".to_owned(),
        ..event.clone()
    }
}

impl Refusal {
    /// The row of one alone.
    fn row(&self) -> AuditEvent {
        let after = json!({"code": self.code, "request": self.request});
        AuditEvent { after: Some(after), ..self.event.clone() }
    }
}

impl Folded {
    /// The row of all that were counted.
    fn row(&self) -> AuditEvent {
        let after = json!({
            "code": self.code,
            "request": self.request,
            "count": self.count,
            "from": self.event.at,
            "until": self.last,
        });
        AuditEvent { at: self.last, after: Some(after), ..self.event.clone() }
    }
}

/// Whether a refusal belongs into the audit, of somebody who is known.
fn concerns_rights(refusal: &AuthError) -> bool {
    use AuthError::{
        AddressNotAllowed, ApiKeyDisabled, ApiKeyExpired, Conflict, ModelNotAllowed, NotAbove,
        PasswordChangeRequired, PermissionMissing, ScopeMissing,
    };
    matches!(
        refusal,
        PermissionMissing(_)
            | ScopeMissing(_)
            | PasswordChangeRequired
            | ModelNotAllowed(_)
            | AddressNotAllowed
            | ApiKeyDisabled
            | ApiKeyExpired
            | NotAbove(_)
            | Conflict(_)
    )
}

/// Whether what was shown is no credential, or none any more. An access token that has expired is not meant: that is what
/// access tokens do, and its client knows how to go on.
fn is_of_no_credential(refusal: &AuthError) -> bool {
    use AuthError::{AccessTokenInvalid, InvalidApiKey, RefreshTokenInvalid, TicketInvalid};
    matches!(refusal, InvalidApiKey | AccessTokenInvalid | RefreshTokenInvalid | TicketInvalid)
}

impl Auth {
    /// Somebody who is known was refused something. Returns when that is written, or will be later.
    pub(super) async fn refused_caller(
        &self,
        caller: &Caller,
        target: (&'static str, Option<&str>),
        refusal: &AuthError,
    ) {
        if !concerns_rights(refusal) && !is_of_no_credential(refusal) {
            return;
        }
        let (code, request) = (refusal.code().number(), caller.origin().request.clone());
        let event = caller.event(self.clock().now(), "access.refused", target);
        let actor = event.actor_id.clone().unwrap_or_else(|| event.actor_name.clone());
        let kind = Kind::Known(actor, code, request.clone(), target.0);
        let event = AuditEvent { outcome: "refused", ..event };
        self.note(Refusal { kind, event, code, request }).await;
    }

    /// A credential was refused whose owner is known, or not.
    pub(super) async fn refused_credential(
        &self,
        shown: &Shown,
        found: Option<&Subject>,
        refusal: &AuthError,
        origin: &Origin,
    ) {
        match found {
            Some(subject) => {
                let id = match &subject.credential {
                    CredentialRow::ApiKey { row, .. } => &row.id,
                    CredentialRow::Session(row) => &row.id,
                };
                let caller = self.caller(shown, subject, origin);
                self.refused_caller(&caller, ("credential", Some(id)), refusal).await;
            }
            None => self.refused_stranger(refusal, origin),
        }
    }

    /// Somebody showed a credential that is none.
    pub(super) fn refused_stranger(&self, refusal: &AuthError, origin: &Origin) {
        if !is_of_no_credential(refusal) {
            return;
        }
        let code = refusal.code().number();
        let event = anonymous_event(self.clock().now(), "access.refused", None, origin);
        let (target_kind, address) = ("credential", network(origin.address).to_string());
        let event = AuditEvent { outcome: "refused", target_kind, ..event };
        let kind = Kind::Stranger(address, code);
        self.0.refusals.count(&Refusal { kind, event, code, request: origin.request.clone() });
    }

    async fn note(&self, refusal: Refusal) {
        if !self.0.refusals.is_first(&refusal) {
            return;
        }
        let Ok(place) = Arc::clone(&self.0.refusals.places).try_acquire_owned() else {
            return self.0.refusals.count(&refusal);
        };
        let auth = self.clone();
        // A task of its own, so that it is written, or counted, though nobody waits for it any more.
        let written = self.0.refusals.writing.spawn(async move {
            if let Err(error) = auth.append(vec![refusal.row()]).await {
                tracing::debug!(%error, "a refusal cannot be written now; it is counted");
                auth.0.refusals.count(&refusal);
            }
            drop(place);
        });
        // Whether it is written already is not the business of who is refused.
        let _ = timeout(PATIENCE, written).await;
    }

    async fn append(&self, rows: Vec<AuditEvent>) -> Result<(), AuthError> {
        let mut tx = self.store().write().await?;
        for row in rows {
            audit::append(&mut tx, row).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Writes now and then what was refused, until it is dropped; the last is for [`Auth::write_refusals`].
    pub async fn keep_refusals(self) {
        let mut ticks = interval(WINDOW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.write_refusals().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "what was refused cannot be written; it is tried again");
                    }
                }
            }
        }
    }

    /// Writes what was refused and only counted. What cannot be written now stays counted.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub async fn write_refusals(&self) -> Result<(), AuthError> {
        let refusals = &self.0.refusals;
        // Those that are being written may come back as counted.
        refusals.writing.close();
        refusals.writing.wait().await;
        refusals.writing.reopen();
        let mut taken = Taken { refusals, rest: refusals.take() };
        taken.rest.sort_by_key(|(_, folded)| folded.event.at);
        while !taken.rest.is_empty() {
            let batch = taken.rest.len().min(BATCH);
            let rows: Vec<_> = taken.rest[..batch].iter().map(|(_, folded)| folded.row()).collect();
            self.append(rows).await?;
            taken.rest.drain(..batch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn knock(number: u32, code: u32) -> Refusal {
        let address = IpAddr::from(number.to_be_bytes());
        let origin =
            Origin { address, request: String::new(), request_id: String::new(), user_agent: String::new() };
        let event =
            anonymous_event(Timestamp::from_millis(i64::from(number)), "access.refused", None, &origin);
        Refusal { kind: Kind::Stranger(address.to_string(), code), event, code, request: String::new() }
    }

    #[test]
    fn however_many_come_little_is_kept_and_each_is_counted() {
        let (refusals, many) = (Refusals::default(), 3 * MOST as u32);
        for number in 0..many {
            assert!(!refusals.is_first(&knock(number, 40_001)));
            refusals.count(&knock(7, 40_104));
        }
        let taken = refusals.take();
        assert!(taken.len() <= MOST + 2, "{}", taken.len());
        assert_eq!(taken.iter().map(|(_, folded)| folded.count).sum::<u64>(), 2 * u64::from(many));
        let others = taken.iter().find(|(kind, _)| *kind == Kind::Others(40_001)).expect("the rest");
        assert_eq!((others.1.row().actor_name.as_str(), others.1.event.target_id.as_ref()), ("others", None));
        assert!(refusals.take().is_empty());
        // What could not be written is counted on.
        drop(Taken { refusals: &refusals, rest: taken });
        refusals.count(&knock(0, 40_001));
        let again = refusals.take();
        assert_eq!(again.iter().map(|(_, folded)| folded.count).sum::<u64>(), 2 * u64::from(many) + 1);
    }
}
