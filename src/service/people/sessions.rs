//! Sessions of the console: begun by signing in, ended by signing out, by time, or by whoever they belong to.

use std::time::Duration;

use serde_json::json;

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
            throttle::FORGIVES,
        },
        tokens::dpop::KEPT_LONGER,
    },
    store::{
        credentials::{api_keys, public_keys},
        people::sessions::{self, Oldest},
        tokens::{delegated_tokens, revoked_tokens},
    },
};

pub use crate::store::people::sessions::Ending;

/// The hash of what a session's cookie holds.
pub type KeyHash = [u8; 32];

/// How exactly the last use of a session is kept: writing it down with every request would make every read a write.
const TOUCH_EVERY: Duration = Duration::from_mins(1);

/// How many rows of each kind are removed at once. What a savepoint may have to undo is kept in memory.
const SWEPT_AT_ONCE: i64 = 500;

/// Whoever is signed in with a session.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// As the one who acts.
    pub caller: Caller,
    /// As a person.
    pub administrator: Administrator,
}

/// Keeps a session of nobody yet; `false` when the key is taken.
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

/// Keeps what a session carries.
///
/// # Errors
/// When the database fails.
pub async fn save(services: &Services, key: KeyHash, data: String) -> Result<()> {
    services.store.write(move |tx| Box::pin(async move { sessions::save(tx.conn(), key, &data).await })).await
}

/// What a session carries that has not ended.
///
/// # Errors
/// When the database fails.
pub async fn load(services: &Services, key: KeyHash) -> Result<Option<String>> {
    let oldest = Oldest::at(services.env.now());
    sessions::load(services.store.read().await?.conn(), key, oldest).await
}

/// Forgets a session that nobody signed in with.
///
/// # Errors
/// When the database fails.
pub async fn remove(services: &Services, key: KeyHash) -> Result<()> {
    services.store.write(move |tx| Box::pin(async move { sessions::remove(tx.conn(), key).await })).await
}

/// Who is signed in with a session.
///
/// # Errors
/// [`AuthFailure::NoSession`] when nobody is, or no longer.
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
    Ok(SignedIn { caller: Caller { principal: Principal::Administrator(person), origin }, administrator })
}

/// Whether the session of the administrator who asks still counts, and allows `action`: for whoever is answered bit by
/// bit, over a long time.
///
/// # Errors
/// When the database fails.
pub async fn is_alive(services: &Services, caller: &Caller, action: Action) -> Result<bool> {
    let Some(session) = caller.session() else { return Ok(false) };
    let oldest = Oldest::at(services.env.now());
    let found = sessions::signed_in(services.store.read().await?.conn(), session, oldest).await?;
    Ok(found.is_some_and(|found| found.administrator.role >= action.demands_role()))
}

/// The sessions of the administrator who asks, last used first.
///
/// # Errors
/// When the database fails.
pub async fn own(services: &Services, caller: &Caller) -> Result<Vec<Session>> {
    services.permit(caller, Action::ManageAccount).await?;
    let Some(person) = caller.administrator() else { return Ok(Vec::new()) };
    sessions::of(services.store.read().await?.conn(), person, Oldest::at(services.env.now())).await
}

/// Ends sessions of the administrator who asks; tells how many.
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

/// How many sessions of an administrator there are.
///
/// # Errors
/// When the database fails.
pub async fn count_of(services: &Services, caller: &Caller, person: AdministratorId) -> Result<usize> {
    services.permit(caller, Action::ListAdministrators).await?;
    let oldest = Oldest::at(services.env.now());
    Ok(sessions::of(services.store.read().await?.conn(), person, oldest).await?.len())
}

/// Removes what has ended, and counts that are no longer shown, a little at a time, so that nobody waits long for the database.
/// For the background.
///
/// # Errors
/// When the database fails.
pub async fn sweep(services: &Services) -> Result<()> {
    let now = services.env.now();
    let (oldest, forgiven) = (Oldest::at(now), now.minus(FORGIVES));
    let expired = now.minus(KEPT_LONGER);
    loop {
        let removing = services.store.write(move |tx| {
            Box::pin(async move {
                let mut removed = sessions::sweep(tx.conn(), oldest, forgiven, SWEPT_AT_ONCE).await?;
                removed += api_keys::forget_old_uses(tx.conn(), now, SWEPT_AT_ONCE).await?;
                removed += public_keys::forget_spent(tx.conn(), expired, SWEPT_AT_ONCE).await?;
                removed += revoked_tokens::forget_expired(tx.conn(), expired, SWEPT_AT_ONCE).await?;
                Ok(removed + delegated_tokens::forget_expired(tx.conn(), expired, SWEPT_AT_ONCE).await?)
            })
        });
        if removing.await? == 0 {
            return Ok(());
        }
    }
}
