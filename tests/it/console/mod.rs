//! The console, used without JavaScript.

mod account;
mod agents;
mod audit;
mod cross_site;
mod errors;
mod hostile;
mod matrix;
mod oauth;
mod setup;
mod sign_in;
mod step_up;
