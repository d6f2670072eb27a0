//! What clients read before their first request.

use serde_json::{Value, json};

use super::{ISSUER, as_client, claims, token};
use crate::{
    both,
    support::{Database, Server},
};

both!(
    the_documents_tell_the_truth,
    the_issuer_is_what_the_operator_writes,
    a_token_of_another_spelling_of_the_issuer_is_refused,
    a_refused_bearer_is_told_where_to_read_on,
    the_key_set_is_cached,
);

const SERVER: &str = "/.well-known/oauth-authorization-server";

async fn the_documents_tell_the_truth(db: Database) {
    let server = Server::start(db).await;
    let document = server.anybody().get(SERVER).await.expect(200);
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(server.anybody().get("/.well-known/openid-configuration").await.expect(200), document);
    // Whatever is named as a URL is served.
    for (name, status) in [
        ("authorization_endpoint", 400),
        ("token_endpoint", 405),
        ("introspection_endpoint", 405),
        ("revocation_endpoint", 405),
        ("jwks_uri", 200),
        ("service_documentation", 200),
    ] {
        let path = document[name].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();
        assert_eq!(server.anybody().get(&path).await.status, status, "{name}");
    }
    assert_eq!(
        document["grant_types_supported"],
        json!([
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        ])
    );
    // RFC 8414 demands this one (section 2), and no member may be an empty array (section 3.2).
    assert_eq!(document["response_types_supported"], json!(["none"]));
    assert!(document.as_object().unwrap().values().all(|member| *member != json!([])), "{document}");
    for name in ["token", "introspection", "revocation"] {
        let methods = &document[format!("{name}_endpoint_auth_methods_supported")];
        assert_eq!(methods, &json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]));
    }
    let resource = server.anybody().get("/.well-known/oauth-protected-resource").await.expect(200);
    assert_eq!((&resource["resource"], &resource["authorization_servers"]), (&json!(ISSUER), &json!([ISSUER])));
}

/// Clients compare issuers byte for byte, so what the operator writes must come out everywhere (RFC 8414 §3.3).
async fn the_issuer_is_what_the_operator_writes(db: Database) {
    let mut server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read", "tokens:introspect"]).await;
    for issuer in ["https://aims.test/", "https://AIMS.test:443/", "https://aims.test"] {
        server = server.restart(&[("PUBLIC_URL", issuer)]).await;
        let (anybody, root) = (server.anybody(), issuer.trim_end_matches('/'));
        for path in [SERVER, "/.well-known/openid-configuration"] {
            let document = anybody.get(path).await.expect(200);
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
        let resource = anybody.get("/.well-known/oauth-protected-resource").await.expect(200);
        assert_eq!((&resource["resource"], &resource["authorization_servers"]), (&json!(issuer), &json!([issuer])));
        assert_eq!(resource["resource_documentation"], format!("{root}/docs"));
        let hint = format!("resource_metadata=\"{root}/.well-known/oauth-protected-resource\"");
        assert!(anybody.get("/agents").await.header("www-authenticate").unwrap().contains(&hint));

        // A client may name it in any equivalent way, and its tokens say it as it is.
        let forms = [issuer, "https://aims.test", "https://aims.test/", "HTTPS://aims.test:443"];
        let named = forms.into_iter().flat_map(|form| [vec![("resource", form)], vec![("audience", form)]]);
        for wanted in [vec![]].into_iter().chain(named) {
            let token = token(&server, &agent, &wanted).await;
            let said = claims(&token);
            assert_eq!((&said["iss"], &said["aud"]), (&json!(issuer), &json!(issuer)), "{wanted:?}");
            anybody.with_token(&token).get("/agents").await.expect(200);
            let looked_at = as_client(&server, &agent, "/oauth/introspect", &[("token", &token)]).await.expect(200);
            assert_eq!((&looked_at["iss"], &looked_at["aud"]), (&json!(issuer), &json!(issuer)));
        }
        server.admin.post("/resources", json!({ "identifier": "https://aims.TEST", "name": "x" })).await.expect(409);
    }
}

/// A token is from the issuer that it names, byte for byte (RFC 9068 §4).
async fn a_token_of_another_spelling_of_the_issuer_is_refused(db: Database) {
    let server = Server::start(db).await;
    let before = server.admin.token().to_owned();
    let server = server.restart(&[("PUBLIC_URL", "https://aims.test/")]).await;
    server.anybody().with_token(&before).get("/agents").await.refused(401, "Invalid or expired token");
    server.admin.get("/agents").await.expect(200);
}

async fn a_refused_bearer_is_told_where_to_read_on(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let hint = format!("resource_metadata=\"{ISSUER}/.well-known/oauth-protected-resource\"");
    for (client, expected) in [
        (server.anybody(), format!("Bearer {hint}")),
        (
            server.anybody().with_token("junk"),
            format!("Bearer error=\"invalid_token\", error_description=\"Invalid or expired token\", {hint}"),
        ),
        (agent.client, format!("Bearer error=\"insufficient_scope\", scope=\"agents:read\", {hint}")),
    ] {
        assert_eq!(client.get("/agents").await.header("www-authenticate"), Some(expected.as_str()));
    }
}

async fn the_key_set_is_cached(db: Database) {
    let server = Server::start(db).await;
    let first = server.anybody().get("/.well-known/jwks.json").await;
    assert_eq!(first.header("cache-control"), Some("public, max-age=300"));
    let tag = first.header("etag").unwrap().to_owned();
    assert!(first.json()["keys"].as_array().is_some_and(|keys| !keys.is_empty() && keys.iter().all(Value::is_object)));
    let anybody = server.anybody();
    for (known, status) in [(tag.clone(), 304), (format!("\"other\", W/{tag}"), 304), ("\"other\"".to_owned(), 200)] {
        let request = anybody.request(reqwest::Method::GET, "/.well-known/jwks.json").header("if-none-match", known);
        let answer = anybody.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (status, Some(tag.as_str())));
    }
}
