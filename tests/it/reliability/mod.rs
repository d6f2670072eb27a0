//! Failures of the process, the audit log, the disk, the network, clients and operators.

mod administrators;
mod archive;
mod audit_fails;
mod commands;
mod connection;
mod crash;
mod database;
mod files;
mod labels;
mod limits;
mod master_key;
mod model;
mod operator;
mod settings;
mod signals;
mod tamper;
mod upgrade;
