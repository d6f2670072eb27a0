//! What every page has in common: messages, the palette, times, the busy state, the place in a list, and hostile names.

use serde_json::json;

use super::{Display, in_browser, pages::populate, server, signed_in_owner};
use crate::support::Server;

in_browser!(
    message_can_be_undone_and_dismissed_by_keyboard,
    message_without_undo_goes_by_itself_unless_it_is_read,
    message_works_without_scripts,
    message_covers_neither_the_focus_nor_the_selection,
    palette_keeps_a_key_out_of_urls,
    palette_leads_to_the_page_of_an_action,
    search_works_without_scripts,
    exact_times_show_on_hover_focus_touch_and_paper,
    exact_times_can_be_local,
    slow_responses_show_that_they_are_awaited,
    page_keeps_its_place_after_an_action_and_after_back,
    tables_are_lists_on_a_phone_only,
    long_and_right_to_left_names_fit,
    text_can_be_twice_as_large_on_a_phone,
    forced_colours_keep_states_visible,
    reduced_motion_stops_animations,
    paper_shows_the_content_only,
);

const ENTER: &str = "\u{E007}";
const TAB: &str = "\u{E004}";
const ESCAPE: &str = "\u{E00C}";
const CTRL_K: &str = "\u{E009}k\u{E000}";

