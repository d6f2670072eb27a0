//! The JSON API, row by row of the contract.

mod agents;
mod api_keys;
mod audit;
mod capabilities;
mod errors;
mod tokens;
