//! Passwords at rest: Argon2id (RFC 9106), made and checked on threads that may block.

use std::{fmt, num::NonZeroUsize, sync::Arc, thread};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    clock::Environment,
    domain::{Error, Result, person::password::NewPassword},
};

/// Maximum number of tries that wait in line for each turn. Keeps the wait short.
const WAITING: usize = 24;
/// Reserved places beside the line: see [`PasswordLine::reserved_place`].
const RESERVED: usize = 8;
/// Maximum number of tries held back while the line is full. Each occupies a request slot (`MAX_REQUESTS`), and most slots must
/// stay free for other requests.
const HELD_BACK: usize = 128;

/// The queue for checking and hashing passwords: a hash takes a core and 19 MiB.
///
/// At most half of the cores compute hashes at a time, which leaves the others for everything else. While the line is full, a
/// separate lane computes one more hash at a time, so callers with a reserved place do not wait behind the line.
#[derive(Clone, Debug)]
pub struct PasswordLine {
    line: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    held_back: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    lane: Arc<Semaphore>,
}

/// A caller's place while it waits for a turn.
#[derive(Debug)]
pub struct PasswordPlace {
    _place: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
}

/// The turn of one of them.
#[derive(Debug)]
pub struct PasswordTurn(OwnedSemaphorePermit);

impl Default for PasswordLine {
    fn default() -> Self {
        let turns = (thread::available_parallelism().map_or(1, NonZeroUsize::get) / 2).max(1);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            line: semaphore(turns * (1 + WAITING)),
            reserved: semaphore(RESERVED),
            held_back: semaphore(HELD_BACK),
            turns: semaphore(turns),
            lane: semaphore(1),
        }
    }
}

impl PasswordLine {
    /// Takes a place in the line, unless it is full.
    #[must_use]
    pub fn place(&self) -> Option<PasswordPlace> {
        take(&self.line, &self.turns)
    }

    /// Takes a place in the line or, if it is full, a reserved place. Only for people who are signed in or come from a known
    /// network, and for commands of the host's operator.
    #[must_use]
    pub fn reserved_place(&self) -> Option<PasswordPlace> {
        self.place().or_else(|| take(&self.reserved, &self.lane))
    }

    /// Takes a place for a try that is held back because the line is full.
    #[must_use]
    pub fn place_held_back(&self) -> Option<PasswordPlace> {
        take(&self.held_back, &self.lane)
    }
}

fn take(places: &Arc<Semaphore>, turns: &Arc<Semaphore>) -> Option<PasswordPlace> {
    let place = places.clone().try_acquire_owned().ok()?;
    Some(PasswordPlace { _place: place, turns: turns.clone() })
}

impl PasswordPlace {
    /// Waits for a turn. The caller must keep the place until then.
    ///
    /// # Errors
    /// Does not occur, because the line is never closed.
    pub async fn turn(&self) -> Result<PasswordTurn> {
        let turn = self.turns.clone().acquire_owned().await;
        turn.map(PasswordTurn).map_err(|error| Error::internal(error.to_string()))
    }

    /// Takes a turn if one is free and nobody waits.
    #[must_use]
    pub fn turn_at_once(&self) -> Option<PasswordTurn> {
        self.turns.clone().try_acquire_owned().ok().map(PasswordTurn)
    }
}

impl PasswordTurn {
    async fn take<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let work = move || {
            // Until it is done, whether or not anybody still waits for it.
            let _held = self.0;
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

    /// Hashes a new password. The caller must be authorised to set it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if too many others wait.
    pub async fn of(line: &PasswordLine, env: &Environment, password: NewPassword) -> Result<Self> {
        let salt = env.random::<16>();
        let place = line.reserved_place().ok_or(Error::Unavailable(None))?;
        let hash = place.turn().await?.take(move || {
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
        PasswordLine::default().place().unwrap().turn().await.unwrap()
    }

    #[tokio::test]
    async fn only_the_password_matches_and_no_two_hashes_are_alike() {
        let env = Environment::system();
        let hash = PasswordHash::of(&PasswordLine::default(), &env, password("a quiet river at dawn")).await.unwrap();
        assert!(hash.to_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.to_phc());
        assert!(hash.clone().matches("a quiet river at dawn".to_owned(), turn().await).await.unwrap());
        assert!(!hash.clone().matches("a quiet river at dusk".to_owned(), turn().await).await.unwrap());
        let other = PasswordHash::of(&PasswordLine::default(), &env, password("a quiet river at dawn")).await.unwrap();
        assert_ne!(hash.to_phc(), other.to_phc());
        assert_eq!(format!("{hash:?}"), "PasswordHash([REDACTED])");
    }

    #[tokio::test]
    async fn a_full_line_leaves_the_reserved_places() {
        let line = PasswordLine::default();
        let waiting: Vec<_> = std::iter::from_fn(|| line.place()).collect();
        let in_turn = waiting[0].turn().await.unwrap();
        let reserved: Vec<_> = std::iter::from_fn(|| line.reserved_place()).collect();
        assert_eq!(reserved.len(), RESERVED);
        let held_back: Vec<_> = std::iter::from_fn(|| line.place_held_back()).collect();
        assert_eq!(held_back.len(), HELD_BACK);
        // The lane has a separate turn, and only one.
        let in_lane = reserved[0].turn().await.unwrap();
        assert!(held_back[0].turn_at_once().is_none());
        drop((in_turn, in_lane));
        assert!(held_back[0].turn_at_once().is_some());
        drop(waiting);
        assert!(line.place().is_some());
    }

    #[tokio::test]
    async fn nobody_has_no_password_and_a_damaged_hash_matches_none() {
        for password in ["", " "] {
            assert!(!PasswordHash::nobodys().matches(password.to_owned(), turn().await).await.unwrap());
        }
        // It takes as long as others: it says the same of how it is computed, and is read like them.
        let other =
            PasswordHash::of(&PasswordLine::default(), &Environment::system(), password("a quiet river at dawn"))
                .await
                .unwrap();
        let shape = |hash: &PasswordHash| {
            let hash = phc::PasswordHash::new(hash.to_phc()).unwrap();
            (hash.algorithm, hash.version, hash.params.to_string(), hash.salt.unwrap().len(), hash.hash.unwrap().len())
        };
        assert_eq!(shape(&PasswordHash::nobodys()), shape(&other));
        assert!(!PasswordHash::from_phc("junk".to_owned()).matches(String::new(), turn().await).await.unwrap());
    }
}
