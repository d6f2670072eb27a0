//! The real binary in its own process, as an operator runs it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Client, Database};

/// How long the test waits for a process to start, respond or exit.
const TIMEOUT: Duration = Duration::from_mins(1);

const BINARY: &str = env!("CARGO_BIN_EXE_aims");

/// Runs bash in its own mount namespace.
const NAMESPACE: &[&str] = &["unshare", "--mount", "--map-root-user", "bash"];

/// A way to run the binary: working directory and environment; nothing is inherited.
#[derive(Clone)]
pub struct Aims {
    pub folder: PathBuf,
    settings: BTreeMap<String, String>,
    /// Shell commands that run before the binary.
    before: Option<String>,
    /// The command line of the shell that runs them.
    shell: &'static [&'static str],
    /// The command line of a program that runs the binary.
    wrapper: Vec<String>,
    /// Another copy of the binary.
    copy: Option<PathBuf>,
}

/// Exit code and output of a process.
#[derive(Debug)]
pub struct Exit {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running service.
pub struct Process {
    child: Child,
    pub url: String,
    /// Time from its start until it accepted requests.
    pub ready_after: Duration,
    log: watch::Receiver<String>,
    /// Whether the log is read.
    reading: watch::Sender<bool>,
    logging: JoinHandle<()>,
}

impl Aims {
    /// Test settings: the given database, a free port, a fixed master key, and practically no rate limits.
    pub fn new(db: &Database) -> Self {
        let settings = [
            ("DATABASE_URL", db.url.clone()),
            ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("MASTER_KEY", "0f".repeat(32)),
            ("RATE_LIMIT_AUTH_PER_MINUTE", "1000000".to_owned()),
            ("RATE_LIMIT_API_PER_MINUTE", "1000000".to_owned()),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            folder: db.folder.path().to_owned(),
            settings,
            before: None,
            shell: &["bash"],
            wrapper: vec![],
            copy: None,
        }
    }

    /// Runs the binary with a program: its command line, to which the binary and its arguments are added.
    pub fn under(&self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(|&part| part.to_owned()).collect(), ..self.clone() }
    }

    /// Runs a copy of the binary, for a user who cannot reach the original.
    pub fn with_copy(&self, copy: PathBuf) -> Self {
        std::fs::hard_link(BINARY, &copy).or_else(|_| std::fs::copy(BINARY, &copy).map(drop)).unwrap();
        Self { copy: Some(copy), ..self.clone() }
    }

