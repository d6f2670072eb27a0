//! The first page.

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

/// How the fleet is.
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

/// The tokens of the last hours as bars; drawn here, so that no script has to.
struct Chart {
    bars: Vec<Bar>,
    issued: i64,
    refused: i64,
}

struct Bar {
    x: usize,
    /// Heights and tops in units of the drawing, of which there are 100.
    height: i64,
    y: i64,
    refused_height: i64,
    refused_y: i64,
    hour: Moment,
    /// The hour of the day.
    label: String,
    issued: i64,
    refused: i64,
}

impl Chart {
    fn of(overview: &Overview, now: crate::domain::Timestamp) -> Self {
        const HEIGHT: i64 = 100;
        const STEP: usize = 25;
        let most = overview.hours.iter().map(|hour| hour.issued + hour.refused).max().unwrap_or(0).max(1);
        // Whatever happened at all can be seen.
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

/// A number that is counted no further than some bound.
pub(super) fn bounded(count: i64) -> String {
    if count >= overview::MOST { format!("{}+", overview::MOST) } else { count.to_string() }
}

impl OverviewPage {
    fn tiles(&self) -> [(&'static str, &'static str, i64); 3] {
        let Overview { active, suspended, revoked, .. } = self.overview;
        [
            ("Active agents", "/console/agents?status=active", active),
            ("Suspended", "/console/agents?status=suspended", suspended),
            ("Revoked", "/console/agents?status=revoked", revoked),
        ]
    }

    /// What wants attention: how much, what, where to look, and what to do.
    fn attention(&self) -> Vec<(String, String, &'static str, &'static str)> {
        let found = self.overview.attention;
        let all = [
            (
                found.refused,
                ["authentication", "authentications"],
                "refused in 24 hours",
                "/console/audit?outcome=refused",
                "See who was refused",
            ),
            (
                found.expiring,
                ["key expires", "keys expire"],
                "within 7 days",
                "/console/keys?show=expiring",
                "Rotate or extend",
            ),
            (
                found.in_grace,
                ["rotated key", "rotated keys"],
                "still working",
                "/console/keys?show=in_grace",
                "See what still uses it",
            ),
            (found.idle, ["key", "keys"], "unused for 90 days", "/console/keys?show=idle", "Revoke what nobody needs"),
            (
                found.suspended,
                ["agent", "agents"],
                "suspended",
                "/console/agents?status=suspended",
                "Decide what becomes of it",
            ),
        ];
        let mut wanting = Vec::new();
        for (count, [one, many], what, href, todo) in all {
            if count > 0 {
                wanting.push((bounded(count), format!("{} {what}", if count == 1 { one } else { many }), href, todo));
            }
        }
        wanting
    }

    fn steps(&self) -> [(bool, &'static str, &'static str, &'static str); 4] {
        let steps = self.overview.steps;
        [
            (steps.agent, "Register your first agent", "/console/agents/new", "A name, and who answers for it."),
            (steps.grant, "Grant it a capability", "/console/agents", "Without one it may do nothing."),
            (steps.key, "Give it an API key", "/console/agents", "Shown once; it exchanges the key for tokens."),
            (steps.token, "See its first token", "/console/audit", "The audit log tells when it arrives."),
        ]
    }
}
