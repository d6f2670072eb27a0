//! Integration tests through the public interface: real sockets, and both databases.

#![expect(unreachable_pub, reason = "a test binary is not a library")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use tokio::time::timeout;

mod support;

mod api;
mod architecture;
mod backup;
mod browser;
mod console;
mod documents;
mod health;
mod language;
mod metrics;
mod oauth;
mod reliability;
mod security;
mod store;
mod telemetry;

/// Fails a test that hangs, well before the whole run is abandoned.
async fn with_timeout(test: impl Future<Output = ()>) {
    const LIMIT: Duration = Duration::from_mins(10);
    timeout(LIMIT, test).await.expect("the test hangs");
}

/// Runs each test on SQLite, and on PostgreSQL if one is available.
#[macro_export]
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test]
            async fn sqlite() {
                $crate::with_timeout(super::$name($crate::support::Database::sqlite())).await;
            }

            #[tokio::test]
            #[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
            async fn postgres() {
                $crate::with_timeout(super::$name($crate::support::Database::postgres().await)).await;
            }
        })+
    };
}

/// Prints what plain `cargo test` skips.
#[test]
fn skipped_tests_are_announced() {
    use std::io::Write;
    if cfg!(not(feature = "postgres-tests")) {
        // Written to stderr directly, because the test harness captures the output of passing tests.
        let _ = writeln!(std::io::stderr(), "skipped: the PostgreSQL half of the tests; `tests/run` runs both");
    }
}
