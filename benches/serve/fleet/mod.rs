//! A synthetic fleet. The data of agent `n` and of record `n` depend only on `n`, so every run creates the same fleet.

pub mod calls;
pub mod console;
pub mod fill;
pub mod served;
mod usage;

use std::fmt::Write;

use aims::{
    config::Config,
    domain::{
        AgentId, Timestamp,
        audit::{GENESIS, Record},
    },
};
use uuid::Uuid;

use crate::{Failure, MASTER_KEY};

/// The service's configuration for a database.
fn config(url: &str) -> Result<Config, Failure> {
    let settings = [("DATABASE_URL", url), ("MASTER_KEY", MASTER_KEY)];
    let value = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::load(value).map_err(|error| format!("{error:?}").into())
}

/// Creation time of the capabilities: 2025-01-01, in µs.
const FIRST_DAY: i64 = 1_735_689_600_000_000;
/// The period that agents and records are spread over: one year, in µs.
const YEAR: i64 = 365 * 86_400 * 1_000_000;
const HOUR: i64 = 3_600 * 1_000_000;
/// Words in agents' texts. Each word is in about a third of all agents.
const WORDS: [&str; 24] = [
    "mail", "invoice", "billing", "search", "crawl", "report", "deploy", "build", "monitor", "alert", "sales",
    "support", "triage", "summary", "index", "planner", "router", "vision", "audio", "code", "review", "test",
    "customer", "supplier",
];
/// One record in this many is of the given kind.
pub const ONE_IN: OneIn = OneIn { busy: 20, failed: 50, change: 40, rare: 3_000_000 };

pub struct OneIn {
    /// Records of the busiest agent.
    pub busy: u64,
    pub failed: u64,
    pub change: u64,
    /// Records with the rarest action.
    pub rare: u64,
}

/// Mixes the bits of a number (`SplitMix64`).
pub fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn word(number: u64) -> &'static str {
    WORDS.get(usize::try_from(number % 24).unwrap_or(0)).copied().unwrap_or_default()
}

/// A UUIDv7 for a time, as the service generates them.
fn uuid(at: i64, salt: u64) -> Uuid {
    let (high, low) = (scramble(salt), scramble(salt ^ 0xFFFF_0000));
    let millis = u128::try_from(at / 1_000).unwrap_or(0);
    let bits = millis << 80 | 7 << 76 | u128::from(high & 0xFFF) << 64 | 2 << 62 | u128::from(low >> 2);
    Uuid::from_u128(bits)
}

/// The size of a fleet.
#[derive(Clone, Copy)]
pub struct Fleet {
    pub agents: u64,
    pub records: u64,
    /// Registration time of the first agent, in µs. The history of the fleet ends a year later.
    pub start: i64,
}

pub struct GeneratedAgent {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    pub owner: String,
    pub status: &'static str,
    pub agent_type: &'static str,
    pub created_at: i64,
}

impl Fleet {
    pub fn created_at(self, number: u64) -> i64 {
        self.start + YEAR / i64::try_from(self.agents.max(1)).unwrap_or(1) * i64::try_from(number).unwrap_or(0)
    }

    pub fn agent_id(self, number: u64) -> Uuid {
        uuid(self.created_at(number), number)
    }

    pub fn name(number: u64) -> String {
        let dice = scramble(number ^ 0xA5A5);
        format!("{}-{}-{number:07}", word(dice), word(dice >> 8))
    }

    pub fn agent(self, number: u64) -> GeneratedAgent {
        let dice = scramble(number ^ 0x5A5A);
        let mut description = String::new();
        for part in 0..8 {
            description.push_str(word(dice >> (part * 5)));
            description.push(' ');
        }
        // Three agents in total, one agent in 250, one agent in 100.
        if number % (self.agents / 3).max(1) == 7 {
            description.push_str("zeppelin");
        } else if dice.is_multiple_of(250) {
            description.push_str("quantum");
        } else if dice.is_multiple_of(100) {
            description.push_str("ledger");
        }
        GeneratedAgent {
            id: self.agent_id(number),
            name: Self::name(number),
            description,
            owner: match number {
                // The last twentieth of the agents each have their own owner.
                _ if number >= self.agents - self.agents / 20 => "latecomers".to_owned(),
                _ if dice % 10 < 3 => "platform".to_owned(),
                _ => format!("team-{}", dice % 2_000),
            },
            status: match dice % 100 {
                0 | 1 => "suspended",
                2 => "revoked",
                _ => "active",
            },
            agent_type: match dice % 7 {
                0..=3 => "llm",
                4 => "tool",
                5 => "orchestrator",
                _ => "custom",
            },
            created_at: self.created_at(number),
        }
    }

