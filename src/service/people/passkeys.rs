//! Passkeys (W3C Web Authentication Level 3). A passkey signs in without a second factor, because its holder must
//! unlock it. It can also confirm the identity of an administrator who is signed in.
//!
//! A ceremony has two steps. The state between them belongs in the session, and is valid once.

use serde_json::{Value, json};
use url::Url;
use webauthn_rs::prelude::{
    CreationChallengeResponse, DiscoverableAuthentication, Passkey as Credential, PasskeyAuthentication,
    PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Webauthn, WebauthnBuilder,
};

use super::{
    administrators::find,
    sign_in::Proof,
    throttle::{Attempt, Throttle, run_to_completion},
};
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
        },
    },
    store::people::{administrators, factors},
};

const UNAVAILABLE: Error =
    Error::Refused("Passkeys need a PUBLIC_URL with a host name that uses https or is localhost");

/// A ceremony that has begun.
pub struct Begun {
    /// The options for `navigator.credentials`.
    pub options: Value,
    /// The state for the session.
    pub state: String,
}

/// Returns true if browsers support passkeys for the public URL. They do not for an IP address.
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
    // Any port, because localhost may be a forwarded port.
    builder.rp_name("AIMS").allow_any_port(host == "localhost").build().map_err(|_| UNAVAILABLE)
}

/// Returns the caller's own passkeys.
///
/// # Errors
/// When the database fails.
pub async fn own(services: &Services, caller: &Caller) -> Result<Vec<Passkey>> {
    services.permit(caller, Action::ManageAccount).await?;
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let found = factors::passkeys(services.store.read().await?.conn(), id).await?;
    Ok(found.into_iter().map(|(passkey, _)| passkey).collect())
}

/// Begins the registration of a passkey.
///
/// # Errors
/// [`Error::ProofNeeded`]; [`Error::Refused`] if passkeys are not available.
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
    // Only a discoverable passkey can sign in without a username.
    if let Some(selection) = options.pointer_mut("/publicKey/authenticatorSelection").and_then(Value::as_object_mut) {
        selection.insert("residentKey".to_owned(), json!("required"));
        selection.insert("requireResidentKey".to_owned(), json!(true));
    }
    Ok(Begun { options, state: serde_json::to_string(&state).map_err(defect)? })
}

