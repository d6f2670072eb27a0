//! Assembles the service from its layers and runs the background tasks.

mod background;
mod clock_watch;
pub mod master_key;
pub mod supervisor;

use std::{future::Future, io, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use master_key::CommandError;

use crate::{
    clock::Environment,
    config::{Backups, Config, MasterKeySource, Signing, default_master_key},
    crypto::{Keyring, NonceKey, PasswordQueue, envelope::Encryption},
    domain::{Error, PublicUrl, audit::Head},
    service::{
        Services, Settings,
        audit::Checker,
        backup::schedule::Plan,
        bootstrap::{self, AdministratorKey},
        core::{principals::Principals, refusals::Refusals},
        credentials::federation::foreign_keys::ForeignKeys,
        health::Readiness,
        master_key::{CurrentMasterKeys, UnknownMasterKey, nonces, open_everything},
        people::setup,
        tokens::{
            nonces::DpopNonces,
            resources,
            signing_keys::{self, CurrentKeyring, KeyringError},
            verified_tokens::VerifiedTokens,
        },
    },
    store::{Db, FileReplaced, Location, Mode, Store, audit, db::OpenError},
    telemetry::metrics::{Metrics, number},
    web::{
        self,
        request::client_ip::TrustedProxies,
        routes::RateLimits,
        server::{
            matched, metrics,
            rate_limit::RateLimit,
            serve::{Limits, Server, serve},
        },
    },
};

/// Ratio of the agents in memory to the verified tokens in memory.
const AGENTS_PER_TOKEN: usize = 2;

/// Why the service cannot start. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The signing keys cannot be loaded.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The master key file cannot be read or written.
    #[error("cannot use the master key file {0}: {1}")]
    MasterKeyFile(PathBuf, #[source] io::Error),
    /// The master key file does not contain a master key.
    #[error("the master key file {0} does not hold 64 hexadecimal digits, or two lines of them during a rotation")]
    MasterKeyForm(PathBuf),
    /// The program that prints the master key failed.
    #[error(transparent)]
    MasterKeyCommand(#[from] CommandError),
    /// The database was rotated to another master key.
    #[error("{0}, but {1}; use the current master key")]
    MasterKeyReplaced(UnknownMasterKey, String),
    /// The master key file is missing, but the database contains keys sealed with it.
    #[error(
        "the master key file {0} is missing, but the database holds secrets sealed with it; restore the file. If it is lost \
         for good, make a backup and restore it with --lost-master-key"
    )]
    MasterKeyLost(PathBuf),
    /// A backup contains another master key than the service has.
    #[error(
        "the backup contains another master key than the one of this service, which is never overwritten; move that key away to restore the master key as well"
    )]
    OtherMasterKey,
    /// The database failed.
    #[error("the database failed: {0}")]
    Store(#[from] Error),
}

