//! What the machine itself takes: it bounds what any service on it can promise.

use std::{
    fs,
    hint::black_box,
    io::{self, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::millis;

/// Flushes that are timed.
const FLUSHES: usize = 101;

/// How long a flush takes.
pub struct Flush {
    /// While nothing else runs.
    pub alone: Duration,
    /// While one processor computes without a pause. A virtual machine may tell a processor of what is done only when it pauses,
    /// or with its next tick.
    pub beside_a_busy_processor: Duration,
}

impl Flush {
    pub fn time(directory: &Path) -> io::Result<Self> {
        let path = directory.join("flush");
        let alone = median(&path)?;
        let is_over = AtomicBool::new(false);
        let beside_a_busy_processor = thread::scope(|scope| {
            scope.spawn(|| {
                let mut turns = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    turns = black_box(turns.wrapping_add(1));
                }
            });
            let flush = median(&path);
            is_over.store(true, Ordering::Relaxed);
            flush
        })?;
        Ok(Self { alone, beside_a_busy_processor })
    }

    pub fn say(&self) {
        let [alone, beside] = [self.alone, self.beside_a_busy_processor].map(millis);
        println!("fdatasync of 4 KiB: {alone:.3} ms, beside a busy processor {beside:.3} ms (medians of {FLUSHES})");
    }
}

fn median(path: &Path) -> io::Result<Duration> {
    let mut file = fs::File::create(path)?;
    let block = [0xA5; 4_096];
    let mut times = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(FLUSHES / 2).copied().unwrap_or_default())
}
