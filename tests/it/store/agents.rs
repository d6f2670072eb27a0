//! Listing and searching agents, compared with a model that checks every agent.

use std::{collections::HashSet, slice};

use aims::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Limit, Timestamp,
        agent::{Filter, Position, Sort, labels::Labels},
    },
    store::{Store, agents},
};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(
    every_filter_and_sort_order_lists_each_agent_once,
    a_search_finds_every_agent_that_contains_the_text,
    searches_follow_edits_and_deletions,
    many_matches_are_found_at_any_position,
    owners_are_listed_once_each,
);

async fn store(db: &Database) -> Store {
    open(db, &TestClock::new(), &[]).await.services().store.clone()
}

/// Without letters outside ASCII that have a case, which the two databases compare differently.
const PIECES: [&str; 24] = [
    "%",
    "_",
    "\\",
    "\"",
    "'",
    "*",
    "-",
    "a",
    "B",
    "ab",
    "AB",
    "agent",
    "Agent",
    "crawl",
    "50%",
    "ë",
    "команда",
    "運用",
    " ",
    "  ",
    "a_b",
    "\\\\",
    "(x)",
    "😀",
];

fn text(dice: &mut Dice, pieces: usize) -> String {
    (0..pieces).map(|_| *dice.pick(&PIECES)).collect()
}

fn agent(dice: &mut Dice, number: u128) -> Agent {
    let name = format!("{}{}-{number}", dice.pick(&["bot", "Agent", "a_b", "x"]), dice.pick(&["-Crawl", "", "_"]));
    let created_at = Timestamp::from_micros(i64::try_from(dice.roll(40)).unwrap());
    let pieces = 1 + dice.roll(5);
    Agent {
        // Identifiers are not in the order of creation.
        id: AgentId(Uuid::from_u128(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))),
        name: AgentName::parse(&name).unwrap(),
        description: text(dice, pieces * 2),
        owner: if dice.roll(2) == 0 { "team-a".to_owned() } else { format!("o{}", text(dice, 2)) },
        status: *dice.pick(AgentStatus::ALL),
        agent_type: *dice.pick(AgentType::ALL),
        metadata_json: "{}".to_owned(),
        labels: Labels::default(),
        created_at,
        updated_at: created_at,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    }
}

async fn register(store: &Store, dice: &mut Dice, numbers: std::ops::Range<u128>) -> Vec<Agent> {
    let made: Vec<_> = numbers.map(|number| agent(dice, number)).collect();
    for chunk in made.chunks(50) {
        let chunk = chunk.to_vec();
        let unit = store.write(move |tx| {
            Box::pin(async move {
                for agent in &chunk {
                    assert!(agents::insert(tx, agent).await?);
                }
                Ok(())
            })
        });
        unit.await.unwrap();
    }
    made
}

fn shows(filter: &Filter, agent: &Agent) -> bool {
    let holds = |text: &str| {
        let text = text.to_ascii_lowercase();
        [agent.name.as_str(), &agent.owner, &agent.description]
            .iter()
            .any(|field| field.to_ascii_lowercase().contains(&text))
    };
    filter.status.is_none_or(|status| agent.status == status)
        && filter.owner.as_ref().is_none_or(|owner| agent.owner == *owner)
        && filter.agent_type.is_none_or(|kind| agent.agent_type == kind)
        && filter.text.as_deref().is_none_or(holds)
}

fn expected(filter: &Filter, sort: Sort, all: &[Agent]) -> Vec<Agent> {
    let mut shown: Vec<_> = all.iter().filter(|agent| shows(filter, agent)).cloned().collect();
    match sort {
        Sort::Oldest | Sort::Newest => shown.sort_by_key(|agent| (agent.created_at, agent.id)),
        Sort::Name | Sort::NameDescending => shown.sort_by_key(|agent| agent.name.clone()),
        // No agent was ever used.
        Sort::LastUsed | Sort::LongestUnused => shown.sort_by_key(|agent| agent.id),
    }
    if matches!(sort, Sort::Newest | Sort::NameDescending | Sort::LastUsed) {
        shown.reverse();
    }
    shown
}