/// Makes the next page show a message, as an action does.
async fn set_flash(server: &Server, rest: &str) {
    let flash = format!(r#"{{"flash":{{"message":"planner-us suspended.",{rest}}}}}"#);
    server.db.execute(&format!("UPDATE sessions SET data = '{flash}'")).await;
}

const UNDO: &str = r#""good":true,"link":["planner-us","/console/agents"],"undo":{"path":"/console/theme","fields":[["theme","dark"],["back","/console/keys"]]}"#;

async fn message_can_be_undone_and_dismissed_by_keyboard() {
    let server = server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    set_flash(&server, UNDO).await;
    chrome.goto("/console/agents").await;
    chrome.wait(".toast").await;
    let place = chrome
        .run(
            "const box = document.querySelector('.toasts').getBoundingClientRect();
             return [getComputedStyle(document.querySelector('.toasts')).position, innerWidth - box.right < 40, innerHeight - box.bottom < 40]",
        )
        .await;
    assert_eq!(place, json!(["fixed", true, true]), "at the lower right");
    chrome
        .wait_until("return document.getElementById('announcer').textContent.startsWith('planner-us suspended.')")
        .await;
    // The message is before the content of the page, so the first stops behind "Skip to content" are its own.
    chrome.run("document.querySelector('#main').focus()").await;
    let mut stops = Vec::new();
    for _ in 0..3 {
        chrome.press(TAB).await;
        stops.push(
            chrome.run("return document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()").await,
        );
    }
    assert_eq!(stops, ["planner-us", "Undo", "Dismiss message"]);
    chrome.press(ENTER).await;
    chrome.wait_until("return !document.querySelector('.toast') && document.activeElement.id === 'main'").await;

    set_flash(&server, UNDO).await;
    chrome.goto("/console/agents").await;
    chrome.click(".notice__undo button").await;
    chrome.wait("html[data-theme=dark]").await;
    chrome.wait_for_path(|path| path == "/console/keys").await;

    set_flash(&server, r#""good":false"#).await;
    chrome.goto("/console/agents").await;
    chrome.wait(".toast[role=alert][data-toast=stay]").await;
    chrome.run("document.querySelector('.toast__close').focus()").await;
    chrome.press(ESCAPE).await;
    chrome.wait_until("return !document.querySelector('.toasts')").await;
    chrome.assert_no_errors().await;
}

async fn message_without_undo_goes_by_itself_unless_it_is_read() {
    let server = server().await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    set_flash(&server, r#""good":true,"link":["planner-us","/console/agents"]"#).await;
    chrome.goto("/console/agents").await;
    chrome.run("document.querySelector('.toast a').focus(); window.focusedAt = Date.now()").await;
    chrome.wait_until("return Date.now() - focusedAt > 13_500").await;
    assert_eq!(chrome.count(".toast").await, 1, "it must stay while its link has the focus");
    chrome.run("document.activeElement.blur()").await;
    chrome.wait_until("return !document.querySelector('.toast')").await;
}

async fn message_works_without_scripts() {
    let server = server().await;
    let chrome = signed_in_owner(&server, Display { scripts: false, ..Display::DEFAULT }).await;
    set_flash(&server, UNDO).await;
    chrome.goto("/console/agents").await;
    assert!(chrome.wait(".toast").await.is_displayed().await.unwrap());
    assert!(!chrome.wait(".toast__close").await.is_displayed().await.unwrap(), "nothing would happen");
    let (toast, heading) = (chrome.wait(".toast").await, chrome.wait("h1").await);
    let (toast, heading) = (toast.rectangle().await.unwrap(), heading.rectangle().await.unwrap());
    assert!(toast.1 + toast.3 <= heading.1, "it must be above the content: {toast:?} {heading:?}");
    chrome.click(".notice__undo button").await;
    chrome.wait("html[data-theme=dark]").await;
}

async fn message_covers_neither_the_focus_nor_the_selection() {
    let server = server().await;
    for number in 0..40 {
        server.admin.post("/agents", json!({ "name": format!("agent-{number}"), "owner": "tests" })).await.expect(201);
    }
    for width in [320, 1280] {
        let chrome = signed_in_owner(&server, Display { width, ..Display::DEFAULT }).await;
        set_flash(&server, UNDO).await;
        chrome.goto("/console/agents").await;
        chrome.wait(".toast").await;
        let covered = chrome
            .run(
                "const toasts = document.querySelector('.toasts');
                 const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
                 const covered = [];
                 for (const control of document.querySelectorAll('main :is(a, button, input:not([type=hidden]), select)')) {
                     if (toasts.contains(control) || !control.checkVisibility()) continue;
                     control.focus();
                     if (document.activeElement !== control) continue;
                     if (overlaps(toasts.getBoundingClientRect(), control.getBoundingClientRect())) covered.push(control.outerHTML.slice(0, 90));
                 }
                 return covered",
            )
            .await;
        assert_eq!(covered, json!([]), "{width} px");
        chrome.run("document.activeElement.blur(); document.querySelector('[name=id]').click()").await;
        chrome.wait("[data-bulk-bar]:not([hidden])").await;
        let overlap = chrome
            .run(
                "const [a, b] = ['.toasts', '[data-bulk-bar]'].map((css) => document.querySelector(css).getBoundingClientRect());
                 return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom",
            )
            .await;
        assert_eq!(overlap, false, "the bar for the selection must stay visible at {width} px");
    }
}

async fn palette_keeps_a_key_out_of_urls() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents").await;
    chrome.press(CTRL_K).await;
    chrome.wait(".palette:modal").await;
    // Typed character by character, as a slow paste.
    chrome.press(&agent.raw_key).await;
    chrome.wait(".palette [data-lookup][aria-selected=true]").await;
    chrome.wait_for_text("Find the agent of this API key").await;
    // The prefix, which may be in a URL, and one character more.
    let too_much = &agent.raw_key[..14];
    let requested = "return performance.getEntriesByType('resource').map((one) => one.name).join(' ')";
    assert!(!chrome.run(requested).await.as_str().unwrap().contains(too_much), "only the prefix may be in a URL");
    chrome.press(ENTER).await;
    let found = format!("/console/agents/{}/keys/{}", agent.id, agent.key_id);
    chrome.wait_for_path(|path| path == found).await;

    // The search field of a list does the same.
    chrome.goto("/console/agents").await;
    chrome.fill("#q", &agent.raw_key).await;
    chrome.wait_for_path(|path| path == found).await;
    assert!(!chrome.run(requested).await.as_str().unwrap().contains(too_much));
}

async fn palette_leads_to_the_page_of_an_action() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let clicks = chrome.clicks();
    chrome.press(CTRL_K).await;
    chrome.wait(".palette:modal").await;
    chrome.press("revoke planner-us").await;
    chrome.wait(&format!(".palette [aria-selected=true][data-href='/console/agents/{}/revoke']", agent.id)).await;
    chrome.press(ENTER).await;
    chrome.wait_for_path(|path| path.ends_with("/revoke")).await;
    chrome.wait_for_text("Revoke planner-us?").await;
    assert_eq!(chrome.clicks(), clicks);
    chrome.assert_no_errors().await;
}

async fn search_works_without_scripts() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display { scripts: false, ..Display::DEFAULT }).await;
    assert!(!chrome.wait(".nav__palette").await.is_displayed().await.unwrap(), "the palette needs scripts");
    chrome.goto("/console/search").await;
    chrome.fill("#q", "suspend planner").await;
    chrome.press(ENTER).await;
    chrome.wait(&format!(".results a[href='/console/agents/{}/suspend']", agent.id)).await;
    assert_eq!(chrome.path().await, "/console/search?q=suspend+planner");
}

