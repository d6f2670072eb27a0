//! A cache whose loads lose against invalidations.

use std::{hash::Hash, time::Duration};

use quick_cache::{
    Weighter,
    sync::{Cache, GuardResult},
};

use crate::telemetry::metrics::{Metrics, labels};

/// Returns the cached value of `key`, or loads it. A loaded value is cached unless the key was removed, or the cache
/// was cleared, after the load began: the entry is reserved before the load, and both discard the reservation.
///
/// Concurrent loads of one key do not wait for each other, and only the first one is cached.
async fn get_or_load<K, V, W, E>(
    cache: &Cache<K, V, W>,
    key: &K,
    load: impl Future<Output = Result<Option<V>, E>>,
) -> Result<Option<V>, E>
where
    K: Eq + Hash + Clone,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let reservation = match cache.get_value_or_guard(key, Some(Duration::ZERO)) {
        GuardResult::Value(value) => return Ok(Some(value)),
        GuardResult::Guard(reservation) => Some(reservation),
        GuardResult::Timeout => None,
    };
    let loaded = load.await?;
    if let (Some(reservation), Some(value)) = (reservation, &loaded) {
        // An error means that the reservation was discarded.
        drop(reservation.insert(value.clone()));
    }
    Ok(loaded)
}

/// Does the same and counts it: a look-up that loads is a miss.
pub(in crate::service) async fn get_or_load_counted<K, V, W, E>(
    (metrics, name): (&Metrics, labels::Cache),
    cache: &Cache<K, V, W>,
    key: &K,
    load: impl Future<Output = Result<Option<V>, E>>,
) -> Result<Option<V>, E>
where
    K: Eq + Hash + Clone,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let mut is_hit = true;
    let load = async {
        is_hit = false;
        metrics.cache_misses.increment(name);
        load.await
    };
    let found = get_or_load(cache, key, load).await;
    if is_hit {
        metrics.cache_hits.increment(name);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use futures_util::FutureExt;

    use super::*;

    type Numbers = Cache<u32, &'static str>;

    /// Loads a value of key 1 while `meanwhile` happens; returns what is cached for key 1 afterwards.
    async fn cached_after(meanwhile: impl AsyncFnOnce(&Numbers)) -> Option<&'static str> {
        let cache = Numbers::new(16);
        let load = async {
            meanwhile(&cache).await;
            Ok::<_, Infallible>(Some("first"))
        };
        assert_eq!(get_or_load(&cache, &1, load).await, Ok(Some("first")), "the caller gets what it loaded");
        cache.get(&1)
    }

    fn remove(cache: &Numbers, key: u32) {
        cache.remove(&key);
    }

    async fn load(cache: &Numbers, key: u32, value: &'static str) -> Option<&'static str> {
        let Ok(loaded) = get_or_load(cache, &key, async { Ok::<_, Infallible>(Some(value)) }).await;
        loaded
    }

    #[tokio::test]
    async fn a_load_that_began_before_an_invalidation_is_not_cached() {
        assert_eq!(cached_after(async |_| {}).await, Some("first"));
        assert_eq!(cached_after(async |cache| remove(cache, 2)).await, Some("first"));
        assert_eq!(cached_after(async |cache| remove(cache, 1)).await, None);
        assert_eq!(cached_after(async |cache| cache.clear()).await, None);
    }

    #[tokio::test]
    async fn a_load_that_began_after_the_invalidation_stays_cached() {
        let removed = async |cache: &Numbers| {
            remove(cache, 1);
            assert_eq!(load(cache, 1, "second").await, Some("second"));
        };
        assert_eq!(cached_after(removed).await, Some("second"));
        let cleared = async |cache: &Numbers| {
            cache.clear();
            assert_eq!(load(cache, 1, "second").await, Some("second"));
        };
        assert_eq!(cached_after(cleared).await, Some("second"));
    }

    /// The cache may give the place of a discarded reservation to another key.
    #[tokio::test]
    async fn a_discarded_reservation_leaves_other_keys_alone() {
        for invalidate in [|cache: &Numbers| remove(cache, 1), |cache: &Numbers| cache.clear()] {
            let cache = Numbers::new(16);
            let first = async {
                invalidate(&cache);
                for key in 2..8 {
                    load(&cache, key, "other").await;
                }
                Ok::<_, Infallible>(Some("first"))
            };
            assert_eq!(get_or_load(&cache, &1, first).await, Ok(Some("first")));
            let cached: Vec<_> = (1..8).filter_map(|key| cache.get(&key)).collect();
            assert_eq!(cached, ["other"; 6]);
        }
    }

    #[tokio::test]
    async fn a_concurrent_load_does_not_wait_and_is_not_cached() {
        let concurrent = async |cache: &Numbers| {
            assert_eq!(load(cache, 1, "second").now_or_never(), Some(Some("second")));
            assert_eq!(cache.get(&1), None);
        };
        assert_eq!(cached_after(concurrent).await, Some("first"));
    }

    #[tokio::test]
    async fn a_load_that_fails_or_is_cancelled_gives_its_reservation_back() {
        let cache = Numbers::new(16);
        assert_eq!(get_or_load(&cache, &1, async { Err::<Option<_>, _>("failed") }).await, Err("failed"));
        assert_eq!(get_or_load(&cache, &1, async { Ok::<_, Infallible>(None) }).await, Ok(None));
        let cancelled = get_or_load(&cache, &1, pending::<Result<_, Infallible>>()).now_or_never();
        assert_eq!(cancelled, None);
        load(&cache, 1, "loaded").await;
        assert_eq!(cache.get(&1), Some("loaded"));
    }
}
