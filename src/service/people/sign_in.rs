//! Signing in to the console, and proving again who one is: with a password, and a second factor where there is one.
//!
//! Nobody is told whether a username exists: the answer, its time and its limits are the same.
//!
//! This also holds when the password line is full. Tries from a network that some administrator signed in from then get a reserved
//! place, whatever the username. All other tries are held back and answered "unavailable" after `HELD_BACK_FOR`; only a right
//! password is answered sooner, with success. While a try is held back, the password of an existing account is checked in the
//! separate lane, so strangers who try made-up names do not lock its owner out while [`crate::crypto::PasswordLine`] has places for tries that are
//! held back. This does not reveal which accounts exist:
//!
//! - A wrong password for an account and any password for a made-up name get the same answer at the same moment.
//! - Both are counted alike, before anything is checked, so both have to wait after as many tries.
//! - The lane checks a made-up name whenever it would be idle, so it is as busy with such names as with accounts, and one check in
//!   it slows down nothing that a stranger could measure.
//! - Whether a place is left depends on how many tries there are, not on their names.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::sessions::KeyHash;
use crate::{
    crypto::{PasswordHash, PasswordPlace},
    domain::{
        Administrator, AdministratorId, AuthFailure, Error, Result, SessionId, Timestamp, Username,
        audit::{AuditAction, Event, Resource},
        credential::network::network,
        person::administrator::Session,
    },
    service::{
        Services,
        core::{
            act::Act,
            caller::{Caller, Origin},
            policy::Action,
            throttle::{Throttle, Try, is_known_network, to_the_end},
        },
    },
    store::people::{
        administrators,
        sessions::{self, Ending},
    },
};

/// How long a right password waits for its second factor.
const SECOND_FACTOR_WITHIN: Duration = Duration::from_mins(5);

/// Time from the arrival of a held-back try to its answer. Longer than a few checks take.
const HELD_BACK_FOR: Duration = Duration::from_secs(3);

/// What a right password led to.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing more is needed.
    Proved(Proof),
    /// A second factor is needed.
    SecondFactor(Pending),
}

/// Somebody gave the right password and still owes the second factor: for the session, and for nobody else.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pending {
    administrator: Uuid,
    /// When the password that was given was set, in microseconds since the epoch: another one than that counts for nothing.
    password_set_at: i64,
    /// When it was given, in microseconds since the epoch.
    given_at: i64,
}

impl Pending {
    fn of(person: &Administrator, now: Timestamp) -> Self {
        let (password_set_at, given_at) = (person.password_changed_at.as_micros(), now.as_micros());
        Self { administrator: person.id.0, password_set_at, given_at }
    }

    /// Who gave the password.
    #[must_use]
    pub const fn administrator(&self) -> AdministratorId {
        AdministratorId(self.administrator)
    }

    /// When the password that was given was set.
    pub(in crate::service) const fn password_set_at(&self) -> Timestamp {
        Timestamp::from_micros(self.password_set_at)
    }

    /// Whether it still counts: the password was given at most 5 minutes ago, and is still the same.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn counts(&self, services: &Services) -> Result<bool> {
        let given_at = Timestamp::from_micros(self.given_at);
        if services.env.now() > given_at.plus(SECOND_FACTOR_WITHIN) {
            return Ok(false);
        }
        let found = administrators::find(services.store.read().await?.conn(), self.administrator()).await?;
        Ok(found.is_some_and(|person| person.password_changed_at == self.password_set_at()))
    }
}

/// Somebody proved who they are. Made only here and by the other factors.
#[derive(Debug)]
pub struct Proof {
    pub(in crate::service) administrator: AdministratorId,
    pub(in crate::service) method: &'static str,
    /// When the password was set that this rests on; `None` where it rests on none.
    pub(in crate::service) password_set_at: Option<Timestamp>,
}

impl Proof {
    fn by_password(person: &Administrator) -> Self {
        let password_set_at = Some(person.password_changed_at);
        Self { administrator: person.id, method: "password", password_set_at }
    }
}

/// Checks a username and a password.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`], on the record; [`Error::RateLimited`] after too many; [`Error::Unavailable`] if too many
/// others sign in.
pub async fn with_password(services: &Services, origin: &Origin, username: &str, password: String) -> Result<Outcome> {
    let (services, origin, username) = (services.clone(), origin.clone(), Username::parse(username).ok());
    let place = match services.passwords.place() {
        None if is_known_network(&services, &origin).await? => services.passwords.reserved_place(),
        place => place,
    };
    match place {
        Some(place) => {
            to_the_end(async move { judge(&services, &origin, username.as_ref(), password, place).await }).await
        }
        None => hold_back(services, origin, username, password).await,
    }
}

