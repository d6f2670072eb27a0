//! The two servers that are measured, each a process of its own.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::Failure;

/// Makes this program the bare server.
pub const BARE: &str = "--bare-server";
/// The unit of processor times in `/proc`: fixed by the kernel's interface, whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// A server; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts this program once more, as the bare server.
    pub fn start_bare() -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?).arg(BARE).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(address) => Ok(Self { child, address }),
            Err(_) => Err(abandon(child, "the bare server does not start")),
        }
    }

    /// Sets up the service in `directory`, which is made, and starts it; gives what setting it up said, too.
    pub fn start_aims(program: &Path, directory: &Path, signing: [(&str, &str); 1]) -> Result<(Self, Value), Failure> {
        fs::create_dir(directory)?;
        let mut bootstrap = aims(program, directory, &["bootstrap", "--json"]);
        let output = bootstrap.envs(signing).stderr(Stdio::inherit()).output()?;
        let made: Value =
            serde_json::from_slice(&output.stdout).map_err(|_| format!("aims bootstrap failed: {}", output.status))?;

        let mut child = aims(program, directory, &["serve"]).envs(signing).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take();
        match stderr.and_then(address_served) {
            Some(address) => Ok((Self { child, address }, made)),
            None => Err(abandon(child, "aims does not start")),
        }
    }

    /// The processor time it has used, user and system.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        cpu(&self.child.id().to_string())
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

/// The processor time that a process has used (proc(5): fields 14 and 15, counted after the name in parentheses).
pub fn cpu(process: &str) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Builds the service so that it issues tokens without recording them: what its audit log costs is seen beside it.
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

/// The service with nothing of this environment, and out of reach of a `.env` file.
fn aims(program: &Path, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env_clear().envs([
        ("DATABASE_URL", "sqlite:///./aims.db"),
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("PUBLIC_URL", "http://aims.test"),
        ("RATE_LIMIT_AUTH_PER_MINUTE", "1000000000"),
        ("RATE_LIMIT_API_PER_MINUTE", "1000000000"),
        ("LOG_FORMAT", "json"),
    ]);
    command.stdin(Stdio::null());
    command
}

/// Waits for the log line that says where it serves; from then on passes on only what is not as it should be.
fn address_served(stderr: ChildStderr) -> Option<SocketAddr> {
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let address = lines.by_ref().find_map(|line| {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry.pointer("/fields/message").is_some_and(|message| message == "serving") {
            return entry.pointer("/fields/listen")?.as_str()?.parse().ok();
        }
        pass_on(&line);
        None
    });
    // Read on for as long as it writes: a full pipe would stop it.
    thread::spawn(move || lines.for_each(|line| pass_on(&line)));
    address
}

fn pass_on(line: &str) {
    if !line.contains(r#""level":"INFO""#) {
        eprintln!("aims: {line}");
    }
}

/// Serves one constant answer with nothing but axum: what the framework alone costs.
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