/// Why the service stopped without being asked to. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// A task ended that should run until the service stops. This is a bug.
    #[error("{0} ended unexpectedly; restart the service")]
    Task(&'static str),
    /// The database files were deleted, moved or replaced.
    #[error(transparent)]
    Files(#[from] FileReplaced),
}

/// The service, ready to serve requests.
pub struct App {
    services: Arc<Services>,
    limits: RateLimits,
    config: Config,
    may_have_lost_database: bool,
    metrics_listener: Option<TcpListener>,
}

impl App {
    /// Opens the database, applies migrations, and makes sure that a key of the configured algorithm signs tokens.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open_to_serve(config: Config, env: Environment) -> Result<Self, StartError> {
        let app = Self::open(config, env).await?;
        signing_keys::activate(&app.services).await?;
        resources::complete(&app.services).await?;
        clock_watch::compare_with_log(&app.services).await?;
        Ok(app)
    }

    /// Opens the database, applies migrations, and loads the signing keys.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open(config: Config, env: Environment) -> Result<Self, StartError> {
        let db = Db::open(&config.database, Mode::Write).await?;
        Self::with_database(db, config, env).await
    }

    /// Opens an existing database, even if a running service uses it. Only for changes to data that the service does
    /// not cache.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open_beside(config: Config, env: Environment) -> Result<Self, StartError> {
        let db = Db::open(&config.database, Mode::Beside).await?;
        Self::with_database(db, config, env).await
    }

    async fn with_database(db: Db, config: Config, env: Environment) -> Result<Self, StartError> {
        let principals = Principals::new(config.agents_in_memory);
        if db.is_shared() {
            principals.bypass();
        }
        let cache = principals.clone();
        let metrics = match config.metrics_addr {
            Some(_) => Metrics::on(&matched::list()),
            None => Metrics::off(),
        };
        let metrics = Arc::new(metrics);
        let store = Store::start_with(db, Arc::new(move |changes| cache.forget(changes)), metrics.clone());
        let may_have_lost_database = may_have_lost_database(&config, &store).await?;
        let master_key = master_key::load(&config, &store, &env).await?;
        // Before signing keys are created with it.
        if let Some(master_key) = &master_key
            && !signing_keys::any(&store).await?
            && !open_everything(store.read().await?.conn(), &master_key.get()).await?
        {
            return Err(KeyringError::WrongMasterKey.into());
        }
        let keyring = load_keyring(&config, &store, &env, master_key.as_ref()).await?;
        let settings = Settings {
            issuer: config.public_url.clone(),
            signing: match &config.signing {
                Signing::Asymmetric(algorithm) => Some(*algorithm),
                Signing::SharedSecret(_) => None,
            },
            signing_key_rotation: config.signing_key_rotation,
            token_life: config.token_life,
            delegation_depth: config.delegation_depth,
            federation_allow_private: config.federation_allow_private,
            rotation_grace: config.rotation_grace,
            refusals: config.refusals,
            backups: config.backups.clone().map(plan),
        };
        let dpop_nonces = dpop_nonces(&config, &store, &env, master_key.as_ref()).await?;
        let services = Services {
            store,
            principals,
            verified_tokens: VerifiedTokens::new(config.agents_in_memory / AGENTS_PER_TOKEN),
            foreign_keys: ForeignKeys::default(),
            refusals: Refusals::default(),
            keyring: CurrentKeyring::new(keyring),
            dpop_nonces,
            passwords: PasswordQueue::default(),
            master_key,
            checker: Checker::default(),
            readiness: Readiness::default(),
            ending: watch::Sender::new(false),
            env,
            settings: Arc::new(settings),
        };
        let limits = RateLimits {
            auth: RateLimit::new("auth", config.rate_limit_auth, metrics.clone()),
            api: RateLimit::new("api", config.rate_limit_api, metrics),
        };
        Ok(Self { services: Arc::new(services), limits, config, may_have_lost_database, metrics_listener: None })
    }

    /// Returns a warning for the operator if the database seems to have been lost.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let (Location::Sqlite(database), MasterKeySource::File { path: key, .. }) =
            (&self.config.database, &self.config.master_key)
        else {
            return None;
        };
        let (database, key) = (database.display(), key.display());
        self.may_have_lost_database.then(|| {
            format!(
                "the database {database} is new, but its master key {key} already existed. If AIMS has run here before, \
                 stop it now and restore the database, including {database}-wal: {database} alone is not a complete \
                 copy. Otherwise, ignore this warning"
            )
        })
    }

    /// Returns the service layer.
    #[must_use]
    pub const fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Returns true if an administrator agent exists.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_set_up(&self) -> Result<bool, Error> {
        bootstrap::is_done(&self.services).await
    }

    /// Creates the first administrator agent and its key, unless one exists.
    ///
    /// # Errors
    /// If the database fails, or an agent of that name exists without capabilities.
    pub async fn bootstrap(&self) -> Result<Option<AdministratorKey>, Error> {
        bootstrap::run(&self.services).await
    }

    /// Creates a link to set up the first owner account of the console, unless an account exists.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn setup_url(&self) -> Result<Option<SecretString>, Error> {
        let link = self.setup_link().await?;
        Ok(link.map(|path| self.config.public_url.at(path.expose_secret()).into()))
    }

    /// Does the same, but returns only the path and the query of the link.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn setup_link(&self) -> Result<Option<SecretString>, Error> {
        let token = setup::make_token(&self.services).await?;
        Ok(token.map(|token| format!("{}?token={}", setup::PATH, token.expose()).into()))
    }

    /// Records where this service is reached, for commands that run without its settings.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn record_address(&self) -> Result<(), Error> {
        setup::record_address(&self.services).await
    }

    /// Returns where the service is reached: as this process was told, or as the service recorded. `None` if neither is
    /// known; the default would be a guess.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn known_address(&self) -> Result<Option<PublicUrl>, Error> {
        if self.config.address_is_set {
            return Ok(Some(self.config.public_url.clone()));
        }
        setup::recorded_address(&self.services).await
    }

    /// Returns true if the console has an administrator account.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_administrator(&self) -> Result<bool, Error> {
        setup::is_done(&self.services).await
    }

    /// Creates another key for an administrator agent.
    ///
    /// # Errors
    /// If no administrator agent exists, or the database fails.
    pub async fn recover(&self) -> Result<AdministratorKey, Error> {
        bootstrap::recover(&self.services).await
    }

    /// Serves the metrics on this listener as well. They count if `METRICS_ADDR` is set.
    #[must_use]
    pub fn with_metrics(self, listener: TcpListener) -> Self {
        Self { metrics_listener: Some(listener), ..self }
    }

    /// Serves requests until `shutdown` completes, then completes pending requests and closes the database.
    ///
    /// # Errors
    /// [`Stopped`] if the service could not continue and shut down by itself.
    pub async fn serve(
        mut self,
        listener: impl Into<Server>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Stopped> {
        let mut background = background::start(&self.services, &self.limits);
        if let Some(listener) = self.metrics_listener.take() {
            background.spawn(metrics::run(listener, self.services.clone()));
        }
        let limits: Limits = self.config.serving.clone();
        let connections = &self.services.metrics().connections;
        connections.max.set(number(u64::try_from(limits.max_connections).unwrap_or(u64::MAX)));
        let proxies = TrustedProxies::new(self.config.trusted_proxies.clone());
        let origins = &self.config.cors_origins;
        let service = web::service(&self.services, &self.limits, proxies, origins, &limits);
        let mut outcome = Ok(());
        let end = async {
            tokio::select! {
                () = shutdown => {}
                stopped = stopped(&mut background, &self.services.store) => outcome = Err(stopped),
            }
            self.services.ending.send_replace(true);
            supervisor::stopping(limits.drain);
        };
        supervisor::ready();
        serve(listener, service, &limits, &connections.open, end).await;
        drop(background);
        self.close().await;
        outcome
    }

    /// Completes pending writes and closes the database.
    pub async fn close(self) {
        if let Err(error) = self.services.record_suppressed(true).await {
            let refusals = self.services.refusals.suppressed();
            tracing::warn!(error = error.with_causes(), refusals, "counts of suppressed refusals were lost");
        }
        self.services.store.clone().close().await;
    }
}

