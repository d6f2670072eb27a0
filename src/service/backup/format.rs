//! The lines of a backup.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};
use serde_json::Value;

use crate::{
    crypto::{MasterKey, hex::decode},
    domain::{
        Timestamp,
        audit::{Head, hex},
    },
    store::backup::{Cell, Column, Kind, Row, Table},
};

/// The version of the format. A reader refuses a later one.
pub(super) const FORMAT: u64 = 1;

/// The version of AIMS.
pub(super) const AIMS: &str = env!("CARGO_PKG_VERSION");

/// What a backup says about itself.
#[derive(Clone)]
pub struct Header {
    /// The version of AIMS that made it.
    pub aims: String,
    /// The schema of the data: the last migration.
    pub schema: i64,
    /// When the data was read.
    pub made_at: Timestamp,
    /// The public URL of the service, if a service has used the database.
    pub public_url: Option<String>,
    /// The end of the audit chain.
    pub head: Head,
    /// The master key, if it was included.
    pub master_key: Option<MasterKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    aims_backup: u64,
    aims: String,
    schema: i64,
    made_at: i64,
    public_url: Option<String>,
    head_seq: i64,
    head_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key: Option<String>,
}

impl Header {
    pub(super) fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&HeaderLine {
            aims_backup: FORMAT,
            aims: self.aims.clone(),
            schema: self.schema,
            made_at: self.made_at.as_micros(),
            public_url: self.public_url.clone(),
            head_seq: self.head.seq,
            head_hash: hex(&self.head.hash),
            master_key: self.master_key.as_ref().map(|key| key.to_hex().expose_secret().to_owned()),
        })
    }

    /// Parses a header of this format. Returns the version of the format, and of AIMS, for a later one.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Option<(u64, String)>> {
        let value: Value = serde_json::from_slice(line).map_err(|_| None)?;
        let format = value.get("aims_backup").and_then(Value::as_u64).ok_or(None)?;
        if format > FORMAT {
            let aims = value.get("aims").and_then(Value::as_str).filter(|aims| is_version(aims));
            return Err(Some((format, aims.unwrap_or("unknown").to_owned())));
        }
        let line: HeaderLine = serde_json::from_value(value).map_err(|_| None)?;
        // Commands print both, and a control sequence could change what a terminal shows.
        if !is_version(&line.aims) || line.public_url.iter().flat_map(|url| url.chars()).any(char::is_control) {
            return Err(None);
        }
        Ok(Self {
            aims: line.aims,
            schema: line.schema,
            made_at: Timestamp::from_micros(line.made_at),
            public_url: line.public_url,
            head: Head { seq: line.head_seq, hash: decode(&line.head_hash).ok_or(None)? },
            master_key: line.master_key.map(|key| MasterKey::from_hex(&key).ok_or(None)).transpose()?,
        })
    }
}

fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte))
}

/// A line that is not a row.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Table(TableLine),
    Trailer(Trailer),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableLine {
    table: String,
    columns: Vec<(String, String)>,
}

/// The last line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) sha256: String,
}

const KINDS: [(Kind, &str); 3] = [(Kind::Integer, "integer"), (Kind::Text, "text"), (Kind::Bytes, "bytes")];

impl From<&Table> for TableLine {
    fn from(table: &Table) -> Self {
        let name = |kind| KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| *name);
        let columns = table.columns.iter().map(|column| (column.name.clone(), name(column.kind).to_owned())).collect();
        Self { table: table.name.clone(), columns }
    }
}

impl TableLine {
    pub(super) fn into_table(self) -> Option<Table> {
        let column = |(name, kind): (String, String)| {
            let (kind, _) = KINDS.iter().find(|(_, known)| *known == kind)?;
            Some(Column { name, kind: *kind })
        };
        let columns = self.columns.into_iter().map(column).collect::<Option<_>>()?;
        Some(Table { name: self.table, columns })
    }
}

/// A row as a line.
pub(super) struct RowLine<'r>(pub(super) &'r [Cell]);

impl Serialize for RowLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_seq(Some(self.0.len()))?;
        for cell in self.0 {
            match cell {
                Cell::Null => row.serialize_element(&())?,
                Cell::Integer(value) => row.serialize_element(value)?,
                Cell::Text(value) => row.serialize_element(value)?,
                Cell::Bytes(value) => row.serialize_element(&BASE64_STANDARD.encode(value))?,
            }
        }
        row.end()
    }
}

/// Parses a row. `None` if it does not fit the columns.
pub(super) fn parse_row(line: &[u8], columns: &[Column]) -> Option<Row> {
    let values: Vec<Value> = serde_json::from_slice(line).ok()?;
    if values.len() != columns.len() {
        return None;
    }
    let cell = |(value, column): (Value, &Column)| match (value, column.kind) {
        (Value::Null, _) => Some(Cell::Null),
        (Value::Number(number), Kind::Integer) => number.as_i64().map(Cell::Integer),
        (Value::String(text), Kind::Text) => Some(Cell::Text(text)),
        (Value::String(text), Kind::Bytes) => BASE64_STANDARD.decode(text).ok().map(Cell::Bytes),
        _ => None,
    };
    values.into_iter().zip(columns).map(cell).collect()
}