    /// Sets the time that the process sees, with libfaketime. The file holds the offset from the real time in seconds, and
    /// can be changed while the process runs. The monotonic clock stays as it is, as when the real clock is set.
    pub async fn with_clock(&self, file: &std::path::Path) -> Self {
        let shown = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output().await;
        let shown = shown.expect("faketime; `tests/run` installs it");
        let library = String::from_utf8(shown.stdout).unwrap();
        self.with("LD_PRELOAD", library.trim())
            .with("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// Adds a setting. An empty value counts as not set.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.settings.insert(name.to_owned(), value.to_owned());
        changed
    }

    /// Limits the size of files, so that the disk appears to be full.
    pub fn with_max_file_size(&self, kib: u64) -> Self {
        Self { before: Some(format!("trap '' XFSZ; ulimit -f {kib}")), ..self.clone() }
    }

    /// Sets the soft limit on open files, which the process may raise.
    pub fn with_soft_file_limit(&self, files: u64) -> Self {
        Self { before: Some(format!("ulimit -Sn {files}")), ..self.clone() }
    }

    /// Runs `mount` in the process's own mount namespace. Returns `None` if the kernel does not allow it.
    pub async fn with_mount(&self, mount: &str) -> Option<Self> {
        let status = Command::new(NAMESPACE[0]).args(&NAMESPACE[1..]).args(["-c", mount]).status().await;
        let may_mount = status.is_ok_and(|status| status.success());
        may_mount.then(|| Self { before: Some(mount.to_owned()), shell: NAMESPACE, ..self.clone() })
    }

    /// Sets the hard limit on open files.
    pub fn with_hard_file_limit(&self, files: u64) -> Self {
        Self { before: Some(format!("ulimit -n {files}")), ..self.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.before {
            None => {
                let binary = self.copy.as_ref().map_or(BINARY, |copy| copy.to_str().unwrap());
                let mut words = self.wrapper.iter().map(String::as_str).chain([binary]);
                let mut command = Command::new(words.next().unwrap());
                command.args(words);
                command
            }
            Some(before) => {
                let mut shell = Command::new(self.shell[0]);
                shell.args(&self.shell[1..]).args(["-c", &format!("{before}; exec {BINARY} \"$@\""), BINARY]);
                shell
            }
        };
        command.args(arguments).current_dir(&self.folder).env_clear().envs(&self.settings);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Starts a command, for a test that interrupts it. The caller may take its standard output.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs a command and waits for it to exit.
    pub async fn run(&self, arguments: &[&str]) -> Exit {
        let output = timeout(TIMEOUT, self.command(arguments).output()).await;
        Exit::of(output.unwrap_or_else(|_| panic!("{arguments:?} timed out")).unwrap())
    }

    /// Runs a command with a variable that need not be valid UTF-8.
    pub async fn run_with_raw(&self, name: &str, value: &[u8], arguments: &[&str]) -> Exit {
        let value = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(value);
        let output = timeout(TIMEOUT, self.command(arguments).env(name, value).output()).await;
        Exit::of(output.unwrap_or_else(|_| panic!("{arguments:?} timed out")).unwrap())
    }

    /// Runs a command with `input` on standard input.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Exit {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = timeout(TIMEOUT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} timed out")).unwrap();
        Exit::of(output)
    }

    /// Runs a command with standard output redirected to a file.
    pub async fn run_with_output_to(&self, file: &str, arguments: &[&str]) -> Exit {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        let output = timeout(TIMEOUT, self.command(arguments).stdout(file).spawn().unwrap().wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} timed out")).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Exit { code: output.status.code(), stdout: String::new(), stderr }
    }

    /// Creates the first administrator and returns its key.
    pub async fn bootstrap(&self) -> String {
        let created = self.run(&["bootstrap", "--json"]).await.json();
        created["api_key"].as_str().unwrap().to_owned()
    }

    /// Starts the service and returns once it accepts requests.
    pub async fn serve(&self) -> Process {
        self.launch().serving().await
    }

    /// Starts the service.
    pub fn launch(&self) -> Launched {
        self.launch_command(&[])
    }

    /// Starts a command and returns at once.
    pub fn launch_command(&self, arguments: &[&str]) -> Launched {
        let began = Instant::now();
        let mut child = self.command(arguments).spawn().unwrap();
        let (written, log) = watch::channel(String::new());
        let (reading, mut may_read) = watch::channel(true);
        let (ready, serving) = oneshot::channel();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let logging = tokio::spawn(async move {
            let mut ready = Some(ready);
            while may_read.wait_for(|may_read| *may_read).await.is_ok()
                && let Ok(Some(line)) = lines.next_line().await
            {
                if let Some(address) = serving_at(&line)
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send((address, began.elapsed()));
                }
                written.send_modify(|written| {
                    written.push_str(&line);
                    written.push('\n');
                });
            }
        });
        Launched { child, log, reading, logging, serving }
    }
}

/// A command that runs, such as a service that starts.
pub struct Launched {
    child: Child,
    log: watch::Receiver<String>,
    reading: watch::Sender<bool>,
    logging: JoinHandle<()>,
    serving: oneshot::Receiver<(String, Duration)>,
}

impl Launched {
    /// Returns the process, which may never serve.
    pub fn into_process(self) -> Process {
        let Self { child, log, reading, logging, serving: _ } = self;
        Process { child, url: String::new(), ready_after: Duration::MAX, log, reading, logging }
    }

