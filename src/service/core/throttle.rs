//! Slows down guessing: wrong tries are counted per account and network, per network, and per account. The last two
//! do not apply to an administrator in a network that they signed in from before, so nobody else can lock them out. Only somebody
//! in that same network can learn from this that the account exists.
//!
//! A try is counted before it is judged, in the same transaction that looks whether it has to wait: of many at once no more
//! are judged than of as many in a row. A right one is taken back. Passwords are counted when their turn has come: those that stand in
//! line are no tries yet.

use std::{net::IpAddr, time::Duration};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    caller::Origin,
    refusals::{By, Known},
};
use crate::{
    domain::{
        AdministratorId, AuthFailure, Error, Result, Timestamp, Username,
        audit::{AuditAction, Resource},
        credential::network::network,
    },
    service::Services,
    store::{
        Tx,
        db::Conn,
        people::sessions::{self, Failures, Subject},
    },
};

/// How long a failure counts.
pub const FORGIVES: Duration = Duration::from_hours(24);
/// How long a network that an administrator signed in from is known.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_mins(15);
/// Failures in a row that cost nothing: of one account from one network, of one network, of one account.
const FREE: [(Counted, i64); 3] = [(Counted::Pair, 5), (Counted::Network, 30), (Counted::Account, 30)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Pair,
    Network,
    Account,
}

/// Where somebody tries to prove who they are, and who they say to be.
pub(in crate::service) struct Throttle {
    network: Option<IpAddr>,
    name: Option<Username>,
}

impl Throttle {
    /// Tries that name nobody are counted of no account: all would be of one, which a stranger could close for everybody.
    pub(in crate::service) fn of(origin: &Origin, name: Option<&Username>) -> Self {
        Self { network: origin.ip.map(network), name: name.cloned() }
    }

    fn place(&self) -> String {
        self.network.map(|network| network.to_string()).unwrap_or_default()
    }

    fn subject(&self, counted: Counted) -> Subject {
        let (name, place) = (self.name.as_ref().map_or("", Username::as_str), self.place());
        let account = self.name.as_ref().map(account_hash);
        match counted {
            Counted::Pair => Subject { hash: Sha256::digest(format!("pair\n{name}\n{place}")).into(), account },
            Counted::Network => Subject { hash: Sha256::digest(format!("network\n{place}")).into(), account: None },
            Counted::Account => Subject { hash: account.unwrap_or_default(), account },
        }
    }

    fn subjects(&self) -> Vec<(Counted, i64, Subject)> {
        let mut subjects = FREE.map(|(counted, free)| (counted, free, self.subject(counted))).to_vec();
        subjects.retain(|(counted, ..)| self.name.is_some() || *counted != Counted::Account);
        subjects
    }

    /// Refuses a try that has to wait, before it stands in line with those that need not: a guesser must not take their places. It is
    /// to be counted all the same once its turn has come, and no sooner: whoever stands in line has not tried yet.
    pub(in crate::service) async fn admit(&self, services: &Services, person: Option<AdministratorId>) -> Result<()> {
        let now = services.env.now();
        let mut read = services.store.read().await?;
        let is_known = knows(read.conn(), person, &self.place(), now).await?;
        for (counted, free, subject) in self.subjects() {
            // What is yet to come was counted before the clock was set back, and is put right when the try is counted.
            let before = sessions::failures(read.conn(), subject.hash).await?.filter(|before| before.last_at <= now);
            require_no_wait(counted, free, before.filter(|before| counts(*before, now)), is_known, now)?;
        }
        Ok(())
    }

    /// Counts a try that is about to be judged, or refuses it if it has to wait.
    pub(in crate::service) async fn count(&self, services: &Services, person: Option<AdministratorId>) -> Result<Try> {
        let (subjects, network) = (self.subjects(), self.place());
        let (pair, env) = (self.subject(Counted::Pair).hash, services.env.clone());
        let counting = services.store.write(move |tx| {
            Box::pin(async move {
                let now = env.now();
                let is_known = knows(tx.conn(), person, &network, now).await?;
                let mut counted_before = Vec::with_capacity(subjects.len());
                for (counted, free, subject) in subjects {
                    let before = present(tx, subject, now).await?;
                    if let Err(error) = require_no_wait(counted, free, before, is_known, now) {
                        return Ok(Err(error));
                    }
                    counted_before.push((subject, before));
                }
                for (subject, before) in &counted_before {
                    let count = before.map_or(0, |failures| failures.count) + 1;
                    sessions::put_failures(tx.conn(), *subject, Failures { count, last_at: now }).await?;
                }
                Ok(Ok(Try { at: now, pair, counted_before }))
            })
        });
        counting.await?
    }

