//! Every store function that writes what the live view reads also marks it as changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aims::{
    crypto::KeyHash,
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, ApiKey, ApiKeyId, ApiKeyStatus, Capability, CapabilityId,
        CapabilityName, DelegationId, FederatedIdentityId, KeyLimits, PublicKeyId, Result, Timestamp, TokenId,
        agent::labels::Labels,
        credential::{
            federation::{FederatedIdentity, Trust},
            public_key::PublicKey,
        },
        token::{SigningAlgorithm, delegation::Delegation},
    },
    service::core::principals::Principals,
    store::{
        Changes, Db, Location, Mode, Store, Tx, agents,
        agents::{delegations, labels},
        capabilities::{self, holders},
        credentials::{api_keys, federated_identities, public_keys},
        principals, seed,
        tokens::{
            revoked_tokens,
            sealed::{self, Kind, Sealed},
            signing_keys::{self, SealedKey},
        },
    },
};
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use uuid::Uuid;

use crate::{both, support::Database};

both!(the_live_view_follows_every_store_function);

const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const LATER: Timestamp = Timestamp::from_micros(900_000_000_000);

/// Tables that are not part of the live view, but whose changes other nodes must learn about at once.
const FOLLOWED: [&str; 2] = ["signing_keys", "imports"];
/// Tables that the view reads for the description of an agent.
const DESCRIBING: [&str; 1] = ["agent_labels"];

