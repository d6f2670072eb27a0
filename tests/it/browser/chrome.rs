//! Chromium, controlled through `WebDriver`.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fantoccini::{Client, ClientBuilder, Locator, wd::WebDriverCompatibleCommand};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// How long to wait for an element or a text, even on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(2);

/// How the browser displays pages.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    pub scripts: bool,
    pub dark: bool,
    pub width: u32,
    /// The browser uses a few colours of the person's own.
    pub forced_colours: bool,
}

impl Display {
    pub const DEFAULT: Self = Self { scripts: true, dark: false, width: 1280, forced_colours: false };

    /// Wide and narrow, each in light, dark and forced colours.
    pub const ALL: [Self; 6] = [
        Self::DEFAULT,
        Self { dark: true, ..Self::DEFAULT },
        Self { forced_colours: true, ..Self::DEFAULT },
        Self { width: 320, ..Self::DEFAULT },
        Self { width: 320, dark: true, ..Self::DEFAULT },
        Self { width: 320, forced_colours: true, ..Self::DEFAULT },
    ];
}

/// A browser with its own profile and session.
pub struct Chrome {
    client: Client,
    _driver: Driver,
    url: String,
    clicks: AtomicUsize,
    keys: AtomicUsize,
}

/// A `ChromeDriver` process. Its browsers end when it is dropped.
struct Driver {
    process: Child,
    port: String,
    /// Returns EOF when every process that holds the driver's output has ended, the browser included.
    output: Option<JoinHandle<()>>,
    /// The browser's temporary files.
    _temporary: TempDir,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
    }
}

