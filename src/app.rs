//! Wires the house together and owns what runs in the background.

pub mod master_key;

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    clock::Environment,
    config::{Config, MasterKeySource, Signing, default_master_key},
    crypto::{Keyring, MasterKey, NonceKey, OpaqueSecret, PasswordLine},
    domain::{Error, audit::Head},
    service::{
        Services, Settings,
        audit::Checker,
        bootstrap::{self, AdministratorKey},
        core::{principals::Principals, refusals::Refusals},
        credentials::federation::foreign_keys::ForeignKeys,
        people::{sessions, setup},
        tokens::{
            resources,
            signing_keys::{self, CurrentKeyring, KeyringError},
            verified_tokens::VerifiedTokens,
        },
    },
    store::{Db, FileReplaced, Location, Mode, Store, audit, db::OpenError},
    web::{
        self,
        request::client_ip::TrustedProxies,
        routes::RateLimits,
        server::{
            rate_limit::RateLimit,
            serve::{Limits, serve},
        },
    },
};

/// For how many agents in memory one token is remembered, too.
const AGENTS_PER_TOKEN: usize = 2;
/// How often the counts of suppressed refusals are looked through.
const REFUSALS_EVERY: Duration = Duration::from_secs(10);
/// How often sessions that ended are removed.
const SWEEP_EVERY: Duration = Duration::from_mins(5);
/// How often signing keys are looked after: well before a key that another node made signs.
const SIGNING_KEYS_EVERY: Duration = Duration::from_secs(30);
/// How long any of these may take.
const LONGEST: Duration = Duration::from_mins(1);
/// How often the rate limits forget addresses that have been quiet.
const LIMITS_EVERY: Duration = Duration::from_mins(1);

/// Why the service does not start; every message is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The signing keys cannot be loaded.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The master key's file cannot be used.
    #[error("cannot use the master key file {0}: {1}")]
    MasterKeyFile(PathBuf, #[source] io::Error),
    /// The master key's file holds something else.
    #[error("the master key file {0} does not hold 64 hexadecimal digits")]
    MasterKeyForm(PathBuf),
    /// The master key's file is gone, and what was sealed with it is not.
    #[error(
        "the master key file {0} is missing, but the database holds signing keys that were sealed with it; restore the \
         file"
    )]
    MasterKeyLost(PathBuf),
    /// The database failed.
    #[error("the database failed: {0}")]
    Store(#[from] Error),
}

