//! Passkeys (W3C Web Authentication Level 3): alone they sign in, as whoever holds one also unlocked it; and they prove
//! again who somebody is.
//!
//! A ceremony has two halves. The state between them is for the session and for nobody else, and counts once.

use serde_json::{Value, json};
use url::Url;
use webauthn_rs::prelude::{
    CreationChallengeResponse, DiscoverableAuthentication, Passkey as Credential, PasskeyAuthentication,
    PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Webauthn, WebauthnBuilder,
};

use super::{administrators::find, sign_in::Proof};
use crate::{
    domain::{
        Administrator, AdministratorId, AuthFailure, Error, Invalid, PasskeyId, Result,
        audit::{AuditAction, Resource},
        person::administrator::Passkey,
    },
    service::{
        Services,
        core::{
            caller::{Caller, Origin},
            policy::Action,
            throttle::{Throttle, to_the_end},
        },
    },
    store::people::{administrators, factors},
};

const UNAVAILABLE: Error = Error::Refused("Passkeys need a PUBLIC_URL with a host name, by https or on localhost");

/// The first half of a ceremony: what the browser is asked, and what the session keeps until it answers.
pub struct Begun {
    /// For `navigator.credentials`.
    pub options: Value,
    /// For the session.
    pub state: String,
}

/// Whether browsers offer passkeys for the public URL: not for an address in place of a name.
#[must_use]
pub fn are_available(services: &Services) -> bool {
    webauthn(services).is_ok()
}

fn webauthn(services: &Services) -> Result<Webauthn> {
    let url = Url::parse(services.settings.issuer.as_str()).map_err(|_| UNAVAILABLE)?;
    let host = url.domain().ok_or(UNAVAILABLE)?;
    if url.scheme() != "https" && host != "localhost" {
        return Err(UNAVAILABLE);
    }
    let builder = WebauthnBuilder::new(host, &url).map_err(|_| UNAVAILABLE)?;
    // A forwarded port is still this machine.
    builder.rp_name("AIMS").allow_any_port(host == "localhost").build().map_err(|_| UNAVAILABLE)
}

/// The passkeys of the administrator who asks.
///
/// # Errors
/// When the database fails.
pub async fn own(services: &Services, caller: &Caller) -> Result<Vec<Passkey>> {
    services.permit(caller, Action::ManageAccount).await?;
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let found = factors::passkeys(services.store.read().await?.conn(), id).await?;
    Ok(found.into_iter().map(|(passkey, _)| passkey).collect())
}

/// Begins to register a passkey.
///
/// # Errors
/// [`Error::ProofNeeded`]; [`Error::Refused`] where there can be none.
pub async fn begin_registration(services: &Services, caller: &Caller) -> Result<Begun> {
    services.permit(caller, Action::ManageFactors).await?;
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let mut read = services.store.read().await?;
    let person = administrators::find(read.conn(), id).await?.ok_or(AuthFailure::NoSession)?;
    let present = credentials(&factors::passkeys(read.conn(), id).await?)?;
    let exclude = present.iter().map(|credential| credential.cred_id().clone()).collect();
    let (username, name) = (person.username.as_str(), person.display_name.as_str());
    let begun = webauthn(services)?.start_passkey_registration(id.0, username, name, Some(exclude));
    let (options, state): (CreationChallengeResponse, _) = begun.map_err(defect)?;
    let mut options = json!(options);
    // Only a passkey that the device can find by itself signs in without a username.
    if let Some(selection) = options.pointer_mut("/publicKey/authenticatorSelection").and_then(Value::as_object_mut) {
        selection.insert("residentKey".to_owned(), json!("required"));
        selection.insert("requireResidentKey".to_owned(), json!(true));
    }
    Ok(Begun { options, state: serde_json::to_string(&state).map_err(defect)? })
}