/// What a function must mark as changed.
#[derive(Clone, Copy)]
enum Marks {
    /// These agents of the fleet.
    Agents(&'static [u128]),
    Everything,
    /// Nothing, for this reason.
    Nothing(#[expect(dead_code, reason = "for the reader")] &'static str),
}

/// The agents of a fleet, by their numbers in it.
const AGENT: u128 = 0;
const DELEGATE: u128 = 1;
/// An agent that does not exist yet.
const NEW: u128 = 10;

type Run = for<'t> fn(&'t mut Tx, Fleet) -> BoxFuture<'t, Result<()>>;

/// Every store function that writes to a table of the live view. `every_function_that_writes_is_listed` compares this
/// list with the source.
const FUNCTIONS: &[(&str, Marks, Run)] = &[
    ("agents::insert", Marks::Agents(&[NEW]), |tx, fleet| {
        Box::pin(async move {
            assert!(agents::insert(tx, &agent(fleet.number + NEW)).await?);
            Ok(())
        })
    }),
    ("agents::update_details", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let agent = Agent { owner: "another team".to_owned(), ..fleet.agent };
            assert!(agents::update_details(tx, &agent).await?);
            Ok(())
        })
    }),
    ("labels::replace", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let labels = Labels::parse([("env", "prod")]).unwrap();
            labels::replace(tx, &Agent { labels, ..fleet.agent }, &Labels::default()).await
        })
    }),
    ("agents::transition", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let agent = Agent { status: AgentStatus::Suspended, token_epoch: 1, ..fleet.agent };
            assert!(agents::transition(tx, &agent, AgentStatus::Active).await?);
            Ok(())
        })
    }),
    ("agents::begin_epoch", Marks::Everything, |tx, _| {
        Box::pin(async move { agents::begin_epoch(tx, 1_000_000).await })
    }),
    ("agents::delete", Marks::Agents(&[AGENT, DELEGATE]), |tx, fleet| {
        Box::pin(async move {
            assert!(agents::delete(tx, fleet.delegate.id).await?);
            Ok(())
        })
    }),
    ("delegations::insert", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let delegation = Delegation {
                id: DelegationId(Uuid::from_u128(fleet.number + 20)),
                delegate: fleet.agent.id,
                ..fleet.delegation
            };
            assert!(delegations::insert(tx, &delegation).await?);
            Ok(())
        })
    }),
    ("delegations::delete", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            assert!(delegations::delete(tx, fleet.agent.id, fleet.delegate.id).await?);
            Ok(())
        })
    }),
    ("capabilities::insert", Marks::Nothing("no agent holds a new capability"), |tx, fleet| {
        Box::pin(async move {
            assert!(capabilities::insert(tx, &capability(fleet.number + 30)).await?);
            Ok(())
        })
    }),
    ("capabilities::describe", Marks::Nothing("the view has no descriptions"), |tx, fleet| {
        Box::pin(async move { capabilities::describe(tx, fleet.held.id, "Another description").await })
    }),
    ("capabilities::grant", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            assert!(capabilities::grant(tx, fleet.agent.id, fleet.other.id, None, NOW).await?);
            Ok(())
        })
    }),
    ("capabilities::ungrant", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            assert!(capabilities::ungrant(tx, fleet.agent.id, fleet.held.id).await?);
            Ok(())
        })
    }),
    ("holders::ungrant_all", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            assert_eq!(holders::ungrant_all(tx, fleet.held.id).await?, [fleet.agent.id]);
            Ok(())
        })
    }),
    ("holders::delete", Marks::Nothing("no agent holds it"), |tx, fleet| {
        Box::pin(async move { holders::delete(tx, fleet.other.id).await })
    }),
    ("api_keys::insert", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let key = ApiKey { id: ApiKeyId(Uuid::from_u128(fleet.number + 40)), ..fleet.key };
            assert!(api_keys::insert(tx, &key, &hash(fleet.number + 40)).await?);
            Ok(())
        })
    }),
    ("api_keys::transition", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let key = ApiKey { status: ApiKeyStatus::Revoked, revoked_at: Some(NOW), ..fleet.key };
            assert!(api_keys::transition(tx, &key, ApiKeyStatus::Active).await?);
            Ok(())
        })
    }),
    ("api_keys::revoke_all", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move { api_keys::revoke_all(tx, fleet.agent.id, NOW).await })
    }),
    (
        "api_keys::spend_use",
        Marks::Nothing("the uses left are checked in the transaction that spends one"),
        |tx, fleet| {
            Box::pin(async move {
                assert!(api_keys::spend_use(tx, fleet.key.id).await?);
                Ok(())
            })
        },
    ),
    (
        "api_keys::use_up",
        Marks::Nothing("the uses left are checked in the transaction that spends one"),
        |tx, fleet| Box::pin(async move { api_keys::use_up(tx, fleet.key.id).await }),
    ),
    ("public_keys::insert", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let key = PublicKey {
                id: PublicKeyId(Uuid::from_u128(fleet.number + 50)),
                thumbprint: "another".to_owned(),
                ..fleet.public_key
            };
            assert!(public_keys::insert(tx, &key).await?);
            Ok(())
        })
    }),
    ("public_keys::delete", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            assert!(public_keys::delete(tx, fleet.agent.id, fleet.public_key.id).await?.is_some());
            Ok(())
        })
    }),
    ("federated_identities::insert", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let id = FederatedIdentityId(Uuid::from_u128(fleet.number + 60));
            federated_identities::insert(tx, &FederatedIdentity { id, ..fleet.identity }).await
        })
    }),
    ("federated_identities::delete", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            assert!(federated_identities::delete(tx, fleet.agent.id, fleet.identity.id).await?.is_some());
            Ok(())
        })
    }),
    ("revoked_tokens::insert", Marks::Agents(&[AGENT]), |tx, fleet| {
        Box::pin(async move {
            let token = TokenId(Uuid::from_u128(fleet.number + 70));
            assert!(revoked_tokens::insert(tx, fleet.agent.id, token, LATER).await?);
            Ok(())
        })
    }),
    ("revoked_tokens::forget_expired", Marks::Nothing("the view ignores tokens that expired long ago"), |tx, _| {
        Box::pin(async move {
            assert!(revoked_tokens::forget_expired(tx, NOW, 100).await? > 0);
            Ok(())
        })
    }),
    ("signing_keys::insert", Marks::Everything, |tx, fleet| {
        Box::pin(async move { signing_keys::insert(tx, &signing_key(fleet.number + 80)).await })
    }),
    ("signing_keys::activate", Marks::Everything, |tx, _| {
        Box::pin(async move { signing_keys::activate(tx, "some key", NOW).await })
    }),
    ("signing_keys::retire", Marks::Everything, |tx, _| {
        Box::pin(async move { signing_keys::retire(tx, "some key", NOW).await })
    }),
    ("signing_keys::delete", Marks::Everything, |tx, _| {
        Box::pin(async move { signing_keys::delete(tx, "some key").await })
    }),
    ("sealed::replace", Marks::Nothing("the key stays the same under another master key"), |tx, _| {
        Box::pin(async move {
            let sealed = Sealed { kind: Kind::SigningKeys, owner: "some key".to_owned(), value: vec![0] };
            sealed::replace(tx, &sealed, &[1]).await.map(drop)
        })
    }),
    ("seed::mark_imported", Marks::Everything, |tx, _| {
        Box::pin(async move {
            assert!(seed::mark_imported(tx, NOW).await?);
            Ok(())
        })
    }),
];

