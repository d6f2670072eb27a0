//! Scheduled backups. Of several nodes, one makes each of them. A restart neither skips nor repeats one.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::interval;

use super::{
    create::{BackupError, Made, Output, Request, make},
    file::PART,
    record_in,
};
use crate::{
    crypto::envelope::Encryption,
    domain::{Result, Schedule, Timestamp, audit::AuditAction},
    service::{Services, core::act::Act},
    store::backup::state::{self, State},
};

/// How often a node looks whether a backup is due.
const LOOK: Duration = Duration::from_secs(20);
/// How often the node that makes a backup says so.
const BEAT: Duration = Duration::from_secs(30);
/// How long after that another node takes over.
const LOST: Duration = Duration::from_mins(3);

/// How long after a failure a backup is tried again.
const RETRY: Duration = Duration::from_mins(15);

/// Which backups are made.
#[derive(Clone)]
pub struct Plan {
    /// When.
    pub schedule: Schedule,
    /// The folder of the files.
    pub folder: PathBuf,
    /// How many of them are kept.
    pub keep: usize,
    /// How they are encrypted.
    pub encryption: Encryption,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("schedule", &self.schedule).field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Makes every scheduled backup. Does not return.
pub async fn follow(services: Arc<Services>) {
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        if let Err(error) = run_if_due(&services).await {
            tracing::warn!(error = error.with_causes(), "cannot see whether a backup is due");
        }
    }
}

/// Makes the backup that is due, if no other node does. Returns true if it did, whether that succeeded or not.
///
/// # Errors
/// When the database fails.
pub async fn run_if_due(services: &Services) -> Result<bool> {
    let Some(plan) = &services.settings.backups else { return Ok(false) };
    let now = services.env.now();
    let seen = state::read(services.store.read().await?.conn()).await?;
    if !is_due(plan.schedule, &seen, now) {
        return Ok(false);
    }
    let slot = plan.schedule.slot(now);
    let claimed = services
        .store
        .write(move |tx| Box::pin(async move { state::claim(tx.conn(), &seen, slot, now).await }))
        .await?;
    if !claimed {
        return Ok(false);
    }
    let outcome = tokio::select! {
        outcome = run(services, plan, now) => Some(outcome),
        () = say_working(services, slot, now) => None,
    };
    // Another node makes it now, because this one was silent for too long.
    let Some(outcome) = outcome else { return Ok(true) };
    conclude(services, slot, outcome).await?;
    Ok(true)
}

/// Returns true if a slot began, if the backup of the last one failed a while ago, or if the node that makes it is gone.
fn is_due(schedule: Schedule, state: &State, now: Timestamp) -> bool {
    match state.working_at {
        Some(at) => at.plus(LOST) <= now || at > now.plus(LOST),
        None => schedule.is_due(state.slot, now) || state.failed_at.is_some_and(|at| at.plus(RETRY) <= now),
    }
}

/// Says from time to time that this node makes the backup. Returns if another node claimed it.
async fn say_working(services: &Services, slot: Timestamp, mut before: Timestamp) {
    let mut ticks = interval(BEAT);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = services.env.now();
        let kept = services
            .store
            .write(move |tx| Box::pin(async move { state::keep(tx.conn(), slot, before, now).await }))
            .await;
        match kept {
            Ok(true) => before = now,
            Ok(false) => return,
            Err(error) => tracing::warn!(error = error.with_causes(), "cannot say that a backup is being made"),
        }
    }
}

async fn run(services: &Services, plan: &Plan, now: Timestamp) -> Result<(Made, PathBuf), BackupError> {
    let path = plan.folder.join(name(now, &plan.encryption));
    remove_unfinished(&plan.folder);
    let request = Request { output: Output::File(path.clone()), encryption: plan.encryption.clone(), master_key: None };
    let made = make(services.store.db(), &services.env, request).await?;
    Ok((made, path))
}

/// Records how a scheduled backup ended, and then deletes those that are no longer kept.
async fn conclude(services: &Services, slot: Timestamp, outcome: Result<(Made, PathBuf), BackupError>) -> Result<()> {
    let env = services.env.clone();
    let failure = match &outcome {
        Ok((_, path)) => {
            tracing::info!(file = %path.display(), "made a backup");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the scheduled backup failed");
            Some(error.to_string())
        }
    };
    let (made, file) = outcome.ok().unzip();
    services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let mut act = Act::by_system(tx, env);
                if let Some(made) = &made {
                    record_in(&mut act, made, true).await?;
                }
                if let Some(failure) = &failure {
                    let now = act.now;
                    state::failed(act.conn(), now, failure).await?;
                    act.audit(AuditAction::BackupFailed, None, None, json!({ "reason": failure }));
                }
                state::done(act.conn(), slot).await
            })
        })
        .await?;
    if let (Some(plan), Some(file)) = (&services.settings.backups, file)
        && let Err(error) = prune(&plan.folder, plan.keep, &file)
    {
        tracing::warn!(%error, folder = %plan.folder.display(), "cannot delete old backups");
    }
    Ok(())
}

