//! Second factors: an authenticator app, and recovery codes in case it is lost.

use std::sync::Arc;

use serde_json::json;

pub use crate::crypto::TotpSecret;

use super::{
    administrators::find,
    sign_in::{Pending, Proof, end_all_sessions},
    throttle::{Throttle, run_to_completion},
};
use crate::{
    clock::Environment,
    crypto::{MasterKeys, OpaqueSecret},
    domain::{
        Administrator, AdministratorId, AuthFailure, Error, Invalid, Result,
        audit::{AuditAction, Event, Resource},
    },
    service::{
        Services,
        core::{
            act::Act,
            caller::{Caller, Origin},
            policy::Action,
        },
        master_key::{CurrentMasterKeys, sealing_key},
    },
    store::{
        Conn,
        people::{
            administrators,
            factors::{self, Totp},
        },
    },
};

/// Number of recovery codes in a new set.
pub const RECOVERY_CODES: usize = 10;

const NO_MASTER_KEY: Error =
    Error::Refused("Authenticator apps need MASTER_KEY, MASTER_KEY_FILE or MASTER_KEY_COMMAND to be set");

/// The second factors of an administrator.
#[derive(Clone, Copy, Debug)]
pub struct Overview {
    /// Whether an authenticator app is set up.
    pub totp: bool,
    /// Number of unused recovery codes.
    pub recovery_codes_left: i64,
}

/// Returns the caller's own second factors.
///
/// # Errors
/// When the database fails.
pub async fn own(services: &Services, caller: &Caller) -> Result<Overview> {
    services.permit(caller, Action::ManageAccount).await?;
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let mut read = services.store.read().await?;
    let totp = factors::totp(read.conn(), id).await?.is_some();
    Ok(Overview { totp, recovery_codes_left: factors::recovery_codes_left(read.conn(), id).await? })
}

/// A kind of second factor that an owner can reset for another administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The authenticator app and its recovery codes.
    Authenticator,
    /// All passkeys.
    Passkeys,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Authenticator => "authenticator",
            Self::Passkeys => "passkeys",
        }
    }
}

