//! Password hashes: Argon2id (RFC 9106), computed on separate threads.

use std::{fmt, num::NonZeroUsize, sync::Arc, thread};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    clock::Environment,
    domain::{Error, Result, person::password::NewPassword},
};

/// Maximum number of attempts in the queue for each turn. Keeps the wait short.
const WAITING: usize = 24;
/// Number of reserved places in addition to the queue. See [`PasswordQueue::reserved_place`].
const RESERVED: usize = 8;
/// Maximum number of attempts held back while the queue is full. Each occupies a request slot (`MAX_REQUESTS`), and
/// most slots must stay free for other requests.
const HELD_BACK: usize = 128;

/// Limits the number of password hashes computed at a time, because each takes a core and 19 MiB.
///
/// At most half of the cores compute hashes, so that the rest stays free for other requests. While the queue is full, a
/// separate lane computes one more hash at a time, so callers with a reserved place do not wait behind the queue.
#[derive(Clone, Debug)]
pub struct PasswordQueue {
    queue: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    held_back: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    lane: Arc<Semaphore>,
}

/// A caller's place in the queue while it waits for a turn.
#[derive(Debug)]
pub struct PasswordPlace {
    _place: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
}

/// Permission to compute one hash.
#[derive(Debug)]
pub struct PasswordTurn(OwnedSemaphorePermit);

impl Default for PasswordQueue {
    fn default() -> Self {
        let turns = (thread::available_parallelism().map_or(1, NonZeroUsize::get) / 2).max(1);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            queue: semaphore(turns * (1 + WAITING)),
            reserved: semaphore(RESERVED),
            held_back: semaphore(HELD_BACK),
            turns: semaphore(turns),
            lane: semaphore(1),
        }
    }
}

impl PasswordQueue {
    /// Takes a place in the queue; `None` if it is full.
    #[must_use]
    pub fn place(&self) -> Option<PasswordPlace> {
        take(&self.queue, &self.turns)
    }

    /// Takes a place in the queue or, if it is full, a reserved place. Only for administrators who are signed in or
    /// connect from a known network, and for CLI commands.
    #[must_use]
    pub fn reserved_place(&self) -> Option<PasswordPlace> {
        self.place().or_else(|| take(&self.reserved, &self.lane))
    }

    /// Takes a place for an attempt that is held back because the queue is full.
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
    /// Never, because the queue is not closed.
    pub async fn turn(&self) -> Result<PasswordTurn> {
        let turn = self.turns.clone().acquire_owned().await;
        turn.map(PasswordTurn).map_err(|error| Error::internal(error.to_string()))
    }

    /// Takes a turn if one is available without waiting.
    #[must_use]
    pub fn turn_at_once(&self) -> Option<PasswordTurn> {
        self.turns.clone().try_acquire_owned().ok().map(PasswordTurn)
    }
}

impl PasswordTurn {
    async fn take<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, result) = oneshot::channel();
        let work = move || {
            // Keep the turn until the work is done, even if the caller no longer waits for the result.
            let _turn = self.0;
            lower_priority();
            let _ = done.send(work());
        };
        thread::Builder::new().spawn(work).map_err(|error| Error::internal(error.to_string()))?;
        result.await.map_err(|error| Error::internal(error.to_string()))
    }
}

