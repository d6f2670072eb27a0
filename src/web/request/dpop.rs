//! DPoP proofs in requests, and the headers that clients need for the next one (RFC 9449).

use http::{HeaderMap, HeaderName, HeaderValue, Method, header::WWW_AUTHENTICATE};

use crate::service::{
    Services,
    tokens::dpop::{ALGORITHMS, PresentedProof},
};

pub(in crate::web) const PROOF: HeaderName = HeaderName::from_static("dpop");
pub(in crate::web) const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Adds the nonce for the client's next proof (RFC 9449 §8.2), and turns a bearer challenge into a DPoP challenge
/// (§7.1).
pub(in crate::web) fn add_headers(services: &Services, headers: &mut HeaderMap) {
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

/// Returns the proof of a request for `path`. A header that is missing, repeated or not visible ASCII yields an invalid
/// proof.
pub(in crate::web) fn proof(services: &Services, headers: &HeaderMap, method: &Method, path: &str) -> PresentedProof {
    let mut values = headers.get_all(PROOF).iter();
    let proof = values.next().and_then(|proof| proof.to_str().ok()).filter(|_| values.next().is_none());
    let url = services.settings.issuer.at(path);
    PresentedProof { proof: proof.unwrap_or_default().to_owned(), method: method.to_string(), url }
}
