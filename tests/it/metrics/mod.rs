//! The metrics, and the dashboard and the alerts that use them.

mod counts;
mod deploy;
mod exposition;
mod listener;

use std::time::{Duration, Instant};

use crate::support::{Client, Database, Server};
use exposition::Exposition;

/// The setting that turns metrics on. The test's server listens on a free port.
const ON: [(&str, &str); 1] = [("METRICS_ADDR", "127.0.0.1:0")];
/// How long the tests wait for what must happen soon.
const SOON: Duration = Duration::from_secs(20);

/// Compares two numbers that are the same, apart from rounding.
fn is(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

async fn start(db: Database) -> Server {
    Server::start_with(db, &ON).await
}

impl Server {
    /// A client of the metrics.
    fn scraper(&self) -> Client {
        Client::new(self.metrics_url.clone().expect("the test turns metrics on"))
    }

    /// Reads the metrics.
    async fn scrape(&self) -> Exposition {
        let response = self.scraper().get("/metrics").await;
        assert_eq!(response.status.as_u16(), 200, "{response:?}");
        Exposition::parse(&response.text)
    }

    /// Reads the metrics until they are as expected.
    async fn scrape_until(&self, expected: impl Fn(&Exposition) -> bool) -> Exposition {
        let deadline = Instant::now() + SOON;
        loop {
            let shown = self.scrape().await;
            if expected(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "{:#?}", shown.differing_from_zero());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
