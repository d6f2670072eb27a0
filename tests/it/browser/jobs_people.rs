//! Jobs with people: inviting an operator and seeing who uses a second factor, and coming back after a session ended.

use std::time::Duration;

use aims::domain::Role;

use super::{
    Chrome, Display,
    docs::assert_accessible,
    in_browser,
    keyboard::{ENTER, Keyboard},
    screenshots, server, signed_in_owner,
};
use crate::{
    console::invitations::{acts, add_passkey},
    support::PASSWORD,
};

in_browser!(
    operator_is_invited_in_three_clicks,
    operator_is_invited_by_keyboard,
    operator_is_invited_without_scripts,
    search_keeps_its_filter_over_an_expired_session,
    form_address_leads_back_to_the_agent,
    pages_for_people_are_accessible,
);

async fn operator_is_invited_in_three_clicks() {
    invite_an_operator(Display::DEFAULT).await;
}

async fn operator_is_invited_by_keyboard() {
    let server = server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let keyboard = Keyboard::at_overview(&chrome).await;
    keyboard.find("administrators", "[data-href='/console/administrators']").await;
    chrome.wait_for_path(|path| path == "/console/administrators").await;
    chrome.wait_for_text("Without a second factor (1)").await;
    keyboard.skip_to_content().await;
    keyboard.enter("a[href='/console/administrators/new']").await;
    chrome.wait("#recipient:focus").await;
    chrome.press("Ada").await;
    assert_eq!(chrome.count("input[name=role][value=operator]:checked").await, 1);
    chrome.press(ENTER).await;
    chrome.wait("#secret").await;
    keyboard.enter("[data-copy=secret]").await;
    chrome.wait_for_text("Copied").await;
    // 2 to open the page, 2 to skip, up to 4 to the form, 1 to submit, and up to 6 to copy the link.
    keyboard.assert_at_most(15);
    chrome.assert_no_errors().await;
}

async fn operator_is_invited_without_scripts() {
    invite_an_operator(Display { scripts: false, ..Display::DEFAULT }).await;
}

async fn invite_an_operator(display: Display) {
    let server = server().await;
    let chrome = signed_in_owner(&server, display).await;
    let mut clicks = 0;
    let mut click = async |css: &str| {
        clicks += 1;
        if css.starts_with("nav") {
            // The menu is a closed `details` on wide screens, which shows its content anyway.
            chrome.click_displayed(css).await;
        } else {
            chrome.click(css).await;
        }
    };
    click("nav a[href='/console/administrators']").await;
    chrome.wait_for_path(|path| path == "/console/administrators").await;
    // One click shows who has no second factor.
    chrome.wait_for_text("Second factor").await;
    chrome.wait_for_text("Without a second factor (1)").await;
    click("a[href='/console/administrators/new']").await;
    chrome.fill("#recipient", "Ada").await;
    assert_eq!(chrome.count("input[name=role][value=operator]:checked").await, 1);
    click("main form.card .button--primary").await;
    let link = chrome.wait("#secret").await.attr("value").await.unwrap().unwrap();
    assert_eq!(clicks, 3);
    assert_eq!(chrome.count("[data-copy=secret]").await, 1);
    chrome.assert_no_errors().await;

    // The link of the test's public URL, on the address of the test's server.
    let path = link.replace("http://localhost:8000", "");
    let ada = Chrome::start(&server.url, display).await;
    ada.goto(&path).await;
    ada.wait_for_path(|path| path == "/console/invitation").await;
    for (field, text) in
        [("username", "ada"), ("display_name", "Ada"), ("new_password", PASSWORD), ("repeat_password", PASSWORD)]
    {
        ada.fill(&format!("#{field}"), text).await;
    }
    ada.click("main form:not(.theme) .button--primary").await;
    ada.wait_for_path(|path| path == "/console/account").await;
    ada.wait_for_text("Protect it with a second factor").await;
    ada.assert_no_errors().await;

    chrome.click("main .button--primary").await;
    chrome.wait_for_path(|path| path == "/console/administrators").await;
    chrome.wait_for_text("Without a second factor (2)").await;
    chrome.click("a[href='/console/administrators?factor=none']").await;
    chrome.wait_for_text("Clear filters").await;
    assert_eq!(chrome.count("a.table__name").await, 2);
    chrome.assert_no_errors().await;
}

