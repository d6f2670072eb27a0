//! AIMS, the Agent Identity Management System: registers agents, issues their credentials and access tokens, decides by
//! capability what each agent may do, revokes access at once, and keeps a tamper-evident audit log.
//!
//! The modules are layers. Each depends only on those above it in this table:
//!
//! | module | contents |
//! |---|---|
//! | [`domain`] | types and rules, without I/O |
//! | [`crypto`] | API keys, hashes, signatures, encryption at rest |
//! | [`telemetry`] | traces, and the redaction of credentials |
//! | [`store`] | all SQL, and the single write path |
//! | [`telemetry`] | the metrics |
//! | [`service`] | the operations: authorize, change, audit, commit |
//! | [`web`] | console, JSON API, OAuth endpoints, documentation, and the HTTP server |
//! | [`app`] | assembles the layers and runs the background tasks |
//! | [`cli`] | the commands |

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod web;
