//! `aims agents`: lists agents, and labels many at once.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, say};
use crate::{
    app::App,
    clock::Environment,
    config::Config,
    domain::{
        Agent, Invalid, Limit,
        agent::{Filter, Sort, label_change::LabelChange, selector::Selector},
    },
    service::{
        Caller,
        agents::{
            self,
            labelling::{self, Labelled},
        },
    },
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List agents, one per line: name, status, owner and labels. Works while the service runs.
    List(List),
    /// Set and remove labels of all agents that match a selector, at most 5,000. With SQLite, stop the service first.
    Label(Label),
}

#[derive(Args)]
pub(super) struct List {
    /// Only agents whose labels match, for example `env=prod,team!=mail,tier in (a,b),!old`.
    #[arg(long)]
    selector: Option<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Label {
    /// Labels to set and to remove: `env=prod,!old` sets `env` and removes `old`.
    change: String,
    /// The agents to change, for example `team=mail,!env`.
    #[arg(long)]
    selector: String,
    /// Only print which agents would change.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Command, config: Config) -> Result<ExitCode, Failure> {
    match command {
        Command::List(arguments) => {
            let selector = arguments.selector.as_deref().map(Selector::parse).transpose();
            let filter = Filter { selector: selector.map_err(|invalid| explained(&invalid))?, ..Filter::default() };
            let app = App::open_beside(config, Environment::system()).await?;
            let outcome = list(&app, &filter, arguments.json).await;
            app.close().await;
            outcome?;
        }
        Command::Label(Label { change, selector, dry_run, json }) => {
            let change = LabelChange::parse(&change).map_err(|invalid| explained(&invalid))?;
            let selector = Selector::parse(&selector).map_err(|invalid| explained(&invalid))?;
            // A running service would go on showing the labels that it holds in memory.
            let app = App::open(config, Environment::system()).await?;
            let outcome = labelling::label(app.services(), &Caller::system(), selector, change, dry_run).await;
            app.close().await;
            tell(&outcome?, dry_run, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explained(invalid: &Invalid) -> Failure {
    invalid.message().into_owned().into()
}

async fn list(app: &App, filter: &Filter, json: bool) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let limit = Limit::of(Limit::MAX);
        let page = agents::list(app.services(), &Caller::system(), filter, Sort::Oldest, after, limit).await?;
        for agent in &page.items {
            say(if json { described(agent) } else { line(agent) })?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn line(agent: &Agent) -> String {
    let line = format!("{}\t{}\t{}\t{}", agent.name, agent.status.as_str(), agent.owner, agent.labels);
    line.trim_end().to_owned()
}

fn described(agent: &Agent) -> String {
    json!({
        "id": agent.id,
        "name": agent.name.as_str(),
        "status": agent.status.as_str(),
        "owner": agent.owner,
        "labels": agent.labels,
    })
    .to_string()
}

fn tell(labelled: &Labelled, dry_run: bool, json: bool) -> Result<(), Failure> {
    if json {
        let changed: Vec<_> = labelled.changed.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        let unchanged = labelled.unchanged.iter();
        let unchanged: Vec<_> =
            unchanged.map(|(id, name, reason)| json!({ "id": id, "name": name, "reason": reason })).collect();
        return say(json!({ "dry_run": dry_run, "changed": changed, "unchanged": unchanged }));
    }
    for (_, name) in &labelled.changed {
        say(name)?;
    }
    for (id, name, reason) in &labelled.unchanged {
        let name = name.clone().unwrap_or_else(|| id.to_string());
        say(format_args!("{name}: unchanged, {reason}"))?;
    }
    let (count, verb) = (labelled.changed.len(), if dry_run { "would change" } else { "changed" });
    say(format_args!("{count} {} {verb}", if count == 1 { "agent" } else { "agents" }))
}
