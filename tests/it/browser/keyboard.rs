//! Somebody who works with the keyboard alone, and whose keys are counted.

use super::Chrome;

pub(super) const TAB: &str = "\u{E004}";
pub(super) const ENTER: &str = "\u{E007}";
pub(super) const SPACE: &str = "\u{E00D}";
pub(super) const CTRL_K: &str = "\u{E009}k\u{E000}";
/// More stops than any page of the tests has.
const STOPS_MAX: usize = 250;

pub(super) struct Keyboard<'c> {
    chrome: &'c Chrome,
    /// How many clicks and keys there were before.
    clicks: usize,
    keys: usize,
}

impl<'c> Keyboard<'c> {
    /// Starts at the overview.
    pub(super) async fn at_overview(chrome: &'c Chrome) -> Self {
        chrome.goto("/console").await;
        Self { chrome, clicks: chrome.clicks(), keys: chrome.keys() }
    }

    /// Waits until the page is complete and its script has put the focus where it belongs.
    async fn settle(&self) {
        let settled = "return document.readyState === 'complete' && 'js' in document.documentElement.dataset";
        self.chrome.wait_until(settled).await;
    }

    /// Follows the first link of a page, "Skip to content".
    pub(super) async fn skip_to_content(&self) {
        self.settle().await;
        self.chrome.press(TAB).await;
        self.chrome.wait_until("return document.activeElement.matches('.skip')").await;
        self.chrome.press(ENTER).await;
        self.chrome.wait_until("return document.activeElement.id === 'main'").await;
    }

    /// Presses Tab until an element has the focus.
    pub(super) async fn tab_to(&self, css: &str) {
        self.settle().await;
        let is_there = format!("return document.activeElement.matches({css:?})");
        for _ in 0..STOPS_MAX {
            if self.chrome.run(&is_there).await == true {
                return;
            }
            self.chrome.press(TAB).await;
        }
        panic!("Tab does not lead to {css} at {}:\n{}", self.chrome.path().await, self.chrome.source().await);
    }

    /// Tabs to an element and presses Enter.
    pub(super) async fn enter(&self, css: &str) {
        self.tab_to(css).await;
        self.chrome.press(ENTER).await;
    }

    /// Tabs to a checkbox and presses Space.
    pub(super) async fn tick(&self, css: &str) {
        self.tab_to(css).await;
        self.chrome.press(SPACE).await;
        assert_eq!(self.chrome.run("return document.activeElement.checked").await, true, "{css}");
    }

    /// Presses a shortcut that is a character.
    pub(super) async fn shortcut(&self, character: &str) {
        self.settle().await;
        self.chrome.shortcut(character).await;
    }

    /// Opens the palette, types a text and presses Enter when the wanted option, such as `[data-href='/console']`, is the
    /// first one.
    pub(super) async fn find(&self, text: &str, option: &str) {
        self.settle().await;
        self.chrome.press(CTRL_K).await;
        self.chrome.wait_until("return document.activeElement.matches('.palette:modal input')").await;
        self.chrome.press(text).await;
        self.chrome.wait(&format!(".palette [role=option][aria-selected=true]{option}")).await;
        self.chrome.press(ENTER).await;
    }

    /// Asserts that there were at most so many keys, and no clicks.
    pub(super) fn assert_at_most(&self, most: usize) {
        let keys = self.chrome.keys() - self.keys;
        assert!((1..=most).contains(&keys), "{keys} keys, and not at most {most}");
        assert_eq!(self.chrome.clicks(), self.clicks, "the pointer was used");
    }
}
