//! A histogram of latencies. Each bucket is at most 1/64 of its value wide.

use std::time::Duration;

/// log2 of the number of buckets per power of two.
const BITS: u32 = 6;
const STEPS: u64 = 1 << BITS;
/// One linear run below [`STEPS`], then one run per power of two.
const BUCKETS: usize = (64 - BITS as usize + 1) << BITS;

/// A log-linear histogram of nanoseconds.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanos)) {
            *bucket += 1;
            self.count += 1;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
    }

    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The highest value of the bucket that contains the given quantile; zero if the histogram is empty.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a count fits a count")]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= wanted
        });
        Duration::from_nanos(found.map_or(0, highest_in))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most BUCKETS")]
const fn bucket_of(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let doubling = nanos.ilog2() - BITS;
    ((doubling as u64 * STEPS) + (nanos >> doubling)) as usize
}

const fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let doubling = bucket / STEPS - 1;
    let step = bucket % STEPS + STEPS;
    // Computed as one less than the start of the next bucket, in a form that does not overflow for the last bucket.
    (step << doubling) + ((1 << doubling) - 1)
}