/// Removes a second factor that another administrator has lost, and ends their sessions. Their password stays.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Refused`] for the caller and if there is no such factor; [`Error::ProofNeeded`].
pub async fn reset(services: &Services, caller: &Caller, id: AdministratorId, kind: Kind) -> Result<()> {
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                // Otherwise a session that was left open could strip its own account down to the password.
                if act.caller.administrator() == Some(id) {
                    return Err(Error::Refused("Remove your own second factor on your account page"));
                }
                let mut person = find(act, id).await?;
                let removed = match kind {
                    Kind::Authenticator => u64::from(person.totp_enabled_at.is_some()),
                    Kind::Passkeys => factors::remove_passkeys(act.conn(), id).await?,
                };
                if removed == 0 {
                    return Err(Error::Refused(match kind {
                        Kind::Authenticator => "This administrator has no authenticator app",
                        Kind::Passkeys => "This administrator has no passkeys",
                    }));
                }
                if kind == Kind::Authenticator {
                    remove_authenticator(act, &mut person).await?;
                }
                end_all_sessions(act, id).await?;
                let username = person.username.as_str();
                let details =
                    json!({ "factor": kind.name(), "change": "reset", "username": username, "removed": removed });
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Checks an authenticator code or a recovery code after a correct password.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`], which is recorded; [`Error::RateLimited`] after too many failures.
pub async fn check_code(services: &Services, origin: &Origin, pending: &Pending, code: &str) -> Result<Proof> {
    let (services, origin, pending, code) = (services.clone(), origin.clone(), *pending, code.to_owned());
    run_to_completion(async move { check(&services, &origin, &pending, &code).await }).await
}

async fn check(services: &Services, origin: &Origin, pending: &Pending, code: &str) -> Result<Proof> {
    let id = pending.administrator();
    let mut read = services.store.read().await?;
    let person = administrators::find(read.conn(), id).await?.filter(crate::domain::Administrator::is_enabled);
    let person = person.ok_or(AuthFailure::WrongCredentials)?;
    let totp = factors::totp(read.conn(), id).await?;
    drop(read);
    let throttle = Throttle::of(origin, Some(&person.username));
    let attempt = throttle.count(services, Some(id)).await?;
    let secret = match (&services.master_key, totp) {
        (Some(master), Some(totp)) => Some(open(services, master, id, &totp).await?),
        _ => None,
    };
    let now = services.env.now();
    let step = secret.and_then(|secret| secret.step_of(code, now));
    let recovery = OpaqueSecret::typed(code).hash();
    let (env, sender) = (services.env.clone(), origin.clone());
    let method = services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let (method, is_valid) = match step {
                    Some(step) => ("authenticator", factors::use_totp_step(tx.conn(), id, step).await?),
                    None => ("recovery code", factors::use_recovery_code(tx.conn(), id, recovery, now).await?),
                };
                if is_valid {
                    attempt.forgive(tx).await?;
                }
                if is_valid && step.is_none() {
                    // A used code gets a record even if no session begins.
                    let left = factors::recovery_codes_left(tx.conn(), id).await?;
                    tx.audit(Event {
                        id: env.uuid(),
                        at: now,
                        actor: Some(id.into()),
                        subject: None,
                        action: AuditAction::FactorChanged,
                        resource: Some(Resource::Administrator(id)),
                        details: json!({ "factor": "recovery codes", "change": "used", "left": left }),
                        ip: sender.ip,
                        success: true,
                        request_id: sender.request_id,
                    });
                }
                Ok(is_valid.then_some(method))
            })
        })
        .await?;
    match method {
        Some(method) => Ok(Proof { administrator: id, method, password_set_at: Some(pending.password_set_at()) }),
        None => throttle.refuse(services, origin, Some(id), "code").await,
    }
}

/// Generates the secret of a new authenticator, and the same secret sealed for the caller's session. It takes effect
/// once [`enable_totp`] has checked a code.
///
/// # Errors
/// [`Error::Refused`] without a master key; [`Error::ProofNeeded`].
pub async fn new_totp(services: &Services, caller: &Caller) -> Result<(TotpSecret, Vec<u8>)> {
    services.permit(caller, Action::ManageFactors).await?;
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let secret = TotpSecret::generate(&services.env);
    let masters = masters(services).await?;
    let sealed = seal(services.store.read().await?.conn(), &masters, &services.env, id, &secret).await?;
    Ok((secret, sealed))
}

/// Opens a secret that [`new_totp`] sealed. Returns `None` if it was sealed for another administrator or under another
/// key: the secret of a setup that has begun is not sealed anew when the master key is rotated.
#[must_use]
pub fn open_new_totp(services: &Services, caller: &Caller, sealed: &[u8]) -> Option<TotpSecret> {
    let (master, id) = (services.master_key.as_ref()?, caller.administrator()?);
    TotpSecret::open(&master.get(), &id.to_string(), sealed).ok()
}

/// Sets up an authenticator whose code is correct. Returns new recovery codes.
///
/// # Errors
/// [`Error::Invalid`] for a wrong code; [`Error::ProofNeeded`].
pub async fn enable_totp(
    services: &Services,
    caller: &Caller,
    secret: &TotpSecret,
    code: &str,
) -> Result<Vec<OpaqueSecret>> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let wrong = || {
        Error::field(
            &["code"],
            Invalid::new("code_wrong", "The code is not correct. Enter the code that the app shows now"),
        )
    };
    let last_step = secret.step_of(code, services.env.now()).ok_or_else(wrong)?;
    let (masters, secret, env) = (masters(services).await?, secret.clone(), services.env.clone());
    let codes = new_codes(services);
    let hashes: Vec<_> = codes.iter().map(OpaqueSecret::hash).collect();
    services
        .change(caller, Action::ManageFactors, move |act| {
            Box::pin(async move {
                let mut person = find(act, id).await?;
                let sealed_secret = seal(act.conn(), &masters, &env, id, &secret).await?;
                factors::put_totp(act.conn(), id, &Totp { sealed_secret, last_step }).await?;
                factors::put_recovery_codes(act.conn(), id, &hashes).await?;
                (person.totp_enabled_at, person.updated_at) = (Some(act.now), act.now);
                administrators::update(act.conn(), &person).await?;
                let details = json!({ "factor": "authenticator", "change": "added" });
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await?;
    Ok(codes)
}

/// Replaces the caller's recovery codes with new ones.
///
/// # Errors
/// [`Error::Refused`] without an authenticator; [`Error::ProofNeeded`].
pub async fn renew_recovery_codes(services: &Services, caller: &Caller) -> Result<Vec<OpaqueSecret>> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let codes = new_codes(services);
    let hashes: Vec<_> = codes.iter().map(OpaqueSecret::hash).collect();
    services
        .change(caller, Action::ManageFactors, move |act| {
            Box::pin(async move {
                if factors::totp(act.conn(), id).await?.is_none() {
                    return Err(Error::Refused("Recovery codes replace an authenticator app. Add an app first"));
                }
                factors::put_recovery_codes(act.conn(), id, &hashes).await?;
                let details = json!({ "factor": "recovery codes", "change": "renewed" });
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await?;
    Ok(codes)
}

/// Removes the caller's authenticator.
///
/// # Errors
/// [`Error::ProofNeeded`].
pub async fn disable_totp(services: &Services, caller: &Caller) -> Result<()> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    services
        .change(caller, Action::ManageFactors, move |act| {
            Box::pin(async move {
                let mut person = find(act, id).await?;
                if person.totp_enabled_at.is_none() {
                    return Ok(());
                }
                remove_authenticator(act, &mut person).await?;
                let details = json!({ "factor": "authenticator", "change": "removed" });
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Removes the authenticator of every administrator, because the master key that opens their secrets is lost. Returns how
/// many had one. Passwords and passkeys stay.
///
/// # Errors
/// When the database fails.
pub(in crate::service) async fn remove_all_authenticators(act: &mut Act<'_>) -> Result<u64> {
    let mut removed = 0;
    for mut person in administrators::list(act.conn()).await? {
        if factors::totp(act.conn(), person.id).await?.is_none() {
            continue;
        }
        remove_authenticator(act, &mut person).await?;
        let username = person.username.as_str();
        let factor = Kind::Authenticator.name();
        let details = json!({ "factor": factor, "change": "reset", "username": username, "removed": 1 });
        act.audit(AuditAction::FactorChanged, Resource::Administrator(person.id), None, details);
        removed += 1;
    }
    Ok(removed)
}

async fn remove_authenticator(act: &mut Act<'_>, person: &mut Administrator) -> Result<()> {
    factors::remove_totp(act.conn(), person.id).await?;
    (person.totp_enabled_at, person.updated_at) = (None, act.now);
    administrators::update(act.conn(), person).await?;
    Ok(())
}

fn new_codes(services: &Services) -> Vec<OpaqueSecret> {
    std::iter::repeat_with(|| OpaqueSecret::for_people(&services.env)).take(RECOVERY_CODES).collect()
}

async fn masters(services: &Services) -> Result<Arc<MasterKeys>> {
    let current = services.master_key.as_ref().ok_or(NO_MASTER_KEY)?;
    current.up_to_date(&services.store, &services.env).await
}

async fn seal(
    conn: Conn<'_>,
    masters: &MasterKeys,
    env: &Environment,
    id: AdministratorId,
    secret: &TotpSecret,
) -> Result<Vec<u8>> {
    let master = sealing_key(conn, masters).await?;
    secret.seal(&master, env, &id.to_string()).map_err(|error| Error::Internal(Box::new(error)))
}

async fn open(services: &Services, master: &CurrentMasterKeys, id: AdministratorId, totp: &Totp) -> Result<TotpSecret> {
    let opened = master.open(&services.env, |keys| TotpSecret::open(keys, &id.to_string(), &totp.sealed_secret)).await;
    opened.map_err(|error| Error::Internal(Box::new(error)))
}