/// Waits until the service cannot continue, and returns the reason.
async fn stopped(background: &mut JoinSet<()>, store: &Store) -> Stopped {
    let stopped = tokio::select! {
        replaced = store.files_replaced() => replaced.into(),
        Some(_) = background.join_next() => Stopped::Task("a background task"),
        () = store.ended() => Stopped::Task("the database writer"),
    };
    // Missing files also stop the writer, which may be noticed first.
    match store.db().replaced_file() {
        Ok(Some(replaced)) => replaced.into(),
        _ => stopped,
    }
}

/// Returns true if the database is empty although its default master key file exists, which the first start creates.
async fn may_have_lost_database(config: &Config, store: &Store) -> Result<bool, StartError> {
    let (Location::Sqlite(database), MasterKeySource::File { path, .. }) = (&config.database, &config.master_key)
    else {
        return Ok(false);
    };
    Ok(*path == default_master_key(database)
        && path.exists()
        && audit::head(store.read().await?.conn()).await? == Head::EMPTY)
}

fn plan(backups: Backups) -> Plan {
    let Backups { schedule, folder, keep, recipients } = backups;
    let encryption = if recipients.is_empty() { Encryption::None } else { Encryption::To(recipients) };
    Plan { schedule, folder, keep, encryption }
}

async fn load_keyring(
    config: &Config,
    store: &Store,
    env: &Environment,
    master_key: Option<&CurrentMasterKeys>,
) -> Result<Keyring, StartError> {
    match (&config.signing, master_key) {
        (Signing::SharedSecret(secret), _) => {
            Ok(Keyring::shared_secret(secret).map_err(|error| Error::Internal(Box::new(error)))?)
        }
        (Signing::Asymmetric(algorithm), Some(master)) => Ok(signing_keys::load(store, env, master, *algorithm).await?),
        (Signing::Asymmetric(_), None) => Err(Error::internal("a key pair needs a master key").into()),
    }
}

/// Derives the key for nonces from a secret that all nodes share, so that each node accepts the nonces of the others.
async fn dpop_nonces(
    config: &Config,
    store: &Store,
    env: &Environment,
    master_key: Option<&CurrentMasterKeys>,
) -> Result<DpopNonces, StartError> {
    match (&config.signing, master_key) {
        (Signing::Asymmetric(_), Some(master)) => Ok(nonces(store, &master.get(), env.now()).await?),
        (Signing::SharedSecret(secret), _) => Ok(DpopNonces::new(NonceKey::of_shared_secret(secret))),
        (Signing::Asymmetric(_), None) => Err(Error::internal("a key pair needs a master key").into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, future::pending};

    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;

    async fn open(folder: &TempDir) -> App {
        let settings = HashMap::from([
            ("DATABASE_URL", format!("sqlite:///{}", folder.path().join("aims.db").display())),
            ("MASTER_KEY", "0f".repeat(32)),
        ]);
        App::open_to_serve(Config::load(|name| settings.get(name).cloned()).unwrap(), Environment::system())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_service_stops_if_the_database_writer_ends() {
        let folder = TempDir::new().unwrap();
        let app = open(&folder).await;
        let mut services = Arc::into_inner(app.services).unwrap();
        services.store = Store::start(services.store.db().clone(), Arc::new(|_| panic!("a defect")));
        let store = services.store.clone();
        let app = App { services: Arc::new(services), ..app };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let writing = store.write(|_| Box::pin(async { Ok(()) }));
        let (served, written) = tokio::join!(app.serve(listener, pending()), writing);
        assert!(served.unwrap_err().to_string().starts_with("the database writer ended"));
        assert!(written.is_err());
    }

    #[tokio::test]
    async fn the_service_stops_if_a_background_task_ends() {
        let folder = TempDir::new().unwrap();
        let app = open(&folder).await;
        let mut background = background::start(&app.services, &app.limits);
        background.spawn(async { panic!("a defect") });
        let stopped = stopped(&mut background, &app.services.store).await;
        assert!(stopped.to_string().starts_with("a background task ended"));
    }

    #[tokio::test]
    async fn the_service_stops_on_shutdown() {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        open(&folder).await.serve(listener, async {}).await.unwrap();
    }
}
