//! AIMS, the Agent Identity Management System: registers agents, gives them credentials, decides by capability what
//! each may do, takes that power away at once when asked, and proves afterwards what happened.
//!
//! The house, from the inside out; each room knows only those before it:
//!
//! | room | what lives there |
//! |---|---|
//! | [`domain`] | types and rules, without I/O |
//! | [`crypto`] | API keys, hashes, signatures, sealing |
//! | [`store`] | all SQL, and the one write path |
//! | [`service`] | the use cases: authorise, change, audit, commit, effects |
//! | [`web`] | the faces: console, JSON API, OAuth endpoints, documents, and how they are served |
//! | [`app`] | wires the rooms together and owns the background tasks |
//! | [`cli`] | the commands |

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod service;
pub mod store;
pub mod web;
