//! Uses of capabilities: when each agent last used each capability that it holds, and how often per day.
//!
//! They are collected in memory and written with the other counts, at most a second later. Checking a capability must
//! cost no write, and most checks belong to requests that only read.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::QueryBuilder;

use super::usage::DAY;
use crate::{
    domain::{AgentId, Timestamp},
    store::{
        db::{Conn, dispatch},
        even_chunks,
    },
};

/// How long uses may wait. A crash loses the uses of this time.
const DELAY: Duration = Duration::from_secs(1);
/// How many agents' uses of a capability may wait before they are written early.
const MANY: usize = 1_024;
/// How many may wait at all, so that memory stays bounded. Further ones are not counted: their next use will be.
const MOST: usize = 16_384;

/// The uses since the last time that they were taken.
#[derive(Debug, Default)]
pub(in crate::store) struct CapabilityUsage(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    agents: HashMap<AgentId, Vec<Use>>,
    /// Number of pairs of an agent and a capability.
    pairs: usize,
    since: Option<Instant>,
}

/// The uses of a capability by an agent.
#[derive(Clone, Debug)]
struct Use {
    capability: Box<str>,
    /// The last use.
    at: Timestamp,
    times: i64,
}

impl CapabilityUsage {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a use. Returns true if it is the first one that waits.
    pub(in crate::store) fn note(&self, agent: AgentId, capability: &str, at: Timestamp) -> bool {
        let mut noted = self.noted();
        let known =
            noted.agents.get_mut(&agent).and_then(|uses| uses.iter_mut().find(|use_| *use_.capability == *capability));
        if let Some(known) = known {
            known.at = known.at.max(at);
            known.times += 1;
            return false;
        }
        if noted.pairs >= MOST {
            return false;
        }
        noted.pairs += 1;
        noted.agents.entry(agent).or_default().push(Use { capability: capability.into(), at, times: 1 });
        let is_first = noted.since.is_none();
        noted.since.get_or_insert_with(Instant::now);
        is_first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.noted().since.is_none()
    }

    /// Returns when the uses must be written. `None` if there are none.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let noted = self.noted();
        noted.since.map(|since| if noted.pairs >= MANY { since } else { since + DELAY })
    }

    pub(super) fn is_due(&self) -> bool {
        self.due_at().is_some_and(|due| due <= Instant::now())
    }

    /// Moves the uses to `waiting`.
    pub(super) fn take(&self, waiting: &mut Uses) {
        let noted = mem::take(&mut *self.noted());
        for (agent, uses) in noted.agents {
            for Use { capability, at, times } in uses {
                // Uses that could not be written are waiting already.
                let is_full = waiting.0.len() >= MOST;
                match waiting.0.entry((agent, capability)) {
                    Entry::Occupied(mut sum) => {
                        let (latest, sum) = sum.get_mut();
                        (*latest, *sum) = (at.max(*latest), *sum + times);
                    }
                    Entry::Vacant(_) if is_full => {}
                    Entry::Vacant(place) => drop(place.insert((at, times))),
                }
            }
        }
    }
}

/// Uses that are being written: the last one and their number, in the order of the rows.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<(AgentId, Box<str>), (Timestamp, i64)>);

impl Uses {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Writes the uses of capabilities that exist, by agents that hold them.
    pub(super) async fn save(&self, mut conn: Conn<'_>) -> sqlx::Result<()> {
        let rows: Vec<_> = self.0.iter().map(|((agent, name), (at, times))| (agent, name, *at, *times)).collect();
        for chunk in even_chunks(&rows) {
            dispatch!(&mut conn, |c| {
                let mut query = QueryBuilder::new(
                    "UPDATE agent_capabilities SET last_used_at = used.at FROM (SELECT c.id, v.column1 \
                        AS agent, v.column3 AS at FROM (",
                );
                query.push_values(chunk, |mut row, (agent, name, at, _)| {
                    row.push_bind(agent.0).push_bind(name.as_ref()).push_bind(at.as_micros());
                });
                query.push(
                    ") AS v JOIN capabilities c ON c.name = v.column2) AS used \
                     WHERE agent_capabilities.agent_id = used.agent AND agent_capabilities.capability_id = used.id",
                );
                query.build().execute(&mut *c).await?;

                let mut query = QueryBuilder::new(
                    "INSERT INTO capability_uses (day, capability_id, agent_id, uses) \
                     SELECT v.column3, c.id, v.column1, v.column4 FROM (",
                );
                query.push_values(chunk, |mut row, (agent, name, at, times)| {
                    let day = at.as_micros().div_euclid(DAY);
                    row.push_bind(agent.0).push_bind(name.as_ref()).push_bind(day).push_bind(times);
                });
                query.push(
                    ") AS v JOIN capabilities c ON c.name = v.column2 \
                     JOIN agent_capabilities g ON g.agent_id = v.column1 AND g.capability_id = c.id WHERE 1 = 1 \
                     ON CONFLICT (day, capability_id, agent_id) DO UPDATE SET uses = capability_uses.uses + excluded.uses",
                );
                query.build().execute(c).await.map(drop)
            })?;
        }
        self.save_latest(conn).await
    }

    /// Writes when each capability was last used by anyone.
    async fn save_latest(&self, mut conn: Conn<'_>) -> sqlx::Result<()> {
        let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
        for ((_, name), (at, _)) in &self.0 {
            let known = latest.entry(name).or_default();
            *known = at.as_micros().max(*known);
        }
        let latest: Vec<_> = latest.into_iter().collect();
        for chunk in even_chunks(&latest) {
            dispatch!(&mut conn, |c| {
                let mut query = QueryBuilder::new("UPDATE capabilities SET last_used_at = used.column2 FROM (");
                query.push_values(chunk, |mut row, (name, at)| {
                    row.push_bind(*name).push_bind(*at);
                });
                query.push(") AS used WHERE capabilities.name = used.column1");
                query.build().execute(c).await.map(drop)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: usize) -> AgentId {
        AgentId(uuid::Uuid::from_u128(number as u128))
    }

    #[test]
    fn uses_are_summed_and_memory_is_bounded() {
        let usage = CapabilityUsage::default();
        let at = Timestamp::from_micros;
        assert!(usage.note(agent(0), "a", at(5)), "the first use wakes the writer");
        assert!(!usage.note(agent(0), "a", at(9)));
        for number in 0..MOST * 2 {
            usage.note(agent(number), "b", at(7));
        }
        assert!(usage.is_due(), "many uses are written early");
        let mut waiting = Uses::default();
        usage.take(&mut waiting);
        assert!(usage.is_empty());
        assert_eq!(waiting.0.len(), MOST);
        assert_eq!(waiting.0.get(&(agent(0), "a".into())), Some(&(at(9), 2)));
        usage.note(agent(0), "a", at(3));
        usage.take(&mut waiting);
        assert_eq!(waiting.0.get(&(agent(0), "a".into())), Some(&(at(9), 3)), "uses that were not written stay");
    }
}
