//! The overview page.

use askama::Template;
use axum::{extract::State, response::IntoResponse};

use super::{
    Shared,
    audit::{Row, rows},
    guard::Admin,
    page::frame::{Frame, Moment, Page},
};
use crate::{
    service::{
        Action,
        overview::{self, Overview},
    },
    web::failure::Failure,
};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    overview: Overview,
    chart: Chart,
    latest: Vec<Row>,
}

pub(super) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
) -> Result<impl IntoResponse + use<>, Failure> {
    let overview = overview::read(&services, &admin).await?;
    let latest = rows(&services, &admin, overview.latest.clone()).await?;
    let chart = Chart::of(&overview, services.env.now());
    Ok(Page(OverviewPage { frame: frame.at("overview"), overview, chart, latest }))
}

/// A bar chart of token requests per hour, rendered as SVG.
struct Chart {
    bars: Vec<Bar>,
    issued: i64,
    refused: i64,
}

struct Bar {
    x: usize,
    /// Heights and tops in units of the drawing, which is 100 units high.
    height: i64,
    y: i64,
    refused_height: i64,
    refused_y: i64,
    hour: Moment,
    /// The hour of the day, such as `14:00`.
    label: String,
    issued: i64,
    refused: i64,
}

impl Chart {
    fn of(overview: &Overview, now: crate::domain::Timestamp) -> Self {
        const HEIGHT: i64 = 100;
        const STEP: usize = 25;
        let most = overview.hours.iter().map(|hour| hour.issued + hour.refused).max().unwrap_or(0).max(1);
        // Counts above zero stay visible.
        let scaled = |count: i64| if count == 0 { 0 } else { (count * HEIGHT / most).max(2) };
        let bars = overview.hours.iter().enumerate().map(|(place, hour)| {
            let (height, refused_height) = (scaled(hour.issued), scaled(hour.refused));
            let moment = Moment::at(hour.starts_at, now);
            Bar {
                x: place * STEP,
                height,
                y: HEIGHT - height,
                refused_height,
                refused_y: (HEIGHT - height - refused_height).max(0),
                label: moment.exact.get(11..16).unwrap_or_default().to_owned(),
                hour: moment,
                issued: hour.issued,
                refused: hour.refused,
            }
        });
        Self {
            bars: bars.collect(),
            issued: overview.hours.iter().map(|hour| hour.issued).sum(),
            refused: overview.hours.iter().map(|hour| hour.refused).sum(),
        }
    }
}

/// Formats a count that stops at [`overview::MOST`].
pub(super) fn bounded(count: i64) -> String {
    if count >= overview::COUNT_MAX { format!("{}+", overview::COUNT_MAX) } else { count.to_string() }
}

impl OverviewPage {
    fn tiles(&self) -> [(&'static str, &'static str, i64); 3] {
        let Overview { active, suspended, revoked, .. } = self.overview;
        [
            ("Active agents", "/console/agents?status=active", active),
            ("Suspended agents", "/console/agents?status=suspended", suspended),
            ("Revoked agents", "/console/agents?status=revoked", revoked),
        ]
    }

    /// Items that need attention: count, description, link and link text.
    fn attention(&self) -> Vec<(String, String, &'static str, &'static str)> {
        let found = self.overview.attention;
        let all = [
            (
                found.refused,
                ["failed authentication", "failed authentications"],
                "in the last 24 hours",
                "/console/audit?outcome=refused",
                "View",
            ),
            (found.expiring, ["key expires", "keys expire"], "within 7 days", "/console/keys?show=expiring", "View"),
            (found.in_grace, ["rotated key", "rotated keys"], "still working", "/console/keys?show=in_grace", "View"),
            (found.idle, ["key", "keys"], "unused for 90 days", "/console/keys?show=idle", "Review"),
            (found.suspended, ["agent", "agents"], "suspended", "/console/agents?status=suspended", "Review"),
        ];
        let mut items = Vec::new();
        for (count, [one, many], what, href, action) in all {
            if count > 0 {
                items.push((bounded(count), format!("{} {what}", if count == 1 { one } else { many }), href, action));
            }
        }
        items
    }

    fn steps(&self) -> [(bool, &'static str, &'static str, &'static str); 4] {
        let steps = self.overview.steps;
        [
            (steps.agent, "Create an agent", "/console/agents/new", "Choose a name and an owner."),
            (
                steps.grant,
                "Grant it a capability",
                "/console/agents",
                "Without capabilities, an agent cannot do anything.",
            ),
            (
                steps.key,
                "Create an API key",
                "/console/agents",
                "The key is shown once. The agent exchanges it for tokens.",
            ),
            (steps.token, "Request a token", "/console/audit", "The first token exchange appears in the audit log."),
        ]
    }
}