async fn exact_times_show_on_hover_focus_touch_and_paper() {
    let server = server().await;
    let agent = server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents").await;
    let shown = "const time = document.querySelector('tbody time[data-relative]');
        const style = getComputedStyle(time, '::after');
        return style.display !== 'none' && style.content.endsWith('UTC\"')";
    assert_eq!(chrome.run(shown).await, false);
    assert_eq!(chrome.run("return document.querySelector('tbody time').tabIndex").await, -1, "no stop in each row");
    // The focus on the checkbox or the name in the row.
    chrome.run("document.querySelector('tbody [name=id]').focus()").await;
    assert_eq!(chrome.run(shown).await, true, "the focus in the row shows it");
    chrome.run("document.activeElement.blur()").await;
    assert_eq!(chrome.run(shown).await, false);
    // A tap. The click also leaves the pointer there.
    chrome.click("tbody time[data-relative]").await;
    assert_eq!(chrome.run(shown).await, true);
    chrome.cdp("Emulation.setEmulatedMedia", json!({ "media": "print" })).await;
    let printed = "const time = document.querySelector('tbody time[data-relative]');
        const style = getComputedStyle(time, '::after');
        return style.position === 'static' && getComputedStyle(time).fontSize === '0px'";
    assert_eq!(chrome.run(printed).await, true, "paper has no pointer");
    chrome.cdp("Emulation.setEmulatedMedia", json!({ "media": "" })).await;
    // Outside of tables the time itself is a stop.
    chrome.goto(&format!("/console/agents/{}", agent.id)).await;
    assert_eq!(chrome.run("return document.querySelector('dd time[data-relative]').tabIndex").await, 0);
    assert_eq!(chrome.count("time[title]").await, 0, "not twice");
}

async fn exact_times_can_be_local() {
    let server = server().await;
    server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.cdp("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Kathmandu" })).await;
    chrome.goto("/console/agents").await;
    let hint = "return document.querySelector('tbody time').dataset.hint";
    let utc = chrome.run(hint).await.as_str().unwrap().to_owned();
    assert!(utc.ends_with(" UTC"), "{utc}");
    chrome.click_displayed("[name=times][value=local]").await;
    chrome.wait("html[data-local-times] [name=times][value=local][aria-pressed=true]").await;
    assert_eq!(chrome.path().await, "/console/agents");
    let local = chrome.run(hint).await.as_str().unwrap().to_owned();
    assert!(local.ends_with(" +05:45"), "{local}");
    assert_ne!(local[..16], utc[..16]);
    // Records are shown with their exact time, which follows the switch.
    let text = chrome
        .run(
            "const time = document.createElement('time');
             time.dateTime = '2026-01-01T22:30:00.000000Z';
             time.dataset.instant = '';
             document.body.append(time);
             const link = document.querySelector('[data-search]');
             link.value = 'planner'; link.dispatchEvent(new Event('input', { bubbles: true }));
             return time.textContent",
        )
        .await;
    assert_eq!(text, "");
    chrome
        .wait_until("return document.querySelector('body > time').textContent === '2026-01-02 04:15:00 +05:45'")
        .await;
    chrome.click_displayed("[name=times][value=utc]").await;
    chrome.wait("html:not([data-local-times])").await;
    assert!(chrome.run(hint).await.as_str().unwrap().ends_with(" UTC"));
}

async fn slow_responses_show_that_they_are_awaited() {
    let server = server().await;
    server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents").await;
    chrome.delay_responses(2_500).await;
    chrome.fill("#q", "plan").await;
    chrome.wait(".progress[role=progressbar]").await;
    assert_eq!(chrome.count("#results[aria-busy=true] tbody tr").await, 2, "the old rows stay");
    chrome.wait_for_text("1 agent").await;
    chrome
        .wait_until("return !document.querySelector('.progress') && !document.querySelector('[aria-busy=true]')")
        .await;

    // A link. The driver waits for the new page, so the old one remembers what it showed.
    chrome
        .run(
            "new MutationObserver(() => {
                 if (document.querySelector('.progress')) sessionStorage.seen = document.querySelectorAll('main[aria-busy=true] tbody tr').length;
             }).observe(document.body, { childList: true });",
        )
        .await;
    chrome.click_displayed(".nav a[href='/console/keys']").await;
    chrome.wait_for_path(|path| path == "/console/keys").await;
    assert_eq!(chrome.run("return sessionStorage.seen").await, "1");
    chrome.wait("h1").await;
    assert_eq!(chrome.count(".progress").await, 0);
    chrome.assert_no_errors().await;
}

