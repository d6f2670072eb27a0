//! The attacks that must fail.

mod elevation;
mod forged;
mod immediate;
mod limits;
mod matrix;
mod races;
mod secrets;
