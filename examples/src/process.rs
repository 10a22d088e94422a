//! CPU time and memory of this process, as Linux tells them.
//!
//! Elsewhere CPU time is wall time, and memory is not known.

use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

/// Seconds of CPU that the threads of this process have used; of threads that sleep or run elsewhere to
/// some milliseconds.
pub fn cpu_seconds() -> f64 {
    of_tasks().unwrap_or_else(|| {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    })
}

/// The sum over all threads; the first number of a `schedstat` is in nanoseconds.
fn of_tasks() -> Option<f64> {
    // The kernel brings the number of a running thread up to date where it schedules.
    thread::yield_now();
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let line = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += line.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 * 1e-9)
}

/// What `work` returns and the CPU seconds that it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = cpu_seconds();
    let result = work();
    (result, cpu_seconds() - start)
}

/// How far resident memory grows from here on.
pub struct Growth {
    start: u64,
}

impl Growth {
    /// Starts now; none where memory is not known.
    pub fn start() -> Option<Self> {
        // Makes the peak what is resident.
        fs::write("/proc/self/clear_refs", "5").ok()?;
        Some(Self {
            start: status("VmRSS:")?,
        })
    }

    /// Forgets the peak so far; the start stays.
    pub fn forget_peak(&self) {
        // `start` could write there, or there were no growth.
        let _ = fs::write("/proc/self/clear_refs", "5");
    }

    /// Bytes by which the peak was above the start.
    pub fn peak(&self) -> Option<u64> {
        Some(status("VmHWM:")?.saturating_sub(self.start))
    }
}

/// Bytes of a line of `/proc/self/status`, which has kilobytes.
fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let (sum, seconds) =
            timed(|| (0..20_000_000_u64).fold(0, |sum, x| sum ^ x.wrapping_mul(x)));
        assert!(sum > 0 && seconds > 0.0);
    }

    #[test]
    fn what_is_allocated_is_resident() {
        let Some(growth) = Growth::start() else {
            return;
        };
        let filled = vec![1_u8; 32 << 20];
        let peak = growth.peak().unwrap();
        assert!(peak >= 24 << 20, "{peak} of {}", filled.len());
    }
}
