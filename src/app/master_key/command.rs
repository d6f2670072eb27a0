//! `MASTER_KEY_COMMAND`: runs a program that prints the master key.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use secrecy::zeroize::Zeroizing;
use tokio::{
    io::{AsyncRead, AsyncReadExt, copy, sink},
    process::{Child, Command},
    time::sleep,
};

use crate::{
    config::{KeyCommand, settings},
    crypto::MasterKeys,
};

/// How long the program, with everything that it starts, may run.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Longest output: two keys need 130 bytes.
const OUTPUT: u64 = 1_024;
/// Longest part of standard error that is logged.
const MESSAGES: u64 = 4_096;

/// Why the program did not provide a key. The messages contain nothing that it printed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program cannot be started.
    #[error("MASTER_KEY_COMMAND cannot be started: {0}")]
    Start(io::Error),
    /// Its output cannot be read.
    #[error("the output of MASTER_KEY_COMMAND cannot be read: {0}")]
    Read(io::Error),
    /// The program, or something that it started, did not end.
    #[error("MASTER_KEY_COMMAND did not end within {} seconds and was stopped", TIME_LIMIT.as_secs())]
    TooSlow,
    /// The program failed.
    #[error("MASTER_KEY_COMMAND failed ({0}); run it by hand to see why")]
    Failed(ExitStatus),
    /// The program printed something else.
    #[error(
        "MASTER_KEY_COMMAND did not print a master key of 64 hexadecimal digits, or two of them on two lines; the output \
         is not shown"
    )]
    Form,
}

/// Runs the program and parses its output.
pub(super) async fn run(command: &KeyCommand) -> Result<MasterKeys, CommandError> {
    run_until(command.words(), sleep(TIME_LIMIT)).await
}

async fn run_until(words: &[String], expired: impl Future<Output = ()>) -> Result<MasterKeys, CommandError> {
    let (mut child, group) = start(words).map_err(CommandError::Start)?;
    let outcome = tokio::select! {
        finished = finish(&mut child) => finished,
        () = expired => Err(CommandError::TooSlow),
    };
    let failure = match outcome {
        Ok((status, output)) => {
            group.has_ended();
            return parse(status, &output);
        }
        Err(error) => error,
    };
    let stopped = group.stop();
    // The program was killed, so this does not wait for long.
    let _ = child.wait().await;
    reap(stopped).await;
    Err(failure)
}

fn parse(status: ExitStatus, output: &[u8]) -> Result<MasterKeys, CommandError> {
    if !status.success() {
        return Err(CommandError::Failed(status));
    }
    let text = str::from_utf8(output).map_err(|_| CommandError::Form)?;
    MasterKeys::parse(text).ok_or(CommandError::Form)
}

/// Starts the program in a process group of its own, so that everything that it starts can be stopped with it.
fn start(words: &[String]) -> io::Result<(Child, Group)> {
    let [program, arguments @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    // Secrets of AIMS are none of the program's business.
    for setting in settings() {
        command.env_remove(setting.name);
    }
    let child = command.spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    Ok((child, group))
}

/// Waits until the program has closed its output and ended.
async fn finish(child: &mut Child) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), CommandError> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (output, ()) = tokio::join!(read(stdout), pass_on(stderr));
    let output = output?;
    Ok((child.wait().await.map_err(CommandError::Read)?, output))
}

async fn read(output: Option<impl AsyncRead + Unpin>) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(OUTPUT.try_into().unwrap_or_default()));
    let Some(output) = output else { return Ok(bytes) };
    output.take(OUTPUT).read_to_end(&mut bytes).await.map_err(CommandError::Read)?;
    Ok(bytes)
}

/// Logs the first part of what the program writes to standard error. The log redacts credentials.
async fn pass_on(messages: Option<impl AsyncRead + Unpin>) {
    let Some(mut messages) = messages else { return };
    let mut bytes = Vec::new();
    // What cannot be read is missing in the log.
    let _ = (&mut messages).take(MESSAGES).read_to_end(&mut bytes).await;
    for line in String::from_utf8_lossy(&bytes).lines().filter(|line| !line.trim().is_empty()) {
        tracing::warn!(line, "MASTER_KEY_COMMAND wrote to standard error");
    }
    let _ = copy(&mut messages, &mut sink()).await;
}

/// The process group of a program that has not been waited for, so its ID still belongs to it. Stops it when dropped.
struct Group(Option<Pid>);

impl Group {
    /// Stops all processes of the group. Returns its ID.
    fn stop(mut self) -> Option<Pid> {
        self.kill()
    }

    /// The program has been waited for: its ID may belong to another process.
    fn has_ended(mut self) {
        self.0 = None;
    }

