//! Statements that are built at run time, with one text and one list of values for both databases.
//!
//! A parameter after `LIMIT` has a plus sign, here and in constant statements: see [`Sql::limit`].

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Conn;

/// A parameter.
#[derive(Clone, Debug)]
pub(in crate::store) enum Value {
    Int(i64),
    Text(String),
    Id(Uuid),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Id(value)
    }
}

/// A statement under construction. Its text consists of constants. All input is bound as a parameter.
#[derive(Debug, Default)]
pub(in crate::store) struct Sql {
    pub(in crate::store) text: String,
    pub(in crate::store) values: Vec<Value>,
    /// True if the best plan does not depend on the values.
    pub(in crate::store) is_one_plan: bool,
}

impl Sql {
    pub(in crate::store) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    pub(in crate::store) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        use std::fmt::Write;
        self.values.push(value.into());
        // Writing to a string does not fail.
        let _ = write!(self.text, "${}", self.values.len());
        self
    }

    /// Adds `LIMIT`. To SQLite a bare parameter in this place (or as the pattern of `LIKE`) is a part of the plan, so
    /// binding one makes it parse and plan a prepared statement again. The plus sign turns the parameter into an
    /// expression.
    pub(in crate::store) fn limit(&mut self, most: i64) -> &mut Self {
        self.push(" LIMIT +").bind(most)
    }

    /// Adds the condition that a column is one of these numbers, as one parameter for any count of numbers.
    pub(in crate::store) fn is_one_of(&mut self, conn: &Conn<'_>, column: &str, numbers: &BTreeSet<i64>) -> &mut Self {
        let list = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        match conn {
            Conn::Sqlite(_) => self
                .push(column)
                .push(" IN (SELECT value FROM json_each(")
                .bind(format!("[{list}]").as_str())
                .push("))"),
            Conn::Postgres(_) => {
                self.push(column).push(" = ANY (string_to_array(").bind(list.as_str()).push(", ',')::bigint[])")
            }
        }
    }

    /// Orders the rows by the number that they are looked up by, so that SQLite returns them all at once.
    ///
    /// SQLite returns each row as it finds it, and its thread wakes the task for each row that needed a page from disk.
    /// The plus sign keeps it from using an index for the order, so it sorts, and returns nothing before it has found
    /// all rows. The best plan does not depend on the numbers.
    pub(in crate::store) fn at_once(&mut self, number: &str) -> &mut Self {
        self.is_one_plan = true;
        self.push(" ORDER BY +").push(number)
    }

    /// Adds `AND`, a comparison such as `owner =`, and its parameter.
    pub(in crate::store) fn and(&mut self, comparison: &str, value: impl Into<Value>) -> &mut Self {
        self.push(" AND ").push(comparison).push(" ").bind(value)
    }
}

/// Runs a statement under construction: `run!(conn, sqlx::query_as, sql, fetch_all)?`.
macro_rules! run {
    ($conn:expr, $query:path, $sql:expr, $fetch:ident) => {{
        let $crate::store::db::sql::Sql { text, values, is_one_plan } = $sql;
        let conn = $crate::store::db::Conn::from($conn);
        // After a few runs PostgreSQL would choose one plan for a kept statement, whatever its values are, and the
        // values mostly decide which plan is good. A statement that is not kept costs one more round trip.
        let persistent = is_one_plan || matches!(conn, $crate::store::db::Conn::Sqlite(_));
        $crate::store::db::dispatch!(conn, |c| {
            let mut query = $query(sqlx::AssertSqlSafe(text)).persistent(persistent);
            for value in values {
                query = match value {
                    $crate::store::db::sql::Value::Int(value) => query.bind(value),
                    $crate::store::db::sql::Value::Text(value) => query.bind(value),
                    $crate::store::db::sql::Value::Id(value) => query.bind(value),
                };
            }
            query.$fetch(c).await
        })
    }};
}
pub(in crate::store) use run;
