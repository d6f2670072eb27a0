//! Slows down guessing at the console's sign-in.
//!
//! Failed attempts are counted per account and network, per network, and per account. The last two counters do not
//! apply to an administrator in a network that they have signed in from before, so nobody else can lock them out. Only
//! somebody in that same network can learn from this that the account exists.
//!
//! An attempt is counted as failed before it is checked, in the transaction that decides whether it has to wait. So of
//! many concurrent attempts, no more are checked than of as many in a row. A successful attempt is taken back. A
//! password is counted when its turn in the password line has come.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    domain::{
        AdministratorId, AuthFailure, Error, Result, Timestamp, Username,
        audit::{AuditAction, Resource},
        credential::network::network,
    },
    service::{
        Services,
        core::{
            caller::Origin,
            refusals::{KnownPrincipal, Refused},
        },
    },
    store::{
        Tx,
        db::Conn,
        people::sessions::{self, Failures, Subject},
    },
    telemetry::metrics::labels::{Refusal, SignIn},
};

/// Time after which failures are forgotten.
pub(in crate::service) const FORGET_AFTER: Duration = Duration::from_hours(24);
/// How long a network that an administrator signed in from is known.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);
/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_mins(15);
/// Failures in a row without a wait, of one account from one network.
const PAIR_FREE: i64 = 5;
/// Failures in a row without a wait, of one network.
const NETWORK_FREE: i64 = 30;
/// Failures in a row without a wait, of one account.
const ACCOUNT_FREE: i64 = 30;

/// A counter of failures.
struct Counter {
    subject: Subject,
    /// Failures in a row without a wait.
    free: i64,
    /// Whether it applies to administrators in their known networks.
    applies_to_known: bool,
}

/// The account and the network of an attempt.
pub(in crate::service) struct Throttle {
    network: String,
    name: Option<Username>,
}

impl Throttle {
    /// `name` is the account that the attempt names, which may not exist.
    pub(in crate::service) fn of(origin: &Origin, name: Option<&Username>) -> Self {
        let network = origin.ip.map(|ip| network(ip).to_string()).unwrap_or_default();
        Self { network, name: name.cloned() }
    }

    fn pair(&self) -> Subject {
        let (name, network) = (self.name.as_ref().map_or("", Username::as_str), &self.network);
        let hash = Sha256::digest(format!("pair\n{name}\n{network}")).into();
        Subject { hash, account: self.name.as_ref().map(account_hash) }
    }

    /// Attempts without a name have no account counter: they would share one, and a stranger could block all of them.
    fn counters(&self) -> Vec<Counter> {
        let hash = Sha256::digest(format!("network\n{}", self.network)).into();
        let network = Subject { hash, account: None };
        let mut counters = vec![
            Counter { subject: self.pair(), free: PAIR_FREE, applies_to_known: true },
            Counter { subject: network, free: NETWORK_FREE, applies_to_known: false },
        ];
        if let Some(hash) = self.name.as_ref().map(account_hash) {
            let account = Subject { hash, account: Some(hash) };
            counters.push(Counter { subject: account, free: ACCOUNT_FREE, applies_to_known: false });
        }
        counters
    }

    /// Counts an attempt that is about to be checked.
    ///
    /// # Errors
    /// [`Error::RateLimited`] if it has to wait; it is not counted then.
    pub(in crate::service) async fn count(
        &self,
        services: &Services,
        person: Option<AdministratorId>,
    ) -> Result<Attempt> {
        let (counters, pair, network) = (self.counters(), self.pair().hash, self.network.clone());
        let env = services.env.clone();
        let counting = services.store.write(move |tx| {
            Box::pin(async move {
                let now = env.now();
                let is_known = knows_network(tx.conn(), person, &network, now).await?;
                let mut counted = Vec::with_capacity(counters.len());
                for Counter { subject, free, applies_to_known } in counters {
                    let before = current_failures(tx, subject, now).await?;
                    let applies = applies_to_known || !is_known;
                    let retry_after = before.filter(|_| applies).map_or(0, |failures| wait_after(failures, free, now));
                    if retry_after > 0 {
                        return Ok(Err(Error::RateLimited { retry_after }));
                    }
                    counted.push((subject, before));
                }
                for (subject, before) in &counted {
                    let count = before.map_or(0, |failures| failures.count) + 1;
                    sessions::put_failures(tx.conn(), *subject, Failures { count, last_at: now }).await?;
                }
                Ok(Ok(Attempt { at: now, pair, counted }))
            })
        });
        let counted = counting.await?;
        if counted.is_err() {
            services.metrics().sign_ins.increment(SignIn::Throttled);
        }
        counted
    }

    /// Records a failed attempt, and returns the error for the client.
    pub(in crate::service) async fn refuse<T>(
        &self,
        services: &Services,
        origin: &Origin,
        person: Option<AdministratorId>,
        factor: &'static str,
    ) -> Result<T> {
        let failure = AuthFailure::WrongCredentials;
        // The name of no account may be a password in the wrong field, so it is not recorded.
        let name = person.and(self.name.as_ref()).map(Username::as_str);
        let details: Value = json!({ "reason": failure.reason(), "factor": factor, "username": name });
        let refused = Refused { principal: person.map(KnownPrincipal::Account), subject: None };
        let resource = person.map(Resource::Administrator);
        services.metrics().sign_ins.increment(SignIn::Failed);
        let refusal = (AuditAction::SignInFailed, Refusal::WrongCredentials);
        if !services.record_refusal(refusal, origin, refused, resource, details).await? {
            self.take_as_long_as_a_record(services).await?;
        }
        Err(failure.into())
    }

