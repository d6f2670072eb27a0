//! `ETag`, `If-Match` and `If-None-Match` on agents, resources and capabilities.

use std::collections::BTreeSet;

use aims::web::routes;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{UNKNOWN_ID, assert_invalid};
use crate::{
    both,
    support::{Client, Database, Response, Server},
};

both!(
    every_answer_with_an_object_has_its_entity_tag,
    a_known_version_is_not_sent_again,
    every_change_of_a_stale_version_is_rejected,
    concurrent_edits_of_one_version_succeed_once,
    malformed_entity_tags_are_rejected,
    an_entity_tag_covers_the_object_and_nothing_else,
);

/// Sends a request with one more header.
async fn with(client: &Client, method: Method, path: &str, (name, value): (&str, &str), body: Value) -> Response {
    client.send(client.request(method, path).header(name, value).json(&body)).await
}

async fn tag(client: &Client, path: &str) -> String {
    let response = client.get(path).await;
    assert_eq!(response.status, 200, "{response:?}");
    response.header("etag").unwrap().to_owned()
}

/// An object that clients edit.
struct Object {
    path: String,
    tag: String,
    /// A body of PATCH that changes it.
    edit: Value,
}

/// Creates an agent, a resource and a capability.
async fn objects(server: &Server, name: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    for (collection, body, edit) in [
        ("/agents", json!({ "name": name, "owner": "o" }), json!({ "owner": "new" })),
        ("/resources", json!({ "identifier": format!("https://{name}.test"), "name": "n" }), json!({ "name": "new" })),
        ("/capabilities", json!({ "name": format!("{name}:read") }), json!({ "description": "new" })),
    ] {
        let created = server.admin.post(collection, body).await;
        let tag = created.header("etag").unwrap().to_owned();
        let path = format!("{collection}/{}", created.expect(201)["id"].as_str().unwrap());
        assert_eq!(self::tag(&server.admin, &path).await, tag, "that of the answer to POST");
        objects.push(Object { path, tag, edit });
    }
    objects
}

async fn every_answer_with_an_object_has_its_entity_tag(db: Database) {
    let server = Server::start(db).await;
    let mut tags = BTreeSet::new();
    for Object { path, tag, edit } in objects(&server, "tagged").await {
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 34, "{tag}");
        let edited = server.admin.patch(&path, edit.clone()).await;
        let new = edited.header("etag").unwrap().to_owned();
        assert_eq!(self::tag(&server.admin, &path).await, new);
        // An edit that changes nothing is no new version.
        assert_eq!(server.admin.patch(&path, edit).await.header("etag"), Some(new.as_str()));
        tags.extend([tag, new]);
        if path.starts_with("/agents") {
            for act in ["suspend", "reactivate", "revoke"] {
                let acted = server.admin.post_empty(&format!("{path}/{act}")).await;
                let new = acted.header("etag").unwrap().to_owned();
                assert_eq!(self::tag(&server.admin, &path).await, new, "{act}");
                tags.insert(new);
            }
        }
    }
    assert_eq!(tags.len(), 9, "each version has a tag of its own: {tags:?}");
}

async fn a_known_version_is_not_sent_again(db: Database) {
    let server = Server::start(db).await;
    for Object { path, tag, edit } in objects(&server, "known").await {
        let get = |value: String| {
            let (client, path) = (server.admin.clone(), path.clone());
            async move { with(&client, Method::GET, &path, ("If-None-Match", &value), Value::Null).await }
        };
        for value in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let response = get(value.clone()).await;
            assert_eq!((response.status.as_u16(), response.text.as_str()), (304, ""), "{value}");
            assert_eq!(response.header("etag"), Some(tag.as_str()));
            assert_eq!(response.header("content-length"), None, "{response:?}");
        }
        for value in ["\"other\"".to_owned(), tag.to_uppercase()] {
            assert_eq!(get(value).await.expect(200)["id"], path.rsplit('/').next().unwrap());
        }
        server.admin.patch(&path, edit).await.expect(200);
        get(tag).await.expect(200);
        // Who may not read is not told whether a version is current.
        let nobody = server.anonymous();
        with(&nobody, Method::GET, &path, ("If-None-Match", "*"), Value::Null).await.expect(401);
    }
}

