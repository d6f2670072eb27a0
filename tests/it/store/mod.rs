//! What the database itself must guarantee.

mod nodes;
