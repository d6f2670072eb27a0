//! What clients read before their first request.

use serde_json::{Value, json};

use super::{ISSUER, as_client, ask, refused};
use crate::{
    both,
    support::{Database, Server},
};

both!(
    the_documents_tell_the_truth,
    an_issuer_may_have_a_path,
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

async fn an_issuer_may_have_a_path(db: Database) {
    let issuer = "https://id.example/tenants/one";
    let server = Server::with(db, &[("PUBLIC_URL", issuer)]).await;
    let at_root = server.anybody().get(SERVER).await.expect(200);
    assert_eq!(at_root["issuer"], issuer);
    assert_eq!(at_root["token_endpoint"], "https://id.example/tenants/one/oauth/token");
    for path in [
        "/.well-known/oauth-authorization-server/tenants/one",
        "/.well-known/openid-configuration/tenants/one",
        "/tenants/one/.well-known/openid-configuration",
    ] {
        assert_eq!(server.anybody().get(path).await.expect(200), at_root, "{path}");
    }
    let resource = server.anybody().get("/.well-known/oauth-protected-resource/tenants/one").await.expect(200);
    assert_eq!(resource["resource"], issuer);
    let challenge = server.anybody().get("/agents").await;
    let hint = "resource_metadata=\"https://id.example/.well-known/oauth-protected-resource/tenants/one\"";
    assert!(challenge.header("www-authenticate").unwrap().contains(hint));
    // The endpoints are where the document says, with a proxy that keeps the path as with one that takes it away.
    let agent = server.agent("worker", &["agents:read"]).await;
    ask(&server, &agent, &[]).await.expect(200);
    let form = [("grant_type", "client_credentials")];
    as_client(&server, &agent, "/tenants/one/oauth/token", &form).await.expect(200);
    server.anybody().get("/tenants/one/.well-known/jwks.json").await.expect(200);
    refused(&server.anybody().get("/tenants/one/oauth/token").await, 405, "invalid_request");
    refused(&server.anybody().get("/tenants/one/oauth/x").await, 404, "invalid_request");
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