async fn search_keeps_its_filter_over_an_expired_session() {
    let server = server().await;
    server.agent("planner", &[]).await;
    server.agent("reader", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents?status=active").await;
    server.clock.advance(Duration::from_hours(24 * 30));
    chrome.fill("#q", "planner").await;
    chrome.wait_for_path(|path| path.starts_with("/console/sign-in?next=")).await;
    chrome.wait("#username").await;
    chrome.fill("#username", "zoe").await;
    chrome.fill("#password", PASSWORD).await;
    chrome.click("main form:not(.theme) button").await;
    chrome.wait_for_path(|path| path.starts_with("/console/agents?") && path.contains("q=planner")).await;
    assert!(chrome.path().await.contains("status=active"), "{}", chrome.path().await);
    assert_eq!(chrome.count("a.table__name").await, 1);
    chrome.assert_no_errors().await;
}

async fn form_address_leads_back_to_the_agent() {
    let server = server().await;
    let agent = server.agent("planner", &[]).await;
    server.person("zoe", Role::Owner).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let path = format!("/console/agents/{}", agent.id);
    chrome.goto(&format!("{path}/reactivate")).await;
    chrome.wait_for_text("This address only accepts form submissions").await;
    chrome.click("main .button--primary").await;
    chrome.wait_for_path(|current| current == path).await;
    chrome.wait_for_text("planner").await;
    chrome.assert_no_errors().await;
}

async fn pages_for_people_are_accessible() {
    const LONG: &str =
        "a-name-of-many-characters-without-any-break-which-must-wrap-or-be-cut-off-in-the-list-of-invitations";
    let server = server().await;
    server.person("zoe", Role::Owner).await;
    let ada = server.person("ada", Role::Operator).await;
    add_passkey(&server, ada, 1).await;
    let owner = server.sign_in("zoe").await;
    let mut link = String::new();
    for recipient in [LONG, "Ada of research"] {
        let form = [("recipient", recipient), ("role", "operator")];
        let page = owner.post("/console/administrators", &form).await.expect(200);
        let (_, after) = page.text.split_once("value=\"http://localhost:8000").unwrap();
        after.split('"').next().unwrap().clone_into(&mut link);
    }
    let withdraw = acts(&owner, "/withdraw").await.remove(0);
    for (number, display) in Display::ALL.into_iter().enumerate() {
        let stranger = Chrome::start(&server.url, display).await;
        let chrome = Chrome::start(&server.url, display).await;
        let junk = "/console/invitation?token=junk";
        for (place, path) in [("people, an invitation", link.as_str()), ("people, no such invitation", junk)] {
            stranger.goto(path).await;
            look(&stranger, place, display).await;
        }
        drop(stranger);
        super::sign_in(&chrome).await;
        for (place, path) in [
            ("all", "/console/administrators".to_owned()),
            ("invite", "/console/administrators/new".to_owned()),
            ("owners without a factor", "/console/administrators?factor=none&role=owner".to_owned()),
            ("viewers without a factor", "/console/administrators?factor=none&role=viewer".to_owned()),
            ("one", format!("/console/administrators/{ada}")),
            ("reset passkeys", format!("/console/administrators/{ada}/factors/passkeys")),
            ("disable", format!("/console/administrators/{ada}/disable")),
            ("withdraw an invitation", withdraw.clone()),
            ("an invitation while signed in", link.clone()),
        ] {
            chrome.goto(&path).await;
            look(&chrome, &format!("people, {place}"), display).await;
        }
        chrome.goto("/console/administrators/new").await;
        chrome.fill("#recipient", &format!("Recipient {number}")).await;
        chrome.click("main form.card .button--primary").await;
        chrome.wait("#secret").await;
        look(&chrome, "people, invited", display).await;
    }
}

async fn look(chrome: &Chrome, place: &str, display: Display) {
    assert_accessible(chrome, &format!("{place}, {display:?}")).await;
    screenshots::save(chrome, place, display).await;
}
