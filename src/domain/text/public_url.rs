//! The public URL of the service.

use url::Url;

use super::uri::{are_equivalent, normal_form};

/// The URL that clients use, which is also the issuer and an audience of access tokens. Stored exactly as configured,
/// with or without a trailing slash, because clients compare issuers as plain text (RFC 8414 §3.3, RFC 9207 §2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Parses an http or https URL with a host and an optional port.
    ///
    /// # Errors
    /// If the text is anything else. The message continues a sentence that starts with the name of the setting.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const ALLOWED: &str = "must be an http or https URL without credentials, query or fragment";
        let url = normal_form(text).and_then(|normal| Url::parse(&normal).ok()).ok_or(ALLOWED)?;
        let (_, rest) = text.split_once("://").ok_or(ALLOWED)?;
        if !matches!(url.scheme(), "http" | "https") || rest.contains(['@', '?', '#']) {
            return Err(ALLOWED);
        }
        if rest.strip_suffix('/').unwrap_or(rest).contains('/') {
            return Err("must have no path: AIMS must be served at the root of a host name");
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the URL as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the URL without a trailing slash.
    #[must_use]
    pub fn without_slash(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }

    /// Returns the URL of a path, which must start with a slash.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.without_slash())
    }

    /// Returns true if clients connect with TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    /// Returns true if `audience` is this URL, with or without a trailing slash. Other equivalent URLs do not match,
    /// because audiences of assertions are compared as plain text (RFC 7523 §3).
    #[must_use]
    pub fn is_audience(&self, audience: &str) -> bool {
        audience.strip_suffix('/').unwrap_or(audience) == self.without_slash()
    }

    /// Returns true if a URI is equivalent to this URL.
    #[must_use]
    pub fn is_equivalent(&self, uri: &str) -> bool {
        are_equivalent(&self.0, uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_stored_as_configured() {
        for (text, token_endpoint) in [
            ("https://aims.example", "https://aims.example/oauth/token"),
            ("https://aims.example/", "https://aims.example/oauth/token"),
            ("HTTPS://Aims.example:443/", "HTTPS://Aims.example:443/oauth/token"),
            ("http://[::1]:8000", "http://[::1]:8000/oauth/token"),
            ("http://localhost:8000", "http://localhost:8000/oauth/token"),
        ] {
            let url = PublicUrl::parse(text).unwrap();
            assert_eq!((url.as_str(), url.at("/oauth/token").as_str()), (text, token_endpoint));
            assert_eq!(url.is_https(), text.to_lowercase().starts_with("https:"));
        }
    }

    #[test]
    fn a_public_url_with_a_path_is_rejected() {
        for text in ["https://aims.example/aims", "https://aims.example//", "https://aims.example/.", "https://h/a/"] {
            assert!(PublicUrl::parse(text).unwrap_err().contains("no path"), "{text}");
        }
    }

    #[test]
    fn anything_but_a_plain_http_url_is_rejected() {
        for text in [
            "",
            "aims.example",
            "//aims.example",
            "/x",
            "https:",
            "https://",
            "https:aims.example",
            "https:///aims.example",
            "ftp://aims.example",
            "https://user@aims.example",
            "https://@aims.example",
            "https://aims.example?x",
            "https://aims.example/?",
            "https://aims.example#x",
            "https://aims.example:99999",
            "https://aims example",
            "https://aims.example\\x",
            "https://aïms.example",
        ] {
            assert!(PublicUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn audiences_are_compared_as_plain_text() {
        for written in ["https://aims.example", "https://aims.example/"] {
            let url = PublicUrl::parse(written).unwrap();
            for same in ["https://aims.example", "https://aims.example/"] {
                assert!(url.is_audience(same) && url.is_equivalent(same));
            }
            for equivalent in ["https://AIMS.example", "HTTPS://aims.example", "https://aims.example:443"] {
                assert!(!url.is_audience(equivalent) && url.is_equivalent(equivalent));
            }
            for other in ["https://aims.example//", "http://aims.example", "https://aims.example/x", "", "/"] {
                assert!(!url.is_audience(other) && !url.is_equivalent(other));
            }
        }
    }
}
