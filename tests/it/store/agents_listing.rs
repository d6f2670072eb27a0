//! Listings by use, capability and parts of an owner, compared with a model that checks every agent.

use std::collections::HashSet;

use aims::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Capability, CapabilityId, CapabilityName, Limit, Timestamp,
        agent::{Filter, Position, Sort, Unused, labels::Labels, selector::Selector},
    },
    store::{Store, agents, capabilities},
};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(
    every_filter_lists_each_agent_once,
    frequent_labels_fill_every_page,
    an_id_finds_its_agent,
    frequent_conditions_are_found_at_any_position,
    owners_are_counted_up_to_a_limit,
);

const CAPABILITY: CapabilityId = CapabilityId(Uuid::from_u128(77));

#[derive(Clone, Debug)]
struct Member {
    agent: Agent,
    last_used_at: i64,
    holds: bool,
}

async fn store(db: &Database) -> Store {
    open(db, &TestClock::new(), &[]).await.services().store.clone()
}

fn member(dice: &mut Dice, number: u128) -> Member {
    let created_at = Timestamp::from_micros(i64::try_from(dice.roll(40)).unwrap() + 1);
    let agent = Agent {
        id: AgentId(Uuid::from_u128(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))),
        name: AgentName::parse(&format!("{}-{number}", dice.pick(&["mail", "Plan", "x"]))).unwrap(),
        description: "Does something".to_owned(),
        owner: (*dice.pick(&["mail-team", "Email 100%", "a_b", "platform"])).to_owned(),
        status: *dice.pick(AgentStatus::ALL),
        agent_type: *dice.pick(AgentType::ALL),
        metadata_json: "{}".to_owned(),
        labels: labels(dice),
        created_at,
        updated_at: created_at,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    };
    let last_used_at = if dice.roll(3) == 0 { 0 } else { 1 + i64::try_from(dice.roll(50)).unwrap() };
    Member { agent, last_used_at, holds: dice.roll(3) == 0 }
}

/// Labels with few keys and values, so that many agents have the same.
fn labels(dice: &mut Dice) -> Labels {
    let mut pairs = Vec::new();
    for (key, values) in [("env", ["prod", "test", "Prod"]), ("team", ["mail", "a, b", ""]), ("tier", ["a", "b", "c"])]
    {
        if dice.roll(3) > 0 {
            pairs.push((key, *dice.pick(&values)));
        }
    }
    Labels::parse(pairs).unwrap()
}

async fn fleet(db: &Database, store: &Store, count: u128) -> Vec<Member> {
    let mut dice = Dice(8);
    let members: Vec<_> = (0..count).map(|number| member(&mut dice, number)).collect();
    let made = members.clone();
    let write = store.write(move |tx| {
        Box::pin(async move {
            let name = CapabilityName::parse("documents:read").unwrap();
            let created_at = Timestamp::from_micros(0);
            let capability = Capability { id: CAPABILITY, name, description: String::new(), created_at };
            capabilities::insert(tx, &capability).await?;
            for member in &made {
                assert!(agents::insert(tx, &member.agent).await?);
                if member.holds {
                    capabilities::grant(tx, member.agent.id, CAPABILITY, None, created_at).await?;
                }
            }
            Ok(())
        })
    });
    write.await.unwrap();
    let used: Vec<_> = members
        .iter()
        .map(|member| {
            let (name, at) = (member.agent.name.as_str(), member.last_used_at);
            format!("UPDATE agents SET last_used_at = {at} WHERE name = '{name}'")
        })
        .collect();
    db.execute(&used.join(";")).await;
    members
}

const SELECTORS: [&str; 14] = [
    "env=prod",
    "env!=prod",
    "env",
    "!env",
    "env in (prod,test)",
    "env notin (prod,test)",
    "team=\"a, b\"",
    "team=",
    "team!=",
    "env=prod,tier in (a,b),!team",
    "tier in (a,b,c),team!=mail",
    "env=prod,env=test",
    "nobody=x",
    "!nobody",
];

fn shows(filter: &Filter, member: &Member) -> bool {
    let agent = &member.agent;
    filter.status.is_none_or(|status| agent.status == status)
        && filter.owner.as_ref().is_none_or(|owner| agent.owner == *owner)
        && filter.text.as_ref().is_none_or(|text| agent.name.as_str().contains(text))
        && filter.capability.is_none_or(|id| member.holds && id == CAPABILITY)
        && filter
            .owner_part
            .as_ref()
            .is_none_or(|part| agent.owner.to_ascii_lowercase().contains(&part.to_ascii_lowercase()))
        && filter.selector.as_ref().is_none_or(|selector| selector.matches(&agent.labels))
        && filter.unused.is_none_or(|unused| match unused {
            Unused::Ever => member.last_used_at == 0,
            Unused::Since(time) => member.last_used_at < time.as_micros() && agent.created_at < time,
        })
}

