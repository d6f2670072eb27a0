//! A property test: after any sequence of actions on an agent and its keys, every response matches a simple model.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use aims::clock::Clock;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};
use serde_json::json;

use crate::support::{Client, Database, Server};

const CASES: u32 = 1_000;
const STEPS: usize = 12;
/// The capability that the model grants and revokes, and that using a token requires.
const CAPABILITY: &str = "agents:read";
const UNKNOWN: &str = "00000000-0000-7000-8000-000000000000";
/// Default settings, in minutes. No sum of the two steps equals any of these lifetimes.
const TOKEN_LIFE: i64 = 30;
const KEY_LIFE: i64 = 60;
const GRACE: i64 = 24 * 60;
const SHORT_STEP: i64 = 31;
const LONG_STEP: i64 = 25 * 60;

#[derive(Clone, Copy, Debug)]
enum Step {
    CreateKey {
        expiring: bool,
    },
    /// The numbers are indexes into the existing keys or tokens, modulo their number.
    RotateKey {
        which: usize,
        grace: bool,
    },
    RevokeKey(usize),
    Suspend,
    Reactivate,
    Revoke,
    Delete,
    Grant,
    Ungrant,
    Exchange(usize),
    UseToken(usize),
    Wait {
        long: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0_usize..4;
    prop_oneof![
        3 => any::<bool>().prop_map(|expiring| Step::CreateKey { expiring }),
        2 => (which.clone(), any::<bool>()).prop_map(|(which, grace)| Step::RotateKey { which, grace }),
        1 => which.clone().prop_map(Step::RevokeKey),
        3 => Just(Step::Suspend),
        4 => Just(Step::Reactivate),
        1 => Just(Step::Revoke),
        1 => Just(Step::Delete),
        3 => Just(Step::Grant),
        1 => Just(Step::Ungrant),
        5 => which.clone().prop_map(Step::Exchange),
        8 => which.prop_map(Step::UseToken),
        1 => any::<bool>().prop_map(|long| Step::Wait { long }),
    ]
}

/// Most cases begin with an issued token; without one, there would be little to revoke.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    const PREPARATION: [Step; 3] = [Step::CreateKey { expiring: false }, Step::Grant, Step::Exchange(0)];
    prop_oneof![
        4 => vec(step(), 2..=STEPS - PREPARATION.len()).prop_map(|then| [&PREPARATION, then.as_slice()].concat()),
        1 => vec(step(), 1..=STEPS),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    Active,
    Suspended,
    Revoked,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum KeyStatus {
    Active,
    Rotated { until: i64 },
    Revoked,
}

struct Key {
    id: String,
    raw: String,
    status: KeyStatus,
    expires: Option<i64>,
}

struct Token {
    text: String,
    key: usize,
    epoch: u32,
    expires: i64,
    allows: bool,
}

/// The expected state of the agent in one case.
struct Model {
    status: Status,
    granted: bool,
    epoch: u32,
    keys: Vec<Key>,
    tokens: Vec<Token>,
    /// Minutes since the case began.
    now: i64,
}

impl Model {
    const fn new() -> Self {
        Self { status: Status::Active, granted: false, epoch: 0, keys: Vec::new(), tokens: Vec::new(), now: 0 }
    }

    fn key(&self, which: usize) -> Option<usize> {
        which.checked_rem(self.keys.len())
    }

    fn token(&self, which: usize) -> Option<usize> {
        which.checked_rem(self.tokens.len())
    }

    fn key_works(&self, key: usize) -> bool {
        let key = &self.keys[key];
        let in_time = key.expires.is_none_or(|end| self.now < end);
        in_time
            && match key.status {
                KeyStatus::Active => true,
                KeyStatus::Rotated { until } => self.now < until,
                KeyStatus::Revoked => false,
            }
    }

    /// Returns the expected status of a step; waiting has none.
    fn expected_status(&self, step: Step) -> Option<u16> {
        use Status::{Active, Deleted, Revoked, Suspended};
        let status = match (step, self.status) {
            (Step::Wait { .. }, _) => return None,
            (Step::Exchange(which), status) => match self.key(which) {
                None => 401,
                Some(key) if status == Deleted || !self.key_works(key) => 401,
                Some(_) if status == Active => 200,
                Some(_) => 403,
            },
            (Step::UseToken(which), status) => match self.token(which).map(|token| &self.tokens[token]) {
                Some(token)
                    if status == Active
                        && token.epoch == self.epoch
                        && self.now < token.expires
                        && self.key_works(token.key) =>
                {
                    if token.allows && self.granted {
                        200
                    } else {
                        403
                    }
                }
                _ => 401,
            },
            (_, Deleted) => 404,
            (Step::CreateKey { .. } | Step::RotateKey { .. } | Step::Revoke | Step::Suspend, Revoked) => 400,
            (Step::CreateKey { .. }, _) => 201,
            (Step::RotateKey { which, .. }, _) => match self.key(which) {
                None => 404,
                Some(key) if self.keys[key].status == KeyStatus::Active && self.key_works(key) => 200,
                Some(_) => 400,
            },
            (Step::RevokeKey(which), _) => match self.key(which) {
                None => 404,
                Some(key) if self.keys[key].status == KeyStatus::Revoked => 400,
                Some(_) => 204,
            },
            (Step::Reactivate, Suspended) | (Step::Suspend | Step::Revoke, _) => 200,
            (Step::Reactivate, _) => 400,
            (Step::Delete, _) => 204,
            (Step::Grant, _) => {
                if self.granted {
                    409
                } else {
                    201
                }
            }
            (Step::Ungrant, _) => {
                if self.granted {
                    204
                } else {
                    404
                }
            }
        };
        Some(status)
    }

    /// Applies a step that succeeded; `made` is the key or token that it created.
    fn apply(&mut self, step: Step, created: Created) {
        match (step, created) {
            (Step::CreateKey { expiring }, Created::Key { id, raw }) => {
                let expires = expiring.then_some(self.now + KEY_LIFE);
                self.keys.push(Key { id, raw, status: KeyStatus::Active, expires });
            }
            (Step::RotateKey { which, grace }, Created::Key { id, raw }) => {
                let old = self.key(which).unwrap();
                let until = if grace { self.now + GRACE } else { self.now };
                self.keys[old].status = KeyStatus::Rotated { until };
                let expires = self.keys[old].expires;
                self.keys.push(Key { id, raw, status: KeyStatus::Active, expires });
            }
            (Step::Exchange(which), Created::Token(text)) => {
                let key = self.key(which).unwrap();
                let expires = self.now + TOKEN_LIFE;
                self.tokens.push(Token { text, key, epoch: self.epoch, expires, allows: self.granted });
            }
            (Step::RevokeKey(which), _) => {
                let key = self.key(which).unwrap();
                self.keys[key].status = KeyStatus::Revoked;
            }
            (Step::Suspend, _) if self.status == Status::Active => {
                self.status = Status::Suspended;
                self.epoch += 1;
            }
            (Step::Reactivate, _) => self.status = Status::Active,
            (Step::Revoke, _) => {
                self.status = Status::Revoked;
                self.epoch += 1;
                let now = self.now;
                for key in self.keys.iter_mut().filter(|key| key.expires.is_none_or(|end| now < end)) {
                    key.status = KeyStatus::Revoked;
                }
            }
            (Step::Delete, _) => self.status = Status::Deleted,
            (Step::Grant, _) => self.granted = true,
            (Step::Ungrant, _) => self.granted = false,
            (Step::Wait { long }, _) => self.now += minutes(long),
            _ => {}
        }
    }
}

const fn minutes(long: bool) -> i64 {
    if long { LONG_STEP } else { SHORT_STEP }
}

enum Created {
    Nothing,
    Key { id: String, raw: String },
    Token(String),
}

/// The service that all cases share.
struct SharedService {
    server: Server,
    admin: RefCell<Client>,
    capability: String,
    cases: Cell<u32>,
}

impl SharedService {
    async fn new() -> Self {
        let server = Server::start(Database::sqlite()).await;
        let capability = server.capability(CAPABILITY).await;
        Self { admin: RefCell::new(server.admin.clone()), server, capability, cases: Cell::new(0) }
    }

    async fn run(&self, steps: &[Step]) -> Result<(), TestCaseError> {
        self.cases.set(self.cases.get() + 1);
        let name = format!("case-{}", self.cases.get());
        let admin = self.admin.borrow().clone();
        let agent = admin.post("/agents", json!({ "name": name, "owner": "model" })).await.expect(201);
        let path = format!("/agents/{}", agent["id"].as_str().unwrap());
        let mut model = Model::new();
        for (n, &step) in steps.iter().enumerate() {
            let expected = model.expected_status(step);
            let (answered, created) = self.perform(&model, &path, step).await;
            prop_assert_eq!(answered, expected, "step {} of {:?}", n, steps);
            if expected.is_none_or(|status| status < 300) {
                model.apply(step, created);
            }
        }
        Ok(())
    }

    /// Performs a step, regardless of the model.
    async fn perform(&self, model: &Model, path: &str, step: Step) -> (Option<u16>, Created) {
        let admin = self.admin.borrow().clone();
        let key_path = |which| {
            let id = model.key(which).map_or(UNKNOWN, |key| &model.keys[key].id);
            format!("{path}/keys/{id}")
        };
        let response = match step {
            Step::Wait { long } => {
                let by = Duration::from_mins(minutes(long).unsigned_abs());
                self.server.clock.advance(by);
                // The administrator's own token has expired.
                let fresh = admin.login(&self.server.admin_key).await;
                self.admin.replace(fresh);
                return (None, Created::Nothing);
            }
            Step::CreateKey { expiring } => {
                let end = self.server.clock.now().plus(Duration::from_mins(KEY_LIFE.unsigned_abs()));
                let body = if expiring { json!({ "expires_at": end }) } else { json!({}) };
                admin.post(&format!("{path}/keys"), body).await
            }
            Step::RotateKey { which, grace } => {
                let body = if grace { json!({}) } else { json!({ "grace_hours": 0 }) };
                admin.post(&format!("{}/rotate", key_path(which)), body).await
            }
            Step::RevokeKey(which) => admin.delete(&key_path(which)).await,
            Step::Suspend => admin.post_empty(&format!("{path}/suspend")).await,
            Step::Reactivate => admin.post_empty(&format!("{path}/reactivate")).await,
            Step::Revoke => admin.post_empty(&format!("{path}/revoke")).await,
            Step::Delete => admin.delete(path).await,
            Step::Grant => {
                admin.post(&format!("{path}/capabilities"), json!({ "capability_id": self.capability })).await
            }
            Step::Ungrant => admin.delete(&format!("{path}/capabilities/{}", self.capability)).await,
            Step::Exchange(which) => {
                let raw = model.key(which).map_or("aims_unknown", |key| &model.keys[key].raw);
                admin.exchange(raw).await
            }
            Step::UseToken(which) => {
                let text = model.token(which).map_or("unknown", |token| &model.tokens[token].text);
                admin.with_token(text).get("/agents?limit=1").await
            }
        };
        let status = response.status.as_u16();
        let created = match (step, status) {
            (Step::CreateKey { .. }, 201) => created_key(&response.json()),
            (Step::RotateKey { .. }, 200) => created_key(&response.json()["new_key"]),
            (Step::Exchange(_), 200) => Created::Token(response.json()["access_token"].as_str().unwrap().to_owned()),
            _ => Created::Nothing,
        };
        (Some(status), created)
    }
}

fn created_key(key: &serde_json::Value) -> Created {
    let text = |field: &str| key[field].as_str().unwrap().to_owned();
    Created::Key { id: text("id"), raw: text("raw_key") }
}

#[test]
fn every_response_matches_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(SharedService::new());
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| runtime.block_on(world.run(&steps)));
    match outcome {
        Ok(()) => assert_eq!(world.cases.get(), CASES),
        Err(TestError::Fail(reason, steps)) => panic!("{reason}\nminimal failing steps: {steps:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}
