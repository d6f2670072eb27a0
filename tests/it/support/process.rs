//! The real binary in its own process, as an operator runs it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::{Client, Database};

/// How long the test waits for a process to start, respond or exit.
const TIMEOUT: Duration = Duration::from_mins(1);

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
    log: Arc<Mutex<String>>,
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
        Self { folder: db.folder.path().to_owned(), settings, before: None, shell: &["bash"] }
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
        const BINARY: &str = env!("CARGO_BIN_EXE_aims");
        let mut command = match &self.before {
            None => Command::new(BINARY),
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
        let began = Instant::now();
        let mut child = self.command(&[]).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, serving) = oneshot::channel();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = log.clone();
        let logging = tokio::spawn(async move {
            let mut ready = Some(ready);
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = serving_at(&line)
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send((address, began.elapsed()));
                }
                let mut written = written.lock().unwrap();
                written.push_str(&line);
                written.push('\n');
            }
        });
        let Ok(Ok((address, ready_after))) = timeout(TIMEOUT, serving).await else {
            panic!("the service does not start:\n{}", log.lock().unwrap());
        };
        Process { child, url: format!("http://{address}"), ready_after, log, logging }
    }
}

/// Returns the address in the log line that announces the service, in either log format.
fn serving_at(line: &str) -> Option<String> {
    if let Ok(line) = serde_json::from_str::<Value>(line) {
        let fields = &line["fields"];
        return fields["listen"].as_str().filter(|_| fields["message"] == "serving").map(str::to_owned);
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

    /// Returns `host:port` of the listener.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
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
        self.logging.await.unwrap();
        let stderr = self.log.lock().unwrap().clone();
        Exit { code: status.code(), stdout: String::new(), stderr }
    }

    /// Sends SIGTERM and waits until the process has exited.
    pub async fn stop(self) -> Exit {
        self.terminate().await;
        self.wait().await
    }
}