fn expected(filter: &Filter, sort: Sort, all: &[Member]) -> Vec<AgentName> {
    let mut shown: Vec<_> = all.iter().filter(|member| shows(filter, member)).cloned().collect();
    match sort {
        Sort::Oldest | Sort::Newest => shown.sort_by_key(|member| (member.agent.created_at, member.agent.id)),
        Sort::Name | Sort::NameDescending => shown.sort_by_key(|member| member.agent.name.clone()),
        Sort::LastUsed | Sort::LongestUnused => shown.sort_by_key(|member| (member.last_used_at, member.agent.id)),
    }
    if matches!(sort, Sort::Newest | Sort::NameDescending | Sort::LastUsed) {
        shown.reverse();
    }
    shown.into_iter().map(|member| member.agent.name).collect()
}

async fn listed(store: &Store, filter: &Filter, sort: Sort, limit: u16) -> Vec<AgentName> {
    let mut read = store.read().await.unwrap();
    let mut all = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let page = agents::list(read.conn(), filter, sort, after, Limit::of(limit)).await.unwrap();
        all.extend(page.items.into_iter().map(|agent| agent.name));
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn every_filter_lists_each_agent_once(db: Database) {
    let store = store(&db).await;
    let all = fleet(&db, &store, 240).await;
    let mut dice = Dice(3);
    let mut found = 0;
    for round in 0..160 {
        let filter = Filter {
            status: (dice.roll(3) == 0).then(|| *dice.pick(AgentStatus::ALL)),
            owner: (dice.roll(4) == 0).then(|| "mail-team".to_owned()),
            agent_type: None,
            text: (dice.roll(5) == 0).then(|| (*dice.pick(&["mail", "Plan", "x"])).to_owned()),
            owner_part: (dice.roll(4) == 0).then(|| (*dice.pick(&["MAIL", "a_b", "100%", "zzz"])).to_owned()),
            capability: (dice.roll(3) == 0).then_some(CAPABILITY),
            unused: match dice.roll(3) {
                0 => Some(Unused::Ever),
                1 => Some(Unused::Since(Timestamp::from_micros(20))),
                _ => None,
            },
            selector: (dice.roll(2) == 0).then(|| Selector::parse(SELECTORS[dice.roll(SELECTORS.len())]).unwrap()),
        };
        // The model searches names only.
        let filter = if filter.text.as_deref() == Some("mail") { Filter { text: None, ..filter } } else { filter };
        let sort = Sort::ALL[round % Sort::ALL.len()];
        let wanted = expected(&filter, sort, &all);
        found += wanted.len();
        for limit in [7, 500] {
            assert_eq!(listed(&store, &filter, sort, limit).await, wanted, "{filter:?} {sort:?} {limit}");
        }
        let mut read = store.read().await.unwrap();
        let number = u64::try_from(wanted.len()).unwrap();
        assert_eq!(agents::count_up_to(read.conn(), &filter, 1_000).await.unwrap(), number, "{filter:?}");
        let estimate = agents::estimate(read.conn(), &filter, 1_000).await.unwrap();
        assert_eq!(estimate.found, number, "{filter:?}");
    }
    assert!(found > 500, "only {found}");
}

async fn an_id_finds_its_agent(db: Database) {
    let store = store(&db).await;
    let all = fleet(&db, &store, 20).await;
    for member in &all {
        for id in [member.agent.id.to_string(), member.agent.id.to_string().to_uppercase()] {
            for &sort in Sort::ALL {
                let filter = Filter { text: Some(id.clone()), ..Filter::default() };
                assert_eq!(listed(&store, &filter, sort, 5).await, std::slice::from_ref(&member.agent.name));
                // The other conditions hold as well.
                let other = AgentStatus::ALL.iter().find(|status| **status != member.agent.status).copied();
                assert!(listed(&store, &Filter { status: other, ..filter.clone() }, sort, 5).await.is_empty());
            }
            let filter = Filter { text: Some(id), ..Filter::default() };
            let mut read = store.read().await.unwrap();
            assert_eq!(agents::estimate(read.conn(), &filter, 10).await.unwrap().found, 1);
        }
    }
    let filter = Filter { text: Some(Uuid::from_u128(5).to_string()), ..Filter::default() };
    assert!(listed(&store, &filter, Sort::Newest, 5).await.is_empty());
}

/// More holders than are checked one by one, at the far end of the listing.
async fn frequent_conditions_are_found_at_any_position(db: Database) {
    const COUNT: usize = 27_500;
    let store = store(&db).await;
    fleet(&db, &store, 0).await;
    let id = if db.is_sqlite() { "CAST(printf('%016d', i) AS BLOB)" } else { "LPAD(i::text, 32, '0')::uuid" };
    let capability = if db.is_sqlite() { "zeroblob(15) || x'4d'" } else { "LPAD('4d', 32, '0')::uuid" };
    let capability = if db.is_sqlite() { format!("CAST({capability} AS BLOB)") } else { capability.to_owned() };
    db.execute(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT}) \
         INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at, \
         last_used_at) SELECT {id}, 'n' || i, '', 'o', 'active', 'llm', '{{}}', i, i, \
         CASE WHEN i > {COUNT} - 6000 THEN 0 ELSE 9 END FROM n; \
         INSERT INTO agent_capabilities (agent_id, capability_id, granted_at) \
         SELECT id, {capability}, 1 FROM agents WHERE last_used_at = 0"
    ))
    .await;
    for filter in [
        Filter { capability: Some(CAPABILITY), ..Filter::default() },
        Filter { unused: Some(Unused::Ever), ..Filter::default() },
        Filter { capability: Some(CAPABILITY), unused: Some(Unused::Ever), ..Filter::default() },
    ] {
        for &sort in Sort::ALL {
            let read = listed(&store, &filter, sort, 500).await;
            let names: HashSet<_> = read.iter().collect();
            assert_eq!((read.len(), names.len()), (6_000, 6_000), "{filter:?} {sort:?}");
        }
        let mut read = store.read().await.unwrap();
        let estimate = agents::estimate(read.conn(), &filter, 1_000).await.unwrap();
        assert!(estimate.may_be_more, "{filter:?}");
        assert_eq!(agents::count_up_to(read.conn(), &filter, 100_000).await.unwrap(), 6_000);
    }
    let nobody = Filter {
        capability: Some(CAPABILITY),
        unused: Some(Unused::Since(Timestamp::from_micros(1))),
        ..Filter::default()
    };
    assert!(listed(&store, &nobody, Sort::Name, 500).await.is_empty());
}