/// Functions that write to a table of the live view without a transaction of a caller, with the reason.
const INTERNAL: [(&str, &str); 4] = [
    ("usage::save_keys", "called by the writer only; the view does not read when a key was used"),
    ("usage::save_last_uses", "called by the writer only; the view does not read when an agent was used"),
    ("capability_usage::save", "called by the writer only; the view does not read when a capability was used"),
    ("capability_usage::save_latest", "the same"),
];

/// An agent that has one of everything, and its delegate.
#[derive(Clone)]
struct Fleet {
    number: u128,
    agent: Agent,
    delegate: Agent,
    delegation: Delegation,
    held: Capability,
    other: Capability,
    key: ApiKey,
    public_key: PublicKey,
    identity: FederatedIdentity,
}

fn agent(number: u128) -> Agent {
    Agent {
        id: AgentId(Uuid::from_u128(number)),
        name: AgentName::parse(&format!("agent-{number}")).unwrap(),
        description: String::new(),
        owner: "tests".to_owned(),
        status: AgentStatus::Active,
        agent_type: AgentType::ALL[0],
        metadata_json: "{}".to_owned(),
        labels: Labels::default(),
        created_at: NOW,
        updated_at: NOW,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    }
}

fn capability(number: u128) -> Capability {
    Capability {
        id: CapabilityId(Uuid::from_u128(number)),
        name: CapabilityName::parse(&format!("thing{number}:use")).unwrap(),
        description: String::new(),
        created_at: NOW,
    }
}

fn hash(number: u128) -> KeyHash {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&number.to_be_bytes());
    KeyHash(hash)
}

fn signing_key(number: u128) -> SealedKey {
    SealedKey {
        kid: number.to_string(),
        algorithm: SigningAlgorithm::Es256,
        sealed_private_key: vec![0],
        created_at: NOW,
        activated_at: None,
        retired_at: None,
    }
}

impl Fleet {
    fn new(number: u128) -> Self {
        let (agent, delegate) = (agent(number + AGENT), agent(number + DELEGATE));
        let id = agent.id;
        Self {
            number,
            delegation: Delegation {
                id: DelegationId(Uuid::from_u128(number + 2)),
                agent: id,
                delegate: delegate.id,
                delegate_name: delegate.name.to_string(),
                created_at: NOW,
            },
            held: capability(number + 3),
            other: capability(number + 4),
            key: ApiKey {
                id: ApiKeyId(Uuid::from_u128(number + 5)),
                agent_id: id,
                key_prefix: "prefix".to_owned(),
                name: "key".to_owned(),
                status: ApiKeyStatus::Active,
                limits: KeyLimits { uses_left: Some(2), ..KeyLimits::default() },
                expires_at: None,
                created_at: NOW,
                rotated_at: None,
                grace_ends_at: None,
                revoked_at: None,
                last_used_at: None,
                last_used_ip: None,
            },
            public_key: PublicKey {
                id: PublicKeyId(Uuid::from_u128(number + 6)),
                agent: id,
                kid: "kid".to_owned(),
                thumbprint: "thumbprint".to_owned(),
                jwk: serde_json::json!({}),
                created_at: NOW,
            },
            identity: FederatedIdentity {
                id: FederatedIdentityId(Uuid::from_u128(number + 7)),
                agent: id,
                trust: Trust {
                    issuer: "https://issuer.example".to_owned(),
                    jwks_uri: None,
                    audience: "aims".to_owned(),
                    claims: BTreeMap::from([("sub".to_owned(), number.to_string())]),
                },
                created_at: NOW,
            },
            agent,
            delegate,
        }
    }

