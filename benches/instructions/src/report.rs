//! What was counted beside what the baseline says, for people, and whether it is well.

use std::fmt::Write as _;

use crate::baseline::{Baseline, TOLERANCE, has_risen};
use crate::callgrind::Count;

/// Whether counts are as they should be.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// What fails.
    pub(crate) complaints: Vec<String>,
    /// What is worth saying.
    pub(crate) remarks: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(counts: &[Count], baseline: &Baseline) -> Self {
        let mut verdict = Self::default();
        for count in counts {
            let kind = &count.kind;
            if count.allocations > 0 {
                let complaint =
                    format!("{kind}: {} allocations; in the data path nothing allocates", count.allocations);
                verdict.complaints.push(complaint);
            }
            let Some(&before) = baseline.kinds.get(kind) else {
                verdict.complaints.push(format!("{kind}: not in the baseline; add it with --update"));
                continue;
            };
            if has_risen(before, count.instructions) {
                verdict.complaints.push(format!(
                    "{kind}: {:.0} instructions, {:+.1} %; if that must be: --update --note \"{kind}: WHY\"",
                    count.instructions,
                    change(before, count.instructions)
                ));
            } else if count.instructions < before as f64 * (1.0 - TOLERANCE) {
                verdict.remarks.push(format!(
                    "{kind}: {:+.1} %; --update keeps what was won",
                    change(before, count.instructions)
                ));
            }
        }
        let is_counted = |kind: &str| counts.iter().any(|count| count.kind == kind);
        for kind in baseline.kinds.keys().filter(|kind| !is_counted(kind)) {
            verdict.complaints.push(format!("{kind}: in the baseline, but not counted; --update removes it"));
        }
        verdict
    }
}

/// A line for each kind, in the order in which they were counted.
pub(crate) fn table(counts: &[Count], baseline: &Baseline) -> String {
    let width = counts.iter().map(|count| count.kind.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:width$}  {:>12}  {:>9}  {:>8}  {:>11}\n",
        "kind", "instructions", "baseline", "change", "allocations"
    );
    for count in counts {
        let (before, change) = match baseline.kinds.get(&count.kind) {
            Some(&before) => (before.to_string(), format!("{:+.1} %", change(before, count.instructions))),
            None => ("-".to_owned(), String::new()),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{:width$}  {:>12.1}  {before:>9}  {change:>8}  {:>11}",
            count.kind, count.instructions, count.allocations
        );
    }
    text
}

fn change(before: u64, after: f64) -> f64 {
    (after / before.max(1) as f64 - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_missing_kinds_fail_and_falls_are_told() {
        let baseline: Baseline =
            toml::from_str("compiler = \"\"\n[kinds]\na = 100\nb = 100\nc = 100\nd = 1\n").unwrap();
        let count = |kind: &str, instructions| Count { kind: kind.to_owned(), instructions, allocations: 0 };
        let mut counts = [count("a", 105.0), count("b", 105.1), count("c", 94.0), count("e", 1.0)];
        let verdict = Verdict::of(&counts, &baseline);
        let kinds: Vec<&str> = verdict.complaints.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(kinds, ["b", "e", "d"]);
        assert_eq!(verdict.remarks, ["c: -6.0 %; --update keeps what was won"]);
        counts[0].allocations = 2;
        assert!(Verdict::of(&counts, &baseline).complaints[0].starts_with("a: 2 allocations"));
        let table = table(&counts, &baseline);
        assert!(table.contains("105.1") && table.contains("+5.1 %") && table.lines().count() == 5, "{table}");
    }
}
