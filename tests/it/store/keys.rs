//! Listing the keys of all agents, compared with a model that checks every key.

use std::collections::HashSet;

use aims::{
    crypto::KeyHash,
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, ApiKey, ApiKeyId, ApiKeyStatus, Capability, CapabilityId,
        CapabilityName, KeyLimits, KeyState, Limit, Selection, Timestamp,
        agent::{labels::Labels, selector::Selector},
        credential::key_filter::{ExpiryFilter, Filter, LimitFilter, Sort, StateFilter, UsageFilter},
    },
    store::{
        Store, agents, capabilities,
        credentials::{api_keys, fleet},
    },
};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(every_filter_and_sort_order_lists_each_key_once, many_keys_are_listed_in_windows);

const DAY: i64 = 86_400_000_000;
const NOW: Timestamp = Timestamp::from_micros(1_000 * DAY);

async fn store(db: &Database) -> Store {
    open(db, &TestClock::new(), &[]).await.services().store.clone()
}

struct Fleet {
    agents: Vec<Agent>,
    administrators: HashSet<AgentId>,
    keys: Vec<ApiKey>,
}

/// Identifiers that are not in the order of creation.
fn id(number: u128) -> Uuid {
    Uuid::from_u128(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

fn agent(dice: &mut Dice, number: u128) -> Agent {
    let env = *dice.pick(&["prod", "test"]);
    Agent {
        id: AgentId(id(number + 1)),
        name: AgentName::parse(&format!("agent-{number}")).unwrap(),
        description: String::new(),
        owner: (*dice.pick(&["mail", "search", "o%"])).to_owned(),
        status: *dice.pick(&[AgentStatus::Active, AgentStatus::Active, AgentStatus::Suspended]),
        agent_type: AgentType::Llm,
        metadata_json: "{}".to_owned(),
        labels: Labels::parse(dice.maybe(("env", env))).unwrap(),
        created_at: NOW,
        updated_at: NOW,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    }
}

fn key(dice: &mut Dice, number: u128, agent: AgentId) -> ApiKey {
    let days = |dice: &mut Dice, range: usize| i64::try_from(dice.roll(range)).unwrap() * DAY;
    let created = NOW.as_micros() - DAY - days(dice, 200);
    let last_used = created + days(dice, 200);
    let status = *dice.pick(ApiKeyStatus::ALL);
    let rotated = (status == ApiKeyStatus::Rotated).then(|| NOW.as_micros() - days(dice, 20));
    let ends = NOW.as_micros() - 40 * DAY + days(dice, 100) + 1;
    let uses = i64::try_from(dice.roll(3)).unwrap();
    let limits = KeyLimits {
        capabilities: dice.maybe("documents:read").map(|text| KeyLimits::parse_capabilities(text).unwrap()),
        networks: dice.maybe("10.0.0.0/8").map(|text| KeyLimits::parse_networks(text).unwrap()).unwrap_or_default(),
        token_life: dice.maybe(60),
        uses_left: dice.maybe(uses).filter(|_| dice.roll(2) == 0),
    };
    ApiKey {
        id: ApiKeyId(id(number + 1_000_000)),
        agent_id: agent,
        key_prefix: format!("aims_{:08x}", number % 50),
        name: format!("{}{number}", dice.pick(&["prod", "Prod", "p%", "aims_", "ë", "stage"])),
        status,
        limits,
        expires_at: dice.maybe(Timestamp::from_micros(ends)),
        created_at: Timestamp::from_micros(created),
        rotated_at: rotated.map(Timestamp::from_micros),
        grace_ends_at: rotated.map(|at| Timestamp::from_micros(at + days(dice, 40) + 1)),
        revoked_at: None,
        last_used_at: dice.maybe(Timestamp::from_micros(last_used)).filter(|at| *at <= NOW),
        last_used_ip: None,
    }
}

async fn fill(store: &Store, dice: &mut Dice, agents: u128, keys: u128) -> Fleet {
    let agents: Vec<_> = (0..agents).map(|number| agent(dice, number)).collect();
    let administrators: HashSet<_> = agents.iter().map(|agent| agent.id).filter(|_| dice.roll(4) == 0).collect();
    let make = |number| {
        let agent = dice.pick(&agents).id;
        key(dice, number, agent)
    };
    let keys: Vec<_> = (0..keys).map(make).collect();
    let fleet = Fleet { agents, administrators, keys };
    let (agents, administrators, keys) = (fleet.agents.clone(), fleet.administrators.clone(), fleet.keys.clone());
    store
        .write(move |tx| {
            Box::pin(async move {
                let admin = Capability {
                    id: CapabilityId(id(9)),
                    name: CapabilityName::parse("admin:*").unwrap(),
                    description: String::new(),
                    created_at: NOW,
                };
                let known = capabilities::insert(tx, &admin).await?;
                for agent in &agents {
                    assert!(agents::insert(tx, agent).await?);
                }
                assert!(known || administrators.is_empty(), "the capability must be new");
                for agent in administrators {
                    capabilities::grant(tx, agent, admin.id, None, NOW).await?;
                }
                for (number, key) in keys.iter().enumerate() {
                    let mut hash = [0; 32];
                    hash[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
                    assert!(api_keys::insert(tx, key, &KeyHash(hash)).await?);
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    fleet
}

fn state_of(fleet: &Fleet, key: &ApiKey) -> KeyState {
    let agent = fleet.agents.iter().find(|agent| agent.id == key.agent_id).unwrap();
    key.state(agent.status, NOW)
}

fn shows(filter: &Filter, fleet: &Fleet, key: &ApiKey) -> bool {
    let agent = fleet.agents.iter().find(|agent| agent.id == key.agent_id).unwrap();
    let state = state_of(fleet, key);
    let starts = |text: &str| {
        key.name.to_ascii_lowercase().starts_with(&text.to_ascii_lowercase()) || key.key_prefix.starts_with(text)
    };
    let lives = key.status == ApiKeyStatus::Active && key.expires_at.is_none_or(|end| end > NOW);
    let is_narrow =
        filter.state.is_none() && !filter.used_in_grace && (filter.usage.is_some() || filter.expiry.is_some());
    filter.text.as_deref().is_none_or(starts)
        && filter.agent.is_none_or(|id| key.agent_id == id)
        && filter.owner.as_ref().is_none_or(|owner| agent.owner == *owner)
        && filter.selector.as_ref().is_none_or(|selector| selector.matches(&agent.labels))
        && filter.state.is_none_or(|wanted| state.as_str() == wanted.as_str())
        && (!is_narrow || lives)
        && filter.usage.is_none_or(|usage| match usage.since(NOW) {
            None => key.last_used_at.is_none(),
            Some(since) => key.used_or_created_at() < since,
        })
        && filter.expiry.is_none_or(|expiry| match expiry.until(NOW) {
            None => key.expires_at.is_none(),
            Some(until) => key.expires_at.is_some_and(|end| end > NOW && end < until),
        })
        && filter.limit.is_none_or(|limit| match limit {
            LimitFilter::Networks => !key.limits.networks.is_empty(),
            LimitFilter::Capabilities => key.limits.capabilities.is_some(),
            LimitFilter::Uses => key.limits.uses_left.is_some(),
            LimitFilter::TokenLife => key.limits.token_life.is_some(),
        })
        && (!filter.administrators || fleet.administrators.contains(&key.agent_id))
        && (!filter.used_in_grace || (state == KeyState::Rotated && key.last_used_at > key.rotated_at))
}

fn place(sort: Sort, key: &ApiKey) -> (i64, ApiKeyId) {
    let at = match sort {
        Sort::Newest | Sort::Oldest => key.created_at.as_micros(),
        // The time to the day equals the exact one here, because the keys were used once only.
        Sort::RecentlyUsed | Sort::LongestUnused => key.used_or_created_at().as_micros(),
        Sort::Expiry | Sort::ExpiryDescending => key.expires_at.map_or(i64::MAX, Timestamp::as_micros),
    };
    (at, key.id)
}

fn expected(filter: &Filter, sort: Sort, fleet: &Fleet) -> Vec<ApiKeyId> {
    let mut shown: Vec<_> = fleet.keys.iter().filter(|key| shows(filter, fleet, key)).collect();
    shown.sort_by_key(|key| place(sort, key));
    if !sort.is_ascending() {
        shown.reverse();
    }
    shown.into_iter().map(|key| key.id).collect()
}

async fn listed(store: &Store, filter: &Filter, sort: Sort, limit: u16) -> Vec<ApiKeyId> {
    let mut read = store.read().await.unwrap();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = fleet::list(read.conn(), filter, sort, NOW, after, Limit::of(limit)).await.unwrap();
        assert!(page.items.len() <= usize::from(limit));
        all.extend(page.items.iter().map(|listed| listed.key.id));
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

const SELECTORS: [&str; 5] = ["env=prod", "env!=prod", "!env", "env", "env in (prod,x)"];

fn filter(dice: &mut Dice, fleet: &Fleet) -> Filter {
    let rare = |dice: &mut Dice| dice.roll(4) == 0;
    Filter {
        text: rare(dice)
            .then(|| (*dice.pick(&["prod", "PROD", "p%", "aims_", "aims_0000001", "ë", "x", "_"])).to_owned()),
        agent: rare(dice).then(|| dice.pick(&fleet.agents).id),
        owner: rare(dice).then(|| (*dice.pick(&["mail", "o%", "nobody"])).to_owned()),
        selector: rare(dice).then(|| Selector::parse(SELECTORS[dice.roll(SELECTORS.len())]).unwrap()),
        state: dice.maybe(()).map(|()| *dice.pick(StateFilter::ALL)),
        usage: rare(dice).then(|| *dice.pick(UsageFilter::ALL)),
        expiry: rare(dice).then(|| *dice.pick(ExpiryFilter::ALL)),
        limit: rare(dice).then(|| *dice.pick(LimitFilter::ALL)),
        administrators: rare(dice),
        used_in_grace: rare(dice),
    }
}

async fn every_filter_and_sort_order_lists_each_key_once(db: Database) {
    let store = store(&db).await;
    let mut dice = Dice(1);
    let fleet = fill(&store, &mut dice, 12, 400).await;
    let mut filters = vec![Filter::default()];
    filters.extend(StateFilter::ALL.iter().map(|state| Filter { state: Some(*state), ..Filter::default() }));
    filters.extend(UsageFilter::ALL.iter().map(|usage| Filter { usage: Some(*usage), ..Filter::default() }));
    filters.extend(ExpiryFilter::ALL.iter().map(|expiry| Filter { expiry: Some(*expiry), ..Filter::default() }));
    filters.extend(LimitFilter::ALL.iter().map(|limit| Filter { limit: Some(*limit), ..Filter::default() }));
    filters.push(Filter { administrators: true, ..Filter::default() });
    filters.push(Filter { used_in_grace: true, ..Filter::default() });
    filters.extend((0..120).map(|_| filter(&mut dice, &fleet)));
    let mut matched = 0;
    for filter in &filters {
        for &sort in Sort::ALL {
            let wanted = expected(filter, sort, &fleet);
            matched += usize::from(!wanted.is_empty());
            assert_eq!(listed(&store, filter, sort, 37).await, wanted, "{filter:?} {sort:?}");
        }
        let wanted = i64::try_from(expected(filter, Sort::Newest, &fleet).len()).unwrap();
        let counted = fleet::count(store.read().await.unwrap().conn(), filter, NOW, 1_000).await.unwrap();
        assert_eq!(counted, (wanted, false), "{filter:?}");
    }
    assert!(matched > 250, "too few filters match anything: {matched}");
    for (selection, filter) in [
        (Selection::Idle, Filter { usage: Some(UsageFilter::Unused90Days), ..Filter::default() }),
        (Selection::Expiring, Filter { expiry: Some(ExpiryFilter::Week), ..Filter::default() }),
        (Selection::InGrace, Filter { state: Some(StateFilter::Rotated), ..Filter::default() }),
    ] {
        let wanted = i64::try_from(expected(&filter, Sort::Newest, &fleet).len()).unwrap();
        let counted = api_keys::count_fleet(store.read().await.unwrap().conn(), selection, NOW, 1_000).await.unwrap();
        assert_eq!(counted, wanted, "{selection:?}: a number must count what its link lists");
    }
}

/// Inserts keys with SQL: too many for the writer. Every third is revoked; every tenth belongs to a suspended agent.
async fn crowd(db: &Database, agents: u32, keys: u32) {
    let uuid = |number: &str| {
        if db.is_sqlite() {
            format!("CAST(printf('%016d', {number}) AS BLOB)")
        } else {
            format!("CAST(LPAD(CAST({number} AS TEXT), 32, '0') AS UUID)")
        }
    };
    let hash = if db.is_sqlite() {
        "CAST(printf('%032d', i) AS BLOB)"
    } else {
        "CAST(LPAD(CAST(i AS TEXT), 32, '0') AS BYTEA)"
    };
    let numbers =
        |most: u32| format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most}) ");
    let (now, agent) = (NOW.as_micros(), uuid(&format!("(i % {agents}) + 1")));
    let (first, second) = (uuid("i"), uuid("i"));
    db.execute(&format!(
        "{} INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
         SELECT {first}, 'n' || i, '', CASE WHEN i % 1000 = 0 THEN 'rare' WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, \
         CASE WHEN i % 10 = 0 THEN 'suspended' ELSE 'active' END, 'llm', '{{}}', i, i FROM n",
        numbers(agents)
    ))
    .await;
    db.execute(&format!(
        "{} INSERT INTO api_keys (id, agent_id, key_hash, key_prefix, name, status, expires_at, created_at, idle_since, networks) \
         SELECT {second}, {agent}, {hash}, 'aims_' || i, CASE WHEN i % 2 = 0 THEN 'production' ELSE 'default' END, \
         CASE WHEN i % 3 = 0 THEN 'revoked' ELSE 'active' END, CASE WHEN i % 4 = 0 THEN {now} + i ELSE NULL END, \
         {now} - 100 * {DAY} - i, {now} - 100 * {DAY} - i, CASE WHEN i % 5 = 0 THEN '10.0.0.0/8' ELSE NULL END FROM n",
        numbers(keys)
    ))
    .await;
}

async fn many_keys_are_listed_in_windows(db: Database) {
    const KEYS: u32 = 60_000;
    let store = store(&db).await;
    crowd(&db, 10_000, KEYS).await;
    let state = |state| Filter { state: Some(state), ..Filter::default() };
    let owner = |owner: &str| Filter { owner: Some(owner.to_owned()), ..Filter::default() };
    for (filter, wanted) in [
        (Filter { text: Some("prod".to_owned()), ..state(StateFilter::Revoked) }, 10_000),
        (Filter { text: Some("PRODUCTION".to_owned()), ..owner("odd") }, 30_000),
        (owner("rare"), 60),
        (state(StateFilter::Blocked), 4_000),
        (Filter { limit: Some(LimitFilter::Networks), ..owner("even") }, 6000),
        (Filter { expiry: Some(ExpiryFilter::Never), ..Filter::default() }, 30_000),
        (Filter { usage: Some(UsageFilter::Unused90Days), ..Filter::default() }, 40_000),
        (Filter { usage: Some(UsageFilter::Never), ..owner("even") }, 19960),
    ] {
        for sort in [Sort::of(&filter), Sort::Newest, Sort::RecentlyUsed, Sort::ExpiryDescending] {
            let found = listed(&store, &filter, sort, 500).await;
            let distinct: HashSet<_> = found.iter().collect();
            assert_eq!((found.len(), distinct.len()), (wanted, wanted), "{filter:?} {sort:?}");
        }
        let (count, more) = fleet::count(store.read().await.unwrap().conn(), &filter, NOW, 1_000).await.unwrap();
        let wanted = i64::try_from(wanted).unwrap();
        assert!(count == wanted.min(1_000) || more, "{count} of {wanted}: {filter:?}");
        assert!(more || wanted == count, "{filter:?}");
    }
}
