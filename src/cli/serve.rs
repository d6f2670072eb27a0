//! `aims serve`

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, bootstrap::Reveal, say};
use crate::{
    app::App,
    clock::Environment,
    config::Config,
    store::Location,
    web::server::{rate_limit::RateLimit, serve::listen},
};

/// Open files besides connections and the database: standard streams, the runtime, the listener, a waiting connection, and
/// requests to external issuers.
const FILES: u64 = 20;
/// Open files to request besides those of connections, if the system allows them.
const ROOM: u64 = 256;

pub(super) async fn run(mut config: Config) -> Result<ExitCode, Failure> {
    super::log::start(&config)?;
    outlive_signals()?;
    config.serving.max_connections = allow_connections(config.serving.max_connections, &config.database)?;
    let max_connections = config.serving.max_connections;
    // Listen before anything is created: an address in use must not leave a partial setup behind.
    let address = config.listen_addr;
    let listener = listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let (public_url, database) = (config.public_url.clone(), config.database.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = App::open_to_serve(config, Environment::system()).await?;
    if let Some(warning) = app.warning() {
        tracing::warn!("{warning}");
        if io::stdout().is_terminal() {
            say(format_args!("Warning: {warning}.\n"))?;
        }
    }
    if !app.is_set_up().await? {
        let reveal = Reveal::prepare(&database)?;
        if let Some(made) = app.bootstrap().await?
            && let Some(written) = reveal.show(&made, app.setup_url().await?.as_ref(), &public_url)?
        {
            tracing::info!("{written}");
        }
    } else if !app.has_administrator().await? {
        tracing::info!("the console has no administrator yet; create a setup link with: aims setup-token");
    }
    tracing::info!(listen = %listener.local_addr()?, public_url = public_url.as_str(), max_connections, "serving");
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: finishing the requests in progress");
    };
    app.serve(listener, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs slow one-time initialisation in parallel with the rest of the start: the cryptographic library gathers entropy
/// (about 40 ms), and the clock of the rate limits is calibrated (up to 200 ms).
pub(super) fn warm_up() {
    let gather = || {
        let _ = Environment::system().random::<1>();
    };
    // Without a thread, the first use initialises.
    let _ = (thread::Builder::new().spawn(gather), thread::Builder::new().spawn(RateLimit::calibrate));
}

/// Ignores signals that would end the process by default. Nothing is reopened, because the log goes to standard error.
fn outlive_signals() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    // The handlers stay installed until the process ends.
    let _ = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP changes nothing: the log goes to standard error, so there is no file to reopen");
        }
    });
    Ok(())
}

/// Raises the open file limit and returns the number of connections that it allows. The soft limit is often 1,024.
fn allow_connections(wanted: usize, database: &Location) -> Result<usize, Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let desired = u64::try_from(wanted)?.saturating_add(ROOM);
    let possible = maximum.map_or(desired, |maximum| maximum.min(desired));
    if current.is_some_and(|current| current < possible) {
        // The result is read below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum });
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return Ok(wanted) };
    let others = FILES + database.files();
    let allowed = usize::try_from(files.saturating_sub(others)).unwrap_or(usize::MAX);
    if allowed == 0 {
        let least = others + 1;
        return Err(
            format!("the open file limit is {files}, but the service needs at least {least}; raise the limit").into()
        );
    }
    if allowed < wanted {
        tracing::warn!(
            open_files = files,
            max_connections = allowed,
            "the open file limit allows fewer connections than MAX_CONNECTIONS"
        );
    }
    Ok(allowed.min(wanted))
}
