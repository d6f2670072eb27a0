//! Access tokens and proofs of possession as they come with requests (RFC 6750 §2.1, RFC 9449 §7.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};

use crate::{
    domain::{AuthFailure, Result},
    service::{
        Services,
        tokens::{
            Presented,
            dpop::{ALGORITHMS, Offered},
        },
    },
};

pub(in crate::web) const PROOF: HeaderName = HeaderName::from_static("dpop");
pub(in crate::web) const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Whether a request takes part in proofs of possession, and is told the next nonce.
pub(in crate::web) fn takes_part(headers: &HeaderMap) -> bool {
    headers.contains_key(PROOF) || scheme(headers).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop"))
}

/// Tells a client that takes part the nonce that its next proof shall carry (RFC 9449 §8.2), and has it asked for such proofs
/// where it would be asked for a bearer token (§7.1).
pub(in crate::web) fn answer(services: &Services, headers: &mut HeaderMap) {
    if let Ok(nonce) = HeaderValue::try_from(services.dpop_nonce()) {
        headers.insert(NONCE, nonce);
    }
    let challenge = headers.get(WWW_AUTHENTICATE).and_then(|challenge| challenge.to_str().ok());
    if let Some(parameters) = challenge.and_then(|challenge| challenge.strip_prefix("Bearer ")) {
        let challenge = format!("DPoP {parameters}, algs=\"{}\"", ALGORITHMS.join(" "));
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
    }
}

/// The proof that came with a request for `path`. A proof that cannot be read, or that came twice, proves nothing.
pub(in crate::web) fn proof(
    services: &Services,
    headers: &HeaderMap,
    method: &http::Method,
    path: &str,
) -> Option<Offered> {
    headers.contains_key(PROOF).then(|| offered(services, headers, method, path))
}

/// What came as a proof: nothing that counts, where none did.
fn offered(services: &Services, headers: &HeaderMap, method: &http::Method, path: &str) -> Offered {
    let mut values = headers.get_all(PROOF).iter();
    let proof = values.next().and_then(|proof| proof.to_str().ok()).filter(|_| values.next().is_none());
    let url = services.settings.issuer.at(path);
    Offered { proof: proof.unwrap_or_default().to_owned(), method: method.to_string(), url }
}

/// The access token that came with a request, and the proof that goes with it; schemes are compared without regard to case. What cannot
/// be read, or came twice, is as wrong as any other token, and recorded like it.
pub(in crate::web) fn presented<'r>(
    services: &Services,
    headers: &'r HeaderMap,
    method: &http::Method,
    path: &str,
) -> Result<Presented<'r>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthFailure::MissingToken)?;
    let (None, Ok(value)) = (values.next(), value.to_str()) else { return Ok(Presented { token: "", proof: None }) };
    let (scheme, token) = value.split_once(' ').ok_or(AuthFailure::MissingToken)?;
    let proof = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => None,
        "dpop" => Some(offered(services, headers, method, path)),
        _ => return Err(AuthFailure::MissingToken.into()),
    };
    Ok(Presented { token: token.trim(), proof })
}

/// Whether a request carries an access token, where callers may also authenticate otherwise.
pub(in crate::web) fn is_token(headers: &HeaderMap) -> bool {
    scheme(headers).is_some_and(|scheme| ["bearer", "dpop"].iter().any(|one| scheme.eq_ignore_ascii_case(one)))
}

fn scheme(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.split(' ').next()
}