async fn judge(
    services: &Services,
    origin: &Origin,
    username: Option<&Username>,
    password: String,
    place: PasswordPlace,
) -> Result<Outcome> {
    let (person, hash) = find(services, username).await?;
    let id = person.as_ref().map(|person| person.id);
    let throttle = Throttle::of(origin, username);
    throttle.admit(services, id).await?;
    let turn = place.turn().await?;
    let counted = throttle.count(services, id).await?;
    let right = hash.matches(password, turn).await?;
    conclude(services, origin, &throttle, counted, person, right).await
}

/// Answers a try when the line is full: see the module documentation.
async fn hold_back(
    services: Services,
    origin: Origin,
    username: Option<Username>,
    password: String,
) -> Result<Outcome> {
    // Kept by both: a client that hangs up must not make room for further work, and one that waits takes a place.
    let place = Arc::new(services.passwords.place_held_back().ok_or(Error::Unavailable(None))?);
    let answer_at = Instant::now() + HELD_BACK_FOR;
    let kept = place.clone();
    let judging =
        to_the_end(async move { judge_held_back(&services, &origin, username.as_ref(), password, &kept).await });
    let error = match time::timeout_at(answer_at, judging).await {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(error)) if !matches!(error, Error::Unauthenticated(_)) => error,
        _ => Error::Unavailable(None),
    };
    time::sleep_until(answer_at).await;
    Err(error)
}

async fn judge_held_back(
    services: &Services,
    origin: &Origin,
    username: Option<&Username>,
    password: String,
    place: &PasswordPlace,
) -> Result<Outcome> {
    let (person, hash) = find(services, username).await?;
    let id = person.as_ref().map(|person| person.id);
    let throttle = Throttle::of(origin, username);
    let counted = throttle.count(services, id).await?;
    let turn = match &person {
        Some(person) if person.is_enabled() => Some(place.turn().await?),
        _ => place.turn_at_once(),
    };
    let right = match turn {
        Some(turn) => hash.matches(password, turn).await?,
        None => false,
    };
    conclude(services, origin, &throttle, counted, person, right).await
}

/// The account of this name, and the hash that a password for the name is checked against.
async fn find(services: &Services, username: Option<&Username>) -> Result<(Option<Administrator>, PasswordHash)> {
    let found = match username {
        Some(username) => administrators::find_by_username(services.store.read().await?.conn(), username).await?,
        None => None,
    };
    Ok(found.map_or((None, PasswordHash::nobodys()), |(person, hash)| (Some(person), hash)))
}

async fn conclude(
    services: &Services,
    origin: &Origin,
    throttle: &Throttle,
    counted: Try,
    person: Option<Administrator>,
    right: bool,
) -> Result<Outcome> {
    let id = person.as_ref().map(|person| person.id);
    match person.filter(|person| right && person.is_enabled()) {
        Some(person) if person.totp_enabled_at.is_some() => {
            services.store.write(|tx| Box::pin(counted.take_back(tx))).await?;
            Ok(Outcome::SecondFactor(Pending::of(&person, services.env.now())))
        }
        Some(person) => {
            services.store.write(|tx| Box::pin(counted.forgive(tx))).await?;
            Ok(Outcome::Proved(Proof::by_password(&person)))
        }
        None => throttle.refuse(services, origin, id, "password").await,
    }
}

/// Checks the password of the administrator who asks, who is signed in already.
///
/// # Errors
/// As [`with_password`].
pub async fn again_with_password(services: &Services, caller: &Caller, password: String) -> Result<Proof> {
    let place = services.passwords.reserved_place().ok_or(Error::Unavailable(None))?;
    let (services, caller) = (services.clone(), caller.clone());
    to_the_end(async move { judge_again(&services, &caller, password, place).await }).await
}

async fn judge_again(services: &Services, caller: &Caller, password: String, place: PasswordPlace) -> Result<Proof> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let mut read = services.store.read().await?;
    let person = administrators::find(read.conn(), id).await?.ok_or(AuthFailure::NoSession)?;
    let hash = administrators::password(read.conn(), id).await?.ok_or(AuthFailure::NoSession)?;
    drop(read);
    let throttle = Throttle::of(&caller.origin, Some(&person.username));
    throttle.admit(services, Some(id)).await?;
    let turn = place.turn().await?;
    let counted = throttle.count(services, Some(id)).await?;
    if hash.matches(password, turn).await? {
        services.store.write(|tx| Box::pin(counted.forgive(tx))).await?;
        Ok(Proof::by_password(&person))
    } else {
        throttle.refuse(services, &caller.origin, Some(id), "password").await
    }
}