async fn every_change_of_a_stale_version_is_rejected(db: Database) {
    const STALE: &str =
        "This has changed since you read it. Read it again, then retry with its current ETag in If-Match";
    let server = Server::start(db).await;
    let mut checked = 0;
    for (n, route) in routes::list().into_iter().filter(|route| route.is_versioned).enumerate() {
        if route.method == Method::GET || route.is_repeatable {
            continue;
        }
        checked += 1;
        let objects = objects(&server, &format!("stale-{n}")).await;
        let (collection, act) = route.path.split_once("/{id}").unwrap();
        let object = objects.into_iter().find(|object| object.path.starts_with(collection)).unwrap();
        let Object { path, tag: old, edit } = object;
        let target = format!("{path}{act}");
        server.admin.patch(&path, edit).await.expect(200);
        if route.path.ends_with("/reactivate") {
            server.admin.post_empty(&format!("{path}/suspend")).await.expect(200);
        }
        let current = tag(&server.admin, &path).await;
        let body = if route.method == Method::PATCH { json!({ "description": "x", "name": "x" }) } else { json!({}) };
        let records = server.db.count("SELECT COUNT(*) FROM audit_log").await;
        let change = |value: String| {
            let (client, method, target, body) =
                (server.admin.clone(), route.method.clone(), target.clone(), body.clone());
            async move { with(&client, method, &target, ("If-Match", &value), body).await }
        };
        // Entity tags match in If-Match only if both are strong (RFC 9110 section 13.1.1).
        for value in [old.clone(), format!("W/{current}"), "\"other\"".to_owned(), format!("\"\", {old}")] {
            change(value).await.refused(412, STALE);
        }
        assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_log").await, records, "{route:?}: nothing changes");
        assert_eq!(tag(&server.admin, &path).await, current);
        let unknown = target.replace(path.rsplit('/').next().unwrap(), UNKNOWN_ID);
        let unknown = with(&server.admin, route.method.clone(), &unknown, ("If-Match", "*"), body.clone()).await;
        assert_eq!(unknown.status, 404, "{route:?}: {unknown:?}");
        let value = if checked % 2 == 0 { "*".to_owned() } else { format!("\"other\", {current}") };
        let changed = change(value).await;
        assert!(changed.status.is_success(), "{route:?}: {changed:?}");
    }
    assert_eq!(checked, 9);
}

async fn concurrent_edits_of_one_version_succeed_once(db: Database) {
    const MANY: usize = 50;
    let server = Server::start(db).await;
    for Object { path, tag, edit } in objects(&server, "raced").await {
        let field = edit.as_object().unwrap().keys().next().unwrap().clone();
        let edit = |n: usize| {
            let (client, path, tag) = (server.admin.clone(), path.clone(), tag.clone());
            let body = json!({ &field: format!("edit {n}") });
            async move { with(&client, Method::PATCH, &path, ("If-Match", &tag), body).await }
        };
        let responses = join_all((0..MANY).map(edit)).await;
        let won: Vec<_> = responses.iter().filter(|response| response.status == 200).collect();
        assert_eq!(won.len(), 1, "{path}");
        assert_eq!(responses.iter().filter(|response| response.status == 412).count(), MANY - 1);
        assert_eq!(server.admin.get(&path).await.expect(200)[&field], won[0].json()[&field]);
    }
}

async fn malformed_entity_tags_are_rejected(db: Database) {
    let server = Server::start(db).await;
    for Object { path, tag, edit } in objects(&server, "malformed").await {
        for bad in [tag.trim_matches('"'), "", "\"open", "*, \"a\"", "\"a\" \"b\"", "w/\"a\""] {
            let refused = with(&server.admin, Method::PATCH, &path, ("If-Match", bad), edit.clone()).await;
            assert_invalid(&refused, &json!([["header", "If-Match"]]));
            let refused = with(&server.admin, Method::GET, &path, ("If-None-Match", bad), Value::Null).await;
            assert_invalid(&refused, &json!([["header", "If-None-Match"]]));
        }
        assert_eq!(self::tag(&server.admin, &path).await, tag, "nothing changes");
        // Several lines are one list.
        let two = server.admin.request(Method::PATCH, &path).header("If-Match", "\"other\"");
        server.admin.send(two.header("If-Match", tag).json(&edit)).await.expect(200);
    }
}

async fn an_entity_tag_covers_the_object_and_nothing_else(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("holder", &[]).await;
    let path = format!("/agents/{}", agent.id);
    let before = tag(&server.admin, &path).await;
    server.grant(&agent.id, "documents:read").await;
    server.admin.post_empty(&format!("{path}/keys")).await.expect(201);
    assert_eq!(tag(&server.admin, &path).await, before, "grants and keys are objects of their own");
    // Not so the end of all tokens, after which the agent has another `updated_at`.
    server.admin.post_empty(&format!("{path}/revoke-tokens")).await.expect(200);
    assert_ne!(tag(&server.admin, &path).await, before);

    // Deleting a capability edits the resources that name it.
    let body = json!({ "identifier": "https://api.example", "name": "API", "scope": "documents:read" });
    let resource = server.admin.post("/resources", body).await.expect(201);
    let resource = format!("/resources/{}", resource["id"].as_str().unwrap());
    let before = tag(&server.admin, &resource).await;
    let capability = server.capability("documents:read").await;
    server.admin.delete(&format!("/capabilities/{capability}?with_grants=true")).await.expect(204);
    assert_ne!(tag(&server.admin, &resource).await, before);
}
