//! Metadata documents.

use serde_json::{Value, json};

use super::{ISSUER, claims, post_as_client, token};
use crate::{
    both,
    support::{Database, Server},
};

both!(
    metadata_matches_the_service,
    issuer_is_the_configured_value,
    token_with_another_spelling_of_the_issuer_is_rejected,
    bearer_challenge_links_to_the_metadata,
    key_set_can_be_cached,
);

const SERVER: &str = "/.well-known/oauth-authorization-server";

async fn metadata_matches_the_service(db: Database) {
    let server = Server::start(db).await;
    let document = server.anonymous().get(SERVER).await.expect(200);
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(server.anonymous().get("/.well-known/openid-configuration").await.expect(200), document);
    // Every URL in the document is served.
    for (name, status) in [
        ("authorization_endpoint", 400),
        ("token_endpoint", 405),
        ("introspection_endpoint", 405),
        ("revocation_endpoint", 405),
        ("jwks_uri", 200),
        ("service_documentation", 200),
    ] {
        let path = document[name].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();
        assert_eq!(server.anonymous().get(&path).await.status, status, "{name}");
    }
    assert_eq!(
        document["grant_types_supported"],
        json!([
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        ])
    );
    // RFC 8414 requires this member (section 2), and no member may be an empty array (section 3.2).
    assert_eq!(document["response_types_supported"], json!(["none"]));
    assert!(document.as_object().unwrap().values().all(|member| *member != json!([])), "{document}");
    for name in ["token", "introspection", "revocation"] {
        let methods = &document[format!("{name}_endpoint_auth_methods_supported")];
        assert_eq!(methods, &json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]));
    }
    let resource = server.anonymous().get("/.well-known/oauth-protected-resource").await.expect(200);
    assert_eq!((&resource["resource"], &resource["authorization_servers"]), (&json!(ISSUER), &json!([ISSUER])));
}

/// Clients compare issuers byte for byte, so every document must contain the configured value unchanged (RFC 8414
/// §3.3).
async fn issuer_is_the_configured_value(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "tokens:introspect"]).await;
    for issuer in ["https://aims.test/", "https://AIMS.test:443/", "https://aims.test"] {
        server = server.restart(&[("PUBLIC_URL", issuer)]).await;
        let (anonymous, root) = (server.anonymous(), issuer.trim_end_matches('/'));
        for path in [SERVER, "/.well-known/openid-configuration"] {
            let document = anonymous.get(path).await.expect(200);
            assert_eq!((&document["issuer"], &document["protected_resources"]), (&json!(issuer), &json!([issuer])));
            for (name, endpoint) in [
                ("authorization_endpoint", "/oauth/authorize"),
                ("token_endpoint", "/oauth/token"),
                ("introspection_endpoint", "/oauth/introspect"),
                ("revocation_endpoint", "/oauth/revoke"),
                ("jwks_uri", "/.well-known/jwks.json"),
                ("service_documentation", "/docs"),
            ] {
                assert_eq!(document[name], format!("{root}{endpoint}"), "{name}");
            }
        }
        let resource = anonymous.get("/.well-known/oauth-protected-resource").await.expect(200);
        assert_eq!((&resource["resource"], &resource["authorization_servers"]), (&json!(issuer), &json!([issuer])));
        assert_eq!(resource["resource_documentation"], format!("{root}/docs"));
        let hint = format!("resource_metadata=\"{root}/.well-known/oauth-protected-resource\"");
        assert!(anonymous.get("/agents").await.header("www-authenticate").unwrap().contains(&hint));

        // A client may name the issuer in any equivalent form; its tokens contain the configured one.
        let forms = [issuer, "https://aims.test", "https://aims.test/", "HTTPS://aims.test:443"];
        let named = forms.into_iter().flat_map(|form| [vec![("resource", form)], vec![("audience", form)]]);
        for wanted in [vec![]].into_iter().chain(named) {
            let token = token(&server, &agent, &wanted).await;
            let payload = claims(&token);
            assert_eq!((&payload["iss"], &payload["aud"]), (&json!(issuer), &json!(issuer)), "{wanted:?}");
            anonymous.with_token(&token).get("/agents").await.expect(200);
            let introspected =
                post_as_client(&server, &agent, "/oauth/introspect", &[("token", &token)]).await.expect(200);
            assert_eq!((&introspected["iss"], &introspected["aud"]), (&json!(issuer), &json!(issuer)));
        }
        server.admin.post("/resources", json!({ "identifier": "https://aims.TEST", "name": "x" })).await.expect(409);
    }
}

/// The issuer of a token is compared byte for byte (RFC 9068 §4).
async fn token_with_another_spelling_of_the_issuer_is_rejected(db: Database) {
    let server = Server::start(db).await;
    let before = server.admin.token().to_owned();
    let server = server.restart(&[("PUBLIC_URL", "https://aims.test/")]).await;
    server.anonymous().with_token(&before).get("/agents").await.refused(401, "Invalid or expired token");
    server.admin.get("/agents").await.expect(200);
}

async fn bearer_challenge_links_to_the_metadata(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let hint = format!("resource_metadata=\"{ISSUER}/.well-known/oauth-protected-resource\"");
    for (client, expected) in [
        (server.anonymous(), format!("Bearer {hint}")),
        (
            server.anonymous().with_token("junk"),
            format!("Bearer error=\"invalid_token\", error_description=\"Invalid or expired token\", {hint}"),
        ),
        (agent.client, format!("Bearer error=\"insufficient_scope\", scope=\"agents:read\", {hint}")),
    ] {
        assert_eq!(client.get("/agents").await.header("www-authenticate"), Some(expected.as_str()));
    }
}

async fn key_set_can_be_cached(db: Database) {
    let server = Server::start(db).await;
    let first = server.anonymous().get("/.well-known/jwks.json").await;
    assert_eq!(first.header("cache-control"), Some("public, max-age=300"));
    let tag = first.header("etag").unwrap().to_owned();
    assert!(first.json()["keys"].as_array().is_some_and(|keys| !keys.is_empty() && keys.iter().all(Value::is_object)));
    let anonymous = server.anonymous();
    for (known, status) in [(tag.clone(), 304), (format!("\"other\", W/{tag}"), 304), ("\"other\"".to_owned(), 200)] {
        let request = anonymous.request(reqwest::Method::GET, "/.well-known/jwks.json").header("if-none-match", known);
        let response = anonymous.send(request).await;
        assert_eq!((response.status.as_u16(), response.header("etag")), (status, Some(tag.as_str())));
    }
}
