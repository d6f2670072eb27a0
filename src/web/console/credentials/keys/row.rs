//! A key as tables and pages show it.

use crate::{
    domain::{AgentStatus, ApiKey, ApiKeyStatus, KeyLimits, KeyState, Timestamp, credential::key_filter::ListedKey},
    web::console::page::frame::Moment,
};

pub(in crate::web::console) struct Row {
    pub(super) id: String,
    pub(super) agent_id: String,
    pub(super) agent_name: String,
    pub(super) name: String,
    pub(super) prefix: String,
    /// The word for the state, which is also the name of its style.
    pub(super) state: &'static str,
    pub(super) label: &'static str,
    /// True if it works, or would work if its agent were active.
    pub(super) usable: bool,
    /// True if it can be rotated.
    pub(super) rotatable: bool,
    pub(super) created: Moment,
    pub(super) rotated: Option<Moment>,
    pub(super) revoked: Option<Moment>,
    pub(super) expires: Option<Moment>,
    /// End of the grace period of a rotated key.
    pub(super) grace: Option<Grace>,
    pub(super) last_used: Option<Moment>,
    pub(super) last_ip: Option<String>,
    pub(super) uses: i64,
    /// The restrictions, for people.
    pub(super) limits: Vec<String>,
    /// True if the administrator may rotate and revoke it.
    pub(super) may_manage: bool,
    /// The query parameter that leads back to the list, with its question mark.
    pub(super) back: String,
}

/// The end of a grace period.
pub(super) struct Grace {
    pub(super) ends: Moment,
    /// The time that is left, as the script shows it, so that the text does not change when the script runs.
    pub(super) left: String,
}

/// Who a key belongs to.
pub(super) struct Holder<'h> {
    pub(super) name: &'h str,
    pub(super) status: AgentStatus,
    pub(super) may_manage: bool,
}

impl Row {
    pub(super) fn of(key: &ApiKey, agent: &Holder<'_>, uses: i64, now: Timestamp) -> Self {
        let moment = |at| Moment::at(at, now);
        let state = key.state(agent.status, now);
        let usable = !state.has_ended();
        let grace = key.grace_ends_at.filter(|_| usable && key.status == ApiKeyStatus::Rotated);
        Self {
            id: key.id.to_string(),
            agent_id: key.agent_id.to_string(),
            agent_name: agent.name.to_owned(),
            name: key.name.clone(),
            prefix: key.key_prefix.clone(),
            state: state.as_str(),
            label: state.label(),
            usable,
            rotatable: usable && key.status == ApiKeyStatus::Active && agent.status != AgentStatus::Revoked,
            created: moment(key.created_at),
            rotated: key.rotated_at.map(moment),
            revoked: key.revoked_at.map(moment),
            expires: key.expires_at.map(moment),
            grace: grace.map(|end| Grace { ends: moment(end), left: remaining(end, now) }),
            last_used: key.last_used_at.map(moment),
            last_ip: key.last_used_ip.clone(),
            uses,
            limits: describe_limits(&key.limits),
            may_manage: agent.may_manage,
            back: String::new(),
        }
    }

    pub(super) fn listed(listed: &ListedKey, may_manage: bool, now: Timestamp) -> Self {
        let holder = Holder { name: &listed.agent_name, status: listed.agent_status, may_manage };
        Self::of(&listed.key, &holder, 0, now)
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/console/agents/{}/keys/{}{rest}", self.agent_id, self.id)
    }

    /// Returns the name of the icon for the state.
    pub(super) fn icon(&self) -> &'static str {
        if self.state == KeyState::Blocked(AgentStatus::Suspended).as_str() { "suspended" } else { self.state }
    }

    pub(super) fn is_rotated(&self) -> bool {
        self.rotated.is_some()
    }
}

fn describe_limits(limits: &KeyLimits) -> Vec<String> {
    let scope = limits.capabilities.as_ref().map(|names| format!("Only {}", names.as_scope()));
    let networks: Vec<_> = limits.networks.iter().map(ToString::to_string).collect();
    let networks = (!networks.is_empty()).then(|| format!("Only from {}", networks.join(", ")));
    let life = limits.token_life.map(|seconds| format!("Token lifetime up to {seconds} s"));
    let uses =
        limits.uses_left.map(|left| if left == 1 { "1 use left".to_owned() } else { format!("{left} uses left") });
    [scope, networks, life, uses].into_iter().flatten().collect()
}

/// Formats the time until `end` by its two largest units: "23 h 58 min".
fn remaining(end: Timestamp, now: Timestamp) -> String {
    let micros = end.as_micros().saturating_sub(now.as_micros()).max(0);
    // Rounded up, so that the last second is shown.
    let seconds = micros.saturating_add(999_999) / 1_000_000;
    let parts =
        [(seconds / 86_400, "day"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let shown = parts.iter().skip_while(|(count, _)| *count == 0).take(2);
    let part = |(count, unit): &(i64, &str)| {
        let plural = if *count > 1 && *unit == "day" { "s" } else { "" };
        format!("{count} {unit}{plural}")
    };
    shown.map(part).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_has_two_units() {
        let now = Timestamp::from_secs(1_800_000_000);
        let left = |seconds: i64| remaining(Timestamp::from_secs(1_800_000_000 + seconds), now);
        assert_eq!(left(86_400 - 120), "23 h 58 min");
        assert_eq!(left(86_400), "1 day 0 h");
        assert_eq!(left(2 * 86_400 + 3_600), "2 days 1 h");
        assert_eq!(left(61), "1 min 1 s");
        assert_eq!(left(9), "9 s");
        assert_eq!(left(-5), "");
    }
}
