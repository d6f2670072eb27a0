//! The page that asks for confirmation before an action takes effect, and shows what the action affects.

pub(in crate::web::console) mod impact;

use askama::Template;

use self::impact::{Loss, Shown};
use super::Head;
use crate::{
    domain::{Agent, Result},
    service::{Services, agents::impact::Impact},
    web::console::{
        guard::Admin,
        page::{
            form::Problems,
            frame::{Frame, Page},
        },
    },
};

/// The wording of a confirmation page.
pub(super) struct Question {
    /// The button, such as `Suspend agent`.
    pub(super) button: &'static str,
    /// The title before the object, such as `Suspend`.
    pub(super) verb: &'static str,
    /// The object.
    pub(super) object: String,
    /// The title after the object.
    pub(super) rest: String,
    /// What happens, and whether it can be undone.
    pub(super) note: String,
    /// The path below the agent that the form is posted to.
    pub(super) action: String,
    /// The path that Cancel leads to.
    pub(super) cancel: String,
    pub(super) asks_reason: bool,
    /// True if the name of the agent must be entered.
    pub(super) asks_name: bool,
}

#[derive(Template)]
#[template(path = "agents/confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) frame: Frame,
    pub(super) head: Head,
    pub(super) question: Question,
    pub(super) impact: Shown,
    pub(super) reason: String,
    pub(super) problems: Problems,
}

impl ConfirmPage {
    pub(super) async fn of(
        services: &Services,
        admin: &Admin,
        frame: Frame,
        agent: &Agent,
        question: Question,
        impact: &Impact,
        loss: Loss<'_>,
    ) -> Result<Self> {
        Ok(Self {
            frame: frame.at("agents"),
            head: Head::of(services, admin, agent, "").await?,
            question,
            impact: Shown::of(impact, loss, services.env.now()),
            reason: String::new(),
            problems: Problems::default(),
        })
    }

    /// Returns the page unless the action would be denied.
    pub(super) fn if_manageable(self) -> Result<Page<Self>> {
        Ok(Page(Self { head: self.head.manageable()?, ..self }))
    }
}
