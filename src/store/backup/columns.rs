//! The columns of a table, as the database describes them, and the statements that read and write them.

use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};

use super::{Cell, Column, DERIVED, Kind, Table, unknown};
use crate::{domain::Result, store::even_chunks};

/// A connection outside of the pools, lent for a statement.
pub(super) enum On<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl On<'_> {
    pub(super) fn reborrow(&mut self) -> On<'_> {
        match self {
            Self::Sqlite(c) => On::Sqlite(c),
            Self::Postgres(c) => On::Postgres(c),
        }
    }
}

/// Runs one expression on the driver behind an [`On`].
macro_rules! on {
    ($on:expr, |$c:ident| $body:expr) => {
        match $on {
            $crate::store::backup::columns::On::Sqlite($c) => $body,
            $crate::store::backup::columns::On::Postgres($c) => $body,
        }
    };
}
pub(super) use on;

/// A column with what only its own database needs to know.
struct Field {
    column: Column,
    is_uuid: bool,
    /// The place in the primary key, from 1; 0 if it is not a part of it.
    key: i64,
}

/// A table as one of the databases has it.
pub(super) struct Stored {
    pub(super) table: Table,
    fields: Vec<Field>,
    is_postgres: bool,
    /// The last number that was given to a row, if rows are numbered.
    number: Option<i64>,
}

/// Reads the columns of a table; `None` if it does not exist. Columns that the database computes are left out.
pub(super) async fn describe(mut on: On<'_>, name: &str) -> Result<Option<Stored>> {
    const SQLITE: &str = "SELECT name, type, pk FROM pragma_table_xinfo($1) WHERE hidden = 0 ORDER BY name";
    const POSTGRES: &str = "SELECT a.attname::TEXT, format_type(a.atttypid, NULL), \
        COALESCE(array_position(i.indkey::INT2[], a.attnum) + 1, 0)::BIGINT FROM pg_attribute a \
        LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''";
    let is_postgres = matches!(on, On::Postgres(_));
    let sql = if is_postgres { POSTGRES } else { SQLITE };
    let found: Vec<(String, String, i64)> = on!(on.reborrow(), |c| sqlx::query_as(sql).bind(name).fetch_all(c).await)?;
    if found.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::with_capacity(found.len());
    let mut number = None;
    for (column, declared, key) in found {
        if DERIVED.contains(&(name, &column)) {
            number = Some(0);
            continue;
        }
        let kind = kind_of(&declared).ok_or_else(|| unknown("a type of column"))?;
        fields.push(Field { column: Column { name: column, kind }, is_uuid: declared == "uuid", key });
    }
    fields.sort_by(|a, b| a.column.name.cmp(&b.column.name));
    let columns = fields.iter().map(|field| field.column.clone()).collect();
    Ok(Some(Stored { table: Table { name: name.to_owned(), columns }, fields, is_postgres, number }))
}

fn kind_of(declared: &str) -> Option<Kind> {
    match declared {
        "INTEGER" | "bigint" | "integer" => Some(Kind::Integer),
        "TEXT" | "text" => Some(Kind::Text),
        "BLOB" | "bytea" | "uuid" => Some(Kind::Bytes),
        _ => None,
    }
}

impl Stored {
    /// Returns the statement that reads all rows in the order of the primary key, which is the same in both databases.
    pub(super) fn select(&self) -> String {
        let read = |field: &Field| match (self.is_postgres, field.column.kind, &field.column.name) {
            (true, Kind::Integer, name) => format!("CAST(\"{name}\" AS BIGINT)"),
            (true, Kind::Bytes, name) if field.is_uuid => format!("uuid_send(\"{name}\")"),
            (_, _, name) => format!("\"{name}\""),
        };
        let ordered = |field: &&Field| match (self.is_postgres, field.column.kind, &field.column.name) {
            (true, Kind::Text, name) => format!("\"{name}\" COLLATE \"C\""),
            (_, _, name) => format!("\"{name}\""),
        };
        let mut key: Vec<_> = self.fields.iter().filter(|field| field.key > 0).collect();
        key.sort_by_key(|field| field.key);
        let columns: Vec<_> = self.fields.iter().map(read).collect();
        let key: Vec<_> = key.iter().map(ordered).collect();
        format!("SELECT {} FROM \"{}\" ORDER BY {}", columns.join(", "), self.table.name, key.join(", "))
    }

    /// Inserts rows.
    pub(super) async fn insert(&mut self, mut on: On<'_>, rows: &[Vec<Cell>]) -> sqlx::Result<()> {
        for chunk in even_chunks(rows) {
            let sql = self.insertion(chunk.len());
            let first = self.number;
            if let Some(number) = &mut self.number {
                *number += i64::try_from(chunk.len()).unwrap_or_default();
            }
            on!(on.reborrow(), |c| {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for (number, row) in (1..).zip(chunk) {
                    for (field, cell) in self.fields.iter().zip(row) {
                        query = match (field.column.kind, cell) {
                            (Kind::Integer, Cell::Integer(value)) => query.bind(*value),
                            (Kind::Text, Cell::Text(value)) => query.bind(value.as_str()),
                            (Kind::Bytes, Cell::Bytes(value)) => query.bind(value.as_slice()),
                            (Kind::Integer, _) => query.bind(None::<i64>),
                            (Kind::Text, _) => query.bind(None::<&str>),
                            (Kind::Bytes, _) => query.bind(None::<&[u8]>),
                        };
                    }
                    if let Some(first) = first {
                        query = query.bind(first + number);
                    }
                }
                query.execute(c).await?;
            });
        }
        Ok(())
    }

    fn insertion(&self, rows: usize) -> String {
        let mut names: Vec<_> = self.fields.iter().map(|field| format!("\"{}\"", field.column.name)).collect();
        if self.number.is_some() {
            names.extend(
                DERIVED.iter().filter(|(table, _)| *table == self.table.name).map(|(_, name)| (*name).to_owned()),
            );
        }
        let place = |at: usize, row: usize| {
            let parameter = row * names.len() + at + 1;
            match self.fields.get(at) {
                Some(field) if field.is_uuid => format!("encode(${parameter}, 'hex')::UUID"),
                _ => format!("${parameter}"),
            }
        };
        let row = |row| (0..names.len()).map(|at| place(at, row)).collect::<Vec<_>>().join(", ");
        let values: Vec<_> = (0..rows).map(|index| format!("({})", row(index))).collect();
        format!("INSERT INTO \"{}\" ({}) VALUES {}", self.table.name, names.join(", "), values.join(", "))
    }
}