const PREFIX: &str = "aims-";
const SUFFIX: &str = ".backup";
const ENCRYPTED: &str = ".age";

/// Returns the name of a file, for example `aims-20261130T030000.123456Z.backup.age`. Names sort by time.
fn name(at: Timestamp, encryption: &Encryption) -> String {
    let at: String = at.to_string().chars().filter(|c| !['-', ':'].contains(c)).collect();
    let encrypted = if matches!(encryption, Encryption::None) { "" } else { ENCRYPTED };
    format!("{PREFIX}{at}{SUFFIX}{encrypted}")
}

/// Returns true for a name of [`name`], and for nothing that somebody else put into the folder.
fn is_ours(name: &str) -> bool {
    const FORM: &str = "00000000T000000.000000Z";
    let time = name.strip_suffix(ENCRYPTED).unwrap_or(name).strip_suffix(SUFFIX);
    let time = time.and_then(|name| name.strip_prefix(PREFIX)).unwrap_or_default();
    time.len() == FORM.len()
        && time.chars().zip(FORM.chars()).all(|(c, form)| if form == '0' { c.is_ascii_digit() } else { c == form })
}

/// Deletes the oldest scheduled backups beyond `keep`. Those whose names are later than that of the backup just made were
/// named by a clock that was ahead, and count as the oldest.
fn prune(folder: &Path, keep: usize, made: &Path) -> io::Result<()> {
    let made = made.file_name().unwrap_or_default().to_string_lossy();
    let mut ours: Vec<_> = names(folder)?.into_iter().filter(|name| is_ours(name)).collect();
    ours.sort_unstable_by(|a, b| (**b <= *made, b).cmp(&(**a <= *made, a)));
    ours.iter().skip(keep).try_for_each(|name| fs::remove_file(folder.join(name)))
}

/// Deletes what a killed process left. No other process writes to the folder now.
fn remove_unfinished(folder: &Path) {
    for name in names(folder).unwrap_or_default() {
        let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(PART));
        let is_unfinished = unfinished.and_then(|name| name.rsplit_once('.')).is_some_and(|(name, _)| is_ours(name));
        if is_unfinished {
            // The backup itself will say if the folder cannot be written.
            let _ = fs::remove_file(folder.join(name));
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_scheduled_backups_are_ours() {
        let at = Timestamp::parse_rfc3339("2026-11-30T03:00:00.5Z").unwrap();
        let plain = name(at, &Encryption::None);
        assert_eq!(plain, "aims-20261130T030000.500000Z.backup");
        assert!(is_ours(&plain) && is_ours(&name(at, &Encryption::To(Vec::new()))));
        for other in [
            "aims.db",
            "aims-1.backup",
            "aims-20261130T030000.500000Z.backup.txt",
            "my-aims-20261130T030000.500000Z.backup",
            "aims-2026113xT030000.500000Z.backup",
            "",
            "aims-20261130T030000.500000Z",
            ".backup",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn the_backup_just_made_is_kept_whatever_the_clock_said_before() {
        let folder = tempfile::TempDir::new().unwrap();
        let name = |year: u32| format!("aims-{year}1130T030000.000000Z.backup");
        for year in [2024, 2025, 2026, 2099] {
            fs::write(folder.path().join(name(year)), "").unwrap();
        }
        for (keep, expected) in [(3, [2024, 2025, 2026].as_slice()), (2, &[2025, 2026]), (1, &[2026])] {
            prune(folder.path(), keep, &folder.path().join(name(2026))).unwrap();
            let mut left = names(folder.path()).unwrap();
            left.sort();
            assert_eq!(left, expected.iter().map(|year| name(*year)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_backup_is_due_once_and_again_if_its_node_is_gone() {
        let schedule = Schedule::parse("every 6h").unwrap();
        let at = |text| Timestamp::parse_rfc3339(text).unwrap();
        let (slot, now) = (at("2026-11-30T06:00:00Z"), at("2026-11-30T06:01:00Z"));
        let state =
            |slot, working_at| State { slot, working_at, made_at: None, bytes: None, failed_at: None, failure: None };
        assert!(is_due(schedule, &state(None, None), now));
        assert!(!is_due(schedule, &state(Some(slot), None), now));
        assert!(!is_due(schedule, &state(Some(slot), Some(now)), now.plus(LOST / 2)));
        assert!(is_due(schedule, &state(Some(slot), Some(now)), now.plus(LOST)));
        // A claim of a node whose clock was wrong.
        assert!(is_due(schedule, &state(Some(slot), Some(at("2027-01-01T00:00:00Z"))), now));
        let failed = State { failed_at: Some(now), ..state(Some(slot), None) };
        assert!(!is_due(schedule, &failed, now.plus(RETRY / 2)));
        assert!(is_due(schedule, &failed, now.plus(RETRY)));
    }
}