/// Why the service stopped by itself. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// A task that should run as long as the service ended. This is a defect.
    #[error("{0} ended unexpectedly; restart the service")]
    Task(&'static str),
    /// The database files were deleted, moved or replaced.
    #[error(transparent)]
    Files(#[from] FileReplaced),
}

/// The service, ready to be served.
pub struct App {
    services: Arc<Services>,
    limits: RateLimits,
    config: Config,
    has_lost_database: bool,
}

impl App {
    /// Opens the database, brings it up to date, and has keys of the algorithm sign that is set.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open_to_serve(config: Config, env: Environment) -> Result<Self, StartError> {
        let app = Self::open(config, env).await?;
        signing_keys::begin(&app.services).await?;
        resources::complete(&app.services).await?;
        Ok(app)
    }

    /// Opens the database, brings it up to date, and loads the signing keys.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open(config: Config, env: Environment) -> Result<Self, StartError> {
        let db = Db::open(&config.database, Mode::Write).await?;
        Self::over(db, config, env).await
    }

    /// Opens the database also where a running service uses it, for changes that no process keeps in memory. Makes none.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open_beside(config: Config, env: Environment) -> Result<Self, StartError> {
        config.database.require()?;
        let db = match Db::open(&config.database, Mode::Write).await {
            Err(OpenError::InUse(_)) => Db::open(&config.database, Mode::Beside).await?,
            opened => opened?,
        };
        Self::over(db, config, env).await
    }

    async fn over(db: Db, config: Config, env: Environment) -> Result<Self, StartError> {
        let principals = Principals::new(config.agents_in_memory);
        if db.is_shared() {
            principals.bypass();
        }
        let forgetful = principals.clone();
        let store = Store::start(db, Arc::new(move |changes| forgetful.forget(changes)));
        let has_lost_database = has_lost_database(&config, &store).await?;
        let master_key = master_key::load(&config, &store, &env).await?;
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
        };
        let services = Services {
            store,
            principals,
            verified_tokens: VerifiedTokens::new(config.agents_in_memory / AGENTS_PER_TOKEN),
            foreign_keys: ForeignKeys::default(),
            refusals: Refusals::default(),
            keyring: CurrentKeyring::new(keyring),
            dpop_nonces: nonce_key(&config, master_key.as_ref())?,
            passwords: PasswordLine::default(),
            master_key,
            checker: Checker::default(),
            ending: watch::Sender::new(false),
            env,
            settings: Arc::new(settings),
        };
        let limits = RateLimits {
            auth: RateLimit::new("auth", config.rate_limit_auth),
            api: RateLimit::new("api", config.rate_limit_api),
        };
        Ok(Self { services: Arc::new(services), limits, config, has_lost_database })
    }

    /// What the operator must know of the files that were found.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let (Location::Sqlite(database), MasterKeySource::File { path: key, .. }) =
            (&self.config.database, &self.config.master_key)
        else {
            return None;
        };
        let (database, key) = (database.display(), key.display());
        self.has_lost_database.then(|| {
            format!(
                "the database {database} is new, but its master key {key} was there already. If AIMS ran here before, stop it now \
                 and restore the database: {database} alone, without {database}-wal, is no copy of it. If it did not, all is well"
            )
        })
    }

    /// The use cases.
    #[must_use]
    pub const fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Whether there is an administrator already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_set_up(&self) -> Result<bool, Error> {
        bootstrap::is_done(&self.services).await
    }

    /// Makes the first administrator where there is none.
    ///
    /// # Errors
    /// When the database fails, or an agent of that name holds nothing.
    pub async fn bootstrap(&self) -> Result<Option<AdministratorKey>, Error> {
        bootstrap::run(&self.services).await
    }

    /// Makes a link that sets up the first administrator of the console, while there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn setup_url(&self) -> Result<Option<SecretString>, Error> {
        let token = setup::make_token(&self.services).await?;
        let page = self.config.public_url.at("/console/setup");
        let url = |token: OpaqueSecret| format!("{page}?token={}", token.expose());
        Ok(token.map(|token| url(token).into()))
    }

    /// Whether anybody may sign in to the console.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_administrator(&self) -> Result<bool, Error> {
        setup::is_done(&self.services).await
    }

    /// Makes another key for an administrator.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn recover(&self) -> Result<AdministratorKey, Error> {
        bootstrap::recover(&self.services).await
    }

    /// Serves until `shutdown` completes, then finishes what was begun and closes the database.
    ///
    /// # Errors
    /// [`Stopped`] when it did all that by itself, as it cannot go on.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<(), Stopped> {
        let mut background = self.start_background();
        let limits: Limits = self.config.serving.clone();
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
        };
        serve(listener, service, &limits, end).await;
        drop(background);
        self.close().await;
        outcome
    }

    /// Finishes what was begun and closes the database.
    pub async fn close(self) {
        if let Err(error) = self.services.record_suppressed(true).await {
            let refusals = self.services.refusals.suppressed();
            tracing::warn!(error = error.with_causes(), refusals, "counts of suppressed refusals were lost");
        }
        self.services.store.clone().close().await;
    }

    /// Starts what runs beside the requests; it ends when the set is dropped.
    fn start_background(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if self.services.store.db().is_shared() {
            let services = self.services.clone();
            tasks.spawn(async move { services.principals.follow(&services.store).await });
            let services = self.services.clone();
            tasks.spawn(async move { signing_keys::follow(&services).await });
        }
        let services = self.services.clone();
        tasks.spawn(every(REFUSALS_EVERY, "counts of suppressed refusals wait to be recorded", move || {
            let services = services.clone();
            async move { services.record_suppressed(false).await }
        }));
        let services = self.services.clone();
        tasks.spawn(every(SWEEP_EVERY, "sessions that ended were not removed", move || {
            let services = services.clone();
            async move { sessions::sweep(&services).await }
        }));
        let services = self.services.clone();
        tasks.spawn(every(SIGNING_KEYS_EVERY, "signing keys were not looked after", move || {
            let services = services.clone();
            async move { signing_keys::maintain(&services).await }
        }));
        tasks.spawn(crate::service::audit::keep_indexed(self.services.store.clone()));
        let limits = self.limits.clone();
        tasks.spawn(async move {
            let mut ticks = interval(LIMITS_EVERY);
            loop {
                ticks.tick().await;
                limits.auth.retain_recent();
                limits.api.retain_recent();
            }
        });
        tasks
    }
}