async fn page_keeps_its_place_after_an_action_and_after_back() {
    let server = server().await;
    for number in 0..40 {
        server.admin.post("/agents", json!({ "name": format!("agent-{number}"), "owner": "tests" })).await.expect(201);
    }
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.goto("/console/agents?sort=name").await;
    chrome.run("scrollTo(0, 600)").await;
    chrome.click_displayed("[name=theme][value=dark]").await;
    chrome.wait("html[data-theme=dark]").await;
    chrome.wait_until("return scrollY === 600").await;
    assert_eq!(chrome.path().await, "/console/agents?sort=name");

    // After an action on another page that returns here with a message.
    chrome.run("scrollTo(0, 700)").await;
    chrome.goto("/console/keys").await;
    set_flash(&server, UNDO).await;
    chrome.goto("/console/agents?sort=name").await;
    chrome.wait_until("return scrollY === 700").await;
    // Without an action, a page starts at its top.
    chrome.goto("/console/keys").await;
    chrome.goto("/console/agents?sort=name").await;
    chrome.wait("h1").await;
    assert_eq!(chrome.run("return scrollY").await, 0);

    chrome.run("scrollTo(0, 500)").await;
    chrome.run("document.querySelectorAll('a.table__name')[15].click()").await;
    chrome.wait_for_path(|path| path.len() > "/console/agents/".len() + 30).await;
    chrome.back().await;
    chrome.wait_for_path(|path| path == "/console/agents?sort=name").await;
    chrome.wait_until("return scrollY === 500").await;
}

async fn tables_are_lists_on_a_phone_only() {
    let server = server().await;
    let shown = populate(&server).await;
    for number in 0..30 {
        server.agent(&format!("holder-{number}"), &["documents:read"]).await;
    }
    let path = shown.path("/console/capabilities/{capability}");
    let wide = signed_in_owner(&server, Display::DEFAULT).await;
    wide.goto(&path).await;
    let display = "return getComputedStyle(document.querySelector('tbody td')).display";
    assert_eq!(wide.run(display).await, "table-cell", "a narrow column of a wide page keeps its rows");
    let height = wide.run("return document.querySelector('tbody').offsetHeight").await.as_i64().unwrap();
    assert!(height < 32 * 60, "30 holders are {height} px high");
    let narrow = signed_in_owner(&server, Display { width: 320, ..Display::DEFAULT }).await;
    for path in [path, shown.path("/console/agents/{agent}/tokens")] {
        narrow.goto(&path).await;
        assert_ne!(narrow.run(display).await, "table-cell", "{path}");
        let labels = "return [...document.querySelectorAll('tbody td[data-label]:not(:first-child)')].every((cell) => getComputedStyle(cell, '::before').content !== 'none')";
        assert_eq!(narrow.run(labels).await, true, "{path}");
    }
    // No tab is cut off.
    narrow.goto(&shown.path("/console/agents/{agent}")).await;
    let cut = "return [...document.querySelectorAll('.tabs__tab')].filter((tab) => tab.getBoundingClientRect().right > innerWidth).length";
    assert_eq!(narrow.run(cut).await, 0);
}

