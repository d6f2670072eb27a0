//! What every operation is built on: the caller, the policy, the write path, the live view and the records of refusals.

pub mod act;
pub mod caller;
pub mod policy;
pub mod power;
pub mod principals;
pub mod refusals;
pub mod throttle;
pub mod updates;
