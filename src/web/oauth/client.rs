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
        tokens::clients::{self, Client},
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
    require_one_header(services, origin, headers).await?;
    let basic = basic(headers)?;
    let client_id = identifier(basic.as_ref(), parameters)?;
    let secret = parameters.get("client_secret");
    let authenticates = basic.as_ref().is_some_and(Basic::authenticates);
    let assertion = assertion(parameters)?;
    if [authenticates, secret.is_some(), assertion.is_some()].into_iter().filter(|tried| *tried).count() > 1 {
        return Err(invalid("The client authenticates in two ways at once".to_owned()));
    }
    if let Some(assertion) = assertion {
        return Ok(clients::authenticate_assertion(services, origin, client_id, assertion).await?);
    }
    let Some(secret) = secret.or(basic.as_ref().map(|basic| basic.secret.as_str())) else {
        return Err(AuthFailure::InvalidClient.into());
    };
    let client = clients::authenticate(services, origin, client_id, secret).await;
    client.map_err(|error| OAuthFailure::from(error).tried_basic(basic.is_some()))
}

/// Refuses a header `Authorization` that came twice, on the record: somebody may have added one.
async fn require_one_header(services: &Services, origin: &Origin, headers: &HeaderMap) -> Result<(), OAuthFailure> {
    if let Err(failure) = basic(headers) {
        clients::record_unclear(services, origin).await?;
        return Err(failure);
    }
    Ok(())
}

/// The client that a request names, in whatever way.
pub(super) fn named(headers: &HeaderMap, parameters: &Parameters) -> Result<Option<String>, OAuthFailure> {
    let basic = basic(headers)?;
    Ok(identifier(basic.as_ref(), parameters)?.map(str::to_owned))
}

fn identifier<'r>(basic: Option<&'r Basic>, parameters: &'r Parameters) -> Result<Option<&'r str>, OAuthFailure> {
    let parameter = parameters.get("client_id");
    let Some(basic) = basic.filter(|basic| !basic.is_blank()) else { return Ok(parameter) };
    let other = parameter.filter(|_| !basic.client_id.is_empty());
    if other.is_some_and(|other| !is_same(other, &basic.client_id)) {
        return Err(invalid("The parameter client_id names another client".to_owned()));
    }
    Ok(Some(&basic.client_id))
}

/// Whether two texts name the same client: an identifier may be written in capitals, too.
fn is_same(one: &str, other: &str) -> bool {
    one == other || AgentId::parse(one).is_some_and(|id| AgentId::parse(other) == Some(id))
}

/// Whether a request tries to authenticate a client, well or badly.
pub(super) fn is_tried(headers: &HeaderMap, parameters: &Parameters) -> bool {
    basic(headers).map_or(true, |basic| basic.is_some_and(|basic| basic.authenticates()))
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

/// What the header `Authorization` holds. What cannot be read is blank: as wrong as any other secret, and recorded like it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Basic {
    client_id: String,
    secret: String,
}

impl Basic {
    const fn is_blank(&self) -> bool {
        self.client_id.is_empty() && self.secret.is_empty()
    }

    /// Whether it is more than an identifier, which libraries send in this way where there is no secret (RFC 6749 §2.3.1).
    const fn authenticates(&self) -> bool {
        self.client_id.is_empty() || !self.secret.is_empty()
    }
}

fn basic(headers: &HeaderMap) -> Result<Option<Basic>, OAuthFailure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("The header Authorization is given more than once".to_owned()));
    }
    Ok(Some(value.to_str().ok().and_then(credentials).unwrap_or_default()))
}

/// Reads `Basic …`, of which both halves are form-encoded (RFC 6749 §2.3.1).
fn credentials(value: &str) -> Option<Basic> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = decoded.split_once(':')?;
    Some(Basic { client_id: form_decoded(client_id)?, secret: form_decoded(secret)? })
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
        let header = |text: &str| {
            let basic = credentials(&format!("Basic {}", STANDARD.encode(text)));
            basic.map(|Basic { client_id, secret }| (client_id, secret))
        };
        assert_eq!(header("id:secret"), Some(("id".to_owned(), "secret".to_owned())));
        assert_eq!(header("a%3Ab:c%20d+e%2B:f"), Some(("a:b".to_owned(), "c d e+:f".to_owned())));
        assert_eq!(header("a:b&c=d"), Some(("a".to_owned(), "b&c=d".to_owned())));
        assert_eq!(header("nothing"), None);
        for junk in ["Basic", "Basic !", "Basic /w==", "Bearer aWQ6c2VjcmV0", ""] {
            assert_eq!(credentials(junk), None, "{junk:?}");
        }
    }
}