    /// Writes a counter again. Accounts have a reserve of records and other names do not, so the response time would
    /// tell which names have an account.
    async fn take_as_long_as_a_record(&self, services: &Services) -> Result<()> {
        let pair = self.pair();
        let writing = services.store.write(move |tx| {
            Box::pin(async move {
                if let Some(failures) = sessions::failures(tx.conn(), pair.hash).await? {
                    sessions::put_failures(tx.conn(), pair, failures).await?;
                }
                Ok(())
            })
        });
        writing.await
    }
}

/// Runs the check of an attempt in a task of its own. If it ended with the request, a client that disconnects after the
/// attempt is counted could guess without a record.
pub(in crate::service) async fn run_to_completion<T: Send + 'static>(
    check: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(check.in_current_span()).await.map_err(|error| Error::Internal(Box::new(error)))?
}

/// An attempt that is counted as failed.
pub(in crate::service) struct Attempt {
    at: Timestamp,
    /// The hash of the counter of the account and network.
    pair: [u8; 32],
    /// The counters, with their values before the attempt.
    counted: Vec<(Subject, Option<Failures>)>,
}

impl Attempt {
    /// Takes back a successful attempt.
    pub(in crate::service) async fn take_back(self, tx: &mut Tx) -> Result<()> {
        for (subject, before) in self.counted {
            let Some(current) = sessions::failures(tx.conn(), subject.hash).await? else { continue };
            let count = current.count - 1;
            if count <= 0 {
                sessions::forgive(tx.conn(), subject.hash).await?;
                continue;
            }
            // A successful attempt must not delay the time when earlier failures are forgotten, either.
            let is_last = current.last_at == self.at;
            let last_at = before.filter(|_| is_last).map_or(current.last_at, |before| before.last_at);
            sessions::put_failures(tx.conn(), subject, Failures { count, last_at }).await?;
        }
        Ok(())
    }

    /// Takes back a successful attempt, and clears the failures of this account from this network.
    pub(in crate::service) async fn forgive(self, tx: &mut Tx) -> Result<()> {
        let pair = self.pair;
        self.take_back(tx).await?;
        sessions::forgive(tx.conn(), pair).await
    }
}

/// Returns true if the administrator signed in from this network before. Reads the database for unknown accounts too,
/// so that the response time does not tell them apart.
async fn knows_network(conn: Conn<'_>, person: Option<AdministratorId>, network: &str, now: Timestamp) -> Result<bool> {
    let person = person.unwrap_or(AdministratorId(Uuid::nil()));
    sessions::knows_network(conn, person, network, now.minus(KNOWN_FOR)).await
}

/// Returns true if any enabled administrator signed in from the network of `origin` before. Does not depend on the
/// account, so the result reveals nothing about it.
pub(in crate::service) async fn is_known_network(services: &Services, origin: &Origin) -> Result<bool> {
    let Some(ip) = origin.ip else { return Ok(false) };
    let since = services.env.now().minus(KNOWN_FOR);
    sessions::anybody_knows_network(services.store.read().await?.conn(), &network(ip).to_string(), since).await
}

/// Clears the failures of an account from all networks, because its password was reset.
pub(in crate::service) async fn forgive_account(tx: &mut Tx, name: &Username) -> Result<()> {
    sessions::forgive_account(tx.conn(), account_hash(name)).await
}

fn account_hash(name: &Username) -> [u8; 32] {
    Sha256::digest(format!("account\n{name}")).into()
}

/// Returns the failures that are not forgotten yet.
async fn current_failures(tx: &mut Tx, subject: Subject, now: Timestamp) -> Result<Option<Failures>> {
    let failures = sessions::failures(tx.conn(), subject.hash).await?;
    let Some(mut failures) = failures.filter(|failures| failures.last_at.plus(FORGET_AFTER) > now) else {
        return Ok(None);
    };
    if failures.last_at > now {
        // The clock was set back. The wait starts now, not at a time in the future.
        failures.last_at = now;
        sessions::put_failures(tx.conn(), subject, failures).await?;
    }
    Ok(Some(failures))
}

/// Returns the seconds to wait: one after the first failure that is not free, then twice as long after each.
fn wait_after(failures: Failures, free: i64, now: Timestamp) -> u64 {
    let Ok(beyond) = u32::try_from(failures.count - free) else { return 0 };
    if beyond == 0 {
        return 0;
    }
    let wait = Duration::from_secs(1 << (beyond - 1).min(20)).min(WAIT_MAX);
    let micros = failures.last_at.plus(wait).as_micros() - now.as_micros();
    u64::try_from(micros).map_or(0, |micros| micros.div_ceil(1_000_000))
}
