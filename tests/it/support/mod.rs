//! Shared test fixtures: databases, clocks, servers, processes and clients.

mod browser;
mod client;
mod database;
mod people;
mod postgres;
mod process;
mod relay;
mod server;
mod time;

pub use browser::{Browser, Page};
pub use client::{Client, Response, details};
pub use database::Database;
pub use people::{COOKIE, PASSWORD};
pub use postgres::Postgres;
pub use process::{Aims, Exit, Process};
pub use relay::Relay;
pub use server::{Agent, Server, open, open_beside, start};
pub use time::TestClock;
