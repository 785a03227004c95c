//! What is printed: minimum, median, maximum; the machine; memory of the process.

use engine::clock::MonotonicClock;

/// Minimum, median and maximum of several rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    pub(crate) fn minimum(&self) -> f64 {
        self.sorted()[0]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// `minimum / median / maximum`.
    pub(crate) fn text(&self, digits: usize) -> String {
        let (values, middle) = (self.sorted(), self.median());
        format!("{:.digits$} / {middle:.digits$} / {:.digits$}", values[0], values[values.len() - 1])
    }
}

/// Ratio of two figures that were taken in the same round, round by round.
pub(crate) fn ratios(of: &Rounds, to: &Rounds) -> Rounds {
    Rounds(of.0.iter().zip(&to.0).map(|(of, to)| of / to).collect())
}

/// Says at which clock cycles are counted.
pub(crate) fn print_clock() -> f64 {
    let rate = MonotonicClock::new().cycles_per_second().unwrap_or(0) as f64 / 1e9;
    println!("TSC {rate:.3} GHz; three figures are minimum / median / maximum of the rounds");
    rate
}

/// A line of /proc files, in KiB.
fn kib(file: &str, name: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Memory of this process that is in use, in bytes.
pub(crate) fn resident_bytes() -> usize {
    kib("/proc/self/status", "VmRSS:").expect("Linux says so") << 10
}

/// Whether there is memory for this much; says so if there is not.
pub(crate) fn has_memory(what: &str, bytes: usize) -> bool {
    let Some(available) = kib("/proc/meminfo", "MemAvailable:").map(|kib| kib << 10) else { return true };
    // Some is for everybody else.
    let is_enough = bytes + (512 << 20) <= available;
    if !is_enough {
        println!(
            "{what}: left out, needs {} MiB of memory and {} MiB are available",
            bytes >> 20,
            available >> 20
        );
    }
    is_enough
}

/// Bytes that a flow table for this many flows takes, and as much as a benchmark needs beside it.
pub(crate) fn flow_memory(capacity: usize) -> usize {
    capacity * 160 + (64 << 20)
}
