//! What happens when something fails: the process, the audit log, the disk, the operator, the clients.

mod administrators;
mod archive;
mod audit_fails;
mod cli;
mod crash;
mod database;
mod files;
mod model;
mod operator;
mod serving;
mod tamper;
