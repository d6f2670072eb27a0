//! Passwords at rest: Argon2id (RFC 9106), made and checked on threads that may block.

use std::{fmt, num::NonZeroUsize, sync::LazyLock, thread};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::{
    clock::Environment,
    domain::{Error, Result, password::NewPassword},
};

/// At most so many wait for the turn of one; further ones are turned away, so that waiting stays short.
const WAITING: usize = 24;

/// As many hashes are computed at a time: each takes a core and 19 MiB, and half of the cores stay for everything else.
static AT_A_TIME: LazyLock<usize> =
    LazyLock::new(|| (thread::available_parallelism().map_or(1, NonZeroUsize::get) / 2).max(1));
static TURN: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*AT_A_TIME));
static QUEUE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*AT_A_TIME * (1 + WAITING)));

/// A place among those whose password is checked or hashed in turn.
#[derive(Debug)]
pub struct PasswordPlace(SemaphorePermit<'static>);

/// The turn of one of them.
#[derive(Debug)]
pub struct PasswordTurn {
    _place: SemaphorePermit<'static>,
    _turn: SemaphorePermit<'static>,
}

impl PasswordPlace {
    /// Takes a place, before anything else is done for somebody who may be one of very many.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none.
    pub fn line_up() -> Result<Self> {
        QUEUE.try_acquire().map(Self).map_err(|_| Error::Unavailable(None))
    }

    /// Waits for the turn.
    ///
    /// # Errors
    /// None that anybody meets.
    pub async fn turn(self) -> Result<PasswordTurn> {
        let turn = TURN.acquire().await.map_err(|error| Error::internal(error.to_string()))?;
        Ok(PasswordTurn { _place: self.0, _turn: turn })
    }
}

impl PasswordTurn {
    async fn take<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let work = move || {
            // Until it is done, whether or not anybody still waits for it.
            let _held = self;
            step_back();
            let _ = done.send(work());
        };
        thread::Builder::new().spawn(work).map_err(|error| Error::internal(error.to_string()))?;
        answer.await.map_err(|error| Error::internal(error.to_string()))
    }
}

/// The Argon2id hash of a password in PHC string format; says nothing of the password, and is not printed all the same.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Reads a hash that was stored.
    #[must_use]
    pub const fn from_phc(text: String) -> Self {
        Self(text)
    }

    /// The hash as it is stored.
    #[must_use]
    pub fn to_phc(&self) -> &str {
        &self.0
    }

    /// Hashes a password.
    ///
    /// # Errors
    /// As [`PasswordPlace::line_up`].
    pub async fn of(env: &Environment, password: NewPassword) -> Result<Self> {
        let salt = env.random::<16>();
        let hash = PasswordPlace::line_up()?.turn().await?.take(move || {
            argon2()?.hash_password_with_salt(password.expose().as_bytes(), &salt).map(|hash| hash.to_string())
        });
        Ok(Self(hash.await?.map_err(|error| Error::internal(error.to_string()))?))
    }

    /// Whether `password` is the one. Takes as long for [`Self::nobodys`] as for any other.
    ///
    /// # Errors
    /// When the work cannot be done.
    pub async fn matches(self, password: String, turn: PasswordTurn) -> Result<bool> {
        turn.take(move || {
            let Ok(hash) = phc::PasswordHash::new(&self.0) else { return false };
            argon2().is_ok_and(|argon2| argon2.verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    /// A hash that no password is known to have, for usernames that nobody has: to check it takes as long as to check another.
    #[must_use]
    pub fn nobodys() -> Self {
        // Written down and not computed: it costs nothing before its turn.
        const HASH: &str =
            "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdC4uLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Self(HASH.to_owned())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash([REDACTED])")
    }
}

/// Puts a thread that computes hashes behind all others, by steps of nice(2): agents that call many times a second notice a
/// thread that takes its whole share of a core, and somebody who signs in does not notice that it takes a little less.
#[cfg(target_os = "linux")]
fn step_back() {
    const STEPS: i32 = 10;
    if let Err(error) = rustix::process::nice(STEPS) {
        tracing::debug!(%error, "hashes are computed with the priority of everything else");
    }
}

/// Elsewhere than on Linux, nice(2) would slow down the whole process.
#[cfg(not(target_os = "linux"))]
const fn step_back() {}

/// OWASP's first choice: 19 MiB, two passes, one lane.
fn argon2() -> argon2::password_hash::Result<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Username;

    fn password(text: &str) -> NewPassword {
        NewPassword::parse(text, &Username::parse("zoe").unwrap()).unwrap()
    }

    async fn turn() -> PasswordTurn {
        PasswordPlace::line_up().unwrap().turn().await.unwrap()
    }

    #[tokio::test]
    async fn only_the_password_matches_and_no_two_hashes_are_alike() {
        let env = Environment::system();
        let hash = PasswordHash::of(&env, password("a quiet river at dawn")).await.unwrap();
        assert!(hash.to_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.to_phc());
        assert!(hash.clone().matches("a quiet river at dawn".to_owned(), turn().await).await.unwrap());
        assert!(!hash.clone().matches("a quiet river at dusk".to_owned(), turn().await).await.unwrap());
        let other = PasswordHash::of(&env, password("a quiet river at dawn")).await.unwrap();
        assert_ne!(hash.to_phc(), other.to_phc());
        assert_eq!(format!("{hash:?}"), "PasswordHash([REDACTED])");
    }

    #[tokio::test]
    async fn nobody_has_no_password_and_a_damaged_hash_matches_none() {
        for password in ["", " "] {
            assert!(!PasswordHash::nobodys().matches(password.to_owned(), turn().await).await.unwrap());
        }
        // It takes as long as others: it says the same of how it is computed, and is read like them.
        let other = PasswordHash::of(&Environment::system(), password("a quiet river at dawn")).await.unwrap();
        let shape = |hash: &PasswordHash| {
            let hash = phc::PasswordHash::new(hash.to_phc()).unwrap();
            (hash.algorithm, hash.version, hash.params.to_string(), hash.salt.unwrap().len(), hash.hash.unwrap().len())
        };
        assert_eq!(shape(&PasswordHash::nobodys()), shape(&other));
        assert!(!PasswordHash::from_phc("junk".to_owned()).matches(String::new(), turn().await).await.unwrap());
    }
}
