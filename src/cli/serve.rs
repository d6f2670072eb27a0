//! `aims serve`

use std::process::ExitCode;

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{Failure, bootstrap::Reveal};
use crate::{app::App, clock::Environment, config::Config};

pub(super) async fn run(config: Config) -> Result<ExitCode, Failure> {
    super::log::start(&config)?;
    // Taken before anything is created: an address in use must not leave half a set-up behind.
    let address = config.listen_addr;
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let (public_url, database) = (config.public_url.clone(), config.database.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = App::open(config, Environment::system()).await?;
    if !app.is_set_up().await? {
        let reveal = Reveal::prepare(&database)?;
        if let Some(made) = app.bootstrap().await? {
            reveal.show(&made, app.setup_url().await?.as_ref(), &public_url)?;
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
    app.serve(listener, shutdown).await;
    Ok(ExitCode::SUCCESS)
}