/// Reads all pages of a listing.
async fn listed(store: &Store, filter: &Filter, sort: Sort, limit: u16) -> Vec<Agent> {
    let mut read = store.read().await.unwrap();
    let mut all = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let page = agents::list(read.conn(), filter, sort, after, Limit::of(limit)).await.unwrap();
        assert!(page.items.len() <= usize::from(limit));
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn count(store: &Store, filter: &Filter, cap: u32) -> u64 {
    agents::count_up_to(store.read().await.unwrap().conn(), filter, cap).await.unwrap()
}

async fn every_filter_and_sort_order_lists_each_agent_once(db: Database) {
    let store = store(&db).await;
    let mut dice = Dice(1);
    let all = register(&store, &mut dice, 0..300).await;
    let owners = [None, Some("team-a".to_owned()), Some("nobody".to_owned()), Some(all[3].owner.clone())];
    for &sort in Sort::ALL {
        for owner in &owners {
            for status in [None, Some(AgentStatus::Active), Some(AgentStatus::Revoked)] {
                for agent_type in [None, Some(AgentType::Tool)] {
                    let filter = Filter { status, owner: owner.clone(), agent_type, ..Filter::default() };
                    let wanted = expected(&filter, sort, &all);
                    for limit in [7, 500] {
                        assert_eq!(listed(&store, &filter, sort, limit).await, wanted, "{filter:?} {sort:?} {limit}");
                    }
                    let number = u64::try_from(wanted.len()).unwrap();
                    assert_eq!(count(&store, &filter, 1_000).await, number, "{filter:?}");
                    assert_eq!(count(&store, &filter, 5).await, number.min(5), "{filter:?}");
                }
            }
        }
    }
}

async fn a_search_finds_every_agent_that_contains_the_text(db: Database) {
    let store = store(&db).await;
    let mut dice = Dice(2);
    let all = register(&store, &mut dice, 0..400).await;
    let mut found = 0;
    for round in 0..250 {
        // A part of an existing text, or a text that may not exist.
        let text = if round % 3 == 0 {
            let pieces = 1 + dice.roll(3);
            text(&mut dice, pieces)
        } else {
            let agent = dice.pick(&all).clone();
            let field = [agent.name.to_string(), agent.owner, agent.description][dice.roll(3)].clone();
            let chars: Vec<_> = field.chars().collect();
            let start = dice.roll(chars.len());
            let length = 1 + dice.roll(8);
            let part: String = chars.iter().skip(start).take(length).collect();
            if dice.roll(2) == 0 { part.to_ascii_uppercase() } else { part }
        };
        let filter = Filter {
            text: Some(text),
            status: (dice.roll(4) == 0).then_some(AgentStatus::Active),
            owner: (dice.roll(4) == 0).then(|| "team-a".to_owned()),
            ..Filter::default()
        };
        let sort = *dice.pick(Sort::ALL);
        let wanted = expected(&filter, sort, &all);
        found += wanted.len();
        assert_eq!(listed(&store, &filter, sort, 30).await, wanted, "{filter:?} {sort:?}");
        assert_eq!(count(&store, &filter, 100).await, u64::try_from(wanted.len().min(100)).unwrap(), "{filter:?}");
    }
    assert!(found > 1_000, "only {found}");
}

/// SQLite's index is updated with several agents at a time. Agents that are not indexed yet are found as well.
async fn searches_follow_edits_and_deletions(db: Database) {
    const ENOUGH: u128 = 64;
    let store = store(&db).await;
    let mut dice = Dice(3);
    let mut next = 40;
    let mut all = register(&store, &mut dice, 0..next).await;
    let mut edited = all.pop().unwrap();
    let mut others = async |count| {
        next += count;
        register(&store, &mut Dice(9), next - count..next).await
    };
    let first = Filter { text: Some("was here before".to_owned()), ..Filter::default() };
    let second = Filter { text: Some("is here now".to_owned()), ..Filter::default() };
    let either = Filter { text: Some(" here ".to_owned()), ..Filter::default() };
    let finds = async |filter: &Filter, wanted: &[Agent]| {
        assert_eq!(listed(&store, filter, Sort::Oldest, 10).await, wanted, "{filter:?}");
        assert_eq!(count(&store, filter, 10).await, u64::try_from(wanted.len()).unwrap(), "{filter:?}");
    };
    for round in 0..2 {
        for (filter, not, description) in [(&first, &second, "it was here before"), (&second, &first, "it is here now")]
        {
            description.clone_into(&mut edited.description);
            let agent = edited.clone();
            let write = store.write(move |tx| Box::pin(async move { agents::update_details(tx, &agent).await }));
            assert!(write.await.unwrap());
            for more in [0, if round == 0 { 1 } else { ENOUGH }] {
                others(more).await;
                finds(filter, slice::from_ref(&edited)).await;
                finds(&either, slice::from_ref(&edited)).await;
                finds(not, &[]).await;
            }
        }
    }
    // A change that is undone is not searchable.
    let mut undone = all[6].clone();
    "it was here before".clone_into(&mut undone.description);
    let write = store.write(move |tx| {
        Box::pin(async move {
            agents::update_details(tx, &undone).await?;
            Err::<(), _>(aims::domain::Error::Refused("no"))
        })
    });
    assert!(write.await.is_err());
    finds(&first, &[]).await;
    let id = edited.id;
    let write = store.write(move |tx| Box::pin(async move { agents::delete(tx, id).await }));
    assert!(write.await.unwrap());
    finds(&second, &[]).await;
    // A new agent may get the number of a deleted one.
    for more in [5, ENOUGH] {
        for agent in others(more).await {
            let filter = Filter { text: Some(agent.name.to_string()), ..Filter::default() };
            assert!(listed(&store, &filter, Sort::Name, 10).await.contains(&agent));
        }
        finds(&second, &[]).await;
    }
    if db.is_sqlite() {
        assert!(db.count("SELECT COUNT(*) FROM agents_to_index").await < 64, "every search checks all of these");
    }
}

async fn many_matches_are_found_at_any_position(db: Database) {
    const COUNT: usize = 27_500;
    let store = store(&db).await;
    let id = if db.is_sqlite() { "CAST(printf('%016d', i) AS BLOB)" } else { "LPAD(i::text, 32, '0')::uuid" };
    // The last 6,000 agents contain a common text: more matches than are checked one by one, and none among the first
    // 21,000 agents. Every 7,000th agent contains a rare text.
    db.execute(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT}) \
         INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
         SELECT {id}, 'n' || i, CASE WHEN i > {COUNT} - 6000 THEN 'came late' WHEN i % 7000 = 0 THEN 'q!' ELSE '-' END, \
         CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, 'active', 'llm', '{{}}', i, i FROM n"
    ))
    .await;
    // The next change updates the index, because so many agents are waiting.
    register(&store, &mut Dice(4), 0..1).await;
    // These two are too few for an update. One of them contained the text before.
    db.execute("UPDATE agents SET description = 'came late' WHERE name IN ('n1', 'n21502')").await;
    let late = Filter { text: Some("CAME late".to_owned()), ..Filter::default() };
    for &sort in Sort::ALL {
        for owner in [None, Some("even".to_owned())] {
            let filter = Filter { owner: owner.clone(), ..late.clone() };
            let read = listed(&store, &filter, sort, 500).await;
            let ids: HashSet<_> = read.iter().map(|agent| agent.id).collect();
            assert_eq!((read.len(), ids.len()), if owner.is_none() { (6_001, 6_001) } else { (3_000, 3_000) });
            assert!(read.iter().all(|agent| agent.description == "came late"));
        }
    }
    assert_eq!(count(&store, &late, 100_000).await, 6_001);
    assert_eq!(count(&store, &late, 100).await, 100);

    // Too short for the index: a page may end early and have a next page.
    let rare = Filter { text: Some("Q!".to_owned()), ..Filter::default() };
    for &sort in Sort::ALL {
        let read = listed(&store, &rare, sort, 50).await;
        let mut names: Vec<_> = read.iter().map(|agent| agent.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["n14000", "n21000", "n7000"], "{sort:?}");
    }
    assert_eq!(count(&store, &rare, 10).await, 3);
    let mut read = store.read().await.unwrap();
    let nothing = Filter { text: Some("!!".to_owned()), ..Filter::default() };
    let page = agents::list(read.conn(), &nothing, Sort::Oldest, None, Limit::of(10)).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_some(), "21,000 of {COUNT} agents were checked");
    let page = agents::list(read.conn(), &nothing, Sort::Oldest, page.next, Limit::of(10)).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
}

async fn owners_are_listed_once_each(db: Database) {
    let store = store(&db).await;
    let all = register(&store, &mut Dice(5), 0..200).await;
    let mut known: Vec<_> = all.iter().map(|agent| agent.owner.clone()).collect();
    known.sort_unstable();
    known.dedup();
    let mut read = store.read().await.unwrap();
    for prefix in ["", "t", "oA", "o%", "oë", "team-a", "zzz"] {
        let wanted: Vec<_> = known.iter().filter(|owner| owner.starts_with(prefix)).cloned().collect();
        assert_eq!(agents::owners(read.conn(), prefix, Limit::of(500)).await.unwrap(), wanted, "{prefix}");
        let two: Vec<_> = wanted.iter().take(2).cloned().collect();
        assert_eq!(agents::owners(read.conn(), prefix, Limit::of(2)).await.unwrap(), two, "{prefix}");
    }
}
