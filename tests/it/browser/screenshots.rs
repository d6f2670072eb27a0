//! Screenshots of every page, for somebody who wants to look at them: `AIMS_SCREENSHOTS_ALL` is the folder.

use std::{env, fs, path::Path};

use super::{Chrome, Display};

/// The width of the phone on the screenshots.
const PHONE: u32 = 390;

/// Saves a screenshot of the whole page, if screenshots are wanted. That of a phone is [`PHONE`] pixels wide.
pub(super) async fn save(chrome: &Chrome, place: &str, display: Display) {
    let Ok(folder) = env::var("AIMS_SCREENSHOTS_ALL") else { return };
    if display.forced_colours || !display.scripts {
        return;
    }
    let is_phone = display.width < 500;
    if is_phone {
        chrome.set_width(PHONE).await;
    }
    let width = if is_phone { PHONE } else { display.width };
    let colours = if display.dark { "dark" } else { "light" };
    let file = Path::new(&folder).join(format!("{}-{width}-{colours}.png", slug(place)));
    fs::create_dir_all(&folder).unwrap();
    fs::write(file, chrome.whole_screenshot().await).unwrap();
    if is_phone {
        chrome.set_width(display.width).await;
    }
}

/// Returns a text as part of a file's name.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[test]
fn files_are_named_after_pages() {
    assert_eq!(slug("/console/agents/{agent}?q=Nothing"), "console-agents-agent-q-nothing");
}