    fn kill(&mut self) -> Option<Pid> {
        let group = self.0.take()?;
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the other processes of a stopped group. They are children of this process if it is the first one of a
/// container, where nobody else waits for them.
async fn reap(group: Option<Pid>) {
    const ATTEMPTS: u32 = 50;
    let Some(group) = group else { return };
    for _ in 0..ATTEMPTS {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            // They were killed, but have not ended yet.
            Ok(None) => sleep(Duration::from_millis(10)).await,
            // There are none, or somebody else waits for them.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
    };

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    const KEY: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
    const LONG: Duration = Duration::from_mins(1);

    /// Writes a script and returns the command that runs it.
    fn script(folder: &TempDir, text: &str) -> Vec<String> {
        let path = folder.path().join("key.sh");
        fs::write(&path, text).unwrap();
        vec!["/bin/sh".to_owned(), path.display().to_string()]
    }

    async fn run_script(text: &str) -> Result<MasterKeys, CommandError> {
        let folder = TempDir::new().unwrap();
        run_until(&script(&folder, text), sleep(LONG)).await
    }

    #[tokio::test]
    async fn one_key_or_two_are_read() {
        let one = run_script(&format!("echo {KEY}")).await.unwrap();
        assert_eq!(one.all().count(), 1);
        let other = "ab".repeat(32);
        let two = run_script(&format!("echo warning >&2; printf '%s\\n%s' {other} {KEY}")).await.unwrap();
        assert_eq!(two.newest().id(), MasterKeys::parse(&other).unwrap().newest().id());
        assert_eq!(two.previous().unwrap().id(), one.newest().id());
    }

    #[tokio::test]
    async fn other_output_is_refused_and_not_repeated() {
        for bad in [
            "true".to_owned(),
            "echo canary".to_owned(),
            format!("echo {KEY}; echo canary"),
            format!("echo {KEY}; echo; echo {KEY}"),
            "head -c 100000 /dev/zero".to_owned(),
            format!("echo {KEY}; head -c 100000 /dev/zero | tr '\\0' canary"),
            "printf '\\377'".to_owned(),
        ] {
            let error = run_script(&bad).await.unwrap_err();
            // A program that prints too much is stopped by its closed output.
            assert!(matches!(error, CommandError::Form | CommandError::Failed(_)), "{bad}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_is_refused_even_if_it_prints_a_key() {
        let error = run_script(&format!("echo {KEY}; echo canary >&2; exit 3")).await.unwrap_err();
        assert!(matches!(&error, CommandError::Failed(status) if status.code() == Some(3)), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("canary") && !text.contains(KEY), "{text}");
        let missing = run_until(&["/nowhere/kms".to_owned()], sleep(LONG)).await.unwrap_err();
        assert!(matches!(missing, CommandError::Start(_)), "{missing:?}");
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, KEY).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let not_executable = run_until(&[path.display().to_string()], sleep(LONG)).await.unwrap_err();
        assert!(matches!(not_executable, CommandError::Start(_)), "{not_executable:?}");
    }

    /// Writes a script that starts another process, and the file with the IDs of both.
    fn slow(folder: &TempDir) -> (Vec<String>, PathBuf) {
        let ids = folder.path().join("ids");
        // The second process keeps the output open.
        let text = format!("echo {KEY}; sleep 1000 & echo $$ $! > {}; sleep 1000", ids.display());
        (script(folder, &text), ids)
    }

    /// Waits until both processes run, and returns their IDs.
    async fn started(ids: &Path) -> Vec<String> {
        let written = async {
            loop {
                let text = fs::read_to_string(ids).unwrap_or_default();
                if text.ends_with('\n') {
                    return text.split_whitespace().map(str::to_owned).collect();
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, written).await.unwrap()
    }

    async fn wait_until_stopped(ids: &[String]) {
        let stopped = async {
            while ids.iter().any(|id| is_running(id)) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, stopped).await.expect("the processes must be stopped");
    }

    /// Returns false for a process that was stopped and that its new parent has not waited for yet.
    fn is_running(id: &str) -> bool {
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        state.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with(['Z', 'X']))
    }

    #[tokio::test]
    async fn a_slow_program_is_stopped_with_everything_that_it_started() {
        let folder = TempDir::new().unwrap();
        let (words, file) = slow(&folder);
        let error = run_until(&words, async { drop(started(&file).await) }).await.unwrap_err();
        assert!(matches!(error, CommandError::TooSlow), "{error:?}");
        let ids = started(&file).await;
        assert!(!Path::new(&format!("/proc/{}", ids[0])).exists(), "the program must be waited for");
        wait_until_stopped(&ids).await;
    }

    #[tokio::test]
    async fn a_program_is_stopped_if_nobody_waits_for_it_any_more() {
        let folder = TempDir::new().unwrap();
        let (words, file) = slow(&folder);
        let running = tokio::spawn(async move { run_until(&words, sleep(LONG)).await });
        let ids = started(&file).await;
        assert!(ids.iter().all(|id| is_running(id)));
        running.abort();
        wait_until_stopped(&ids).await;
    }
}