    /// The end of the history, in µs.
    pub const fn end(self) -> i64 {
        self.start + YEAR
    }

    /// When an agent last got a token, in µs; `None` for one in five. One agent in 50 is in use.
    pub fn last_used_at(self, number: u64) -> Option<i64> {
        let (dice, created_at) = (scramble(number ^ 0x0005_ED00), self.created_at(number));
        let part = |whole: i64| i64::try_from(dice >> 40).unwrap_or(0) % whole.max(1);
        match number {
            _ if Self::is_busy(number) => Some(self.end() - part(HOUR)),
            _ if dice.is_multiple_of(5) => None,
            _ => Some(created_at + part(self.end() - created_at)),
        }
    }

    /// Returns true for the agents in constant use, one in 50.
    pub const fn is_busy(number: u64) -> bool {
        number.is_multiple_of(50)
    }

    /// When the first key of an agent expires, in µs; never for three in four.
    pub fn expires_at(self, number: u64) -> Option<i64> {
        let dice = scramble(number ^ 0x000E_0000);
        let spread = i64::try_from(dice >> 40).unwrap_or(0) * 64 % YEAR;
        dice.is_multiple_of(4).then_some(self.end() - YEAR / 4 + spread)
    }

    pub fn key_id(self, number: u64, which: u64) -> Uuid {
        uuid(self.created_at(number) + 1_000, number * 2 + which + 0x00C0_FFEE_0000)
    }

    /// The raw value of a key. The first key of an agent is active, the second is not.
    pub fn key(number: u64, which: u64) -> String {
        (0..4).fold("aims_".to_owned(), |mut key, part| {
            // Writing to a string cannot fail.
            let _ = write!(key, "{:016x}", scramble((number * 2 + which) * 4 + part));
            key
        })
    }

    pub fn capability_id(number: u64) -> Uuid {
        uuid(FIRST_DAY, number + 0x00CA_0000)
    }

    pub fn record_at(self, number: u64) -> i64 {
        let step = YEAR / i64::try_from(self.records.max(1)).unwrap_or(1);
        // Concurrent requests are recorded out of order.
        let disorder = i64::try_from(scramble(number) % 5_000).unwrap_or(0);
        self.start + step * i64::try_from(number).unwrap_or(0) - disorder
    }

    /// The agent with three records, whatever the size of the fleet.
    pub const fn quiet(self) -> u64 {
        self.agents / 2 + 1
    }

    /// The agent with one record in twenty.
    pub const fn busy() -> u64 {
        3
    }

    pub fn record(self, number: u64) -> Record {
        let dice = scramble(number ^ 0x0D1C_E000);
        let at = self.record_at(number);
        let acting = if number % (self.records / 3).max(1) == 11 {
            self.quiet()
        } else if dice.is_multiple_of(ONE_IN.busy) {
            Self::busy()
        } else {
            Some((dice >> 20) % self.agents).filter(|agent| *agent != self.quiet()).unwrap_or(0)
        };
        let agent = Some(AgentId(self.agent_id(acting)));
        let key = self.key_id(acting, (dice >> 50) & 1).to_string();
        let (action, kind, id, actor, success) = if number % ONE_IN.rare == 17 {
            ("signing_key.created", None, None, None, true)
        } else if (dice >> 8).is_multiple_of(ONE_IN.failed) {
            ("auth.failed", Some("api_key"), Some(key), None, false)
        } else if (dice >> 12).is_multiple_of(ONE_IN.change) {
            let administrator = Some(AgentId(self.agent_id(0)));
            ("agent.updated", Some("agent"), agent.map(|agent| agent.to_string()), administrator, true)
        } else {
            ("auth.token_issued", Some("api_key"), Some(key), agent, true)
        };
        Record {
            seq: 0,
            id: uuid(at, number + 0x00AD_0000_0000),
            at: Timestamp::from_micros(at),
            actor: actor.map(Into::into),
            subject: agent,
            action: action.to_owned(),
            resource_type: kind.map(str::to_owned),
            resource_id: id,
            details: format!(r#"{{"jti":"{}"}}"#, uuid(at, number)),
            ip: Some(format!("10.{}.{}.{}", dice >> 56, (dice >> 48) & 255, (dice >> 40) & 255)),
            success,
            request_id: Some(uuid(at, !number).to_string()),
            prev_hash: GENESIS,
            hash: GENESIS,
        }
    }
}