    async fn insert(&self, tx: &mut Tx) -> Result<()> {
        assert!(agents::insert(tx, &self.agent).await?);
        assert!(agents::insert(tx, &self.delegate).await?);
        assert!(delegations::insert(tx, &self.delegation).await?);
        assert!(capabilities::insert(tx, &self.held).await?);
        assert!(capabilities::insert(tx, &self.other).await?);
        assert!(capabilities::grant(tx, self.agent.id, self.held.id, None, NOW).await?);
        assert!(api_keys::insert(tx, &self.key, &hash(self.number)).await?);
        assert!(public_keys::insert(tx, &self.public_key).await?);
        federated_identities::insert(tx, &self.identity).await?;
        let expired = TokenId(Uuid::from_u128(self.number + 8));
        assert!(revoked_tokens::insert(tx, self.agent.id, expired, NOW.minus(revoked_tokens::KEPT)).await?);
        Ok(())
    }
}

/// A store with a live view, and what its commits marked.
struct Node {
    store: Store,
    view: Principals,
    marked: Arc<Mutex<Changes>>,
}

impl Node {
    async fn open(db: &Database) -> Self {
        let location = if db.is_sqlite() {
            Location::Sqlite(db.sqlite_file())
        } else {
            Location::Postgres(SecretString::from(db.url.clone()))
        };
        let (view, marked) = (Principals::new(1_000), Arc::<Mutex<Changes>>::default());
        let store = Store::start(Db::open(&location, Mode::Write).await.unwrap(), {
            let (view, marked) = (view.clone(), marked.clone());
            Arc::new(move |changes| {
                view.forget(changes);
                *marked.lock().unwrap() = changes.clone();
            })
        });
        Self { store, view, marked }
    }

    /// What the view says of two agents, and what the database says.
    async fn states(&self, fleet: &Fleet) -> (String, String) {
        let (mut seen, mut stored) = (Vec::new(), Vec::new());
        for id in [fleet.agent.id, fleet.delegate.id] {
            let principal = self.view.agent(&self.store, id, NOW).await.unwrap();
            seen.push((
                principal.map(|principal| comparable((*principal).clone())),
                self.view.details(&self.store, id).await.unwrap(),
            ));
            let mut read = self.store.read().await.unwrap();
            let principal = principals::load(read.conn(), id, NOW).await.unwrap().map(comparable);
            stored.push((principal, agents::find(read.conn(), id).await.unwrap().map(Arc::new)));
        }
        (format!("{seen:?}"), format!("{stored:?}"))
    }
}

/// The view knows whether the uses of a key are limited, but not how many are left.
fn comparable(mut principal: principals::Principal) -> principals::Principal {
    for key in &mut principal.keys {
        key.limits.uses_left = key.limits.uses_left.map(|_| 0);
    }
    let sorted: BTreeSet<String> = principal.capabilities.iter().map(str::to_owned).collect();
    principal.capabilities = sorted.iter().map(|name| CapabilityName::parse(name).unwrap()).collect();
    principal
}

/// On PostgreSQL also another node's view.
async fn the_live_view_follows_every_store_function(db: Database) {
    let node = Node::open(&db).await;
    let other = if db.is_sqlite() { None } else { Some(Node::open(&db).await) };
    let following = other.as_ref().map(|other| {
        let (view, store) = (other.view.clone(), other.store.clone());
        tokio::spawn(async move { view.follow(&store).await })
    });
    let mut failures = Vec::new();
    for ((name, marks, run), number) in FUNCTIONS.iter().zip(1_u128..) {
        let fleet = Fleet::new(number * 1_000);
        let setup = fleet.clone();
        node.store.write(move |tx| Box::pin(async move { setup.insert(tx).await })).await.unwrap();
        for node in [Some(&node), other.as_ref()].into_iter().flatten() {
            let (seen, stored) = node.states(&fleet).await;
            assert_eq!(seen, stored, "before {name}");
        }
        mem::take(&mut *node.marked.lock().unwrap());

        let (run, given) = (*run, fleet.clone());
        node.store.write(move |tx| run(tx, given)).await.unwrap();

        let marked = mem::take(&mut *node.marked.lock().unwrap());
        let expected = match marks {
            Marks::Agents(numbers) => {
                Some(numbers.iter().map(|number| AgentId(Uuid::from_u128(fleet.number + number))).collect())
            }
            Marks::Everything => None,
            Marks::Nothing(_) => Some(BTreeSet::new()),
        };
        if marked.agents() != expected.as_ref() {
            failures.push(format!("{name} marks {marked:?} and not {expected:?}"));
        }
        let (seen, stored) = node.states(&fleet).await;
        if seen != stored {
            failures.push(format!("after {name} the view has {seen} and not {stored}"));
        }
        if let Some(other) = &other
            && !follows(other, &fleet).await
        {
            failures.push(format!("another node does not follow {name}"));
        }
    }
    if let Some(following) = following {
        following.abort();
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Waits until the view of a node equals the database.
async fn follows(node: &Node, fleet: &Fleet) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let (seen, stored) = node.states(fleet).await;
        if seen == stored {
            return true;
        }
    }
    false
}

