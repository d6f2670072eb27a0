//! Rankings of agents by what they did.

use crate::{
    domain::{
        AgentId, Result, Timestamp,
        audit::{Activity, Range},
    },
    store::{
        Conn, agents,
        credentials::activity::{self, By},
    },
};

/// An agent in a ranking.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The agent.
    pub id: AgentId,
    /// Its name; `None` if it was deleted.
    pub name: Option<String>,
    /// What it did.
    pub activity: Activity,
}

/// Returns the first agents of a ranking, with their names.
pub(super) async fn ranked(
    mut conn: Conn<'_>,
    by: By,
    range: Range,
    now: Timestamp,
    most: usize,
) -> Result<Vec<Ranked>> {
    let agents = activity::busiest(conn.reborrow(), by, range, now, most).await?;
    let ids: Vec<_> = agents.iter().map(|(id, _)| *id).collect();
    let names = agents::names(conn, &ids).await?;
    let ranked = |(id, activity)| {
        let name = names.iter().find(|(other, _)| *other == id).map(|(_, name)| name.to_string());
        Ranked { id, name, activity }
    };
    Ok(agents.into_iter().map(ranked).collect())
}
