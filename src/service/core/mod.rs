//! What every operation is built on: the caller, the policy, the write path and the live view.
//!
//! | module | contents |
//! |---|---|
//! | [`act`] | the write path: authority, change and audit record in one transaction |
//! | `agent` | lookup and status of a single agent |
//! | `capability_use` | counts of the uses of capabilities |
//! | `cache` | a cache whose loads lose against invalidations |
//! | [`caller`] | the caller of an operation and the origin of its request |
//! | [`conditions`] | changes that are made once, or only to a known version |
//! | `last_administrator` | the rule that one agent with `admin:*` can always authenticate |
//! | [`policy`] | every action, and what it requires |
//! | [`power`] | the rule that a caller cannot act on an agent that holds more |
//! | [`principals`] | the live view |
//! | [`refusals`] | audit records of refusals, and their limits |
//! | [`updates`] | notifications for pages that update while they are open |

pub mod act;
pub(super) mod agent;
pub(super) mod cache;
pub mod caller;
mod capability_use;
pub mod conditions;
pub(super) mod last_administrator;
pub mod policy;
pub mod power;
pub mod principals;
pub mod refusals;
pub mod updates;
