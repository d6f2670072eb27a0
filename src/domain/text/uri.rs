//! Normalization and equivalence of URIs.

use std::fmt::Write;

use url::Url;

/// Returns the normal form of an absolute URI; `None` for anything else. Equivalent URIs have the same normal form (RFC
/// 3986 §6.2.2 and §6.2.3; RFC 8141 §3.1 for `urn`).
#[must_use]
pub fn normal_form(text: &str) -> Option<String> {
    let text = normal_encoding(text)?;
    let (hierarchy, rest) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    let mut url = Url::parse(hierarchy).ok()?;
    let (_, after_scheme) = hierarchy.split_once(':')?;
    if url.has_host() {
        // `Url` accepts any number of slashes here.
        if !after_scheme.starts_with("//") || after_scheme.starts_with("///") {
            return None;
        }
        // `Url` normalizes the host and the empty path for well-known schemes only.
        let host = url.host_str().map(str::to_ascii_lowercase);
        url.set_host(host.as_deref()).ok()?;
        if url.path().is_empty() {
            url.set_path("/");
        }
    } else if url.scheme() == "urn"
        && let Some((namespace, name)) = after_scheme.split_once(':')
    {
        return Some(format!("urn:{}:{name}{rest}", namespace.to_ascii_lowercase()));
    }
    Some(format!("{url}{rest}"))
}

/// Returns true if both URIs are the same text or have the same normal form.
#[must_use]
pub fn are_equivalent(one: &str, other: &str) -> bool {
    one == other || normal_form(one).is_some_and(|one| Some(one) == normal_form(other))
}

/// Decodes percent-encoded unreserved characters and writes all other escapes in uppercase (RFC 3986 §6.2.2). Returns
/// `None` if the text contains a character that a URI cannot contain.
fn normal_encoding(text: &str) -> Option<String> {
    let mut normal = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let encoded = u8::try_from(digit()? * 16 + digit()?).ok()?;
            if is_unreserved(encoded) {
                normal.push(encoded.into());
            } else {
                write!(normal, "%{encoded:02X}").ok()?;
            }
        } else if is_unreserved(byte) || b":/?#[]@!$&'()*+,;=".contains(&byte) {
            normal.push(byte.into());
        } else {
            return None;
        }
    }
    Some(normal)
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_uris_have_one_normal_form() {
        for (normal, others) in [
            (
                "https://mcp.example/",
                &["https://mcp.example", "HTTPS://MCP.Example", "https://mcp.example:443/", "https://mcp.example:"][..],
            ),
            ("http://mcp.example/", &["http://mcp.example:80", "http://%6dcp.example"]),
            ("https://mcp.example:8443/", &["https://MCP.example:8443"]),
            (
                "https://mcp.example/Tools",
                &[
                    "https://mcp.example/%54ools",
                    "https://mcp.example/./x/../Tools",
                    "https://mcp.example/x/%2E%2e/Tools",
                ],
            ),
            ("https://mcp.example/a%2Fb", &["https://mcp.example/a%2fb"]),
            ("https://mcp.example/?q='%2F", &["https://MCP.example?q='%2f"]),
            ("https://[::1]:8443/", &["https://[0:0:0:0:0:0:0:1]:8443", "https://[::0001]:8443/"]),
            ("spiffe://cluster.local/", &["spiffe://Cluster.Local"]),
            ("urn:example:Billing", &["URN:Example:Billing", "urn:EXAMPLE:%42illing"]),
        ] {
            assert_eq!(normal_form(normal).as_deref(), Some(normal));
            for other in others {
                assert!(are_equivalent(normal, other), "{other}");
            }
        }
    }

    #[test]
    fn different_uris_are_not_equivalent() {
        for (one, other) in [
            ("https://mcp.example", "http://mcp.example"),
            ("https://mcp.example", "https://mcp.example:80"),
            ("https://mcp.example/tools", "https://mcp.example/tools/"),
            ("https://mcp.example/tools", "https://mcp.example/Tools"),
            ("https://mcp.example/", "https://mcp.example//"),
            ("https://mcp.example/", "https://mcp.example/?"),
            ("https://mcp.example/a/b", "https://mcp.example/a%2Fb"),
            ("https://mcp.example/?q=a", "https://mcp.example/?q=A"),
            ("https://mcp.example", "https://mcp.example."),
            ("https://mcp.example", "https://mcp.example.evil.example"),
            ("https://mcp.example", "https://mcp.example@evil.example"),
            ("urn:example:a", "urn:example:A"),
            ("x", "X"),
        ] {
            assert!(!are_equivalent(one, other), "{one} {other}");
        }
    }

    #[test]
    fn malformed_uris_that_browsers_repair_are_rejected() {
        for text in [
            "",
            "mcp.example",
            "/tools",
            "https:mcp.example",
            "https:/mcp.example",
            "https:///mcp.example",
            "https:\\\\mcp.example",
            "https://mcp.example\\tools",
            "https://mcp.example/\n",
            " https://mcp.example",
            "https://mcp.exämple",
            "https://mcp.example/%",
            "https://mcp.example/%4",
            "https://mcp.example/%zz",
            "https://mcp.example:99999",
            "https://",
        ] {
            assert_eq!(normal_form(text), None, "{text:?}");
        }
    }
}
