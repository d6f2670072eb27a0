//! Access tokens and proofs of possession as they come with requests (RFC 6750 §2.1, RFC 9449 §7.1).

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use crate::{
    domain::{AuthFailure, Result},
    service::{Services, dpop::Offered, tokens::Presented},
};

const PROOF: HeaderName = HeaderName::from_static("dpop");
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Whether a request takes part in proofs of possession, and is told the next nonce.
pub(super) fn takes_part(headers: &HeaderMap) -> bool {
    headers.contains_key(PROOF) || scheme(headers).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop"))
}

/// Tells a client the nonce that its next proof shall carry (RFC 9449 §8.2).
pub(super) fn give_nonce(services: &Services, headers: &mut HeaderMap) {
    if let Ok(nonce) = HeaderValue::try_from(services.dpop_nonce()) {
        headers.insert(NONCE, nonce);
    }
}

/// The proof that came with a request for `path`, below the public URL or at the root of its host. What cannot be read, or came
/// twice, is a proof of nothing.
pub(super) fn proof(services: &Services, headers: &HeaderMap, method: &http::Method, path: &str) -> Option<Offered> {
    let mut values = headers.get_all(PROOF).iter();
    let proof = values.next()?.to_str().ok().filter(|_| values.next().is_none()).unwrap_or_default().to_owned();
    let issuer = &services.settings.issuer;
    let root = issuer.strip_suffix(super::oauth::metadata::path_of(issuer).as_str()).unwrap_or(issuer);
    let urls = vec![format!("{issuer}{path}"), format!("{root}{path}")];
    Some(Offered { proof, method: method.to_string(), urls })
}

/// The access token that came with a request, and the proof that goes with it; schemes are compared without regard to case.
pub(super) fn presented<'r>(
    services: &Services,
    headers: &'r HeaderMap,
    method: &http::Method,
    path: &str,
) -> Result<Presented<'r>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthFailure::MissingToken)?;
    if values.next().is_some() {
        return Err(AuthFailure::InvalidToken.into());
    }
    let value = value.to_str().map_err(|_| AuthFailure::InvalidToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthFailure::MissingToken)?;
    let proof = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => None,
        "dpop" => {
            let proof = proof(services, headers, method, path);
            Some(proof.ok_or(AuthFailure::InvalidDpopProof("dpop_missing"))?)
        }
        _ => return Err(AuthFailure::MissingToken.into()),
    };
    Ok(Presented { token: token.trim(), proof })
}

/// Whether a request carries an access token, where callers may also authenticate otherwise.
pub(super) fn is_token(headers: &HeaderMap) -> bool {
    scheme(headers).is_some_and(|scheme| ["bearer", "dpop"].iter().any(|one| scheme.eq_ignore_ascii_case(one)))
}

fn scheme(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.split(' ').next()
}
