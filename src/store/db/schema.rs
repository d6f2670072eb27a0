//! The migrations of a database, compared with those of this version of AIMS.

use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};

use super::location::OpenError;

/// The columns of a row of sqlx's table of migrations: version, description, checksum.
pub(super) type Applied = (i64, String, Vec<u8>);

pub(super) const APPLIED: &str = "SELECT version, description, checksum FROM _sqlx_migrations ORDER BY version";

/// A migration of this version of AIMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number of its file.
    pub version: i64,
    /// What it is about.
    pub name: String,
    /// True if the database has it.
    pub is_applied: bool,
}

impl Step {
    /// Reports that the database has it now.
    pub(super) fn log(&self, duration: Duration) {
        let Self { version, name, .. } = self;
        tracing::info!(version, name, duration_ms = duration.as_millis(), "migrated the database");
    }
}

/// The state of a database that this version of AIMS can use, possibly after a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    steps: Vec<Step>,
}

impl Schema {
    /// Compares the migrations of the database at `place` with those of this version.
    ///
    /// # Errors
    /// [`OpenError::Foreign`], [`OpenError::Newer`] or [`OpenError::Divergent`].
    pub(super) fn of(known: &Migrator, applied: &[Applied], place: &str) -> Result<Self, OpenError> {
        if applied.first().is_some_and(|first| !known.iter().any(|migration| is_same_kind(migration, first))) {
            return Err(OpenError::Foreign(place.to_owned()));
        }
        let newest = known.iter().map(|migration| migration.version).max().unwrap_or_default();
        if let Some((version, ..)) = applied.last().filter(|(version, ..)| *version > newest) {
            return Err(OpenError::Newer { schema: *version, known: newest });
        }
        for (version, _, checksum) in applied {
            let same = known.iter().find(|migration| migration.version == *version);
            if same.is_none_or(|migration| *migration.checksum != **checksum) {
                return Err(OpenError::Divergent(*version));
            }
        }
        let step = |migration: &Migration| Step {
            version: migration.version,
            name: migration.description.to_string(),
            is_applied: applied.iter().any(|(version, ..)| *version == migration.version),
        };
        Ok(Self { steps: known.iter().map(step).collect() })
    }

    /// Returns every migration of this version of AIMS, oldest first.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the version of the newest migration that the database has. 0 before the first one.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.steps.iter().rev().find(|step| step.is_applied).map_or(0, |step| step.version)
    }

    /// Returns the migrations that the database lacks, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !step.is_applied)
    }

    /// Returns an error if the database lacks a migration.
    ///
    /// # Errors
    /// [`OpenError::Older`].
    pub fn require_current(&self) -> Result<(), OpenError> {
        match self.pending().last() {
            Some(last) => Err(OpenError::Older { schema: self.version(), known: last.version }),
            None => Ok(()),
        }
    }
}

/// Returns true if the database's first migration is the first one of AIMS. The table is sqlx's, so a database of
/// another application may have one too.
fn is_same_kind(known: &Migration, (version, description, _): &Applied) -> bool {
    known.version == *version && *known.description == **description
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::{AssertSqlSafe, SqlSafeStr, migrate::MigrationType};

    use super::*;

    fn migration(version: i64, name: &'static str) -> Migration {
        let sql = AssertSqlSafe(format!("SELECT {version}")).into_sql_str();
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    }

    fn known() -> Migrator {
        Migrator::with_migrations(vec![migration(1, "foundation"), migration(2, "console"), migration(5, "names")])
    }

    fn applied(versions: &[(i64, &'static str)]) -> Vec<Applied> {
        versions
            .iter()
            .map(|(version, name)| (*version, (*name).to_owned(), migration(*version, name).checksum.to_vec()))
            .collect()
    }

    fn compared(versions: &[(i64, &'static str)]) -> Result<Schema, String> {
        Schema::of(&known(), &applied(versions), "here").map_err(|error| error.to_string())
    }

    #[test]
    fn a_schema_knows_its_version_and_what_is_pending() {
        for (versions, version, pending) in [
            (&[][..], 0, &[1, 2, 5][..]),
            (&[(1, "foundation")], 1, &[2, 5]),
            (&[(1, "foundation"), (2, "console"), (5, "names")], 5, &[]),
            // A migration with a lower number may come later, from another branch.
            (&[(1, "foundation"), (5, "names")], 5, &[2]),
        ] {
            let schema = compared(versions).unwrap();
            assert_eq!(schema.version(), version);
            assert_eq!(schema.pending().map(|step| step.version).collect::<Vec<_>>(), pending);
            assert_eq!(schema.require_current().is_ok(), pending.is_empty());
        }
    }

    #[test]
    fn other_databases_are_told_apart() {
        let newer = compared(&[(1, "foundation"), (2, "console"), (5, "names"), (9, "later")]).unwrap_err();
        assert!(newer.starts_with("the database has schema 9, this version of AIMS knows up to 5"), "{newer}");
        let other = compared(&[(1, "users"), (2, "posts")]).unwrap_err();
        assert!(other.contains("is not a database of AIMS"), "{other}");
        let other = compared(&[(20_240_101, "users")]).unwrap_err();
        assert!(other.contains("is not a database of AIMS"), "{other}");
        let unknown = compared(&[(1, "foundation"), (3, "lost"), (5, "names")]).unwrap_err();
        assert!(unknown.contains("migration 3 "), "{unknown}");
        let mut changed = applied(&[(1, "foundation"), (2, "console")]);
        changed[1].2[0] ^= 1;
        let changed = Schema::of(&known(), &changed, "here").unwrap_err().to_string();
        assert!(changed.contains("migration 2 "), "{changed}");
    }
}
