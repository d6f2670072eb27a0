//! The settings of traces. They have the names and meanings that OpenTelemetry defines for all services.

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::Reader;
use crate::telemetry::traces::{Collector, Sampling};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Reads where traces are sent. The outer `None` stands for an invalid setting, the inner one for no traces.
#[expect(clippy::option_option, reason = "see above")]
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Option<Collector>> {
    let base = reader.set(ENDPOINT).map(|url| reader.check(ENDPOINT, endpoint(&url)));
    let own = reader.set(TRACES_ENDPOINT).map(|url| reader.check(TRACES_ENDPOINT, endpoint(&url)));
    let headers = reader.parsed(HEADERS, headers);
    let service_name = reader.parsed(SERVICE_NAME, |text| Ok(text.to_owned()));
    let ratio = reader.parsed(SAMPLER_ARG, ratio);
    let sampling = reader.parsed(SAMPLER, |text| sampling(text, ratio.unwrap_or(1.0)));
    let endpoint = match (own, base) {
        (Some(own), _) => Some(own?.into()),
        (None, Some(base)) => Some(format!("{}/v1/traces", base?.as_str().trim_end_matches('/'))),
        (None, None) => None,
    };
    let (headers, service_name, sampling, _) = (headers?, service_name?, sampling?, ratio?);
    Some(endpoint.map(|endpoint| Collector { endpoint, headers, service_name, sampling }))
}

/// A URL without a user, a password or a query, which may be secrets: the settings are shown.
fn endpoint(text: &str) -> Result<Url, String> {
    let allowed = || "must be an http or https URL without user, password, query and fragment".to_owned();
    let url = Url::parse(text).map_err(|_| allowed())?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.host_str().is_some();
    if is_plain && matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(allowed()) }
}

/// The value is a secret, so the error does not repeat it.
fn headers(text: &str) -> Result<Vec<(HeaderName, SecretString)>, String> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let name = HeaderName::try_from(name.trim()).ok()?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        HeaderValue::from_str(&value).ok()?;
        Some((name, SecretString::from(value.into_owned())))
    };
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let headers: Option<Vec<_>> = pairs.map(header).collect();
    headers.ok_or_else(|| "must hold name=value pairs, separated by commas, with percent-encoded values".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn sampling(text: &str, ratio: f64) -> Result<Sampling, String> {
    let (follows_caller, own) = match text.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, text),
    };
    let ratio = match own {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio,
        _ => {
            return Err(
                "must be always_on, always_off or traceidratio, with or without parentbased_ before it".to_owned()
            );
        }
    };
    Ok(Sampling { ratio, follows_caller })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    /// Returns the collector, or the problems.
    fn load(values: &[(&str, &str)]) -> Result<Option<Collector>, String> {
        let lookup = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut reader = Reader { lookup: &lookup, problems: Vec::new() };
        let collector = read(&mut reader);
        let problems: Vec<_> = reader.problems.iter().map(ToString::to_string).collect();
        collector.filter(|_| problems.is_empty()).ok_or(problems.join("\n"))
    }

    #[test]
    fn without_an_endpoint_there_are_no_traces() {
        assert!(load(&[]).unwrap().is_none());
        assert!(load(&[(SERVICE_NAME, "x"), (HEADERS, "a=b")]).unwrap().is_none());
    }

    #[test]
    fn the_path_is_added_to_the_base_url_only() {
        let endpoint = |values: &[(&str, &str)]| load(values).unwrap().unwrap().endpoint;
        assert_eq!(endpoint(&[(ENDPOINT, "http://127.0.0.1:4318")]), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(endpoint(&[(ENDPOINT, "https://otel.example/a/")]), "https://otel.example/a/v1/traces");
        let both = [(ENDPOINT, "http://127.0.0.1:4318"), (TRACES_ENDPOINT, "https://otel.example/here")];
        assert_eq!(endpoint(&both), "https://otel.example/here");
    }

    #[test]
    fn the_other_settings_are_read() {
        let collector = load(&[
            (ENDPOINT, "http://127.0.0.1:4318"),
            (HEADERS, "authorization=Bearer%20abc, X-Team = a b,"),
            (SERVICE_NAME, "identity"),
            (SAMPLER, "parentbased_traceidratio"),
            (SAMPLER_ARG, "0.25"),
        ]);
        let collector = collector.unwrap().unwrap();
        let headers: Vec<_> = collector.headers.iter().map(|(n, v)| (n.as_str(), v.expose_secret())).collect();
        assert_eq!(headers, [("authorization", "Bearer abc"), ("x-team", "a b")]);
        assert_eq!(collector.service_name, "identity");
        assert_eq!(collector.sampling, Sampling { ratio: 0.25, follows_caller: true });
        assert!(!format!("{collector:?}").contains("abc"), "{collector:?}");
        let default = load(&[(ENDPOINT, "http://127.0.0.1:4318")]).unwrap().unwrap();
        assert_eq!(default.sampling, Sampling { ratio: 1.0, follows_caller: false });
        assert_eq!(default.service_name, "aims");
    }

    #[test]
    fn invalid_settings_are_reported_without_secrets() {
        for (name, value) in [
            (ENDPOINT, "127.0.0.1:4318"),
            (ENDPOINT, "grpc://otel.example:4317"),
            (ENDPOINT, "https://user:hunter2@otel.example"),
            (ENDPOINT, "https://hunter2@otel.example"),
            (TRACES_ENDPOINT, "https://otel.example/?key=hunter2"),
            (TRACES_ENDPOINT, "https://otel.example/#hunter2"),
            (HEADERS, "hunter2"),
            (HEADERS, "a b=hunter2"),
            (HEADERS, "a=hunter2%0Ax: y"),
            (HEADERS, "a=hunter2%ff"),
            (SAMPLER, "sometimes"),
            (SAMPLER_ARG, "2"),
            (SAMPLER_ARG, "NaN"),
            (SAMPLER_ARG, "half"),
        ] {
            let problems = load(&[(name, value)]).unwrap_err();
            assert!(problems.starts_with(&format!("{name} must ")), "{problems}");
            assert!(!problems.contains("hunter2"), "{problems}");
        }
    }
}