/// Registers the passkey that the browser made.
///
/// # Errors
/// [`Error::Invalid`] for an answer that does not fit; [`Error::Conflict`] when it is registered already;
/// [`Error::ProofNeeded`].
pub async fn finish_registration(
    services: &Services,
    caller: &Caller,
    state: &str,
    name: String,
    answer: &str,
) -> Result<()> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let unfit =
        || Error::field(&["credential"], Invalid::new("credential", "The passkey could not be read; try again"));
    let state: PasskeyRegistration = serde_json::from_str(state).map_err(|_| unfit())?;
    let answer: RegisterPublicKeyCredential = serde_json::from_str(answer).map_err(|_| unfit())?;
    let credential = webauthn(services)?.finish_passkey_registration(&answer, &state).map_err(|_| unfit())?;
    let text = serde_json::to_string(&credential).map_err(defect)?;
    let passkey_id = PasskeyId(services.env.uuid());
    services
        .change(caller, Action::ManageFactors, move |act| {
            Box::pin(async move {
                find(act, id).await?;
                let details = json!({ "factor": "passkey", "change": "added", "name": name });
                let passkey =
                    Passkey { id: passkey_id, administrator: id, name, created_at: act.now, last_used_at: None };
                if !factors::insert_passkey(act.conn(), &passkey, credential.cred_id().as_ref(), &text).await? {
                    return Err(Error::Conflict("This passkey is registered already".into()));
                }
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Removes a passkey of the administrator who asks.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::ProofNeeded`].
pub async fn remove(services: &Services, caller: &Caller, passkey: PasskeyId) -> Result<()> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    services
        .change(caller, Action::ManageFactors, move |act| {
            Box::pin(async move {
                if !factors::remove_passkey(act.conn(), id, passkey).await? {
                    return Err(Error::NotFound("Passkey"));
                }
                let details = json!({ "factor": "passkey", "change": "removed" });
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Begins to ask for a passkey of whoever it may be.
///
/// # Errors
/// [`Error::Refused`] where there can be none.
pub fn begin_sign_in(services: &Services) -> Result<Begun> {
    let (options, state) = webauthn(services)?.start_discoverable_authentication().map_err(defect)?;
    let mut options = json!(options);
    // The page asks when its button is pressed, not while a name is typed.
    if let Some(members) = options.as_object_mut() {
        members.remove("mediation");
    }
    Ok(Begun { options, state: serde_json::to_string(&state).map_err(defect)? })
}

/// Checks the passkey of whoever it may be.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`], on the record; [`Error::RateLimited`] after too many.
pub async fn finish_sign_in(services: &Services, origin: &Origin, state: &str, answer: &str) -> Result<Proof> {
    let (services, origin, state, answer) = (services.clone(), origin.clone(), state.to_owned(), answer.to_owned());
    to_the_end(async move { judge_any(&services, &origin, &state, &answer).await }).await
}

async fn judge_any(services: &Services, origin: &Origin, state: &str, answer: &str) -> Result<Proof> {
    let throttle = Throttle::of(origin, None);
    let counted = throttle.count(services, None).await?;
    match check_any(services, state, answer).await? {
        Some(proof) => {
            services.store.write(|tx| Box::pin(counted.take_back(tx))).await?;
            Ok(proof)
        }
        None => throttle.refuse(services, origin, None, "passkey").await,
    }
}

async fn check_any(services: &Services, state: &str, answer: &str) -> Result<Option<Proof>> {
    let webauthn = webauthn(services)?;
    let Ok(state) = serde_json::from_str::<DiscoverableAuthentication>(state) else { return Ok(None) };
    let Ok(answer) = serde_json::from_str::<PublicKeyCredential>(answer) else { return Ok(None) };
    let Ok((person, credential)) = webauthn.identify_discoverable_authentication(&answer) else { return Ok(None) };
    let found = factors::passkey_by_credential(services.store.read().await?.conn(), credential).await?;
    let Some((passkey, stored)) = found.filter(|(passkey, _)| passkey.administrator.0 == person) else {
        return Ok(None);
    };
    let mut credential: Credential = serde_json::from_str(&stored).map_err(defect)?;
    let Ok(result) = webauthn.finish_discoverable_authentication_v2(&answer, state, &credential) else {
        return Ok(None);
    };
    credential.update_credential(&result);
    used(services, &passkey, &credential).await
}

/// Begins to ask for a passkey of one administrator.
///
/// # Errors
/// [`Error::Refused`] when they have none.
pub async fn begin_proof(services: &Services, id: AdministratorId) -> Result<Begun> {
    let present = credentials(&factors::passkeys(services.store.read().await?.conn(), id).await?)?;
    if present.is_empty() {
        return Err(Error::Refused("You have no passkey"));
    }
    let (options, state) = webauthn(services)?.start_passkey_authentication(&present).map_err(defect)?;
    Ok(Begun { options: json!(options), state: serde_json::to_string(&state).map_err(defect)? })
}

/// Checks the passkey of one administrator.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`], on the record; [`Error::RateLimited`] after too many.
pub async fn finish_proof(
    services: &Services,
    origin: &Origin,
    id: AdministratorId,
    state: &str,
    answer: &str,
) -> Result<Proof> {
    let (services, origin, state, answer) = (services.clone(), origin.clone(), state.to_owned(), answer.to_owned());
    to_the_end(async move { judge_of(&services, &origin, id, &state, &answer).await }).await
}

async fn judge_of(
    services: &Services,
    origin: &Origin,
    id: AdministratorId,
    state: &str,
    answer: &str,
) -> Result<Proof> {
    let found = administrators::find(services.store.read().await?.conn(), id).await?;
    let person = found.ok_or(AuthFailure::WrongCredentials)?;
    let throttle = Throttle::of(origin, Some(&person.username));
    let counted = throttle.count(services, Some(id)).await?;
    match check_of(services, id, state, answer).await? {
        Some(proof) => {
            services.store.write(|tx| Box::pin(counted.take_back(tx))).await?;
            Ok(proof)
        }
        None => throttle.refuse(services, origin, Some(id), "passkey").await,
    }
}

async fn check_of(services: &Services, id: AdministratorId, state: &str, answer: &str) -> Result<Option<Proof>> {
    let Ok(state) = serde_json::from_str::<PasskeyAuthentication>(state) else { return Ok(None) };
    let Ok(answer) = serde_json::from_str::<PublicKeyCredential>(answer) else { return Ok(None) };
    let Ok(result) = webauthn(services)?.finish_passkey_authentication(&answer, &state) else { return Ok(None) };
    let found = factors::passkey_by_credential(services.store.read().await?.conn(), result.cred_id().as_ref()).await?;
    let Some((passkey, stored)) = found.filter(|(passkey, _)| passkey.administrator == id) else { return Ok(None) };
    let mut credential: Credential = serde_json::from_str(&stored).map_err(defect)?;
    // The state holds the counter as it was when the ceremony began; another may have ended meanwhile.
    if result.counter() > 0 && !counts_up(&stored, result.counter()) {
        return Ok(None);
    }
    credential.update_credential(&result);
    used(services, &passkey, &credential).await
}

/// Whether a counter is beyond the one that is stored: one that is not may be that of a copy.
fn counts_up(stored: &str, counter: u32) -> bool {
    let stored: Value = serde_json::from_str(stored).unwrap_or_default();
    stored.pointer("/cred/counter").and_then(Value::as_u64).is_some_and(|before| u64::from(counter) > before)
}

/// Writes down that a passkey was used, by somebody who may sign in.
async fn used(services: &Services, passkey: &Passkey, credential: &Credential) -> Result<Option<Proof>> {
    let (id, person, now) = (passkey.id, passkey.administrator, services.env.now());
    let text = serde_json::to_string(credential).map_err(defect)?;
    let may = services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let found = administrators::find(tx.conn(), person).await?;
                if !found.is_some_and(|person| Administrator::is_enabled(&person)) {
                    return Ok(false);
                }
                factors::use_passkey(tx.conn(), id, &text, now).await?;
                Ok(true)
            })
        })
        .await?;
    Ok(may.then_some(Proof { administrator: person, method: "passkey", password_set_at: None }))
}

fn credentials(stored: &[(Passkey, String)]) -> Result<Vec<Credential>> {
    stored.iter().map(|(_, credential)| serde_json::from_str(credential).map_err(defect)).collect()
}

fn defect(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Internal(Box::new(error))
}
