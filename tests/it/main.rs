//! Behaviour through the public surface: a real socket, and both databases.

#![expect(unreachable_pub, reason = "a test binary has no outside")]
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
mod browser;
mod console;
mod oauth;
mod reliability;
mod security;
mod store;

/// Says which test waits for what never comes, long before the whole run is given up.
async fn within_reason(test: impl Future<Output = ()>) {
    const LONGEST: Duration = Duration::from_mins(10);
    timeout(LONGEST, test).await.expect("the test ends");
}

/// Runs each test on SQLite, and on PostgreSQL where there is one.
#[macro_export]
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test]
            async fn sqlite() {
                $crate::within_reason(super::$name($crate::support::Database::sqlite())).await;
            }

            #[tokio::test]
            #[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
            async fn postgres() {
                $crate::within_reason(super::$name($crate::support::Database::postgres().await)).await;
            }
        })+
    };
}

/// Says in one line what plain `cargo test` leaves out.
#[test]
fn says_what_is_left_out() {
    use std::io::Write;
    if cfg!(not(feature = "postgres-tests")) {
        // Written past the test harness, which would swallow what a passing test prints.
        let _ = writeln!(std::io::stderr(), "left out: the PostgreSQL half of the tests; `tests/run` runs both");
    }
}
