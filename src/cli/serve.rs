//! `aims serve`

use std::{
    io::{self, IsTerminal},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Failure, say, setup::bootstrap::Reveal};
use crate::{
    app::{App, supervisor},
    clock::Environment,
    config::Config,
    domain::PublicUrl,
    store::Location,
    telemetry::traces,
    web::server::{
        metrics,
        rate_limit::RateLimit,
        serve::{Server, listen},
    },
};

/// Open files besides connections and the database: standard streams, the runtime, the listener, a waiting connection, and
/// requests to external issuers.
const FILES: u64 = 20;
/// Open files to request besides those of connections, if the system allows them.
const ROOM: u64 = 256;

pub(super) async fn run(mut config: Config) -> Result<ExitCode, Failure> {
    super::log::start(&config)?;
    if let Some(collector) = &config.traces {
        traces::start(collector)?;
    }
    outlive_signals()?;
    config.serving.max_connections = allow_connections(&config)?;
    let max_connections = config.serving.max_connections;
    // Listen before anything is created: an address in use must not leave a partial setup behind.
    let address = config.listen_addr;
    let listener = listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let metrics_listener = config.metrics_addr.map(listen_for_metrics).transpose()?;
    let (public_url, limits) = (config.public_url.clone(), config.serving.clone());
    let database = config.database.clone();
    let mut end = End { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let local = listener.local_addr()?;
    let mut server = Server::from(listener);
    let starting = supervisor::starting();
    let env = Environment::system();
    let app = tokio::select! {
        app = server.during(App::open_to_serve(config, env.clone()), &env, &limits) => app?,
        () = end.requested() => {
            tracing::info!("stopped while opening the database");
            return Ok(ExitCode::SUCCESS);
        }
    };
    // From here on a signal waits: the first API key must be shown once it exists.
    server.during(set_up(&app, &database, &public_url), &env, &limits).await?;
    drop(starting);
    let app = match metrics_listener {
        Some(listener) => {
            tracing::info!(listen = %listener.local_addr()?, "serving metrics");
            app.with_metrics(listener)
        }
        None => app,
    };
    tracing::info!(listen = %local, public_url = public_url.as_str(), max_connections, "serving");
    let shutdown = async move {
        end.requested().await;
        tracing::info!("shutting down: finishing the requests in progress");
    };
    let outcome = app.serve(server, shutdown).await;
    traces::finish().await;
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// The signals that end the service.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells the operator what they need to know, and sets up the first administrator if there is none.
async fn set_up(app: &App, database: &Location, public_url: &PublicUrl) -> Result<(), Failure> {
    if let Some(warning) = app.warning() {
        tracing::warn!("{warning}");
        if io::stdout().is_terminal() {
            say(format_args!("Warning: {warning}.\n"))?;
        }
    }
    app.record_address().await?;
    if !app.is_set_up().await? {
        let reveal = Reveal::prepare(database)?;
        if let Some(made) = app.bootstrap().await?
            && let Some(written) = reveal.show(&made, app.setup_url().await?.as_ref(), public_url)?
        {
            tracing::info!("{written}");
        }
    } else if !app.has_administrator().await? {
        tracing::info!("the console has no administrator yet; create a setup link with: aims setup-token");
    }
    Ok(())
}

/// Listens for scrapers, and warns if anybody may be one.
fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = listen(address).map_err(|error| format!("cannot listen on METRICS_ADDR {address}: {error}"))?;
    if !is_private(address.ip()) {
        tracing::warn!(%address, "METRICS_ADDR is not a private address, and metrics need no authentication");
    }
    Ok(listener)
}

/// Returns true for an address that is not reachable from the internet.
const fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
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
fn allow_connections(config: &Config) -> Result<usize, Failure> {
    let wanted = config.serving.max_connections;
    let scrapers = if config.metrics_addr.is_some() { metrics::CONNECTIONS } else { 0 };
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let desired = u64::try_from(wanted)?.saturating_add(ROOM);
    let possible = maximum.map_or(desired, |maximum| maximum.min(desired));
    if current.is_some_and(|current| current < possible) {
        // The result is read below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum });
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return Ok(wanted) };
    let others = FILES + config.database.files() + u64::try_from(scrapers)?;
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
