//! `aims signing-keys`. Works while the service runs; the service applies changes within 30 seconds.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{Failure, say};
use crate::{
    app::App,
    clock::Environment,
    config::Config,
    service::{Caller, tokens::signing_keys},
};

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// List the keys, newest first.
    List(List),
    /// Start signing with the next key, and publish a new next key.
    Rotate(Rotate),
}

#[derive(Args)]
pub(in crate::cli) struct List {
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(in crate::cli) struct Rotate {
    /// Use if the keys are compromised: replace all of them at once. Every token issued before becomes invalid, and agents
    /// must get new ones. Verifiers that cache the key set may reject valid tokens and accept forged ones for up to 5
    /// minutes.
    #[arg(long)]
    now: bool,
}

pub(in crate::cli) async fn run(command: Command, config: Config) -> Result<ExitCode, Failure> {
    let app = App::open_beside(config, Environment::system()).await?;
    let outcome = match command {
        Command::List(List { json }) => list(&app, json).await,
        Command::Rotate(Rotate { now }) => rotate(&app, now).await,
    };
    app.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn list(app: &App, as_json: bool) -> Result<(), Failure> {
    let keys = signing_keys::list(app.services(), &Caller::system()).await?;
    if as_json {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "kid": key.kid,
                    "algorithm": key.algorithm.as_str(),
                    "state": key.state().0,
                    "created_at": key.created_at,
                    "activated_at": key.activated_at,
                    "retired_at": key.retired_at,
                    "published_until": key.published_until,
                })
            })
            .collect();
        return say(json!(keys));
    }
    for key in &keys {
        let (state, since) = key.state();
        say(format_args!("{}  {:<6} {state:<8} since {since}", key.kid, key.algorithm.as_str()))?;
    }
    Ok(())
}

async fn rotate(app: &App, compromised: bool) -> Result<(), Failure> {
    let key = signing_keys::rotate(app.services(), &Caller::system(), compromised).await?;
    say(format_args!("Key {} is now signing", key.kid))
}
