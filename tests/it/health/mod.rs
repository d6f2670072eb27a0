//! Health checks, the supervisor, and conditions of the machine: clock, file system, signals.

mod clock;
mod environment;
mod healthcheck;
mod notify;
mod process_clock;
mod readiness;
mod starting;