/// Registers the passkey that the browser created.
///
/// # Errors
/// [`Error::Invalid`] for an invalid response; [`Error::Conflict`] if the passkey is already registered;
/// [`Error::ProofNeeded`].
pub async fn finish_registration(
    services: &Services,
    caller: &Caller,
    state: &str,
    name: String,
    response: &str,
) -> Result<()> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let invalid =
        || Error::field(&["credential"], Invalid::new("credential", "The passkey could not be read. Try again"));
    let state: PasskeyRegistration = serde_json::from_str(state).map_err(|_| invalid())?;
    let response: RegisterPublicKeyCredential = serde_json::from_str(response).map_err(|_| invalid())?;
    let credential = webauthn(services)?.finish_passkey_registration(&response, &state).map_err(|_| invalid())?;
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
                    return Err(Error::Conflict("This passkey is already registered".into()));
                }
                act.audit(AuditAction::FactorChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Removes one of the caller's own passkeys.
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

/// Begins a sign-in with a passkey.
///
/// # Errors
/// [`Error::Refused`] if passkeys are not available.
pub fn begin_sign_in(services: &Services) -> Result<Begun> {
    let (options, state) = webauthn(services)?.start_discoverable_authentication().map_err(defect)?;
    let mut options = json!(options);
    // The page asks when its button is pressed, not while a username is typed.
    if let Some(members) = options.as_object_mut() {
        members.remove("mediation");
    }
    Ok(Begun { options, state: serde_json::to_string(&state).map_err(defect)? })
}

/// Checks the passkey of a sign-in.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`], which is recorded; [`Error::RateLimited`] after too many failures.
pub async fn finish_sign_in(services: &Services, origin: &Origin, state: &str, response: &str) -> Result<Proof> {
    let (services, origin) = (services.clone(), origin.clone());
    let (state, response) = (state.to_owned(), response.to_owned());
    run_to_completion(async move {
        let throttle = Throttle::of(&origin, None);
        let attempt = throttle.count(&services, None).await?;
        let proof = check_discoverable(&services, &state, &response).await?;
        conclude(&services, &origin, &throttle, attempt, None, proof).await
    })
    .await
}

async fn conclude(
    services: &Services,
    origin: &Origin,
    throttle: &Throttle,
    attempt: Attempt,
    person: Option<AdministratorId>,
    proof: Option<Proof>,
) -> Result<Proof> {
    match proof {
        Some(proof) => {
            services.store.write(|tx| Box::pin(attempt.take_back(tx))).await?;
            Ok(proof)
        }
        None => throttle.refuse(services, origin, person, "passkey").await,
    }
}

async fn check_discoverable(services: &Services, state: &str, response: &str) -> Result<Option<Proof>> {
    let webauthn = webauthn(services)?;
    let Ok(state) = serde_json::from_str::<DiscoverableAuthentication>(state) else { return Ok(None) };
    let Ok(response) = serde_json::from_str::<PublicKeyCredential>(response) else { return Ok(None) };
    let Ok((person, credential)) = webauthn.identify_discoverable_authentication(&response) else { return Ok(None) };
    let found = factors::passkey_by_credential(services.store.read().await?.conn(), credential).await?;
    let Some((passkey, stored)) = found.filter(|(passkey, _)| passkey.administrator.0 == person) else {
        return Ok(None);
    };
    let mut credential: Credential = serde_json::from_str(&stored).map_err(defect)?;
    let Ok(result) = webauthn.finish_discoverable_authentication_v2(&response, state, &credential) else {
        return Ok(None);
    };
    credential.update_credential(&result);
    record_use(services, &passkey, &credential).await
}

/// Begins to confirm the identity of an administrator with a passkey.
///
/// # Errors
/// [`Error::Refused`] if the administrator has no passkey.
pub async fn begin_proof(services: &Services, id: AdministratorId) -> Result<Begun> {
    let present = credentials(&factors::passkeys(services.store.read().await?.conn(), id).await?)?;
    if present.is_empty() {
        return Err(Error::Refused("You have no passkey"));
    }
    let (options, state) = webauthn(services)?.start_passkey_authentication(&present).map_err(defect)?;
    Ok(Begun { options: json!(options), state: serde_json::to_string(&state).map_err(defect)? })
}

/// Checks the passkey of an administrator.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`], which is recorded; [`Error::RateLimited`] after too many failures.
pub async fn finish_proof(
    services: &Services,
    origin: &Origin,
    id: AdministratorId,
    state: &str,
    response: &str,
) -> Result<Proof> {
    let (services, origin) = (services.clone(), origin.clone());
    let (state, response) = (state.to_owned(), response.to_owned());
    run_to_completion(async move {
        let found = administrators::find(services.store.read().await?.conn(), id).await?;
        let person = found.ok_or(AuthFailure::WrongCredentials)?;
        let throttle = Throttle::of(&origin, Some(&person.username));
        let attempt = throttle.count(&services, Some(id)).await?;
        let proof = check_of(&services, id, &state, &response).await?;
        conclude(&services, &origin, &throttle, attempt, Some(id), proof).await
    })
    .await
}

async fn check_of(services: &Services, id: AdministratorId, state: &str, response: &str) -> Result<Option<Proof>> {
    let Ok(state) = serde_json::from_str::<PasskeyAuthentication>(state) else { return Ok(None) };
    let Ok(response) = serde_json::from_str::<PublicKeyCredential>(response) else { return Ok(None) };
    let Ok(result) = webauthn(services)?.finish_passkey_authentication(&response, &state) else { return Ok(None) };
    let found = factors::passkey_by_credential(services.store.read().await?.conn(), result.cred_id().as_ref()).await?;
    let Some((passkey, stored)) = found.filter(|(passkey, _)| passkey.administrator == id) else { return Ok(None) };
    let mut credential: Credential = serde_json::from_str(&stored).map_err(defect)?;
    // The state has the counter from the beginning of the ceremony. Another ceremony may have ended since.
    if result.counter() > 0 && !counts_up(&stored, result.counter()) {
        return Ok(None);
    }
    credential.update_credential(&result);
    record_use(services, &passkey, &credential).await
}

/// Returns true if the counter is higher than the stored one. Otherwise, the passkey may have been cloned.
fn counts_up(stored: &str, counter: u32) -> bool {
    let stored: Value = serde_json::from_str(stored).unwrap_or_default();
    stored.pointer("/cred/counter").and_then(Value::as_u64).is_some_and(|before| u64::from(counter) > before)
}

/// Stores the use of a passkey. Returns `None` if the administrator is disabled.
async fn record_use(services: &Services, passkey: &Passkey, credential: &Credential) -> Result<Option<Proof>> {
    let (id, person, now) = (passkey.id, passkey.administrator, services.env.now());
    let text = serde_json::to_string(credential).map_err(defect)?;
    let is_enabled = services
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
    Ok(is_enabled.then_some(Proof { administrator: person, method: "passkey", password_set_at: None }))
}

fn credentials(stored: &[(Passkey, String)]) -> Result<Vec<Credential>> {
    stored.iter().map(|(_, credential)| serde_json::from_str(credential).map_err(defect)).collect()
}

fn defect(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Internal(Box::new(error))
}
