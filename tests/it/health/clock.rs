//! A clock that is set forward or back: what was issued keeps its life, and nothing is locked out.

use std::time::Duration;

use aims::{
    domain::Role,
    service::{
        Caller, audit,
        people::sessions,
        tokens::signing_keys::{self, PUBLISHED_FOR},
    },
};

use crate::{
    both,
    support::{Database, Server},
};

both!(
    tokens_do_not_outlive_a_clock_that_is_set_back,
    revoked_tokens_stay_revoked_when_the_clock_is_set_back,
    proof_from_the_future_does_not_count,
    signing_keys_from_the_future_lock_nobody_out,
);

const HOUR: Duration = Duration::from_hours(1);

async fn tokens_do_not_outlive_a_clock_that_is_set_back(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    // The token is verified once, and then known.
    agent.client.get("/agents").await.expect(200);
    server.clock.set_back(HOUR);
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    // An agent that authenticates again gets a token that works, and so does the administrator.
    let again = server.anonymous().login(&agent.raw_key).await;
    again.get("/agents").await.expect(200);
    // The clock is right again: the first token has the rest of its life, and no more.
    server.clock.advance(HOUR);
    agent.client.get("/agents").await.expect(200);
    server.clock.advance(Duration::from_mins(30));
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    let verified = audit::verify(server.services.store.db()).await.unwrap();
    assert!(verified.broken.is_none(), "{verified:?}");
}

async fn revoked_tokens_stay_revoked_when_the_clock_is_set_back(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    let request = server.anonymous().request(reqwest::Method::POST, "/oauth/revoke");
    let form = [("token", agent.client.token())];
    server.anonymous().send(request.basic_auth(&agent.id, Some(&agent.raw_key)).form(&form)).await.expect(200);
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
    // Ahead of time the revocation seems to be over: it is swept up, and the agent is loaded without it.
    server.clock.advance(HOUR);
    sessions::sweep(&server.services).await.unwrap();
    server.services.forget_caches();
    server.anonymous().login(&agent.raw_key).await.get("/agents").await.expect(200);
    server.clock.set_back(HOUR);
    agent.client.get("/agents").await.refused(401, "Invalid or expired token");
}

async fn proof_from_the_future_does_not_count(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("agent", &[]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let path = format!("/console/agents/{}/keys", agent.id);
    server.clock.set_back(HOUR);
    let page = browser.post(&path, &[("name", "k"), ("life", "90")]).await.expect(401);
    page.shows("Confirm your identity");
    // Another sign-in counts.
    let browser = server.sign_in("zoe").await;
    let page = browser.post(&path, &[("name", "k"), ("life", "90")]).await;
    assert!([200, 303].contains(&page.status.as_u16()), "{}", page.text);
}

async fn signing_keys_from_the_future_lock_nobody_out(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    server.clock.advance(HOUR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    let ahead = server.anonymous().login(&agent.raw_key).await;
    ahead.get("/agents").await.expect(200);
    server.clock.set_back(HOUR);
    signing_keys::maintain(&server.services).await.unwrap();
    // The key that was retired in the future still verifies, and the new one signs.
    agent.client.get("/agents").await.expect(200);
    server.anonymous().login(&agent.raw_key).await.get("/agents").await.expect(200);
    let published = server.anonymous().get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(published["keys"].as_array().unwrap().len(), 3, "{published}");
    // The next key is not known everywhere before its time, but a stolen one can be replaced at once.
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap_err();
    signing_keys::rotate(&server.services, &Caller::system(), true).await.unwrap();
    let client = server.anonymous().login(&agent.raw_key).await;
    client.get("/agents").await.expect(200);
    server.clock.advance(PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    client.get("/agents").await.expect(200);
    let server = server.restart(&[]).await;
    server.anonymous().login(&agent.raw_key).await.get("/agents").await.expect(200);
    let verified = audit::verify(server.services.store.db()).await.unwrap();
    assert!(verified.broken.is_none(), "{verified:?}");
}
