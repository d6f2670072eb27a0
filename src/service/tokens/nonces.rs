//! The nonces that `DPoP` proofs must carry (RFC 9449 §8), while the key that makes them changes.

use std::sync::{Arc, PoisonError, RwLock};

use crate::{
    crypto::{MasterKey, MasterKeys, NonceKey, dpop::NONCE_LIFE},
    domain::Timestamp,
};

/// The keys that make and check nonces. All clones share them.
#[derive(Clone)]
pub struct DpopNonces(Arc<RwLock<Keys>>);

struct Keys {
    making: NonceKey,
    /// The keys with which other nodes may make nonces.
    others: Vec<NonceKey>,
    /// The key that made nonces before, and until when clients may use them.
    former: Option<(NonceKey, Timestamp)>,
}

impl DpopNonces {
    /// Makes and accepts nonces with one key.
    #[must_use]
    pub fn new(key: NonceKey) -> Self {
        Self(Arc::new(RwLock::new(Keys { making: key, others: Vec::new(), former: None })))
    }

    /// Makes nonces with `sealing`, one of the master keys, and accepts those of all of them. Nonces that were made
    /// before are accepted until they expire.
    pub fn follow(&self, masters: &MasterKeys, sealing: &MasterKey, now: Timestamp) {
        let making = NonceKey::of_master_key(sealing);
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !making.makes_the_same_as(&keys.making, now) {
            let former = std::mem::replace(&mut keys.making, making);
            keys.former = Some((former, now.plus(NONCE_LIFE)));
        }
        let others = masters.all().filter(|master| master.id() != sealing.id());
        keys.others = others.map(NonceKey::of_master_key).collect();
    }

    /// Returns the nonce for responses at `now`.
    #[must_use]
    pub fn nonce(&self, now: Timestamp) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).making.nonce(now)
    }

    /// Returns true if a node made this nonce and it has not expired.
    #[must_use]
    pub fn accepts(&self, nonce: &str, now: Timestamp) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let former = keys.former.as_ref().filter(|(_, until)| now < *until).map(|(key, _)| key);
        [&keys.making].into_iter().chain(&keys.others).chain(former).any(|key| key.accepts(nonce, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn key(pair: &str) -> MasterKey {
        MasterKey::from_hex(&pair.repeat(32)).unwrap()
    }

    #[test]
    fn nonces_of_a_replaced_key_are_accepted_until_they_expire() {
        let (old, new) = (key("aa"), key("bb"));
        let nonces = DpopNonces::new(NonceKey::of_master_key(&old));
        let before = nonces.nonce(NOW);
        nonces.follow(&MasterKeys::one(new.clone()), &new, NOW);
        assert_ne!(nonces.nonce(NOW), before);
        assert!(nonces.accepts(&before, NOW) && nonces.accepts(&nonces.nonce(NOW), NOW));
        // Following again, as the background task does, keeps that end.
        let later = NOW.plus(NONCE_LIFE);
        nonces.follow(&MasterKeys::one(new.clone()), &new, later);
        let forged = NonceKey::of_master_key(&old).nonce(later);
        assert!(!nonces.accepts(&forged, later), "the replaced key must not make nonces for ever");
    }

    #[test]
    fn nonces_of_nodes_with_either_key_are_accepted_while_there_are_two() {
        let (old, new) = (key("aa"), key("bb"));
        let both = MasterKeys::two(new.clone(), old.clone()).unwrap();
        let nonces = DpopNonces::new(NonceKey::of_master_key(&old));
        nonces.follow(&both, &old, NOW);
        assert_eq!(nonces.nonce(NOW), NonceKey::of_master_key(&old).nonce(NOW));
        for node in [&old, &new] {
            assert!(nonces.accepts(&NonceKey::of_master_key(node).nonce(NOW), NOW));
        }
        assert!(!nonces.accepts(&NonceKey::of_master_key(&key("cc")).nonce(NOW), NOW));
    }
}