/// A function of the store that writes to a followed table.
struct Writing {
    name: String,
    takes_transaction: bool,
}

/// The functions whose SQL writes to one of these tables.
fn writing(tables: &BTreeSet<String>) -> Vec<Writing> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut found = Vec::new();
    for file in files(&source) {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let module = if name == "mod" { folder } else { name };
        let mut function = None;
        let mut rest = text;
        while let Some(line) = rest.split_inclusive('\n').next() {
            let (this, text) = (rest, line);
            rest = &rest[line.len()..];
            if let Some((_, name)) = text.split_once("fn ")
                && !text.trim_start().starts_with("//")
            {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let signature = this.split('{').next().unwrap();
                function = Some((format!("{module}::{name}"), signature.contains("tx: &mut Tx")));
            }
            for verb in ["INSERT INTO ", "UPDATE ", "DELETE FROM "] {
                let Some((_, table)) = text.split_once(verb) else { continue };
                let table: String = table.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !tables.contains(&table) || text.trim_start().starts_with("//") {
                    continue;
                }
                let (name, takes_transaction) = function.clone().expect("SQL in a function");
                if !found.iter().any(|known: &Writing| known.name == name) {
                    found.push(Writing { name, takes_transaction });
                }
            }
        }
    }
    found
}

/// The tables that the live view reads, from its SQL.
fn tables_of_the_view() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/principals.rs")).unwrap();
    let mut tables = BTreeSet::new();
    for keyword in ["FROM ", "JOIN "] {
        for (at, _) in text.match_indices(keyword) {
            let table = &text[at + keyword.len()..];
            tables.insert(table.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect());
        }
    }
    tables.remove("presented");
    tables
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_function_that_writes_is_listed() {
    let mut tables = tables_of_the_view();
    for table in ["agents", "api_keys", "agent_capabilities", "revoked_tokens", "delegations"] {
        assert!(tables.contains(table), "the scan of the view finds only {tables:?}");
    }
    tables.extend(FOLLOWED.iter().chain(&DESCRIBING).map(|table| (*table).to_owned()));
    let writing = writing(&tables);
    let names: BTreeSet<_> = writing.iter().map(|function| function.name.as_str()).collect();
    let listed = FUNCTIONS.iter().map(|(name, ..)| *name).chain(INTERNAL.iter().map(|(name, _)| *name)).collect();
    assert_eq!(names, listed, "the functions of the source, and those of this test");
    for function in &writing {
        let is_internal = INTERNAL.iter().any(|(name, _)| *name == function.name);
        assert!(function.takes_transaction || is_internal, "{} must take `tx: &mut Tx`", function.name);
    }
}

/// A statement outside the store could change an agent without a mark.
#[test]
fn only_the_store_runs_sql() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let runs_sql = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        text.split("#[cfg(test)]").next().unwrap().contains("sqlx")
    };
    let is_outside = |file: &PathBuf| !file.starts_with(source.join("store")) && !file.ends_with("tests.rs");
    let found: Vec<_> = files(&source).into_iter().filter(|file| is_outside(file) && runs_sql(file)).collect();
    assert_eq!(found, Vec::<PathBuf>::new());
}