async fn long_and_right_to_left_names_fit() {
    let server = server().await;
    let long = "a".repeat(128);
    let agent = server.agent(&long, &[]).await;
    let right_to_left = "צוות התשתיות ".repeat(9);
    let body =
        json!({ "owner": right_to_left.trim(), "description": "تعيين المهام للوكلاء (planner) ثم مراجعة النتائج." });
    server.admin.patch(&format!("/agents/{}", agent.id), body).await.expect(200);
    for width in [320, 1280] {
        let chrome = signed_in_owner(&server, Display { width, ..Display::DEFAULT }).await;
        let path = format!("/console/agents/{}", agent.id);
        for path in [
            "/console",
            "/console/agents",
            "/console/keys",
            "/console/audit",
            "/console/search?q=aaa",
            &path,
            &format!("{path}/revoke"),
        ] {
            chrome.goto(path).await;
            let beyond = chrome.run("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(beyond.as_i64().unwrap() <= 0, "{path} at {width} px: {beyond}");
        }
        chrome.goto(&path).await;
        let whole = "const name = document.querySelector('h1'); return name.textContent.trim().length === 128 && name.scrollWidth <= name.clientWidth + 1";
        assert_eq!(chrome.run(whole).await, true, "the page of an agent shows its whole name at {width} px");
        chrome.goto("/console/agents").await;
        let isolated = "return getComputedStyle(document.querySelector('td[data-label=Owner] .clip')).unicodeBidi";
        assert_eq!(chrome.run(isolated).await, "isolate", "right-to-left text must not reorder what is beside it");
        if width > 500 {
            let shown = "const name = document.querySelector('a.table__name'); name.focus(); return name.title";
            assert_eq!(chrome.run(shown).await, long, "a name that is cut off is shown in full on focus");
        }
    }
}

async fn text_can_be_twice_as_large_on_a_phone() {
    let server = server().await;
    let shown = populate(&server).await;
    let chrome = signed_in_owner(&server, Display { width: 320, ..Display::DEFAULT }).await;
    for (_, _, path) in shown.pages() {
        chrome.goto(&path).await;
        let beyond = chrome
            .run("document.documentElement.style.fontSize = '200%'; return document.documentElement.scrollWidth - innerWidth")
            .await;
        assert!(beyond.as_i64().unwrap() <= 0, "{path} with text of twice the size overflows by {beyond}");
    }
}

async fn forced_colours_keep_states_visible() {
    let server = server().await;
    let shown = populate(&server).await;
    let chrome = signed_in_owner(&server, Display { forced_colours: true, ..Display::DEFAULT }).await;
    chrome.goto("/console/agents").await;
    chrome.run("document.querySelector('[name=id]').click()").await;
    for (what, script) in [
        ("a badge", "return getComputedStyle(document.querySelector('.badge')).borderTopStyle === 'solid'"),
        ("a selected row", "return getComputedStyle(document.querySelector('tbody tr')).outlineStyle === 'solid'"),
        (
            "the page in the menu",
            "return getComputedStyle(document.querySelector('.nav__link[aria-current]')).outlineStyle === 'solid'",
        ),
        (
            "the focus",
            "const field = document.querySelector('#q'); field.focus(); return getComputedStyle(field).outlineStyle === 'solid'",
        ),
    ] {
        assert_eq!(chrome.run(script).await, true, "{what}");
    }
    chrome.goto(&shown.path("/console/agents/{agent}")).await;
    let tab = "return getComputedStyle(document.querySelector('.tabs__tab[aria-current]')).outlineStyle === 'solid'";
    assert_eq!(chrome.run(tab).await, true);
}

async fn reduced_motion_stops_animations() {
    let server = server().await;
    server.agent("planner-us", &[]).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    chrome.emulate_media(&[("prefers-reduced-motion", "reduce")]).await;
    set_flash(&server, UNDO).await;
    chrome.goto("/console/agents").await;
    chrome.wait(".toast").await;
    chrome.delay_responses(1_500).await;
    chrome.fill("#q", "plan").await;
    chrome.wait(".progress").await;
    assert_eq!(chrome.run("return document.getAnimations().length").await, 0);
}

async fn paper_shows_the_content_only() {
    let server = server().await;
    populate(&server).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    set_flash(&server, UNDO).await;
    chrome.goto("/console/agents").await;
    chrome.cdp("Emulation.setEmulatedMedia", json!({ "media": "print" })).await;
    let visible = chrome
        .run("return ['.sidebar', '.toasts', '.toolbar', '.table__tick', 'h1', 'tbody td a'].map((css) => document.querySelector(css).checkVisibility())")
        .await;
    assert_eq!(visible, json!([false, false, false, false, true, true]));
    let cut = "return [...document.querySelectorAll('.clip')].filter((name) => getComputedStyle(name).textOverflow === 'ellipsis' && name.scrollWidth > name.clientWidth).length";
    assert_eq!(chrome.run(cut).await, 0, "names are whole on paper");
}
