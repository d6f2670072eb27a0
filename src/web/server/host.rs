//! Validation of the `Host` header (RFC 9112 §3.2).

use std::net::Ipv6Addr;

use http::{HeaderValue, Request, Version, header::HOST, uri::Authority};

use crate::domain::{Error, Result};

/// Checks that a request has at most one valid `Host` header, and exactly one in HTTP/1.1. The header is required even
/// if the request target is in absolute form.
pub(in crate::web) fn check<B>(request: &Request<B>) -> Result<()> {
    let mut values = request.headers().get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        (None, _) => Err(Error::Refused("The header Host is missing")),
        (Some(_), Some(_)) => Err(Error::Refused("The header Host is given more than once")),
        (Some(host), None) if is_valid(host) => Ok(()),
        (Some(_), None) => Err(Error::Refused("The header Host is not valid")),
    }
}

/// Returns true for a host with or without a port. An empty host is invalid (RFC 9110 §4.2.1).
fn is_valid(value: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(value.as_bytes()) else { return false };
    let host = authority.host();
    // There is no such prefix if the authority contains a user.
    let Some(rest) = authority.as_str().strip_prefix(host) else { return false };
    let host_is_valid = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty(),
    };
    let port_is_valid = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    host_is_valid && port_is_valid
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_with_an_optional_port_is_valid() {
        let is_valid = |value: &[u8]| is_valid(&HeaderValue::from_bytes(value).unwrap());
        for host in ["aims", "aims.test:8000", "aims.test:", "127.0.0.1:80", "[::1]", "[::1]:8000", "a_b-c.example"] {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "aims:x",
            "aims:+80",
            "aims:65536",
            "aims:80:80",
            "user@aims",
            "a@a",
            "aims/",
            "a b",
            "a,b c",
            "a?b",
            "a#b",
            "[::1",
            "::1",
            "[::1]x",
            "[x]",
            "[]",
            "http://aims",
        ] {
            assert!(!is_valid(host.as_bytes()), "{host:?}");
        }
        assert!(!is_valid(b"\xff"));
    }
}
