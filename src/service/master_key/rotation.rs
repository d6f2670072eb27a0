//! The rotation of the master key, beside the running service.
//!
//! | step | what it does |
//! |---|---|
//! | [`begin`] | the newest key seals new values from now on |
//! | [`reseal`] | every value that the previous key sealed is sealed with the newest key, some values at a time |
//! | [`complete`] | makes sure that the previous key opens nothing any more |
//!
//! Each step can be repeated, so a rotation that was interrupted continues where it stopped. Before the first step and
//! after the last one, the operator or `aims master-key rotate` changes where the keys come from.

use secrecy::ExposeSecret;
use serde_json::json;

use super::{CurrentMasterKeys, sealing_key, status};
use crate::{
    clock::Environment,
    crypto::{MasterKeyId, MasterKeys},
    domain::{Error, Result, audit::AuditAction},
    service::{
        Services,
        core::{act::Act, caller::Caller, policy::Action},
    },
    store::tokens::sealed::{self, Kind},
};

/// Number of values that are sealed anew in one transaction, so that requests wait only briefly.
const PAGE: i64 = 100;

/// Why the master key cannot be rotated. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// There is no master key.
    #[error(
        "there is no master key: tokens are signed with JWT_SECRET_KEY, and no secret in the database is encrypted"
    )]
    NoMasterKey,
    /// The two keys are in the wrong order, or the second one was never used.
    #[error(
        "the master key {newest} is the current one already, and this database never replaced {other} by it; put the \
         new key first and the current key second"
    )]
    WrongOrder {
        /// The first key.
        newest: MasterKeyId,
        /// The second key.
        other: MasterKeyId,
    },
    /// Some values cannot be opened with the given keys.
    #[error(
        "{0} secrets in the database were encrypted with another master key, or altered; nothing was changed. Add the \
         key that encrypted them as the previous key. If it is lost, reset the authenticator apps with `aims admin \
         reset-factors`"
    )]
    Unreadable(u64),
    /// The database failed, or the current master key is unknown.
    #[error("{}", .0.with_causes())]
    Failed(#[from] Error),
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is only one key, so there is nothing to rotate to.
    OneKey(MasterKeyId),
    /// There are two keys, and the previous one still seals new values.
    Prepared {
        /// The previous key.
        from: MasterKeyId,
        /// The newest key.
        to: MasterKeyId,
    },
    /// The newest key seals new values. Some values may still be sealed with the previous one.
    Begun {
        /// The previous key.
        from: MasterKeyId,
        /// The newest key.
        to: MasterKeyId,
    },
}

/// Returns how far the rotation is. Changes nothing.
///
/// # Errors
/// See [`RotationError`].
pub async fn stage(services: &Services, caller: &Caller) -> Result<Stage, RotationError> {
    services.permit(caller, Action::RotateMasterKey).await?;
    let keys = master_keys(services)?.up_to_date(&services.store, &services.env).await?;
    let mut read = services.store.read().await?;
    let unreadable = status::count(read.conn(), &keys).await?.iter().map(|tally| tally.unknown).sum();
    if unreadable > 0 {
        return Err(RotationError::Unreadable(unreadable));
    }
    let newest = keys.newest().id();
    let Some(previous) = keys.previous() else { return Ok(Stage::OneKey(newest)) };
    let (from, to) = (previous.id(), newest);
    if sealing_key(read.conn(), &keys).await?.id() == from {
        return Ok(Stage::Prepared { from, to });
    }
    let last = sealed::last_rotation(read.conn()).await?;
    if last.is_some_and(|last| last.previous == from) {
        return Ok(Stage::Begun { from, to });
    }
    Err(RotationError::WrongOrder { newest, other: from })
}

/// Makes the newest key seal new values. Does nothing if it does so already.
///
/// # Errors
/// See [`RotationError`].
pub async fn begin(services: &Services, caller: &Caller) -> Result<(), RotationError> {
    let (from, to) = match stage(services, caller).await? {
        Stage::Prepared { from, to } => (from, to),
        Stage::OneKey(_) | Stage::Begun { .. } => return Ok(()),
    };
    let keys = master_keys(services)?.get();
    let began = services
        .change(caller, Action::RotateMasterKey, move |act| {
            Box::pin(async move {
                // Another node may have begun since.
                if sealing_key(act.conn(), &keys).await?.id() == to {
                    return Ok(());
                }
                if !sealed::begin_rotation(act.tx, from, to, act.now).await? {
                    return Err(Error::Conflict("Another rotation of the master key has begun".into()));
                }
                let details = json!({ "from": from.to_string(), "to": to.to_string() });
                act.audit(AuditAction::MasterKeyRotated, None, None, details);
                Ok(())
            })
        })
        .await;
    Ok(began?)
}

