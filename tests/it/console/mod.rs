//! The console, used without JavaScript.

pub mod account;
mod agent_page;
mod agents;
mod agents_bulk;
mod agents_list;
mod audit;
mod audit_views;
mod capabilities;
mod cross_site;
mod errors;
mod frame;
mod hostile;
mod impact;
pub mod invitations;
mod keys;
mod matrix;
mod oauth;
mod overview;
mod palette;
mod setup;
mod sign_in;
mod step_up;
