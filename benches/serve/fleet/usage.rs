//! Counts of what the agents in use did: each day for 90 days, and each hour for a week for a few of them.

use super::{
    Fleet, HOUR,
    fill::{Cell, Sink},
    scramble,
};
use crate::Failure;

const DAYS: i64 = 90;
const HOURS: i64 = 7 * 24;
/// The spans of `agent_activity`: an hour and a day.
const SPANS: [i64; 2] = [1, 24];

pub(super) async fn fill(sink: &mut Sink, fleet: Fleet) -> Result<(), Failure> {
    let busy = move || (0..fleet.agents).filter(|agent| Fleet::is_busy(*agent));
    // One agent in use in 20 is counted by the hour as well.
    let hourly = move || busy().filter(|agent| agent.is_multiple_of(1_000));
    let last_hour = fleet.end().div_euclid(HOUR);
    let last_day = last_hour.div_euclid(24);
    let count = |at: i64, agent: u64| i64::try_from(scramble(agent ^ at.unsigned_abs() << 20) % 500 + 1).unwrap_or(1);

    let uses = (0..DAYS).rev().map(|ago| last_day - ago).flat_map(|day| busy().map(move |agent| (day, agent)));
    let rows =
        uses.clone().map(|(day, agent)| vec![day.into(), fleet.key_id(agent, 0).into(), count(day, agent).into()]);
    sink.fill("api_key_uses", &["day", "key_id", "uses"], rows).await?;

    let hours = (0..HOURS).rev().map(|ago| last_hour - ago).flat_map(|hour| hourly().map(move |agent| (hour, agent)));
    let rows = hours.map(|at| (SPANS[0], at)).chain(uses.clone().map(|at| (SPANS[1], at)));
    let rows = rows.map(|(span, (at, agent))| {
        let issued = count(at, agent);
        let refused = if agent.is_multiple_of(3) { issued / 20 } else { 0 };
        vec![span.into(), at.into(), fleet.agent_id(agent).into(), issued.into(), refused.into()]
    });
    sink.fill("agent_activity", &["span", "at", "agent_id", "issued", "refused"], rows).await?;

    let rows = uses.map(|(day, agent)| {
        let capability = Fleet::capability_id(agent % 20);
        vec![day.into(), capability.into(), fleet.agent_id(agent).into(), count(day, agent).into()]
    });
    sink.fill("capability_uses", &["day", "capability_id", "agent_id", "uses"], rows).await?;

    let rows = (0..DAYS * 24).rev().map(|ago| vec![(last_hour - ago).into(), 1_000.into(), 20.into()]);
    sink.fill("activity", &["hour", "issued", "refused"], rows).await?;
    let kinds: [(&str, &str, i64); 3] =
        [("auth.token_issued", "", 1_000), ("auth.failed", "unknown_key", 15), ("auth.failed", "agent_suspended", 5)];
    let rows = (0..DAYS * 24).rev().flat_map(|ago| {
        kinds.map(|(action, reason, times)| {
            vec![Cell::from(last_hour - ago), action.into(), reason.into(), times.into()]
        })
    });
    sink.fill("activity_kinds", &["hour", "action", "reason", "times"], rows).await
}
