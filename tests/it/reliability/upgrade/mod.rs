//! Upgrades: databases of every earlier schema, crashes during a migration, several nodes, and servers that are not fit.

mod commands;
mod engines;
mod every_schema;
mod killed;
mod nodes;
mod past;

/// Makes migration 21 pending again, as in a database of the version before. It changes a table that every request reads.
const BEFORE_THE_INDEX: &str = "DROP INDEX delegations_by_delegate_in_order; \
    CREATE INDEX delegations_by_delegate ON delegations (delegate_id); \
    DELETE FROM _sqlx_migrations WHERE version = 21";

/// Makes migration 20 pending again. It only adds tables.
const BEFORE_THE_INVITATIONS: &str =
    "DROP TABLE invitations; DROP TABLE service_address; DELETE FROM _sqlx_migrations WHERE version = 20";
