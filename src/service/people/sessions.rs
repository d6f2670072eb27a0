//! Console sessions. They begin at sign-in and end at sign-out, by timeout, or when the administrator revokes them.

use std::time::Duration;

use serde_json::json;

use super::throttle::FORGET_AFTER;
use crate::{
    domain::{
        Administrator, AdministratorId, AuthFailure, Error, Result, SessionId,
        audit::{AuditAction, Resource},
        person::administrator::Session,
    },
    service::{
        Services,
        core::{
            caller::{AdministratorCaller, Caller, Origin, Principal},
            policy::Action,
        },
        tokens::dpop::CLOCK_SKEW_MARGIN,
    },
    store::{
        answers,
        capabilities::uses,
        credentials::{activity, api_keys, public_keys},
        people::sessions::{self, Oldest},
        tokens::{delegated_tokens, revoked_tokens},
    },
};

pub use crate::store::people::sessions::Ending;

/// The hash of the value of a session cookie.
pub type KeyHash = [u8; 32];

/// Minimum time between two updates of a session's last use. An update for every request would turn every read into a
/// write.
const TOUCH_EVERY: Duration = Duration::from_mins(1);

/// Maximum number of rows of each kind that one transaction removes. Savepoints keep what they may have to undo in
/// memory.
const SWEEP_MAX: i64 = 500;

/// An administrator who is signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The administrator as the caller of operations.
    pub caller: Caller,
    /// The administrator's account.
    pub administrator: Administrator,
}

/// Creates a session without an administrator. Returns false if the key is taken.
///
/// # Errors
/// When the database fails.
pub async fn create(services: &Services, key: KeyHash, data: String) -> Result<bool> {
    let (id, now) = (SessionId(services.env.uuid()), services.env.now());
    services
        .store
        .write(move |tx| Box::pin(async move { sessions::insert(tx.conn(), key, id, &data, now).await }))
        .await
}

/// Saves the data of a session.
///
/// # Errors
/// When the database fails.
pub async fn save(services: &Services, key: KeyHash, data: String) -> Result<()> {
    services.store.write(move |tx| Box::pin(async move { sessions::save(tx.conn(), key, &data).await })).await
}

/// Returns the data of a session, or `None` if it has ended.
///
/// # Errors
/// When the database fails.
pub async fn load(services: &Services, key: KeyHash) -> Result<Option<String>> {
    let oldest = Oldest::at(services.env.now());
    sessions::load(services.store.read().await?.conn(), key, oldest).await
}

/// Removes a session without an administrator.
///
/// # Errors
/// When the database fails.
pub async fn remove(services: &Services, key: KeyHash) -> Result<()> {
    services.store.write(move |tx| Box::pin(async move { sessions::remove(tx.conn(), key).await })).await
}

/// Authenticates an administrator by their session.
///
/// # Errors
/// [`AuthFailure::NoSession`] if the session has ended or nobody is signed in with it.
pub async fn authenticate(services: &Services, origin: Origin, key: KeyHash) -> Result<SignedIn> {
    let now = services.env.now();
    let found = sessions::by_key(services.store.read().await?.conn(), key, Oldest::at(now)).await?;
    let sessions::SignedIn { session, administrator } = found.ok_or(AuthFailure::NoSession)?;
    if session.last_seen_at.plus(TOUCH_EVERY) <= now {
        let (id, ip) = (session.id, origin.ip.map(|ip| ip.to_string()));
        let touch = services
            .store
            .write(move |tx| Box::pin(async move { sessions::touch(tx.conn(), id, now, ip.as_deref()).await }));
        touch.await?;
    }
    let person = AdministratorCaller {
        id: administrator.id,
        session: session.id,
        role: administrator.role,
        proved_at: session.proved_at,
    };
    let caller = Caller { principal: Principal::Administrator(person), origin }.identified();
    Ok(SignedIn { caller, administrator })
}

/// Returns true if the caller's session is still valid and its role allows `action`. For responses that stream over a
/// long time.
///
/// # Errors
/// When the database fails.
pub async fn is_valid(services: &Services, caller: &Caller, action: Action) -> Result<bool> {
    let Some(session) = caller.session() else { return Ok(false) };
    let oldest = Oldest::at(services.env.now());
    let found = sessions::signed_in(services.store.read().await?.conn(), session, oldest).await?;
    Ok(found.is_some_and(|found| found.administrator.role >= action.demands_role()))
}

/// Returns the caller's own sessions, most recently used first.
///
/// # Errors
/// When the database fails.
pub async fn own(services: &Services, caller: &Caller) -> Result<Vec<Session>> {
    services.permit(caller, Action::ManageAccount).await?;
    let Some(person) = caller.administrator() else { return Ok(Vec::new()) };
    sessions::of(services.store.read().await?.conn(), person, Oldest::at(services.env.now())).await
}

/// Ends some of the caller's own sessions. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn end_own(services: &Services, caller: &Caller, ending: Ending) -> Result<u64> {
    let person = caller.administrator().ok_or(Error::NotFound("Session"))?;
    services
        .change(caller, Action::ManageAccount, move |act| {
            Box::pin(async move {
                let ended = sessions::end(act.conn(), person, ending).await?;
                if ended == 0 {
                    return Err(Error::NotFound("Session"));
                }
                let details = json!({ "sessions": ended });
                act.audit(AuditAction::SignedOut, Resource::Administrator(person), None, details);
                Ok(ended)
            })
        })
        .await
}

/// Returns the number of sessions of an administrator.
///
/// # Errors
/// When the database fails.
pub async fn count_of(services: &Services, caller: &Caller, person: AdministratorId) -> Result<usize> {
    services.permit(caller, Action::ListAdministrators).await?;
    let oldest = Oldest::at(services.env.now());
    Ok(sessions::of(services.store.read().await?.conn(), person, oldest).await?.len())
}

/// Removes sessions, failures, usage counts and tokens that have expired, in small transactions so that other writes do
/// not wait long. For a background task.
///
/// # Errors
/// When the database fails.
pub async fn sweep(services: &Services) -> Result<()> {
    let now = services.env.now();
    let (oldest, forgotten) = (Oldest::at(now), now.minus(FORGET_AFTER));
    let expired = now.minus(CLOCK_SKEW_MARGIN);
    loop {
        let removing = services.store.write(move |tx| {
            Box::pin(async move {
                let mut removed = sessions::sweep(tx.conn(), oldest, forgotten, SWEEP_MAX).await?;
                removed += api_keys::forget_old_uses(tx.conn(), now, SWEEP_MAX).await?;
                removed += activity::forget_old(tx.conn(), now, SWEEP_MAX).await?;
                removed += uses::forget_old(tx.conn(), now, SWEEP_MAX).await?;
                removed += public_keys::forget_spent(tx.conn(), expired, SWEEP_MAX).await?;
                removed += revoked_tokens::forget_expired(tx, expired, SWEEP_MAX).await?;
                removed += answers::forget_expired(tx.conn(), expired, SWEEP_MAX).await?;
                Ok(removed + delegated_tokens::forget_expired(tx.conn(), expired, SWEEP_MAX).await?)
            })
        });
        if removing.await? == 0 {
            return Ok(());
        }
    }
}