/// Waits until the service cannot continue.
async fn stopped(background: &mut JoinSet<()>, store: &Store) -> Stopped {
    let stopped = tokio::select! {
        replaced = store.files_replaced() => replaced.into(),
        Some(_) = background.join_next() => Stopped::Task("a background task"),
        () = store.ended() => Stopped::Task("the database writer"),
    };
    // A missing file also ends the writer, which may be noticed first.
    match store.db().replaced_file() {
        Ok(Some(replaced)) => replaced.into(),
        _ => stopped,
    }
}

/// Does something again and again, from now on. What takes too long is given up: a database that falls silent must not end it for
/// good.
async fn every<F>(period: Duration, failure: &'static str, job: impl Fn() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        let done = timeout(LONGEST, job()).await;
        if let Err(error) = done.unwrap_or_else(|elapsed| Err(Error::Unavailable(Some(elapsed.into())))) {
            tracing::warn!(error = error.with_causes(), "{failure}");
        }
    }
}

/// Whether nothing is in the database, though the file that its first start makes beside it is there.
async fn has_lost_database(config: &Config, store: &Store) -> Result<bool, StartError> {
    let (Location::Sqlite(database), MasterKeySource::File { path, .. }) = (&config.database, &config.master_key)
    else {
        return Ok(false);
    };
    Ok(*path == default_master_key(database)
        && path.exists()
        && audit::head(store.read().await?.conn()).await? == Head::EMPTY)
}

async fn load_keyring(
    config: &Config,
    store: &Store,
    env: &Environment,
    master_key: Option<&MasterKey>,
) -> Result<Keyring, StartError> {
    match (&config.signing, master_key) {
        (Signing::SharedSecret(secret), _) => {
            Ok(Keyring::shared_secret(secret).map_err(|error| Error::Internal(Box::new(error)))?)
        }
        (Signing::Asymmetric(algorithm), Some(master)) => Ok(signing_keys::load(store, env, master, *algorithm).await?),
        (Signing::Asymmetric(_), None) => Err(Error::internal("a key pair needs a master key").into()),
    }
}

/// What all nodes share keys the nonces, so that each knows those of the others.
fn nonce_key(config: &Config, master_key: Option<&MasterKey>) -> Result<NonceKey, StartError> {
    match (&config.signing, master_key) {
        (Signing::Asymmetric(_), Some(master)) => Ok(NonceKey::of_master_key(master)),
        (Signing::SharedSecret(secret), _) => Ok(NonceKey::of_shared_secret(secret)),
        (Signing::Asymmetric(_), None) => Err(Error::internal("a key pair needs a master key").into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, future::pending};

    use tempfile::TempDir;

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
    async fn a_service_that_cannot_write_any_more_ends() {
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
    async fn a_service_without_its_background_ends() {
        let folder = TempDir::new().unwrap();
        let app = open(&folder).await;
        let mut background = app.start_background();
        background.spawn(async { panic!("a defect") });
        let stopped = stopped(&mut background, &app.services.store).await;
        assert!(stopped.to_string().starts_with("a background task ended"));
    }

    #[tokio::test]
    async fn a_service_ends_when_it_is_told_to() {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        open(&folder).await.serve(listener, async {}).await.unwrap();
    }
}
