//! The measured servers, each in its own process.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::Failure;

/// Argument that makes this program serve as the bare server.
pub const BARE: &str = "--bare-server";
/// The service's `PUBLIC_URL`.
pub const PUBLIC_URL: &str = "http://aims.test";
/// Unit of CPU times in `/proc`, fixed by the kernel's ABI.
const TICK: Duration = Duration::from_millis(10);

/// Memory of a process (proc(5)), in bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident set.
    pub resident: u64,
    /// Resident set without file-backed pages.
    pub anonymous: u64,
    /// Peak resident set.
    pub peak: u64,
}

/// An installation of the service: program, directory and settings.
pub struct Installation {
    program: PathBuf,
    directory: PathBuf,
    settings: Vec<(String, String)>,
}

impl Installation {
    /// The optimised build with a new database in `directory`. Settings have their defaults, except that the rate
    /// limits are practically off.
    pub fn new(directory: &Path) -> Self {
        let settings = [
            ("DATABASE_URL", "sqlite:///./aims.db"),
            ("LISTEN_ADDR", "127.0.0.1:0"),
            ("PUBLIC_URL", PUBLIC_URL),
            ("RATE_LIMIT_AUTH_PER_MINUTE", "1000000000"),
            ("RATE_LIMIT_API_PER_MINUTE", "1000000000"),
            ("LOG_FORMAT", "json"),
        ];
        Self {
            program: env!("CARGO_BIN_EXE_aims").into(),
            directory: directory.to_owned(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    /// Uses another build.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Adds or replaces a setting.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs `aims bootstrap` and returns its JSON output.
    pub fn bootstrap(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let mut command = self.command("bootstrap");
        let output = command.arg("--json").args(arguments).stderr(Stdio::inherit()).output()?;
        Ok(serde_json::from_slice(&output.stdout).map_err(|_| format!("aims bootstrap failed: {}", output.status))?)
    }

    /// Starts the service and waits until it accepts requests.
    pub fn start(&self) -> Result<Process, Failure> {
        let mut child = self.command("serve").stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take();
        match stderr.and_then(address_served) {
            Some(address) => Ok(Process { child, address, quota: None }),
            None => Err(abandon(child, "aims does not start")),
        }
    }

    /// Starts the service with its log in a file, and waits until it accepts requests.
    pub fn start_logging_to(&self, log: &Path) -> Result<Process, Failure> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let child = self.command("serve").stderr(File::create(log)?).spawn()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(address) = fs::read_to_string(log)?.lines().find_map(address_in) {
                return Ok(Process { child, address, quota: None });
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(abandon(child, "aims does not start"))
    }

    /// Runs with an empty environment and where no `.env` file is found.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(subcommand).current_dir(&self.directory).stdin(Stdio::null());
        command.env_clear().envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running server; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    quota: Option<Quota>,
}

/// Limits the CPU time of a process with a control group (cgroups(7)). Requires root.
struct Quota {
    directory: PathBuf,
}

impl Quota {
    fn new(process: u32, percent: u32) -> io::Result<Self> {
        // In µs. A short period keeps the pauses of a throttled process short.
        const PERIOD: u32 = 10_000;
        let quota = PERIOD / 100 * percent;
        let first_version = Path::new("/sys/fs/cgroup/cpu");
        let (root, limits) = if first_version.exists() {
            let limits = [("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            (first_version, limits.to_vec())
        } else {
            (Path::new("/sys/fs/cgroup"), vec![("cpu.max", format!("{quota} {PERIOD}"))])
        };
        let directory = root.join(format!("aims-bench-{process}"));
        fs::create_dir(&directory)?;
        let limited = Self { directory };
        for (file, limit) in limits.into_iter().chain([("cgroup.procs", process.to_string())]) {
            fs::write(limited.directory.join(file), limit)?;
        }
        Ok(limited)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Process {
    /// Starts this program as the bare server.
    pub fn start_bare() -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?).arg(BARE).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(address) => Ok(Self { child, address, quota: None }),
            Err(_) => Err(abandon(child, "the bare server does not start")),
        }
    }

    /// Limits the process to a percentage of one CPU.
    pub fn limit(&mut self, percent: u32) -> Result<(), Failure> {
        self.quota = Some(Quota::new(self.child.id(), percent)?);
        Ok(())
    }

    /// Returns the CPU time used so far, user and system.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        cpu(&self.child.id().to_string())
    }

    /// Returns the memory of the process, in bytes.
    pub fn memory(&self) -> Result<Memory, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
            let kib: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse()?;
            Ok::<_, Failure>(kib * 1_024)
        };
        Ok(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")?, peak: bytes("VmHWM")? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn abandon(mut child: Child, what: &str) -> Failure {
    let _ = child.kill();
    let _ = child.wait();
    what.into()
}

/// Returns the CPU time of a process (proc(5): fields 14 and 15, counted after the name in parentheses).
pub fn cpu(process: &str) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Builds a variant that issues tokens without audit records. The difference is the cost of the audit log.
pub fn build_unaudited(target: &Path) -> Result<PathBuf, Failure> {
    let flags = env::var("RUSTFLAGS").unwrap_or_default() + " --cfg aims_bench_unaudited";
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet", "--bin", "aims", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", flags)
        .status()?;
    if built.success() { Ok(target.join("release/aims")) } else { Err("the unaudited build failed".into()) }
}

/// Waits for the log line with the address. Afterwards, passes on only warnings and errors.
fn address_served(stderr: ChildStderr) -> Option<SocketAddr> {
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let address = lines.by_ref().find_map(|line| {
        let address = address_in(&line);
        if address.is_none() {
            pass_on(&line);
        }
        address
    });
    // Keep reading: a full pipe would block the service.
    thread::spawn(move || lines.for_each(|line| pass_on(&line)));
    address
}

/// Returns the address in the log line that announces the service.
fn address_in(line: &str) -> Option<SocketAddr> {
    let entry: Value = serde_json::from_str(line).ok()?;
    entry.get("message").filter(|message| *message == "serving")?;
    entry.get("listen")?.as_str()?.parse().ok()
}

fn pass_on(line: &str) {
    if !line.contains(r#""level":"INFO""#) {
        eprintln!("aims: {line}");
    }
}

/// Serves one constant response with plain axum, to measure the cost of the framework alone.
pub fn serve_bare() -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let router = Router::new().route("/hello", get(async || Json(json!({ "status": "ok" }))));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        axum::serve(listener, router).await?;
        Ok(())
    })
}
