//! Shared test fixtures: databases, clocks, servers, processes and clients.

mod browser;
mod client;
mod collector;
mod database;
mod impostor;
mod people;
mod pooler;
mod postgres;
mod process;
mod relay;
mod server;
mod time;

pub use browser::{Browser, Page};
pub use client::{Client, Response, details};
pub use collector::{Collector, Span};
pub use database::Database;
pub use impostor::{Impostor, Reply};
pub use people::{COOKIE, PASSWORD};
pub use pooler::Pooler;
pub use postgres::Postgres;
pub use process::{Aims, Exit, Launched, Process};
pub use relay::Relay;
pub use server::{Agent, Server, open, open_beside, start};
pub use time::TestClock;