/// The Argon2id hash of a password, in PHC string format.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps a stored hash.
    #[must_use]
    pub const fn from_phc(text: String) -> Self {
        Self(text)
    }

    /// Returns the hash in the format in which it is stored.
    #[must_use]
    pub fn to_phc(&self) -> &str {
        &self.0
    }

    /// Hashes a new password. The caller must be authorised to set it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the queue and the reserved places are full.
    pub async fn of(queue: &PasswordQueue, env: &Environment, password: NewPassword) -> Result<Self> {
        let salt = env.random::<16>();
        let place = queue.reserved_place().ok_or(Error::Unavailable(None))?;
        let hash = place.turn().await?.take(move || {
            argon2()?.hash_password_with_salt(password.expose().as_bytes(), &salt).map(|hash| hash.to_string())
        });
        Ok(Self(hash.await?.map_err(|error| Error::internal(error.to_string()))?))
    }

    /// Returns true if the password is correct. Takes equally long for [`Self::dummy`].
    ///
    /// # Errors
    /// If no thread can be started.
    pub async fn matches(self, password: String, turn: PasswordTurn) -> Result<bool> {
        turn.take(move || {
            let Ok(hash) = phc::PasswordHash::new(&self.0) else { return false };
            argon2().is_ok_and(|argon2| argon2.verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    /// Returns a hash without a known password. Checking a password against it for an unknown username takes as long as
    /// for an existing account, so the response time does not reveal which usernames exist.
    #[must_use]
    pub fn dummy() -> Self {
        // A constant, because computing a hash here would take time without a turn.
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

/// Lowers the scheduling priority of the current thread, with nice(2). A hash that takes a full core slows down agents
/// that send many requests a second; a slightly slower sign-in is not noticeable.
#[cfg(target_os = "linux")]
fn lower_priority() {
    const STEPS: i32 = 10;
    if let Err(error) = rustix::process::nice(STEPS) {
        tracing::debug!(%error, "cannot lower the priority of password hashing");
    }
}

/// On other systems than Linux, nice(2) applies to the whole process.
#[cfg(not(target_os = "linux"))]
const fn lower_priority() {}

/// The first choice of OWASP: 19 MiB, two passes, one lane.
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
        PasswordQueue::default().place().unwrap().turn().await.unwrap()
    }

    #[tokio::test]
    async fn only_the_correct_password_matches_and_hashes_are_salted() {
        let env = Environment::system();
        let hash = PasswordHash::of(&PasswordQueue::default(), &env, password("a quiet river at dawn")).await.unwrap();
        assert!(hash.to_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.to_phc());
        assert!(hash.clone().matches("a quiet river at dawn".to_owned(), turn().await).await.unwrap());
        assert!(!hash.clone().matches("a quiet river at dusk".to_owned(), turn().await).await.unwrap());
        let other = PasswordHash::of(&PasswordQueue::default(), &env, password("a quiet river at dawn")).await.unwrap();
        assert_ne!(hash.to_phc(), other.to_phc());
        assert_eq!(format!("{hash:?}"), "PasswordHash([REDACTED])");
    }

    #[tokio::test]
    async fn a_full_queue_leaves_the_reserved_places() {
        let queue = PasswordQueue::default();
        let waiting: Vec<_> = std::iter::from_fn(|| queue.place()).collect();
        let in_turn = waiting[0].turn().await.unwrap();
        let reserved: Vec<_> = std::iter::from_fn(|| queue.reserved_place()).collect();
        assert_eq!(reserved.len(), RESERVED);
        let held_back: Vec<_> = std::iter::from_fn(|| queue.place_held_back()).collect();
        assert_eq!(held_back.len(), HELD_BACK);
        // The lane has one turn of its own.
        let in_lane = reserved[0].turn().await.unwrap();
        assert!(held_back[0].turn_at_once().is_none());
        drop((in_turn, in_lane));
        assert!(held_back[0].turn_at_once().is_some());
        drop(waiting);
        assert!(queue.place().is_some());
    }

    #[tokio::test]
    async fn no_password_matches_the_dummy_or_a_damaged_hash() {
        for password in ["", " "] {
            assert!(!PasswordHash::dummy().matches(password.to_owned(), turn().await).await.unwrap());
        }
        // Checking the dummy takes as long as checking any other hash, because its parameters are the same.
        let other =
            PasswordHash::of(&PasswordQueue::default(), &Environment::system(), password("a quiet river at dawn"))
                .await
                .unwrap();
        let shape = |hash: &PasswordHash| {
            let hash = phc::PasswordHash::new(hash.to_phc()).unwrap();
            (hash.algorithm, hash.version, hash.params.to_string(), hash.salt.unwrap().len(), hash.hash.unwrap().len())
        };
        assert_eq!(shape(&PasswordHash::dummy()), shape(&other));
        assert!(!PasswordHash::from_phc("junk".to_owned()).matches(String::new(), turn().await).await.unwrap());
    }
}
