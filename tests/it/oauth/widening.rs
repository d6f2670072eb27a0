//! No sequence of exchanges widens authority.

use proptest::{
    option,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::Value;

use super::{
    claims,
    delegation::{allow, exchange},
    request_token, token,
};
use crate::{
    both,
    support::{Database, Server},
};

both!(exchanged_tokens_never_exceed_their_inputs);

/// One exchange of the property test: the indexes of two tokens, modulo their number, and the requested scope and
/// lifetime.
type Case = (usize, usize, Option<u8>, Option<u32>);

const RUNS: u32 = 10_000;
const SCOPES: [&str; 5] = ["agents:read", "agents:*", "keys:manage", "admin:*", "x:y"];

async fn exchanged_tokens_never_exceed_their_inputs(db: Database) {
    let server = Server::start(db).await;
    let held = [
        &["admin:*"][..],
        &["agents:*", "keys:manage"],
        &["agents:read", "x:*"],
        &["x:y", "agents:*"],
        &["admin:*", "x:y"],
        &[],
        &["agents:*", "x:*"],
    ];
    let mut agents = Vec::new();
    for (number, held) in held.into_iter().enumerate() {
        agents.push(server.agent(&format!("agent-{number}"), held).await);
    }
    for agent in &agents {
        for other in agents.iter().filter(|other| other.id != agent.id) {
            allow(&server, agent, other).await;
        }
    }
    let mut actors = Vec::new();
    for agent in &agents {
        for life in ["100", "1000"] {
            actors.push(token(&server, agent, &[("expires_in", life)]).await);
        }
        // An agent without `agents:read` cannot request it.
        let narrow = request_token(&server, agent, &[("scope", "agents:read")]).await.json();
        actors.extend(narrow["access_token"].as_str().map(str::to_owned));
    }
    let subjects = std::cell::RefCell::new(actors.clone());
    let created = std::cell::Cell::new(0_u32);
    let run = async |(subject, actor, scopes, life): Case| {
        let subject = {
            let all = subjects.borrow();
            all[subject % all.len()].clone()
        };
        let actor = &actors[actor % actors.len()];
        let scope = scopes.map(|bits| {
            let named = SCOPES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
            named.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
        });
        let life = life.map(|seconds| seconds.to_string());
        let wanted = [("scope", &scope), ("expires_in", &life)];
        let wanted: Vec<_> = wanted.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let response = exchange(&server, &subject, actor, &wanted).await;
        let (from, by) = (claims(&subject), claims(actor));
        if response.status != 200 {
            let error = response.json()["error"].clone();
            prop_assert!(error == "invalid_scope" || error == "invalid_request", "{:?}", response);
            return Ok(());
        }
        let made_token = response.json()["access_token"].as_str().unwrap().to_owned();
        let new = claims(&made_token);
        for scope in scopes_of(&new) {
            prop_assert!(covers(&from, &scope) && covers(&by, &scope), "{} from {} by {}", new, from, by);
        }
        let life = |claims: &Value| claims["exp"].as_i64().unwrap();
        prop_assert!(life(&new) <= life(&from) && life(&new) <= life(&by), "{} from {} by {}", new, from, by);
        prop_assert_eq!(depth(&new["act"]), depth(&from["act"]) + 1);
        prop_assert!(depth(&new["act"]) <= 5);
        prop_assert_eq!(&new["sub"], &from["sub"]);
        prop_assert_eq!(&new["act"]["sub"], &by["sub"]);
        prop_assert_eq!(new["act"].get("act"), from.get("act"));
        created.set(created.get() + 1);
        let mut all = subjects.borrow_mut();
        // Long chains matter most, so they replace short ones.
        if all.len() < 200 {
            all.push(made_token);
        } else {
            all[20 + created.get() as usize % 180] = made_token;
        }
        Ok(())
    };
    let cases = (any::<usize>(), any::<usize>(), option::of(0_u8..32), option::of(1_u32..2_000));
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..RUNS {
        let case = cases.new_tree(&mut runner).unwrap().current();
        let outcome: Result<(), TestCaseError> = run(case).await;
        assert!(outcome.is_ok(), "{case:?}: {outcome:?}");
    }
    assert!(created.get() > 1_000, "only {} exchanges succeeded", created.get());
}

fn depth(act: &Value) -> usize {
    if act.is_null() { 0 } else { 1 + depth(&act["act"]) }
}

fn scopes_of(claims: &Value) -> Vec<String> {
    claims["scopes"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap().to_owned()).collect()
}

/// An independent implementation, so that the tested code does not check itself.
fn covers(claims: &Value, wanted: &str) -> bool {
    scopes_of(claims).iter().any(|held| {
        held == wanted || held == "admin:*" || held.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix))
    })
}