    /// Refuses a try that was wrong, on the record.
    pub(in crate::service) async fn refuse<T>(
        &self,
        services: &Services,
        origin: &Origin,
        person: Option<AdministratorId>,
        factor: &'static str,
    ) -> Result<T> {
        let failure = AuthFailure::WrongCredentials;
        // A name that nobody has may be a password that was typed into the wrong field: it is not recorded.
        let name = person.and(self.name.as_ref()).map(Username::as_str);
        let details: Value = json!({ "reason": failure.reason(), "factor": factor, "username": name });
        let by = By { known: person.map(Known::Account), subject: None };
        let resource = person.map(Resource::Administrator);
        if !services.record_refusal(AuditAction::SignInFailed, origin, by, resource, details).await? {
            self.take_as_long_as_a_record(services).await?;
        }
        Err(failure.into())
    }

    /// Writes what is counted once more. Accounts have a reserve of records and made-up names have none: the time of an answer must
    /// not tell which of them was recorded.
    async fn take_as_long_as_a_record(&self, services: &Services) -> Result<()> {
        let pair = self.subject(Counted::Pair);
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

/// Carries a try to its end in a task of its own: a client that hangs up once it is counted would have tried wrong, and off the record.
pub(in crate::service) async fn to_the_end<T: Send + 'static>(
    judging: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(judging.in_current_span()).await.map_err(|error| Error::Internal(Box::new(error)))?
}

/// A try that was counted as if it were wrong.
pub(in crate::service) struct Try {
    at: Timestamp,
    /// What is counted of the account and network.
    pair: [u8; 32],
    /// What was counted of each before.
    counted_before: Vec<(Subject, Option<Failures>)>,
}

impl Try {
    /// Takes back the try, which was right.
    pub(in crate::service) async fn take_back(self, tx: &mut Tx) -> Result<()> {
        for (subject, before) in self.counted_before {
            let Some(counted) = sessions::failures(tx.conn(), subject.hash).await? else { continue };
            let count = counted.count - 1;
            if count <= 0 {
                sessions::forgive(tx.conn(), subject.hash).await?;
                continue;
            }
            // A right try must not lengthen how long wrong ones count, either.
            let is_last = counted.last_at == self.at;
            let last_at = before.filter(|_| is_last).map_or(counted.last_at, |before| before.last_at);
            sessions::put_failures(tx.conn(), subject, Failures { count, last_at }).await?;
        }
        Ok(())
    }

    /// Takes back the try, and forgives the account its failures from this network: whoever signs in is no guesser.
    pub(in crate::service) async fn forgive(self, tx: &mut Tx) -> Result<()> {
        let pair = self.pair;
        self.take_back(tx).await?;
        sessions::forgive(tx.conn(), pair).await
    }
}

/// Whether the administrator signed in from this network before. Asked for nobody, too: the answer takes as long whether there is such
/// a name or not.
async fn knows(conn: Conn<'_>, person: Option<AdministratorId>, network: &str, now: Timestamp) -> Result<bool> {
    let person = person.unwrap_or(AdministratorId(Uuid::nil()));
    sessions::knows_network(conn, person, network, now.minus(KNOWN_FOR)).await
}

/// Returns true if any enabled administrator signed in from the network of `origin` before. Does not depend on the account, so the
/// result reveals nothing about it.
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

fn require_no_wait(
    counted: Counted,
    free: i64,
    before: Option<Failures>,
    is_known: bool,
    now: Timestamp,
) -> Result<()> {
    let is_spared = is_known && counted != Counted::Pair;
    match before.filter(|_| !is_spared).map_or(0, |failures| wait_after(failures, free, now)) {
        0 => Ok(()),
        retry_after => Err(Error::RateLimited { retry_after }),
    }
}

/// Whether it is not forgiven yet.
fn counts(failures: Failures, now: Timestamp) -> bool {
    failures.last_at.plus(FORGIVES) > now
}

/// What is counted of `subject` and not forgiven yet.
async fn present(tx: &mut Tx, subject: Subject, now: Timestamp) -> Result<Option<Failures>> {
    let counted = sessions::failures(tx.conn(), subject.hash).await?;
    let Some(counted) = counted.filter(|failures| counts(*failures, now)) else { return Ok(None) };
    if counted.last_at <= now {
        return Ok(Some(counted));
    }
    // The clock was set back: a wait runs from now on, and not from a moment that is yet to come.
    let counted = Failures { last_at: now, ..counted };
    sessions::put_failures(tx.conn(), subject, counted).await?;
    Ok(Some(counted))
}

/// Seconds to wait: one after the first failure that is not free, then twice as long after each.
fn wait_after(failures: Failures, free: i64, now: Timestamp) -> u64 {
    let Ok(beyond) = u32::try_from(failures.count - free) else { return 0 };
    if beyond == 0 {
        return 0;
    }
    let wait = Duration::from_secs(1 << (beyond - 1).min(20)).min(LONGEST_WAIT);
    let micros = failures.last_at.plus(wait).as_micros() - now.as_micros();
    u64::try_from(micros).map_or(0, |micros| micros.div_ceil(1_000_000))
}
