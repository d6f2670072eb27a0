//! The real binary, in a process of its own, as an operator runs it.

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

/// How long anything that a process is asked to do may take before the test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs bash with mounts of its own.
const NAMESPACE: &[&str] = &["unshare", "--mount", "--map-root-user", "bash"];

/// How the binary is run: in which folder, with which environment, and nothing inherited.
#[derive(Clone)]
pub struct Aims {
    pub folder: PathBuf,
    settings: BTreeMap<String, String>,
    /// What a shell does before it becomes the process.
    before: Option<String>,
    /// The command line of that shell.
    shell: &'static [&'static str],
}

/// What a process that ended left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that serves.
pub struct Process {
    child: Child,
    pub url: String,
    /// From its start until it said that it serves.
    pub ready_after: Duration,
    log: Arc<Mutex<String>>,
    logging: JoinHandle<()>,
}

impl Aims {
    /// Settings for tests: this database, a free port, a fixed master key, and no rate limits to speak of.
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

    /// The same with this setting; an empty one counts as not set.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.settings.insert(name.to_owned(), value.to_owned());
        changed
    }

    /// The same, but no file may grow beyond this: to the process, the disk is full.
    pub fn with_largest_file(&self, kib: u64) -> Self {
        Self { before: Some(format!("trap '' XFSZ; ulimit -f {kib}")), ..self.clone() }
    }

    /// The same, allowed as few open files unless it asks for more.
    pub fn with_open_files(&self, files: u64) -> Self {
        Self { before: Some(format!("ulimit -Sn {files}")), ..self.clone() }
    }

    /// The same, where the process alone sees what `mount` mounts; `None` where the kernel does not let the test mount.
    pub async fn with_mount(&self, mount: &str) -> Option<Self> {
        let status = Command::new(NAMESPACE[0]).args(&NAMESPACE[1..]).args(["-c", mount]).status().await;
        let may_mount = status.is_ok_and(|status| status.success());
        may_mount.then(|| Self { before: Some(mount.to_owned()), shell: NAMESPACE, ..self.clone() })
    }

    /// The same, allowed as few open files whatever it asks for.
    pub fn with_open_files_at_most(&self, files: u64) -> Self {
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

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let output = timeout(PATIENCE, self.command(arguments).output()).await;
        Ended::of(output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap())
    }

    /// Runs a command with a variable that need not be text.
    pub async fn run_with_raw(&self, name: &str, value: &[u8], arguments: &[&str]) -> Ended {
        let value = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(value);
        let output = timeout(PATIENCE, self.command(arguments).env(name, value).output()).await;
        Ended::of(output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap())
    }

    /// Runs a command that reads `input`.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
        Ended::of(output)
    }

    /// Runs a command whose standard output goes to a file.
    pub async fn run_into(&self, file: &str, arguments: &[&str]) -> Ended {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        let output = timeout(PATIENCE, self.command(arguments).stdout(file).spawn().unwrap().wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Ended { code: output.status.code(), stdout: String::new(), stderr }
    }

    /// Makes the first administrator; gives its key.
    pub async fn bootstrap(&self) -> String {
        let made = self.run(&["bootstrap", "--json"]).await.json();
        made["api_key"].as_str().unwrap().to_owned()
    }

    /// Starts serving and returns once the process says that it does.
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
        let Ok(Ok((address, ready_after))) = timeout(PATIENCE, serving).await else {
            panic!("it does not start:\n{}", log.lock().unwrap());
        };
        Process { child, url: format!("http://{address}"), ready_after, log, logging }
    }
}

/// The address in the line that says that the process serves, of either format.
fn serving_at(line: &str) -> Option<String> {
    if let Ok(line) = serde_json::from_str::<Value>(line) {
        let fields = &line["fields"];
        return fields["listen"].as_str().filter(|_| fields["message"] == "serving").map(str::to_owned);
    }
    let (_, fields) = line.split_once(" serving ")?.1.split_once("listen=")?;
    fields.split(' ').next().map(str::to_owned)
}

impl Ended {
    /// Standard output, which must be one JSON value of a command that succeeded.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn of(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Asserts a failure that standard error gives this reason for, perhaps among others.
    #[track_caller]
    pub fn told(&self, why: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert!(self.stderr.contains(why) && !self.stderr.contains("panicked"), "{self:?}");
    }

    /// Asserts a failure: exit code 1, and one line that says why.
    #[track_caller]
    pub fn failed(&self, why: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        // Log lines may come before it.
        let told: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("aims: ")).collect();
        assert_eq!(told.len(), 1, "{self:?}");
        assert_eq!(self.stderr.lines().last(), told.first().copied(), "{self:?}");
        assert!(told[0].contains(why), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

impl Process {
    pub fn client(&self) -> Client {
        Client::new(self.url.clone())
    }

    /// Its process identifier.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// `host:port` that it listens on.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// What it logged until now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Ends it as a crash would: at once, with nothing tidied up.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends it a signal.
    pub async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    /// Reads no more of its log, as a log collector does that has died.
    pub async fn close_log(&mut self) {
        self.logging.abort();
        assert!((&mut self.logging).await.unwrap_err().is_cancelled());
        self.logging = tokio::spawn(async {});
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("a process that ends").unwrap();
        self.logging.await.unwrap();
        let stderr = self.log.lock().unwrap().clone();
        Ended { code: status.code(), stdout: String::new(), stderr }
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(self) -> Ended {
        self.terminate().await;
        self.ended().await
    }
}