/// Part of a pass over all sealed values.
#[derive(Clone, Debug)]
pub struct Page {
    /// The owner of the last value, from where the pass continues. `None` at the end.
    pub last: Option<String>,
    /// Number of values that were sealed anew.
    pub resealed: u64,
}

/// Seals every value that the previous key sealed with the newest key. Returns the number of each kind.
///
/// # Errors
/// [`Error::Unavailable`] if another rotation has begun in the meantime, or the database fails.
pub async fn reseal(services: &Services, caller: &Caller) -> Result<Vec<(Kind, u64)>, RotationError> {
    let mut counts = Vec::with_capacity(Kind::ALL.len());
    for kind in Kind::ALL {
        let (mut after, mut count) = (None, 0);
        loop {
            let page = reseal_page(services, caller, kind, after).await?;
            count += page.resealed;
            after = page.last;
            if after.is_none() {
                break;
            }
        }
        counts.push((kind, count));
    }
    Ok(counts)
}

/// Does one transaction of [`reseal`]: the values after the owner `after`.
///
/// # Errors
/// See [`reseal`].
pub async fn reseal_page(
    services: &Services,
    caller: &Caller,
    kind: Kind,
    after: Option<String>,
) -> Result<Page, RotationError> {
    let (keys, env) = (master_keys(services)?.get(), services.env.clone());
    let page = services
        .change(caller, Action::RotateMasterKey, move |act| {
            Box::pin(async move {
                require_newest(act, &keys).await?;
                let values = sealed::page(act.conn(), kind, after.as_deref(), PAGE).await?;
                let mut resealed = 0;
                for value in &values {
                    if reseal_one(act, &keys, &env, value).await? {
                        resealed += 1;
                    }
                }
                if resealed > 0 {
                    let details =
                        json!({ "to": keys.newest().id().to_string(), "kind": kind.as_str(), "count": resealed });
                    act.audit(AuditAction::MasterKeyValuesResealed, None, None, details);
                }
                Ok(Page { last: values.into_iter().next_back().map(|value| value.owner), resealed })
            })
        })
        .await?;
    Ok(page)
}

/// Returns false if the newest key has sealed the value already.
async fn reseal_one(act: &mut Act<'_>, keys: &MasterKeys, env: &Environment, value: &sealed::Sealed) -> Result<bool> {
    let purpose = value.purpose();
    if keys.newest().open(&purpose, &value.value).is_ok() {
        return Ok(false);
    }
    let secret = keys.open(&purpose, &value.value).map_err(|error| Error::Internal(Box::new(error)))?;
    let resealed = keys.newest().seal(env, &purpose, secret.expose_secret());
    let resealed = resealed.map_err(|error| Error::Internal(Box::new(error)))?;
    if sealed::replace(act.tx, value, &resealed).await? {
        Ok(true)
    } else {
        Err(Error::internal("a sealed value changed within a transaction"))
    }
}

/// Makes sure that the newest key opens every value, and records that the previous key is not needed any more.
///
/// # Errors
/// [`Error::Unavailable`] if another rotation has begun in the meantime, or the database fails.
pub async fn complete(services: &Services, caller: &Caller) -> Result<(), RotationError> {
    let keys = master_keys(services)?.get();
    let completed = services
        .change(caller, Action::RotateMasterKey, move |act| {
            Box::pin(async move {
                require_newest(act, &keys).await?;
                let others = status::count(act.conn(), &keys)
                    .await?
                    .iter()
                    .map(|tally| tally.previous + tally.unknown)
                    .sum::<u64>();
                if others > 0 {
                    return Err(Error::internal(format!("{others} values are not sealed with the newest master key")));
                }
                let newest = keys.newest().id();
                if sealed::complete_rotation(act.tx, newest, act.now).await? {
                    let retired = keys.previous().map(|previous| previous.id().to_string());
                    let details = json!({ "from": retired, "to": newest.to_string() });
                    act.audit(AuditAction::MasterKeyRetired, None, None, details);
                }
                Ok(())
            })
        })
        .await;
    Ok(completed?)
}

async fn require_newest(act: &mut Act<'_>, keys: &MasterKeys) -> Result<()> {
    if sealing_key(act.conn(), keys).await?.id() == keys.newest().id() {
        return Ok(());
    }
    Err(Error::Conflict("The rotation of the master key has not begun".into()))
}

fn master_keys(services: &Services) -> Result<&CurrentMasterKeys, RotationError> {
    services.master_key.as_ref().ok_or(RotationError::NoMasterKey)
}
