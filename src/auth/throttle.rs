//! How often a password may be tried: failures are counted in the database, for all replicas, and after a few of them
//! each attempt must wait longer. Nothing is ever locked.
//!
//! There are three counters. One is the account's, for attempts from anywhere. Attempts from an address that the user
//! signed in from lately are counted apart from it, and go by that count alone, so that strangers who hammer the account,
//! or anybody at the same address, do not shut its owner out. And one is the address's, whichever accounts it tries:
//! success does not clear it, or somebody with an account of their own could.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::auth::{AuthError, hash_of};
use crate::clock::Timestamp;
use crate::store::sign_in_failures::{self, FailuresRow};
use crate::store::{StoreError, Tx};

/// An address is known for this long after a sign-in from it.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is older is forgotten; by then every counter has run empty.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How one kind of counter slows attempts down.
struct Rule {
    /// The failure from which on one must wait: one second, then twice as long each time.
    first_delayed: i64,
    /// One failure is forgotten in this time.
    leak: Duration,
    /// Longest wait.
    longest: Duration,
}

const ACCOUNT: Rule =
    Rule { first_delayed: 5, leak: Duration::from_secs(15 * 60), longest: Duration::from_secs(15 * 60) };

const ADDRESS: Rule =
    Rule { first_delayed: 20, leak: Duration::from_secs(30), longest: Duration::from_secs(15 * 60) };

impl Rule {
    /// The failures that are not forgotten yet.
    fn level(&self, row: &FailuresRow, now: Timestamp) -> i64 {
        let forgotten = now.since(row.last_at).as_millis() / self.leak.as_millis();
        row.failures.saturating_sub(i64::try_from(forgotten).unwrap_or(i64::MAX)).max(0)
    }

    /// How long to wait after so many failures.
    fn delay(&self, failures: i64) -> Duration {
        let doublings = failures.saturating_sub(self.first_delayed);
        if doublings < 0 {
            return Duration::ZERO;
        }
        let seconds = u32::try_from(doublings).ok().and_then(|doublings| 2_u64.checked_pow(doublings));
        seconds.map_or(self.longest, Duration::from_secs).min(self.longest)
    }
}

/// Somebody who tries a password.
pub(super) struct Attempt {
    /// Of the account; none for what cannot be the name of one.
    account: Option<String>,
    address: String,
    /// Whether the account's owner signed in from there lately.
    known: bool,
}

impl Attempt {
    /// An attempt on the account of this name. `known` says whether its owner signed in from there lately.
    pub(super) fn new(username: Option<&str>, known: bool, address: IpAddr) -> Self {
        let address = network(address);
        // Only a hash: people type passwords where their name belongs.
        let account = username.map(account).map(|account| match known {
            false => account,
            true => format!("{account}:{address}"),
        });
        Self { account, address: format!("address:{address}"), known }
    }

    fn counters(&self) -> impl Iterator<Item = (&str, &'static Rule)> {
        let account = self.account.as_deref().map(|subject| (subject, &ACCOUNT));
        account.into_iter().chain([(self.address.as_str(), &ADDRESS)])
    }

    /// Whether it may be tried now. Where the account is known nobody waits for what others there did with other names;
    /// else whoever is at the same address, and makes names up, would keep its owner out.
    ///
    /// # Errors
    /// [`AuthError::Throttled`] with how long to wait.
    pub(super) async fn check(&self, tx: &mut Tx, now: Timestamp) -> Result<(), AuthError> {
        let mut wait = Duration::ZERO;
        let asked = if self.known { 1 } else { 2 };
        for (subject, _) in self.counters().take(asked) {
            if let Some(row) = sign_in_failures::find(tx, subject).await? {
                wait = wait.max(row.blocked_until.since(now));
            }
        }
        if wait.is_zero() { Ok(()) } else { Err(AuthError::Throttled { retry_after: wait }) }
    }

    /// Counts a failure; gives how long the next attempt must wait.
    pub(super) async fn note_failure(&self, tx: &mut Tx, now: Timestamp) -> Result<Duration, StoreError> {
        let mut longest = Duration::ZERO;
        for (subject, rule) in self.counters() {
            let before = sign_in_failures::find(tx, subject).await?;
            let failures = before.map_or(0, |row| rule.level(&row, now)) + 1;
            let delay = rule.delay(failures);
            longest = longest.max(delay);
            let subject = subject.to_owned();
            let row = FailuresRow { subject, failures, last_at: now, blocked_until: now.after(delay) };
            sign_in_failures::put(tx, &row).await?;
        }
        sign_in_failures::forget_before(tx, now.before(KEPT)).await?;
        Ok(longest)
    }

    /// Forgets the account's failures: its password is known.
    pub(super) async fn forget(&self, tx: &mut Tx) -> Result<(), StoreError> {
        match &self.account {
            Some(subject) => sign_in_failures::forget(tx, subject).await,
            None => Ok(()),
        }
    }
}

/// The subject of an account's counter; those of its known addresses begin with it.
fn account(username: &str) -> String {
    format!("account:{}", hash_of(username))
}

/// Forgets all failures of an account, wherever they came from: it has a new password.
pub(super) async fn forget_account(tx: &mut Tx, username: &str) -> Result<(), StoreError> {
    sign_in_failures::forget_all_of(tx, &account(username)).await
}

/// What one customer of a network provider has: an address of version 4, a network of 64 bits of version 6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn row(failures: i64) -> FailuresRow {
        FailuresRow { subject: String::new(), failures, last_at: START, blocked_until: START }
    }

    #[test]
    fn the_first_failures_cost_nothing_and_then_each_costs_twice_as_much_up_to_a_limit() {
        let delays: Vec<_> =
            [1, 4, 5, 6, 10, 14, 15, 100, i64::MAX].map(|n| ACCOUNT.delay(n).as_secs()).into();
        assert_eq!(delays, [0, 0, 1, 2, 32, 512, 900, 900, 900]);
        assert_eq!((ADDRESS.delay(19).as_secs(), ADDRESS.delay(20).as_secs()), (0, 1));
    }

    #[test]
    fn failures_are_forgotten_one_by_one() {
        let later = |minutes: u64| START.after(Duration::from_secs(minutes * 60));
        let levels: Vec<_> =
            [0, 14, 15, 44, 45, 10_000].map(|minutes| ACCOUNT.level(&row(3), later(minutes))).into();
        assert_eq!(levels, [3, 3, 2, 1, 0, 0]);
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        let same = |one: &str, other: &str| {
            let read = |text: &str| network(text.parse().expect("an address"));
            read(one) == read(other)
        };
        assert!(same("2001:db8:1:2:3::4", "2001:db8:1:2:ffff::1"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn what_is_counted_does_not_show_what_was_typed() {
        let attempt = Attempt::new(Some("hunter2"), false, IpAddr::from([192, 0, 2, 1]));
        assert!(attempt.counters().all(|(subject, _)| !subject.contains("hunter2")));
        assert_eq!(Attempt::new(None, false, IpAddr::from([192, 0, 2, 1])).counters().count(), 1);
    }
}
