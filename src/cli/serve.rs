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
    web::{rate_limit::RateLimit, serve::listen},
};

/// Open files besides connections: the database, and what asks others.
const FILES: u64 = 256;

pub(super) async fn run(config: Config) -> Result<ExitCode, Failure> {
    super::log::start(&config)?;
    outlive_signals()?;
    allow_connections(config.serving.max_connections);
    // Taken before anything is created: an address in use must not leave half a set-up behind.
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
        tracing::info!("nobody can sign in to the console yet; make a link with: aims setup-token");
    }
    tracing::info!(listen = %listener.local_addr()?, %public_url, "serving");
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("finishing the requests that are under way");
    };
    app.serve(listener, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// Has what takes its time once in a process be done beside the rest of the start, and not by whoever needs it first: the
/// cryptographic library gathers entropy, some 40 ms, and the clock of the limits is calibrated, up to 200 ms.
pub(super) fn warm_up() {
    let gather = || {
        let _ = Environment::system().random::<1>();
    };
    // Where there is no thread to be had, whoever needs it first waits.
    let _ = (thread::Builder::new().spawn(gather), thread::Builder::new().spawn(RateLimit::calibrate));
}

/// Keeps the signals from ending the process that by default end it at once. Nothing is reopened, as the log goes to standard error.
fn outlive_signals() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    // Their handlers stay for as long as the process runs.
    let _ = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP changes nothing: the log goes to standard error, so there is no file to reopen");
        }
    });
    Ok(())
}

/// A connection is an open file, of which most shells allow a process 1,024 until it asks for more.
fn allow_connections(connections: usize) {
    let wanted = FILES.saturating_add(connections.try_into().unwrap_or(u64::MAX));
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let possible = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current.is_some_and(|current| current < possible)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum })
    {
        tracing::warn!(%error, "cannot have as many open files as MAX_CONNECTIONS takes");
    } else if possible < wanted {
        tracing::warn!(possible, wanted, "cannot have as many open files as MAX_CONNECTIONS takes");
    }
}
