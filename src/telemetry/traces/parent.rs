//! The header `traceparent` (W3C Trace Context), which names the trace that a request belongs to.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Length of a header of version 00.
const LEN: usize = 55;

/// Returns the span that a request names as its parent. An invalid or repeated header is ignored, as if there were none.
pub(super) fn of(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value.to_str().ok()?),
        _ => None,
    }
}

/// Parses a header of version 00, or the known part of one of a later version.
fn parse(text: &str) -> Option<SpanContext> {
    let (known, rest) = text.split_at_checked(LEN)?;
    let fields: Vec<_> = known.split('-').collect();
    let [version, trace, span, flags] = *fields.as_slice() else { return None };
    let is_hex = |field: &str| field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let has_form =
        [(version, 2), (trace, 32), (span, 16), (flags, 2)].iter().all(|(f, len)| f.len() == *len && is_hex(f));
    let is_whole = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    if !has_form || !is_whole || version == "ff" {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

/// Returns the header for a request that belongs to this span.
pub(super) fn header(span: &SpanContext) -> Option<HeaderValue> {
    let flags = u8::from(span.is_sampled());
    let text = span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))?;
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(values: &[&str]) -> Option<String> {
        let headers = values.iter().map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap()));
        let mut map = HeaderMap::new();
        map.extend(headers);
        let parent = of(&map)?;
        assert!(parent.is_remote());
        Some(header(&parent)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_valid_header_is_read_and_written() {
        assert_eq!(read(&[VALID]).as_deref(), Some(VALID));
        let not_sampled = VALID.replace("-01", "-00");
        assert_eq!(read(&[&not_sampled]), Some(not_sampled));
        // Unknown flags are not passed on.
        assert_eq!(read(&[&VALID.replace("-01", "-ff")]).as_deref(), Some(VALID));
        // A later version may add fields.
        let later = VALID.replace("00-4b", "01-4b");
        assert_eq!(read(&[&later]).as_deref(), Some(VALID));
        assert_eq!(read(&[&format!("{later}-what-ever")]).as_deref(), Some(VALID));
    }

    #[test]
    fn an_invalid_header_is_ignored() {
        let cases = [
            String::new(),
            "00".to_owned(),
            VALID.replace("00-4b", "ff-4b"),
            VALID.replace("00-4b", "0g-4b"),
            VALID.replace("00-4b", "+0-4b"),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            VALID.to_uppercase(),
            VALID.replace("4bf9", "+bf9"),
            VALID.replace("4bf9", "4bf"),
            VALID.replace('-', "_"),
            format!("{VALID}-"),
            format!("{VALID}-00"),
            format!(" {VALID}"),
            format!("01{}x", &VALID[2..]),
            "00-".repeat(3_500),
            "0".repeat(10_240),
        ];
        for text in cases {
            assert_eq!(read(&[&text]), None, "{text}");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[VALID, VALID]), None);
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(b"00-\xff").unwrap());
        assert!(of(&headers).is_none());
    }
}
