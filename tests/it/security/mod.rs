//! Attacks that must fail.

mod cross_origin;
mod elevation;
mod forged;
mod immediate;
mod invitations;
mod last_administrator;
mod limits;
mod matrix;
mod names;
mod power;
mod races;
mod refusals;
mod secrets;
mod sign_in;
