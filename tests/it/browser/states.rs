//! States of pages that take more than a click: forms, previews, messages, and what is shown once.

use std::time::Duration;

use serde_json::json;

use super::{
    Chrome, Display,
    accessibility::{check, save_screenshot},
    pages::Shown,
};
use crate::{
    console::account::code,
    support::{PASSWORD, Server},
};

/// A way through the states of a server, in the browser of an owner.
pub(super) struct Tour<'t> {
    pub(super) chrome: &'t Chrome,
    pub(super) server: &'t Server,
    pub(super) shown: &'t Shown,
    pub(super) display: Display,
}

const SUBMIT: &str = "main form.card .button--primary";

impl Tour<'_> {
    /// Checks all states. The tour ends with an authenticator app in the owner's account.
    pub(super) async fn check_states(&self) {
        self.check_message().await;
        self.check_previews().await;
        self.check_outdated_preview().await;
        self.check_grant_of_capability().await;
        self.check_new_keys().await;
        self.check_form_with_errors().await;
        self.check_password_prompt_and_codes().await;
    }

    async fn check(&self, place: &str) {
        check(self.chrome, place, self.display).await;
    }

    async fn goto(&self, path: &str) {
        self.chrome.goto(&self.shown.path(path)).await;
    }

    /// Clicks an element wherever it is on the page.
    async fn click(&self, css: &str) {
        self.chrome.wait(css).await;
        self.chrome.run(&format!("document.querySelector({css:?}).click()")).await;
    }

    async fn check_message(&self) {
        self.goto("/console/agents/{delegate}/suspend").await;
        self.click("form[action$='/suspend'] .button--danger").await;
        self.chrome.wait(".toast .notice__undo button").await;
        self.check("a message with Undo").await;
        self.click(".toast .notice__undo button").await;
        // It is active again.
        self.chrome.wait(".page-head a[href$='/suspend']").await;
    }

    async fn check_previews(&self) {
        for (act, target) in [("grant", "plans:write"), ("ungrant", "documents:read"), ("transfer", "research")] {
            self.goto("/console/agents?owner=mail-team").await;
            self.click(&format!("button[name=act][value={act}]")).await;
            self.chrome.fill("#target", target).await;
            self.chrome.wait_for_text("1 of 1 will change").await;
            self.check(&format!("the preview of {act}")).await;
        }
    }

    async fn check_outdated_preview(&self) {
        self.goto("/console/agents?owner=platform").await;
        self.click("button[name=act][value=suspend]").await;
        self.chrome.wait_for_text("1 of 1 will change").await;
        let late = json!({ "name": "late-bot", "owner": "platform" });
        let admin = self.server.anonymous().login(&self.server.admin_key).await;
        admin.post("/agents", late).await.expect(201);
        self.click("#impact .row button").await;
        self.chrome.wait_for_text("The agents have changed since you saw this page").await;
        self.check("a preview that is out of date").await;
    }

    async fn check_grant_of_capability(&self) {
        self.goto("/console/capabilities/{capability}").await;
        self.chrome.fill("#agents", "planner\nsummariser\nnobody").await;
        self.click("form[action$='/grants'] button").await;
        self.chrome.wait("form[action$='/grants/apply']").await;
        self.check("the confirmation of grants").await;
    }

    async fn check_new_keys(&self) {
        self.goto("/console/agents/{agent}/keys/new").await;
        self.chrome.fill("#name", "production").await;
        self.click(SUBMIT).await;
        self.chrome.wait("dialog:modal").await;
        self.check("the new key dialog").await;
        save_screenshot(self.chrome, "key", self.display).await;
        // Otherwise the browser asks before it leaves the page.
        self.click("[data-saved]").await;

        self.goto("/console/keys?owner=mail-team").await;
        self.click("[data-all]").await;
        self.click("[data-bulk-bar]:not([hidden]) button[value=rotate]").await;
        self.chrome.wait("form[action='/console/keys/bulk/rotate']").await;
        self.check("the confirmation of rotations").await;
        self.click("form[action='/console/keys/bulk/rotate'] .button--primary").await;
        self.chrome.wait("dialog:modal .new-keys").await;
        self.check("the dialog of many new keys").await;
        self.click("[data-saved]").await;
    }

    async fn check_form_with_errors(&self) {
        self.goto("/console/agents/new").await;
        self.chrome.run("document.querySelectorAll('[required]').forEach((field) => field.required = false)").await;
        self.click(SUBMIT).await;
        self.chrome.wait("[aria-invalid=true]").await;
        self.check("a form with errors").await;
    }

    async fn check_password_prompt_and_codes(&self) {
        self.server.clock.advance(Duration::from_mins(11));
        self.goto("/console/administrators/new").await;
        self.chrome.wait("form[action='/console/confirm'] #password").await;
        self.check("the password prompt").await;
        self.chrome.fill("#password", PASSWORD).await;
        self.click("form[action='/console/confirm'] .button--primary").await;
        self.chrome.wait("#recipient").await;

        self.goto("/console/account/authenticator").await;
        let secret = self.chrome.run("return document.querySelector('main code.wrap').textContent").await;
        self.chrome.fill("#code", &code(self.server, secret.as_str().unwrap())).await;
        self.click("form[action='/console/account/authenticator'] .button--primary").await;
        self.chrome.wait("#codes").await;
        self.check("recovery codes").await;
    }
}
