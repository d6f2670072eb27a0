//! The `Authorization` header of a request, decoded once.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, header::AUTHORIZATION};

use super::dpop;
use crate::{
    domain::{AuthFailure, Result},
    service::{Services, tokens::PresentedToken},
};

/// The `Authorization` header of a request.
#[derive(Clone, Copy, Debug)]
pub(in crate::web) enum Authorization<'r> {
    /// There is no such header.
    Absent,
    /// The value is not visible ASCII.
    Unreadable,
    /// There are several headers, and an intermediary may have added one. This is the scheme of the first.
    Repeated(&'r str),
    /// A scheme, and the credentials if any follow it.
    Sent(&'r str, Option<&'r str>),
}

impl<'r> Authorization<'r> {
    /// Reads the header.
    pub(in crate::web) fn of(headers: &'r HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Absent };
        let text = value.to_str().ok();
        let value = text.unwrap_or_default();
        let (scheme, credentials) = match value.split_once(' ') {
            Some((scheme, credentials)) => (scheme, Some(credentials.trim())),
            None => (value, None),
        };
        if values.next().is_some() {
            Self::Repeated(scheme)
        } else if text.is_none() {
            Self::Unreadable
        } else {
            Self::Sent(scheme, credentials)
        }
    }

    fn scheme(self) -> &'r str {
        match self {
            Self::Absent | Self::Unreadable => "",
            Self::Repeated(scheme) | Self::Sent(scheme, _) => scheme,
        }
    }

    /// Returns true if the scheme is `DPoP` (RFC 9449 §7.1).
    pub(in crate::web) fn is_dpop(self) -> bool {
        self.scheme().eq_ignore_ascii_case("dpop")
    }

    /// Returns true if the scheme is that of an access token: `Bearer` or `DPoP`.
    pub(in crate::web) fn is_token(self) -> bool {
        self.is_dpop() || self.scheme().eq_ignore_ascii_case("bearer")
    }

    /// Returns the access token, and the DPoP proof if the scheme demands one. A repeated or unreadable header yields
    /// an invalid token, so that it is audited like one.
    ///
    /// # Errors
    /// [`AuthFailure::MissingToken`] if there is no header or its scheme is not that of an access token.
    pub(in crate::web) fn token(
        self,
        services: &Services,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<PresentedToken<'r>> {
        let invalid = PresentedToken { token: "", proof: None };
        match self {
            Self::Repeated(_) | Self::Unreadable => Ok(invalid),
            Self::Sent(_, Some(token)) if self.is_token() => {
                let proof = self.is_dpop().then(|| dpop::proof(services, headers, method, path));
                Ok(PresentedToken { token, proof })
            }
            Self::Absent | Self::Sent(..) => Err(AuthFailure::MissingToken.into()),
        }
    }

    /// Decodes HTTP Basic credentials: the username and password, which OAuth clients encode like form values (RFC 6749
    /// §2.3.1). Returns `None` for anything else.
    pub(in crate::web) fn basic(self) -> Option<(String, String)> {
        let Self::Sent(scheme, Some(encoded)) = self else { return None };
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        Some((form_decode(username)?, form_decode(password)?))
    }
}

fn form_decode(text: &str) -> Option<String> {
    // The text becomes the only value of a form, so its own separators must be escaped.
    let text = text.replace('&', "%26").replace('=', "%3D");
    let mut pairs: Vec<(String, String)> = serde_urlencoded::from_str(&format!("v={text}")).ok()?;
    pairs.pop().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn basic(header: &str) -> Option<(String, String)> {
        Authorization::of(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(header).unwrap())])).basic()
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let decoded = |text: &str| basic(&format!("Basic {}", STANDARD.encode(text)));
        let pair = |username: &str, password: &str| Some((username.to_owned(), password.to_owned()));
        assert_eq!(decoded("id:secret"), pair("id", "secret"));
        assert_eq!(decoded("a%3Ab:c%20d+e%2B:f"), pair("a:b", "c d e+:f"));
        assert_eq!(decoded("a:b&c=d"), pair("a", "b&c=d"));
        assert_eq!(decoded("nothing"), None);
        for junk in ["Basic", "Basic !", "Basic /w==", "Bearer aWQ6c2VjcmV0", ""] {
            assert_eq!(basic(junk), None, "{junk:?}");
        }
    }
}
