//! A trace for people: one line a stage, the candidates, what leaves where.

use core::fmt::{self, Write};
use core::net::IpAddr;

use super::json::{Candidate, Egress, Step, Trace};

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "packet", &self.packet.text)?;
        for step in &self.steps {
            self.step(formatter, step)?;
        }
        line(formatter, "verdict", &format!("{}: {}", self.verdict.name(), self.reason))?;
        if let Some(error) = self.reject_with {
            line(formatter, "answer", error)?;
        }
        match &self.egress {
            Some(egress) => line(formatter, "leaves", &self.leaving(egress)),
            None => Ok(()),
        }
    }
}

fn line(formatter: &mut fmt::Formatter<'_>, head: &str, text: &str) -> fmt::Result {
    writeln!(formatter, "{head:<13}{text}")
}

impl Trace {
    fn step(&self, formatter: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
        let mut text = String::new();
        if let Some(entry) = &step.entry {
            write!(text, "{entry}: ")?;
        }
        text += &step.result;
        if let Some(object) = &step.object {
            write!(text, " [{} {}/{}, {}]", object.kind, object.namespace, object.name, object.source)?;
        }
        line(formatter, step.stage, &text)?;
        // Behind the service's own step, before that of the backend drawn.
        if step.stage == "dnat" && step.object.as_ref().is_some_and(|object| object.kind == "Service") {
            for candidate in &self.candidates {
                line(formatter, "", &self.candidate(candidate))?;
            }
        }
        Ok(())
    }

    fn candidate(&self, candidate: &Candidate) -> String {
        let mark = if self.chosen.as_ref() == Some(candidate) { '*' } else { ' ' };
        let endpoint = format!("{}:{}", candidate.address, candidate.port);
        let mut text = format!("{mark} {:>5.1} %  {endpoint:<21}", candidate.probability * 100.0);
        text += &format!("  weight {}", candidate.weight);
        text += if candidate.local { ", local" } else { "" };
        text += if candidate.masquerade { ", masqueraded" } else { "" };
        if IpAddr::from(candidate.address) == self.packet.source {
            text += " (hairpin)";
        }
        text
    }

    fn leaving(&self, egress: &Egress) -> String {
        let mut text = format!("by {} to {}", egress.port, egress.next_hop);
        if let Some(vxlan) = &egress.vxlan {
            text += &format!(
                ", in VXLAN {} from {} to {}:{}",
                vxlan.vni, vxlan.local, vxlan.remote, vxlan.udp_port
            );
        }
        if let Some(translated) = &self.translated {
            let port = |port: Option<u16>| port.map_or_else(String::new, |port| format!(":{port}"));
            let source = translated.source.map_or_else(|| "the way out's address".into(), |a| a.to_string());
            text += &format!(
                ", as {source}{} > {}{}",
                port(translated.source_port),
                translated.destination,
                port(translated.destination_port)
            );
        }
        text
    }
}
