//! Sign-in to the console with a password and, if one is set up, a second factor. Also asks an administrator who is
//! signed in to confirm their identity.
//!
//! The response does not reveal whether a username exists: its content, its time and its limits are the same.
//!
//! This is also true when the password line is full. Then attempts from a network that some administrator has signed in
//! from get a reserved place, whatever the username. All other attempts are held back and get the response
//! "unavailable" after `HELD_BACK_FOR`; only a correct password gets its response sooner. While an attempt is held
//! back, the password of an existing account is checked in the separate lane. So strangers who try unknown names do not
//! lock out the owner of an account while [`crate::crypto::PasswordQueue`] has places for attempts that are held back.
//! This does not reveal which accounts exist:
//!
//! - A wrong password for an account and any password for an unknown name get the same response at the same time.
//! - Both are counted alike, before anything is checked, so both have to wait after the same number of attempts.
//! - The lane checks an unknown name whenever it would be idle. So it is as busy with such names as with accounts, and
//!   a single check slows down nothing that a stranger could measure.
//! - Whether a place is left depends on the number of attempts, not on their names.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::{
    sessions::KeyHash,
    throttle::{Attempt, Throttle, is_known_network, run_to_completion},
};
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
        },
    },
    store::people::{
        administrators,
        sessions::{self, Ending},
    },
    telemetry::metrics::labels::SignIn,
};

/// Time between a correct password and its second factor.
const SECOND_FACTOR_WITHIN: Duration = Duration::from_mins(5);

/// Time from the arrival of an attempt that is held back to its response. Longer than a few checks take.
const HELD_BACK_FOR: Duration = Duration::from_secs(3);

/// The outcome of a correct password.
#[derive(Debug)]
pub enum Outcome {
    /// The identity is proved.
    Proved(Proof),
    /// A second factor is needed.
    SecondFactor(Pending),
}

/// A sign-in whose password was correct and whose second factor is missing. Belongs in the session and nowhere else.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pending {
    administrator: Uuid,
    /// When the password was set, in microseconds since the epoch.
    password_set_at: i64,
    /// When the password was checked, in microseconds since the epoch.
    given_at: i64,
}

impl Pending {
    fn of(person: &Administrator, now: Timestamp) -> Self {
        let (password_set_at, given_at) = (person.password_changed_at.as_micros(), now.as_micros());
        Self { administrator: person.id.0, password_set_at, given_at }
    }

    /// Returns the administrator who signs in.
    #[must_use]
    pub const fn administrator(&self) -> AdministratorId {
        AdministratorId(self.administrator)
    }

    /// Returns when the password was set.
    pub(in crate::service) const fn password_set_at(&self) -> Timestamp {
        Timestamp::from_micros(self.password_set_at)
    }

    /// Returns true if the password was checked at most 5 minutes ago and has not been changed since.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_valid(&self, services: &Services) -> Result<bool> {
        let given_at = Timestamp::from_micros(self.given_at);
        if services.env.now() > given_at.plus(SECOND_FACTOR_WITHIN) {
            return Ok(false);
        }
        let found = administrators::find(services.store.read().await?.conn(), self.administrator()).await?;
        Ok(found.is_some_and(|person| person.password_changed_at == self.password_set_at()))
    }
}

/// A proof of an administrator's identity. Only this module, [`super::factors`], [`super::invitations`],
/// [`super::passkeys`] and [`super::setup`] create one.
#[derive(Debug)]
pub struct Proof {
    pub(in crate::service) administrator: AdministratorId,
    pub(in crate::service) method: &'static str,
    /// When the password that was used was set; `None` without a password.
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
/// [`AuthFailure::WrongCredentials`], which is recorded; [`Error::RateLimited`] after too many failures;
/// [`Error::Unavailable`] if too many others sign in.
pub async fn with_password(services: &Services, origin: &Origin, username: &str, password: String) -> Result<Outcome> {
    let (services, origin, username) = (services.clone(), origin.clone(), Username::parse(username).ok());
    let place = match services.passwords.place() {
        None if is_known_network(&services, &origin).await? => services.passwords.reserved_place(),
        place => place,
    };
    match place {
        Some(place) => {
            run_to_completion(async move { check(&services, &origin, username.as_ref(), password, place).await }).await
        }
        None => hold_back(services, origin, username, password).await,
    }
}

async fn check(
    services: &Services,
    origin: &Origin,
    username: Option<&Username>,
    password: String,
    place: PasswordPlace,
) -> Result<Outcome> {
    let (person, hash) = find(services, username).await?;
    let id = person.as_ref().map(|person| person.id);
    let throttle = Throttle::of(origin, username);
    let turn = place.turn().await?;
    let attempt = throttle.count(services, id).await?;
    let is_correct = hash.matches(password, turn).await?;
    conclude(services, origin, &throttle, attempt, person, is_correct).await
}

/// Handles an attempt when the line is full: see the module documentation.
async fn hold_back(
    services: Services,
    origin: Origin,
    username: Option<Username>,
    password: String,
) -> Result<Outcome> {
    // Both the check and the response keep the place: a client that disconnects must not make room for more work, and a
    // client that waits for its response still takes a place.
    let place = Arc::new(services.passwords.place_held_back().ok_or(Error::Unavailable(None))?);
    let respond_at = Instant::now() + HELD_BACK_FOR;
    let kept = place.clone();
    let checking =
        run_to_completion(async move { check_held_back(&services, &origin, username.as_ref(), password, &kept).await });
    let error = match time::timeout_at(respond_at, checking).await {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(error)) if !matches!(error, Error::Unauthenticated(_)) => error,
        _ => Error::Unavailable(None),
    };
    time::sleep_until(respond_at).await;
    Err(error)
}

