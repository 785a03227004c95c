//! What is wrong, and how many objects there are.

use super::{ObjectStore, Source};
use crate::control::config::Severity;
use crate::control::kubernetes::changes::Counts;
use crate::control::kubernetes::finding::Finding;
use crate::control::kubernetes::meaning::notes::Note;
use crate::control::kubernetes::object::{Kind, ObjectId};

impl ObjectStore {
    /// Everything that is wrong now, in order of place; what has none comes last.
    pub(super) fn report(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.files.values().flat_map(|file| &file.findings).cloned().collect();
        findings.extend(self.contested.iter().flat_map(|id| self.contest(id)));
        findings.extend(self.ipv6_finding());
        findings.extend(self.put_findings.values().flatten().cloned());
        findings.sort_by(|one, other| {
            (one.place.is_none(), &one.place).cmp(&(other.place.is_none(), &other.place))
        });
        findings
    }

    /// The versions of an object that do not count, since another one comes first.
    fn contest(&self, id: &ObjectId) -> Vec<Finding> {
        let Some((first, others)) = self.claims.get(id).and_then(|claims| claims.split_first()) else {
            return Vec::new();
        };
        let winner = first.standing.written.origin(id);
        let told = others.iter().map(|claim| {
            let wrong = format!("it is written in {} already, and that counts", winner.source);
            let right = "leave one of them out".to_owned();
            let note = Note { severity: Severity::Error, path: String::new(), wrong, right };
            match (&claim.source, claim.standing.written.spot) {
                (Source::File(file), Some(spot)) => Finding::of_file(file, spot, Some(id), note),
                _ => Finding::of_put(id, &claim.standing.written.source, note),
            }
        });
        told.collect()
    }

    /// Services with addresses of IPv6, told once: in a dual-stack cluster it is most of them.
    fn ipv6_finding(&self) -> Option<Finding> {
        let key = self.in_force.ipv6_services.first()?;
        let written = &self.in_force.services.get(key)?.written;
        let count = self.in_force.ipv6_services.len();
        let wrong = match count {
            1 => "its addresses of IPv6 are not programmed".to_owned(),
            _ => format!(
                "its addresses of IPv6 are not programmed, nor are those of {} more services",
                count - 1
            ),
        };
        let right = "use IPv4 for what has to pass this gateway".to_owned();
        let note = Note { severity: Severity::Warning, path: "spec.clusterIPs".to_owned(), wrong, right };
        let id = ObjectId::new(Kind::Service, &key.namespace, &key.name);
        Some(match written.spot {
            Some(spot) => Finding::of_file(&written.source, spot, Some(&id), note),
            None => Finding::of_put(&id, &written.source, note),
        })
    }

    /// How many objects there are.
    pub(super) fn count(&self) -> Counts {
        let contested =
            self.contested.iter().filter_map(|id| self.claims.get(id)).map(|claims| claims.len() - 1);
        let in_files: usize = self.files.values().map(|file| file.rejected).sum();
        Counts {
            objects: Kind::ALL
                .map(|kind| (kind, self.in_force.counts.get(&kind).copied().unwrap_or_default())),
            rejected: in_files + self.put_rejected.len() + contested.sum::<usize>(),
            rejected_total: self.rejected_total,
            skipped: self.files.values().map(|file| file.skipped).sum(),
            services_not_proxied: self.in_force.not_proxied,
            services_ipv6: self.in_force.ipv6_services.len(),
            endpoints_ipv6: self.in_force.ipv6_endpoints,
            findings: self.report().len(),
        }
    }
}