impl Chrome {
    /// Starts a browser that can reach only `url`.
    pub async fn start(url: &str, display: Display) -> Self {
        let driver = Driver::start();
        let mut arguments = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            // With a TCP port, another process might already hold it.
            "--remote-debugging-pipe".to_owned(),
            format!("--window-size={},900", display.width.max(500)),
        ];
        if display.dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let allowed = if display.scripts { 1 } else { 2 };
        let mut options = json!({
            "args": arguments,
            "prefs": { "profile.managed_default_content_settings.javascript": allowed },
        });
        if display.width < 500 {
            // The minimum width of a window is larger than a phone's screen, so the viewport is emulated.
            let metrics = json!({ "width": display.width, "height": 900, "pixelRatio": 1.0 });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let mut capabilities = Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        capabilities.insert("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" }));
        capabilities
            .insert("timeouts".to_owned(), json!({ "script": TIMEOUT.as_millis(), "pageLoad": TIMEOUT.as_millis() }));
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", driver.port))
            .await
            .expect("the browser must start");
        let (clicks, keys) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let chrome = Self { client, _driver: driver, url: url.to_owned(), clicks, keys };
        chrome.cdp("Page.addScriptToEvaluateOnNewDocument", json!({ "source": COLLECT_VIOLATIONS })).await;
        if display.forced_colours {
            chrome.emulate_media(&[("forced-colors", "active")]).await;
        }
        chrome
    }

    /// Sends a command of the Chrome `DevTools` Protocol.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let command = DevTools { command: command.to_owned(), parameters };
        self.client.issue_cmd(command).await.unwrap()
    }

    /// Sets media features, such as `prefers-reduced-motion`, on all pages to come.
    pub async fn emulate_media(&self, features: &[(&str, &str)]) {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Delays every response, as a slow network does.
    pub async fn delay_responses(&self, milliseconds: u32) {
        self.cdp("Network.enable", json!({})).await;
        let conditions = json!({
            "offline": false,
            "latency": milliseconds,
            "downloadThroughput": -1,
            "uploadThroughput": -1,
        });
        self.cdp("Network.emulateNetworkConditions", conditions).await;
    }

    /// Waits until a script returns `true`.
    pub async fn wait_until(&self, script: &str) {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        while self.run(script).await != true {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not true at {}: {script}\n{}",
                self.path().await,
                self.source().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn goto(&self, path: &str) {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.client.goto(&url).await.unwrap();
    }

    /// Returns the current URL without the server's address.
    pub async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap().to_string();
        url.strip_prefix(&self.url).unwrap_or(&url).to_owned()
    }

    /// Waits for an element.
    pub async fn wait(&self, css: &str) -> fantoccini::elements::Element {
        let found = self.client.wait().at_most(TIMEOUT).for_element(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("{css} at {}: {error}\n{}", self.path().await, self.source().await),
        }
    }

    /// Waits until the page contains a text.
    pub async fn wait_for_text(&self, text: &str) {
        self.wait_for_text_in("//*", text).await;
    }

    /// Waits until an element that the `XPath` finds contains a text.
    pub async fn wait_for_text_in(&self, path: &str, text: &str) {
        let path = format!("{path}[contains(normalize-space(.), {})]", quoted(text));
        let found = self.client.wait().at_most(TIMEOUT).for_element(Locator::XPath(&path)).await;
        let shown = if found.is_err() { self.source().await } else { String::new() };
        assert!(found.is_ok(), "{text:?} is not at {}:\n{shown}", self.path().await);
    }

    /// Waits until the path of the page matches.
    pub async fn wait_for_path(&self, matches: impl Fn(&str) -> bool) {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let path = self.path().await;
            if matches(&path) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "still at {path}:\n{}", self.source().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns how often this browser was clicked. Typing into a field does not count.
    pub fn clicks(&self) -> usize {
        self.clicks.load(Ordering::Relaxed)
    }

    /// Returns how many keys were pressed in this browser that are not text, such as Tab, Enter, arrows and shortcuts.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    pub async fn click(&self, css: &str) {
        self.clicks.fetch_add(1, Ordering::Relaxed);
        self.wait(css).await.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Clicks at an element's position. `WebDriver` treats the content of a closed `details` as hidden, even if the
    /// style shows it.
    pub async fn click_displayed(&self, css: &str) {
        self.wait(css).await;
        let script = format!(
            "const box = document.querySelector({css:?}).getBoundingClientRect();
             return [box.x + box.width / 2, box.y + box.height / 2]"
        );
        let middle = self.run(&script).await;
        self.click_at(middle[0].as_f64().unwrap(), middle[1].as_f64().unwrap()).await;
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.wait(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Sends keys to the focused element. Keys are counted, text is not.
    pub async fn press(&self, keys: &str) {
        self.keys.fetch_add(count_keys(keys), Ordering::Relaxed);
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Presses a shortcut that is a character, such as `/`. It counts as a key.
    pub async fn shortcut(&self, character: &str) {
        self.keys.fetch_add(1, Ordering::Relaxed);
        self.press(character).await;
    }

    pub async fn count(&self, css: &str) -> usize {
        self.client.find_all(Locator::Css(css)).await.unwrap().len()
    }

    pub async fn source(&self) -> String {
        self.client.source().await.unwrap_or_else(|error| panic!("the page has no source: {error}"))
    }

    pub async fn back(&self) {
        self.client.back().await.unwrap();
    }

    /// Reloads the page and confirms resubmitting a form if the browser asks.
    pub async fn reload(&self) {
        self.client.refresh().await.unwrap();
    }

    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    pub async fn run_async(&self, script: &str) -> Value {
        self.client.execute_async(script, vec![]).await.unwrap()
    }

    /// Adds a virtual authenticator whose user always consents.
    pub async fn add_authenticator(&self) {
        self.client.issue_cmd(AddAuthenticator).await.unwrap();
    }

    /// Returns the value of a cookie, including `HttpOnly` ones.
    pub async fn cookie(&self, name: &str) -> String {
        self.client.get_named_cookie(name).await.unwrap().value().to_owned()
    }

    /// Returns a screenshot of the page.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.client.screenshot().await.unwrap()
    }

    /// Returns a screenshot of the whole page, also of what is below the window.
    pub async fn whole_screenshot(&self) -> Vec<u8> {
        let size = self.cdp("Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let parameters = json!({ "captureBeyondViewport": true, "clip": clip });
        let screenshot = self.cdp("Page.captureScreenshot", parameters).await;
        STANDARD.decode(screenshot["data"].as_str().unwrap()).unwrap()
    }

    /// Changes the width of an emulated phone.
    pub async fn set_width(&self, width: u32) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": true });
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        self.wait_until(&format!("return innerWidth === {width}")).await;
    }

    /// Returns a new folder in which this browser saves downloads.
    pub async fn download_folder(&self) -> TempDir {
        let folder = TempDir::new().unwrap();
        let parameters = json!({ "behavior": "allow", "downloadPath": folder.path() });
        self.cdp("Browser.setDownloadBehavior", parameters).await;
        folder
    }

    /// Clicks at a position of the page.
    pub async fn click_at(&self, x: f64, y: f64) {
        use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
        self.clicks.fetch_add(1, Ordering::Relaxed);
        let actions = MouseActions::new("mouse".to_owned())
            .then(PointerAction::MoveTo { duration: None, x, y })
            .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
            .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        self.client.perform_actions(actions).await.unwrap();
    }

    /// Returns and clears the browser's error messages: script errors and policy violations.
    pub async fn errors(&self) -> Vec<String> {
        let log = self.client.issue_cmd(BrowserLog).await.unwrap();
        let entries = log.as_array().cloned().unwrap_or_default();
        let text = |entry: &Value| format!("{} {}", entry["level"].as_str().unwrap_or_default(), entry["message"]);
        entries.iter().filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG").map(text).collect()
    }

    /// Asserts that there are no error messages except for expected error responses of the server.
    pub async fn assert_no_errors(&self) {
        let errors = self.errors().await;
        let unexpected: Vec<_> =
            errors.iter().filter(|error| !error.contains("the server responded with a status of")).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
        let violations = self.run("return window.policyViolations ?? []").await;
        assert_eq!(violations, json!([]), "violations of the content security policy");
    }
}

impl Driver {
    fn start() -> Self {
        let temporary = TempDir::new().unwrap();
        let mut output = Vec::new();
        // The driver picks a free IPv4 port and needs the same port on IPv6, which may be taken.
        for _ in 0..20 {
            let mut process = Command::new("chromedriver")
                .args(["--port=0", "--log-level=SEVERE"])
                .env("TMPDIR", temporary.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("chromedriver; `tests/run` installs it");
            output.clear();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
            for line in lines.by_ref() {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    let port = port.trim_end_matches('.').to_owned();
                    let output = Some(thread::spawn(move || lines.for_each(drop)));
                    return Self { process, port, output, _temporary: temporary };
                }
                output.push(line);
            }
            let _ = process.wait();
            if !output.iter().any(|line| line.ends_with("port not available. Exiting...")) {
                break;
            }
        }
        panic!("chromedriver does not start: {output:#?}");
    }
}

/// Waits until a folder contains a complete download whose name ends like this; returns its text.
pub async fn downloaded(folder: &TempDir, suffix: &str) -> String {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        // The browser gives a file its name when it is complete.
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        if let [file] = files.as_slice()
            && file.to_str().unwrap().ends_with(suffix)
        {
            return fs::read_to_string(file).unwrap();
        }
        assert!(tokio::time::Instant::now() < deadline, "no complete download: {files:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Counts the keys in what is sent to an element that are not text. A chord counts once for each key that is pressed while
/// its modifiers are held.
fn count_keys(keys: &str) -> usize {
    let mut is_chord = false;
    let is_key = |key: &char| match *key {
        '\u{E000}' => {
            is_chord = false;
            false
        }
        // Shift, Ctrl, Alt and Meta.
        '\u{E008}' | '\u{E009}' | '\u{E00A}' | '\u{E03D}' => {
            is_chord = true;
            false
        }
        key => is_chord || ('\u{E001}'..='\u{F8FF}').contains(&key),
    };
    keys.chars().filter(is_key).count()
}

#[test]
fn keys_are_counted_but_text_is_not() {
    assert_eq!(count_keys("planner-us\nworker"), 0);
    assert_eq!(count_keys("a\u{E004}b\u{E004}\u{E007}"), 3);
    assert_eq!(count_keys("\u{E009}k\u{E000}planner"), 1);
    assert_eq!(count_keys("\u{E008}\u{E004}\u{E004}\u{E000}\u{E00D}"), 3);
}

fn quoted(text: &str) -> String {
    if text.contains('\'') { format!("\"{text}\"") } else { format!("'{text}'") }
}

/// Collects violations of the content security policy from before the first script of a page.
const COLLECT_VIOLATIONS: &str = "window.policyViolations = [];
    addEventListener('securitypolicyviolation', (event) => policyViolations.push(`${event.effectiveDirective} ${event.blockedURI}`));";

/// `ChromeDriver`'s command for the Chrome `DevTools` Protocol.
#[derive(Debug)]
struct DevTools {
    command: String,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "cmd": self.command, "params": self.parameters }).to_string()))
    }
}

/// Chromium's command that returns the console messages.
#[derive(Debug)]
struct BrowserLog;

impl WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}

/// `WebDriver`'s command that adds a virtual authenticator (W3C Web Authentication Level 3, section 11).
#[derive(Debug)]
struct AddAuthenticator;

impl WebDriverCompatibleCommand for AddAuthenticator {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/webauthn/authenticator", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let device = json!({
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": true,
            "hasUserVerification": true,
            "isUserConsenting": true,
            "isUserVerified": true,
        });
        (http::Method::POST, Some(device.to_string()))
    }
}
