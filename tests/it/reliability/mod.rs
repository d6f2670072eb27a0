//! What happens when something fails: the process, the audit log, the disk, the operator, the clients.

mod audit_fails;
mod crash;
mod tamper;