/// More agents with a label than are checked one by one, at the far end of the listing.
async fn frequent_labels_fill_every_page(db: Database) {
    const COUNT: usize = 27_500;
    let store = store(&db).await;
    let id = if db.is_sqlite() { "CAST(printf('%016d', i) AS BLOB)" } else { "LPAD(i::text, 32, '0')::uuid" };
    db.execute(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT}) \
         INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
         SELECT {id}, 'n' || i, '', 'o', CASE WHEN i % 2 = 0 THEN 'active' ELSE 'suspended' END, 'llm', '{{}}', i, i FROM n; \
         INSERT INTO agent_labels (agent_id, key, value, created_at) \
         SELECT id, 'env', CASE WHEN created_at > {COUNT} - 6000 THEN 'canary' ELSE 'prod' END, created_at FROM agents; \
         INSERT INTO agent_labels (agent_id, key, value, created_at) \
         SELECT id, 'rare', 'yes', created_at FROM agents WHERE created_at > {COUNT} - 3"
    ))
    .await;
    let filter = |selector: &str| Filter { selector: Some(Selector::parse(selector).unwrap()), ..Filter::default() };
    for (filter, wanted) in [
        (filter("env=canary"), 6_000),
        (filter("env in (canary,none)"), 6_000),
        (Filter { status: Some(AgentStatus::Active), ..filter("env=canary") }, 3_000),
        (filter("env=canary,rare"), 3),
        (filter("rare!=no,rare"), 3),
        (filter("env=prod,rare"), 0),
        (Filter { status: Some(AgentStatus::Revoked), ..filter("env=prod") }, 0),
    ] {
        for &sort in Sort::ALL {
            let read = listed(&store, &filter, sort, 500).await;
            let names: HashSet<_> = read.iter().collect();
            assert_eq!((read.len(), names.len()), (wanted, wanted), "{filter:?} {sort:?}");
        }
        let mut read = store.read().await.unwrap();
        for sort in [Sort::Oldest, Sort::Newest] {
            let page = agents::list(read.conn(), &filter, sort, None, Limit::of(500)).await.unwrap();
            assert_eq!(page.items.len(), wanted.min(500), "the first page is full: {filter:?} {sort:?}");
        }
        let counted = agents::count_up_to(read.conn(), &filter, 100_000).await.unwrap();
        assert_eq!(counted, u64::try_from(wanted).unwrap(), "{filter:?}");
    }
}

async fn owners_are_counted_up_to_a_limit(db: Database) {
    let store = store(&db).await;
    let all = fleet(&db, &store, 60).await;
    let names = ["mail-team", "platform", "nobody", "a_b"].map(str::to_owned);
    let mut read = store.read().await.unwrap();
    for most in [1_000, 3] {
        let wanted: Vec<_> = names
            .iter()
            .map(|name| all.iter().filter(|member| member.agent.owner == *name).count())
            .map(|count| i64::try_from(count).unwrap().min(most))
            .collect();
        assert_eq!(agents::count_owned(read.conn(), &names, most).await.unwrap(), wanted);
    }
    assert!(agents::count_owned(read.conn(), &[], 5).await.unwrap().is_empty());
}
