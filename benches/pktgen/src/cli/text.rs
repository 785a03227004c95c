//! Results for people.

use core::fmt::Write as _;

use crate::nat::{Capacity, CommandTearDown};
use crate::search::SearchResult;
use crate::trial::Trial;

/// A number with a thousandth or a millionth of it written as M or k.
fn rate(per_s: f64) -> String {
    if per_s >= 1e6 {
        format!("{:.3} M/s", per_s / 1e6)
    } else if per_s >= 1e3 {
        format!("{:.3} k/s", per_s / 1e3)
    } else {
        format!("{per_s:.0} /s")
    }
}

// Writing to a string cannot fail, so what `write!` gives is not looked at.
pub(super) fn trial(trial: &Trial) -> String {
    let mut text = String::new();
    let asked = trial.rate_asked.map_or("as fast as can be".to_owned(), |asked| rate(asked as f64));
    let limited = if trial.generator_limited { ", which the generator could not keep" } else { "" };
    let _ = writeln!(
        text,
        "asked     {asked}{limited}, offered {}, {:.3} s",
        rate(trial.rate_offered),
        trial.seconds
    );
    let _ = writeln!(text, "sent      {} packets, {}", trial.sent, rate(trial.sent_pps));
    let _ = writeln!(
        text,
        "received  {} packets, {}, {:.3} Gbit/s on the wire",
        trial.received,
        rate(trial.received_pps),
        trial.received_wire_bps / 1e9
    );
    let _ = writeln!(text, "lost      {} packets, {:.3e}", trial.lost, trial.loss_ratio);
    for (name, way) in [("requests", trial.requests), ("replies", trial.replies)] {
        if way.sent > 0 {
            let _ =
                writeln!(text, "  {name:8} {} sent, {} received, {} lost", way.sent, way.received, way.lost);
        }
    }
    if let Some(connections) = &trial.connections {
        let _ = writeln!(
            text,
            "tcp       {} opened, {} established, {} completed ({}), {} failed",
            connections.opened,
            connections.established,
            connections.completed,
            rate(connections.completed_per_s),
            connections.failed
        );
    }
    let latency = &trial.latency;
    let _ = writeln!(
        text,
        "latency   µs: min {:.1}, mean {:.1}, p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, p99.99 {:.1}, max {:.1}",
        latency.min_us,
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p99_9_us,
        latency.p99_99_us,
        latency.max_us
    );
    add_remarks(&mut text, trial);
    text
}

fn add_remarks(text: &mut String, trial: &Trial) {
    for (name, count) in &trial.faults {
        let _ = writeln!(text, "fault     {name}: {count}");
    }
    for example in &trial.examples {
        let _ = writeln!(
            text,
            "  e.g.    {:?} by port {}, {} bytes: {}",
            example.fault, example.port, example.length, example.bytes
        );
    }
    let seen =
        [("resets", trial.resets), ("ICMP", trial.icmp), ("ARP answered", trial.arp), ("other", trial.other)];
    for (name, count) in seen.into_iter().filter(|seen| seen.1 > 0) {
        let _ = writeln!(text, "seen      {name}: {count}");
    }
    if trial.warm_up_lost > 0 {
        let _ = writeln!(text, "warm-up   {} were lost before the trial", trial.warm_up_lost);
    }
    if trial.flows_repeat {
        let _ = writeln!(text, "plan      its client endpoints were used up: some new flows were old ones");
    }
    let _ = writeln!(text, "verdict   {}", if trial.clean { "clean" } else { "NOT clean" });
}

pub(super) fn search(test: &str, result: &SearchResult) -> String {
    let mut text = String::new();
    for step in &result.steps {
        let verdict = if step.good { "good" } else { "not good" };
        let limited = if step.generator_limited {
            format!(", only {} offered", rate(step.offered as f64))
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "{:>14}  {:8.3} s  loss {:.3e}  faults {}  {verdict}{limited}",
            rate(step.rate as f64),
            step.seconds,
            step.loss_ratio,
            step.faults
        );
    }
    if let Some(confirmation) = &result.confirmation {
        text += &trial(confirmation);
    }
    let verdict = match (result.rate, result.upper) {
        (None, _) => "no rate was good".to_owned(),
        (Some(found), _) if result.generator_limited => {
            format!("at least {}: the generator was the limit", rate(found as f64))
        }
        (Some(found), Some(upper)) => format!("{}, not {}", rate(found as f64), rate(upper as f64)),
        (Some(found), None) => format!("{}, the end of the search", rate(found as f64)),
    };
    let _ = writeln!(text, "{test:<9} {verdict}");
    text
}

pub(super) fn tear_down(result: &CommandTearDown) -> String {
    format!(
        "tear-down {} connections in {:.6} s: {}; {} remained\n",
        result.connections,
        result.seconds,
        rate(result.rate),
        result.remaining
    )
}

pub(super) fn capacity(result: &Capacity) -> String {
    let mut text = String::new();
    for step in &result.steps {
        let fits = if step.fits { "fits" } else { "does not fit" };
        let _ =
            writeln!(text, "{:>10} connections  {:>14}  {fits}", step.connections, rate(step.rate as f64));
    }
    let verdict = match (result.connections, result.upper) {
        (None, _) => "not even the first number fits".to_owned(),
        (Some(fits), Some(upper)) => format!("{fits} connections, not {upper}"),
        (Some(fits), None) => format!("{fits} connections, the end of the search"),
    };
    let _ = writeln!(text, "capacity  {verdict}");
    text
}
