//! Client authentication at the OAuth endpoints: HTTP Basic, a secret in the form, or an assertion (RFC 6749 §2.3, RFC
//! 7523 §2.2).

use serde::Deserialize;
use utoipa::ToSchema;

use super::{error::OAuthFailure, parameters::invalid};
use crate::{
    domain::{AgentId, AuthFailure},
    service::{
        Origin, Services,
        tokens::clients::{self, Client},
    },
    web::request::authorization::Authorization,
};

/// The only supported type of client assertion.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The form parameters with which a client identifies and authenticates itself.
#[derive(Deserialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the parameters have these names (RFC 6749 section 2.3.1)")]
pub(super) struct ClientForm {
    /// The agent's ID. Not needed with HTTP Basic or a client assertion.
    client_id: Option<String>,
    /// One of the agent's API keys, if the client does not use HTTP Basic.
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`, together with a `client_assertion`.
    client_assertion_type: Option<String>,
    /// A JWT that the client has signed with a registered key (RFC 7523 section 3), instead of a secret.
    client_assertion: Option<String>,
}

/// The credentials of a client as it sent them.
pub(super) struct ClientCredentials<'r> {
    header: Header,
    form: &'r ClientForm,
}

/// The decoded `Authorization` header.
enum Header {
    Absent,
    /// There are several headers; which one is meant would be a guess.
    Repeated,
    Basic(Basic),
}

/// HTTP Basic credentials. Both fields are empty if the header cannot be decoded; the request then fails like one with
/// a wrong secret and is audited the same way.
#[derive(Default)]
struct Basic {
    client_id: String,
    secret: String,
}

impl Basic {
    const fn is_empty(&self) -> bool {
        self.client_id.is_empty() && self.secret.is_empty()
    }

    /// Returns false if there is only an identifier, which some libraries send for clients without a secret (RFC 6749
    /// §2.3.1).
    const fn authenticates(&self) -> bool {
        self.client_id.is_empty() || !self.secret.is_empty()
    }
}

impl<'r> ClientCredentials<'r> {
    /// Decodes the credentials of a request.
    pub(super) fn new(authorization: Authorization<'_>, form: &'r ClientForm) -> Self {
        let header = match authorization {
            Authorization::Absent => Header::Absent,
            Authorization::Repeated(_) => Header::Repeated,
            other => {
                let decoded = other.basic().map(|(client_id, secret)| Basic { client_id, secret });
                Header::Basic(decoded.unwrap_or_default())
            }
        };
        Self { header, form }
    }

    /// Returns true if the client attempts to authenticate, whether or not that succeeds.
    pub(super) fn attempt_authentication(&self) -> bool {
        let in_header = match &self.header {
            Header::Absent => false,
            Header::Repeated => true,
            Header::Basic(basic) => basic.authenticates(),
        };
        let ClientForm { client_id: _, client_secret, client_assertion_type, client_assertion } = self.form;
        in_header || client_secret.is_some() || client_assertion_type.is_some() || client_assertion.is_some()
    }

    /// Authenticates the client.
    pub(super) async fn authenticate(&self, services: &Services, origin: &Origin) -> Result<Client, OAuthFailure> {
        let basic = match self.basic() {
            Ok(basic) => basic,
            Err(failure) => {
                clients::record_invalid_client(services, origin).await?;
                return Err(failure);
            }
        };
        let client_id = self.client_id()?;
        let secret = self.form.client_secret.as_deref();
        let assertion = self.assertion()?;
        let methods = [basic.is_some_and(Basic::authenticates), secret.is_some(), assertion.is_some()];
        if methods.into_iter().filter(|is_used| *is_used).count() > 1 {
            return Err(invalid("The client must use only one method of authentication".to_owned()));
        }
        if let Some(assertion) = assertion {
            return Ok(clients::authenticate_assertion(services, origin, client_id, assertion).await?);
        }
        let Some(secret) = secret.or(basic.map(|basic| basic.secret.as_str())) else {
            return Err(AuthFailure::InvalidClient.into());
        };
        let client = clients::authenticate(services, origin, client_id, secret).await;
        client.map_err(|error| OAuthFailure::from(error).with_basic(basic.is_some()))
    }

    /// Returns the client's identifier, if there is one.
    pub(super) fn client_id(&self) -> Result<Option<&str>, OAuthFailure> {
        let in_form = self.form.client_id.as_deref();
        let Some(basic) = self.basic()?.filter(|basic| !basic.is_empty()) else { return Ok(in_form) };
        let in_form = in_form.filter(|_| !basic.client_id.is_empty());
        if in_form.is_some_and(|in_form| !is_same_client(in_form, &basic.client_id)) {
            return Err(invalid("The parameter client_id does not match the Authorization header".to_owned()));
        }
        Ok(Some(&basic.client_id))
    }

    fn basic(&self) -> Result<Option<&Basic>, OAuthFailure> {
        match &self.header {
            Header::Absent => Ok(None),
            Header::Repeated => Err(invalid("The header Authorization must not be repeated".to_owned())),
            Header::Basic(basic) => Ok(Some(basic)),
        }
    }

    fn assertion(&self) -> Result<Option<&str>, OAuthFailure> {
        match (self.form.client_assertion_type.as_deref(), self.form.client_assertion.as_deref()) {
            (None, None) => Ok(None),
            (Some(JWT_BEARER), Some(assertion)) => Ok(Some(assertion)),
            _ => Err(invalid(format!("A client_assertion requires the client_assertion_type {JWT_BEARER}"))),
        }
    }
}

/// Returns true if two identifiers name the same client. UUIDs may differ in case.
fn is_same_client(one: &str, other: &str) -> bool {
    one == other || AgentId::parse(one).is_some_and(|id| AgentId::parse(other) == Some(id))
}
