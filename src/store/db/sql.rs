//! Statements that are put together at run time, with one text and one list of values for both databases.
//!
//! Wherever a bound number follows `LIMIT`, here and in constant texts, it has a sign: see [`Sql::limit`].

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Conn;

/// A value to bind.
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

/// A statement under construction. Its text is made of constants; whatever comes from outside is bound.
#[derive(Debug, Default)]
pub(in crate::store) struct Sql {
    pub(in crate::store) text: String,
    pub(in crate::store) values: Vec<Value>,
    /// Whether the plan is the same whatever the values are.
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

    /// Most rows. SQLite takes a bare parameter here (and as the pattern of `LIKE`) for part of the plan, and parses and plans a
    /// prepared statement anew whenever one is bound; an expression is only a value to it.
    pub(in crate::store) fn limit(&mut self, most: i64) -> &mut Self {
        self.push(" LIMIT +").bind(most)
    }

    /// That a column is one of these numbers: one value and one text, however many there are.
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

    /// All rows at once, ordered by the number that they are looked up by. SQLite hands each row over as it finds it, and wakes
    /// whoever waits for each that it had to read a page for. The sign keeps it from reading in this order, so that it sorts, and
    /// hands over nothing before it has all. The plan is the same whatever the numbers are.
    pub(in crate::store) fn at_once(&mut self, number: &str) -> &mut Self {
        self.is_one_plan = true;
        self.push(" ORDER BY +").push(number)
    }

    /// `AND`, a comparison, and what is compared with.
    pub(in crate::store) fn and(&mut self, comparison: &str, value: impl Into<Value>) -> &mut Self {
        self.push(" AND ").push(comparison).push(" ").bind(value)
    }
}

/// Binds a statement's values: `run!(conn, sqlx::query_as, sql, fetch_all)`.
macro_rules! run {
    ($conn:expr, $query:path, $sql:expr, $fetch:ident) => {{
        let $crate::store::db::sql::Sql { text, values, is_one_plan } = $sql;
        let mut conn = Conn::from($conn);
        // PostgreSQL would soon plan a prepared statement without regard to the values, which mostly decide about the plan. One
        // that is not kept is a round trip more.
        let persistent = is_one_plan || matches!(conn, Conn::Sqlite(_));
        on!(&mut conn, |c| {
            let mut query = $query(sqlx::AssertSqlSafe(text)).persistent(persistent);
            for value in values {
                query = match value {
                    $crate::store::db::sql::Value::Int(value) => query.bind(value),
                    $crate::store::db::sql::Value::Text(value) => query.bind(value),
                    $crate::store::db::sql::Value::Id(value) => query.bind(value),
                };
            }
            query.$fetch(c).await?
        })
    }};
}
pub(in crate::store) use run;
