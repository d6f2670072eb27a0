//! How a client says who it is: by HTTP Basic, in the form, or by an assertion, and by one of them alone (RFC 6749 §2.3).

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::AUTHORIZATION};

use super::{
    error::OAuthFailure,
    parameters::{Parameters, invalid},
};
use crate::{
    domain::{AgentId, AuthFailure},
    service::{
        Origin, Services,
        clients::{self, Client},
    },
};

/// The one kind of assertion.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Authenticates the client of a request.
pub(super) async fn authenticate(
    services: &Services,
    origin: &Origin,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Client, OAuthFailure> {
    let basic = basic(headers)?;
    if let Some(assertion) = assertion(parameters)? {
        if basic.is_some() || parameters.get("client_secret").is_some() {
            return Err(invalid("The client authenticates in two ways at once".to_owned()));
        }
        let client_id = parameters.get("client_id");
        return Ok(clients::authenticate_assertion(services, origin, client_id, assertion).await?);
    }
    let tried_basic = basic.is_some();
    let (client_id, secret) = match (basic, parameters.get("client_secret")) {
        (Some(_), Some(_)) => return Err(invalid("The client authenticates in two ways at once".to_owned())),
        (Some((client_id, secret)), None) => {
            let other = parameters.get("client_id").filter(|_| !client_id.is_empty());
            if other.is_some_and(|other| !is_same(other, &client_id)) {
                return Err(invalid("The parameter client_id names another client".to_owned()));
            }
            (Some(client_id), secret)
        }
        (None, Some(secret)) => (parameters.get("client_id").map(str::to_owned), secret.to_owned()),
        (None, None) => return Err(AuthFailure::InvalidClient.into()),
    };
    let client = clients::authenticate(services, origin, client_id.as_deref(), &secret).await;
    client.map_err(|error| OAuthFailure::from(error).tried_basic(tried_basic))
}

/// Whether two texts name the same client: an identifier may be written in capitals, too.
fn is_same(one: &str, other: &str) -> bool {
    one == other || AgentId::parse(one).is_some_and(|id| AgentId::parse(other) == Some(id))
}

/// Whether a request tries to authenticate a client, well or badly.
pub(super) fn is_tried(headers: &HeaderMap, parameters: &Parameters) -> bool {
    headers.contains_key(AUTHORIZATION)
        || ["client_secret", "client_assertion", "client_assertion_type"]
            .iter()
            .any(|name| parameters.get(name).is_some())
}

/// The assertion that a client signed (RFC 7523 §2.2), if it sent one.
fn assertion(parameters: &Parameters) -> Result<Option<&str>, OAuthFailure> {
    match (parameters.get("client_assertion_type"), parameters.get("client_assertion")) {
        (None, None) => Ok(None),
        (Some(JWT_BEARER), Some(assertion)) => Ok(Some(assertion)),
        _ => Err(invalid(format!("A client_assertion goes with a client_assertion_type of {JWT_BEARER}"))),
    }
}

/// An identifier and a secret.
type Credentials = (String, String);

/// What the header `Authorization` holds, if there is one. What cannot be read becomes an empty secret: as wrong as any
/// other, and recorded like it.
fn basic(headers: &HeaderMap) -> Result<Option<Credentials>, OAuthFailure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("The header Authorization is given more than once".to_owned()));
    }
    Ok(Some(value.to_str().ok().and_then(credentials).unwrap_or_default()))
}

/// Reads `Basic …`, of which both halves are form-encoded (RFC 6749 §2.3.1).
fn credentials(value: &str) -> Option<Credentials> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = decoded.split_once(':')?;
    Some((form_decoded(client_id)?, form_decoded(secret)?))
}

fn form_decoded(text: &str) -> Option<String> {
    // A whole form whose only value is the text, so that `&` and `=` in it stay what they are.
    let text = text.replace('&', "%26").replace('=', "%3D");
    let mut pairs: Vec<(String, String)> = serde_urlencoded::from_str(&format!("v={text}")).ok()?;
    pairs.pop().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_basic_are_form_encoded() {
        let header = |text: &str| credentials(&format!("Basic {}", STANDARD.encode(text)));
        assert_eq!(header("id:secret"), Some(("id".to_owned(), "secret".to_owned())));
        assert_eq!(header("a%3Ab:c%20d+e%2B:f"), Some(("a:b".to_owned(), "c d e+:f".to_owned())));
        assert_eq!(header("a:b&c=d"), Some(("a".to_owned(), "b&c=d".to_owned())));
        assert_eq!(header("nothing"), None);
        for junk in ["Basic", "Basic !", "Basic /w==", "Bearer aWQ6c2VjcmV0", ""] {
            assert_eq!(credentials(junk), None, "{junk:?}");
        }
    }
}
