//! The processor time, memory and files of the process.

use metrics::{Counter, Gauge};

use super::{
    recorder::{Recorder, number},
    table,
};

pub(super) struct Process {
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    resident_memory: Gauge,
    threads: Gauge,
    start_time: Gauge,
}

impl Process {
    pub(super) fn register(recorder: &Recorder) -> Self {
        Self {
            cpu_seconds: recorder.counter(&table::PROCESS_CPU, &[]),
            open_fds: recorder.gauge(&table::PROCESS_OPEN_FDS, &[]),
            max_fds: recorder.gauge(&table::PROCESS_MAX_FDS, &[]),
            virtual_memory: recorder.gauge(&table::PROCESS_VIRTUAL, &[]),
            resident_memory: recorder.gauge(&table::PROCESS_RESIDENT, &[]),
            threads: recorder.gauge(&table::PROCESS_THREADS, &[]),
            start_time: recorder.gauge(&table::PROCESS_START, &[]),
        }
    }

    /// Reads the present numbers. One that cannot be read keeps its last value.
    pub(super) fn measure(&self) {
        let measured = metrics_process::collector::collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of processor time")]
        if let Some(seconds) = measured.cpu_seconds_total {
            self.cpu_seconds.absolute(seconds as u64);
        }
        let gauges = [
            (&self.open_fds, measured.open_fds),
            (&self.max_fds, measured.max_fds),
            (&self.virtual_memory, measured.virtual_memory_bytes),
            (&self.resident_memory, measured.resident_memory_bytes),
            (&self.threads, measured.threads),
            (&self.start_time, measured.start_time_seconds),
        ];
        for (gauge, value) in gauges {
            if let Some(value) = value {
                gauge.set(number(value));
            }
        }
    }
}
