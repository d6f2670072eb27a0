//! Measures the disk flush time of the machine, which limits the write rate of any durable service on it.

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

/// Number of timed flushes.
const FLUSHES: usize = 101;

/// Flush times.
pub struct Flush {
    /// On an idle machine.
    pub idle: Duration,
    /// While another thread keeps a CPU busy. A virtual machine may deliver the completion interrupt only when the CPU
    /// goes idle or at the next timer tick.
    pub busy: Duration,
}

impl Flush {
    pub fn time(directory: &Path) -> io::Result<Self> {
        let path = directory.join("flush");
        let idle = median(&path)?;
        let is_over = AtomicBool::new(false);
        let busy = thread::scope(|scope| {
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
        Ok(Self { idle, busy })
    }

    pub fn print(&self) {
        let [idle, busy] = [self.idle, self.busy].map(millis);
        println!("fdatasync of 4 KiB: {idle:.3} ms, beside a busy processor {busy:.3} ms (medians of {FLUSHES})");
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
