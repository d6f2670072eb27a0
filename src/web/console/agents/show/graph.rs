//! A drawing of an agent's delegations: its delegates on the left, the agents that it can act for on the right.

use crate::{
    domain::AgentId,
    service::agents::impact::{CONNECTED_MAX, Connections},
};

/// Agents that are drawn on each side.
pub(super) const SHOWN: i64 = 8;

const ROW: usize = 36;
const TOP: usize = 28;
const BOX: usize = 28;
/// Characters of a name that fit into a box.
const FIT: usize = 26;
/// Right edge of the boxes on the left, left and right edge of the agent's own box, left edge of the boxes on the right.
const EDGES: [usize; 4] = [230, 285, 475, 530];

/// A drawing.
pub(super) struct Graph {
    pub(super) height: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) delegates: Side,
    pub(super) delegators: Side,
}

/// The agents on one side.
pub(super) struct Side {
    /// Identifier and name.
    pub(super) agents: Vec<(AgentId, String)>,
    /// How many there are, for people.
    pub(super) count: String,
    /// How many are not shown, for people; empty if all are.
    pub(super) more: String,
    pub(super) is_one: bool,
}

/// A box.
pub(super) struct Node {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    /// Position of the text.
    pub(super) text_x: usize,
    pub(super) text_y: usize,
    /// The name, shortened if it does not fit.
    pub(super) label: String,
    pub(super) name: String,
    /// The page of the agent; empty for its own box, and for the box that counts others.
    pub(super) href: String,
    pub(super) is_own: bool,
}

/// A line with an arrowhead at its end.
pub(super) struct Arrow {
    pub(super) path: String,
    pub(super) head: String,
}

impl Graph {
    pub(super) fn of(own: &str, connections: &Connections) -> Self {
        let side = |agents: &[(AgentId, String)], count: usize| {
            let bounded = if count >= CONNECTED_MAX { "+" } else { "" };
            let rest = count.saturating_sub(agents.len());
            let more = if rest == 0 { String::new() } else { format!("+{rest}{bounded} more") };
            Side { agents: agents.to_vec(), count: format!("{count}{bounded}"), more, is_one: count == 1 }
        };
        let delegates = side(&connections.delegates, connections.delegate_count);
        let delegators = side(&connections.delegators, connections.delegator_count);
        let rows = delegates.boxes().max(delegators.boxes()).max(1);
        let height = TOP + rows * ROW;
        let middle = TOP + (rows * ROW) / 2;
        let mut graph = Self { height, nodes: Vec::new(), arrows: Vec::new(), delegates, delegators };
        let [left, own_left, own_right, right] = EDGES;
        graph.nodes.push(Node::of(own_left, middle, own_right - own_left, own, String::new(), true));
        for (y, name, href) in graph.delegates.placed(rows) {
            graph.nodes.push(Node::of(0, y, left, &name, href, false));
            graph.arrows.push(Arrow::between((left, y), (own_left, middle)));
        }
        for (y, name, href) in graph.delegators.placed(rows) {
            graph.nodes.push(Node::of(right, y, left, &name, href, false));
            graph.arrows.push(Arrow::between((own_right, middle), (right, y)));
        }
        graph
    }

    pub(super) fn sides(&self) -> [(&'static str, &Side); 2] {
        [("Can act for it", &self.delegates), ("It can act for", &self.delegators)]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrows.is_empty()
    }
}

impl Side {
    fn boxes(&self) -> usize {
        self.agents.len() + usize::from(!self.more.is_empty())
    }

    /// Returns the middle, name and path of each box, centred among `rows`.
    fn placed(&self, rows: usize) -> Vec<(usize, String, String)> {
        let start = TOP + (rows - self.boxes()) * ROW / 2 + ROW / 2;
        let agents = self.agents.iter().map(|(id, name)| (name.clone(), format!("/console/agents/{id}")));
        let more = (!self.more.is_empty()).then(|| (self.more.clone(), String::new()));
        agents.chain(more).enumerate().map(|(row, (name, href))| (start + row * ROW, name, href)).collect()
    }
}

impl Node {
    fn of(x: usize, middle: usize, width: usize, name: &str, href: String, is_own: bool) -> Self {
        let fit = if is_own { FIT - 5 } else { FIT };
        let label = if name.chars().count() > fit {
            name.chars().take(fit - 1).chain(['…']).collect()
        } else {
            name.to_owned()
        };
        let y = middle - BOX / 2;
        Self { x, y, width, text_x: x + width / 2, text_y: middle + 4, label, name: name.to_owned(), href, is_own }
    }
}

impl Arrow {
    fn between((x, y): (usize, usize), (to_x, to_y): (usize, usize)) -> Self {
        let (bend, tip) = (usize::midpoint(x, to_x), to_x - 6);
        Self {
            path: format!("M{x} {y} C{bend} {y} {bend} {to_y} {tip} {to_y}"),
            head: format!("{to_x},{to_y} {},{} {},{}", to_x - 8, to_y - 4, to_x - 8, to_y + 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(count: u128) -> Vec<(AgentId, String)> {
        (0..count).map(|n| (AgentId(uuid::Uuid::from_u128(n)), format!("agent-{n}"))).collect()
    }

    #[test]
    fn both_sides_are_drawn_and_the_rest_is_counted() {
        let connections =
            Connections { delegates: agents(8), delegate_count: 20, delegators: agents(1), delegator_count: 1 };
        let graph = Graph::of(&"n".repeat(128), &connections);
        assert_eq!((graph.nodes.len(), graph.arrows.len()), (11, 10));
        assert_eq!((graph.delegates.more.as_str(), graph.delegators.more.as_str()), ("+12 more", ""));
        assert!(graph.nodes.iter().all(|node| node.y + BOX <= graph.height && node.label.chars().count() <= FIT));
        assert!(Graph::of("alone", &Connections::default()).is_empty());
    }
}