    /// Returns once the service accepts requests.
    pub async fn serving(self) -> Process {
        let Self { child, log, reading, logging, serving } = self;
        let Ok(Ok((address, ready_after))) = timeout(TIMEOUT, serving).await else {
            panic!("the service does not start:\n{}", *log.borrow());
        };
        Process { child, url: format!("http://{address}"), ready_after, log, reading, logging }
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until the log contains a text.
    pub async fn logs(&self, text: &str) {
        let began = Instant::now();
        while !self.log.borrow().contains(text) {
            assert!(began.elapsed() < TIMEOUT, "{text:?} is missing from:\n{}", *self.log.borrow());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the process, like a crash.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until the process has exited by itself.
    pub async fn wait(mut self) -> Exit {
        let status = timeout(TIMEOUT, self.child.wait()).await.expect("the process must exit").unwrap();
        self.logging.await.unwrap();
        let stderr = self.log.borrow().clone();
        Exit { code: status.code(), stdout: String::new(), stderr }
    }
}

/// Returns the address in the log line that announces the service, in either log format.
fn serving_at(line: &str) -> Option<String> {
    if let Ok(line) = serde_json::from_str::<Value>(line) {
        return line["listen"].as_str().filter(|_| line["message"] == "serving").map(str::to_owned);
    }
    let (_, fields) = line.split_once(" serving ")?.1.split_once("listen=")?;
    fields.split(' ').next().map(str::to_owned)
}

impl Exit {
    /// Asserts success and parses standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn of(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Asserts exit code 1 and that standard error contains the reason, possibly among others.
    #[track_caller]
    pub fn reports_error(&self, why: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert!(self.stderr.contains(why) && !self.stderr.contains("panicked"), "{self:?}");
    }

    /// Asserts exit code 1 and a single error line that contains the reason.
    #[track_caller]
    pub fn fails_with(&self, why: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        // Log lines may come before it.
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("aims: ")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert_eq!(self.stderr.lines().last(), errors.first().copied(), "{self:?}");
        assert!(errors[0].contains(why), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

impl Process {
    pub fn client(&self) -> Client {
        Client::new(self.url.clone())
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns the process that a wrapper runs.
    pub fn wrapped_id(&self) -> u32 {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id())).unwrap();
        children.trim().parse().unwrap()
    }

    /// Returns once the log contains a text.
    pub async fn logs(&self, text: &str) {
        let logged = async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, logged).await.unwrap_or_else(|_| panic!("{text:?} is not in the log:\n{}", self.log()));
    }

    /// Returns `host:port` of the listener.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until the log meets a condition, and returns it.
    #[track_caller]
    pub fn logged(&self, condition: impl Fn(&str) -> bool) -> impl Future<Output = String> {
        let (mut log, caller) = (self.log.clone(), std::panic::Location::caller());
        async move {
            let met = timeout(TIMEOUT, log.wait_for(|log| condition(log))).await;
            let met = met.ok().and_then(Result::ok).map(|log| log.clone());
            met.unwrap_or_else(|| {
                let log = log.borrow();
                let end: Vec<_> = log.lines().rev().take(20).collect();
                panic!("{caller}: the log does not meet the condition; its end: {end:#?}")
            })
        }
    }

    /// Leaves the log unread, like a log collector that hangs.
    pub fn stall_log(&self) {
        self.reading.send_replace(false);
    }

    /// Reads the log again.
    pub fn resume_log(&self) {
        self.reading.send_replace(true);
    }

    /// Kills the process, like a crash.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends a signal.
    pub async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    /// Stops reading the log, like a log collector that died.
    pub async fn close_log(&mut self) {
        self.logging.abort();
        assert!((&mut self.logging).await.unwrap_err().is_cancelled());
        self.logging = tokio::spawn(async {});
    }

    /// Waits until the process has exited.
    pub async fn wait(mut self) -> Exit {
        let status = timeout(TIMEOUT, self.child.wait()).await.expect("the process must exit").unwrap();
        self.resume_log();
        self.logging.await.unwrap();
        let stderr = self.log.borrow().clone();
        Exit { code: status.code(), stdout: String::new(), stderr }
    }

    /// Sends SIGTERM and waits until the process has exited.
    pub async fn stop(self) -> Exit {
        self.terminate().await;
        self.wait().await
    }
}