async fn check_held_back(
    services: &Services,
    origin: &Origin,
    username: Option<&Username>,
    password: String,
    place: &PasswordPlace,
) -> Result<Outcome> {
    let (person, hash) = find(services, username).await?;
    let id = person.as_ref().map(|person| person.id);
    let throttle = Throttle::of(origin, username);
    let attempt = throttle.count(services, id).await?;
    let turn = match &person {
        Some(person) if person.is_enabled() => Some(place.turn().await?),
        _ => place.turn_at_once(),
    };
    let is_correct = match turn {
        Some(turn) => hash.matches(password, turn).await?,
        None => false,
    };
    conclude(services, origin, &throttle, attempt, person, is_correct).await
}

/// Returns the account of a username, and the hash to check its password against. An unknown name gets a hash that no
/// password matches.
async fn find(services: &Services, username: Option<&Username>) -> Result<(Option<Administrator>, PasswordHash)> {
    let found = match username {
        Some(username) => administrators::find_by_username(services.store.read().await?.conn(), username).await?,
        None => None,
    };
    Ok(found.map_or((None, PasswordHash::dummy()), |(person, hash)| (Some(person), hash)))
}

async fn conclude(
    services: &Services,
    origin: &Origin,
    throttle: &Throttle,
    attempt: Attempt,
    person: Option<Administrator>,
    is_correct: bool,
) -> Result<Outcome> {
    let id = person.as_ref().map(|person| person.id);
    match person.filter(|person| is_correct && person.is_enabled()) {
        Some(person) if person.totp_enabled_at.is_some() => {
            services.store.write(|tx| Box::pin(attempt.take_back(tx))).await?;
            Ok(Outcome::SecondFactor(Pending::of(&person, services.env.now())))
        }
        Some(person) => {
            services.store.write(|tx| Box::pin(attempt.forgive(tx))).await?;
            Ok(Outcome::Proved(Proof::by_password(&person)))
        }
        None => throttle.refuse(services, origin, id, "password").await,
    }
}

/// Checks the password of the caller, who is already signed in.
///
/// # Errors
/// As [`with_password`].
pub async fn confirm_with_password(services: &Services, caller: &Caller, password: String) -> Result<Proof> {
    let place = services.passwords.reserved_place().ok_or(Error::Unavailable(None))?;
    let (services, caller) = (services.clone(), caller.clone());
    run_to_completion(async move { check_own(&services, &caller, password, place).await }).await
}

async fn check_own(services: &Services, caller: &Caller, password: String, place: PasswordPlace) -> Result<Proof> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let mut read = services.store.read().await?;
    let person = administrators::find(read.conn(), id).await?.ok_or(AuthFailure::NoSession)?;
    let hash = administrators::password(read.conn(), id).await?.ok_or(AuthFailure::NoSession)?;
    drop(read);
    let throttle = Throttle::of(&caller.origin, Some(&person.username));
    let turn = place.turn().await?;
    let attempt = throttle.count(services, Some(id)).await?;
    if hash.matches(password, turn).await? {
        services.store.write(|tx| Box::pin(attempt.forgive(tx))).await?;
        Ok(Proof::by_password(&person))
    } else {
        throttle.refuse(services, &caller.origin, Some(id), "password").await
    }
}

/// The cookies of a session that replaces others.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The cookies that the browser sent; their sessions end.
    pub old: Vec<KeyHash>,
    /// The new cookie.
    pub new: KeyHash,
}

/// Signs an administrator in with a session.
///
/// # Errors
/// [`AuthFailure::NoSession`] if the session has ended; [`AuthFailure::WrongCredentials`] if the administrator has been
/// disabled, or the password has been changed, since the proof.
pub async fn begin(
    services: &Services,
    origin: &Origin,
    user_agent: Option<String>,
    keys: Keys,
    proof: Proof,
) -> Result<()> {
    let (session, now) = (SessionId(services.env.uuid()), services.env.now());
    let (env, ip, request_id) = (services.env.clone(), origin.ip, origin.request_id.clone());
    origin.identity.note(proof.administrator, None);
    let beginning = services.store.write(move |tx| {
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
    });
    beginning.await?;
    services.metrics().sign_ins.increment(SignIn::Succeeded);
    Ok(())
}

/// Replaces the caller's session after the caller confirmed their identity.
///
/// # Errors
/// [`AuthFailure::NoSession`] if either session has ended.
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

/// Ends the caller's session.
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

/// Ends all sessions of an administrator.
pub(in crate::service) async fn end_all_sessions(act: &mut Act<'_>, person: AdministratorId) -> Result<()> {
    sessions::end(act.conn(), person, Ending::All).await.map(drop)
}