/// The cookie of a session that takes the place of others.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Those that the browser presented before: they end.
    pub old: Vec<KeyHash>,
    /// The one from now on.
    pub new: KeyHash,
}

/// Makes a session that of whoever proved who they are.
///
/// # Errors
/// [`AuthFailure::NoSession`] when the session is gone; [`AuthFailure::WrongCredentials`] when they may no longer sign
/// in, or not with the password that they gave.
pub async fn begin(
    services: &Services,
    origin: &Origin,
    user_agent: Option<String>,
    keys: Keys,
    proof: Proof,
) -> Result<()> {
    let (session, now) = (SessionId(services.env.uuid()), services.env.now());
    let (env, ip, request_id) = (services.env.clone(), origin.ip, origin.request_id.clone());
    services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let found = administrators::find(tx.conn(), proof.administrator).await?;
                let mut administrator = found.filter(Administrator::is_enabled).ok_or(AuthFailure::WrongCredentials)?;
                if proof.password_set_at.is_some_and(|at| at != administrator.password_changed_at) {
                    return Err(AuthFailure::WrongCredentials.into());
                }
                let session = Session {
                    id: session,
                    administrator: administrator.id,
                    signed_in_at: now,
                    last_seen_at: now,
                    proved_at: now,
                    ip: ip.map(|ip| ip.to_string()),
                    user_agent,
                };
                for old in keys.old {
                    sessions::replace(tx.conn(), old).await?;
                }
                if !sessions::sign_in(tx.conn(), keys.new, &session).await? {
                    return Err(AuthFailure::NoSession.into());
                }
                administrator.last_sign_in_at = Some(now);
                administrators::update(tx.conn(), &administrator).await?;
                if let Some(ip) = ip {
                    sessions::know_network(tx.conn(), administrator.id, &network(ip).to_string(), now).await?;
                }
                tx.audit(Event {
                    id: env.uuid(),
                    at: now,
                    actor: Some(administrator.id.into()),
                    subject: None,
                    action: AuditAction::SignedIn,
                    resource: Some(Resource::Administrator(administrator.id)),
                    details: json!({ "method": proof.method, "username": administrator.username.as_str() }),
                    ip,
                    success: true,
                    request_id,
                });
                Ok(())
            })
        })
        .await
}

/// Replaces the session of the administrator who asks by another, freshly proved.
///
/// # Errors
/// [`AuthFailure::NoSession`] when either is gone.
pub async fn renew(services: &Services, caller: &Caller, keys: Keys, proof: Proof) -> Result<()> {
    let (Some(id), Some(old)) = (caller.administrator(), caller.session()) else {
        return Err(AuthFailure::NoSession.into());
    };
    if proof.administrator != id {
        return Err(AuthFailure::WrongCredentials.into());
    }
    services
        .change(caller, Action::ManageAccount, move |act| {
            Box::pin(async move {
                let now = act.now;
                let found = sessions::signed_in(act.conn(), old, sessions::Oldest::at(now)).await?;
                let mut session = found.ok_or(AuthFailure::NoSession)?.session;
                sessions::end(act.conn(), id, Ending::One(old)).await?;
                (session.proved_at, session.last_seen_at) = (now, now);
                if !sessions::sign_in(act.conn(), keys.new, &session).await? {
                    return Err(AuthFailure::NoSession.into());
                }
                let details = json!({ "method": proof.method });
                act.audit(AuditAction::ProofRenewed, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Ends the session of the administrator who asks.
///
/// # Errors
/// When the database fails.
pub async fn end(services: &Services, caller: &Caller) -> Result<()> {
    let (Some(id), Some(session)) = (caller.administrator(), caller.session()) else { return Ok(()) };
    services
        .change(caller, Action::ManageAccount, move |act| {
            Box::pin(async move {
                sessions::end(act.conn(), id, Ending::One(session)).await?;
                act.audit(AuditAction::SignedOut, Resource::Administrator(id), None, json!({ "sessions": 1 }));
                Ok(())
            })
        })
        .await
}

/// Ends every session of an administrator inside a change that makes them lose their way in.
pub(in crate::service) async fn end_all(act: &mut Act<'_>, person: AdministratorId) -> Result<()> {
    sessions::end(act.conn(), person, Ending::All).await.map(drop)
}
