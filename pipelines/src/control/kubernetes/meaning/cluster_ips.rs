//! The cluster IPs of a Service, by family.
//!
//! Source: `GetClusterIPByFamily` of pkg/proxy/util/utils.go, and `ValidateServiceClusterIPsRelatedFields` of
//! pkg/apis/core/validation/validation.go. `clusterIPs` may be left out where `clusterIP` says it all, as in any manifest:
//! the API server fills it in.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::check;
use super::notes::{Notes, shown};
use super::path::Path;

/// `None`, as headless services write it.
const NONE: &str = "None";

/// What a Service says of its cluster IPs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterIps {
    /// The one of IPv4.
    pub(super) v4: Option<Ipv4Addr>,
    /// The one of IPv6.
    pub(super) v6: Option<Ipv6Addr>,
    /// It is headless.
    pub(super) is_headless: bool,
}

impl ClusterIps {
    /// Reads them.
    pub(super) fn read(spec: &ServiceSpec, notes: &mut Notes) -> Self {
        let first = spec.cluster_ip.as_deref().unwrap_or_default();
        let listed: Vec<&str> = spec.cluster_ips.iter().flatten().map(String::as_str).collect();
        let mut read = Self::default();
        if let Some(listed_first) = listed.first()
            && *listed_first != first
        {
            let wrong =
                format!("it begins with {}, and `clusterIP` is {}", shown(listed_first), shown(first));
            notes.error("spec.clusterIPs", wrong, "let `clusterIP` be the first of `clusterIPs`");
            return read;
        }
        let (field, texts) =
            if listed.is_empty() { ("clusterIP", vec![first]) } else { ("clusterIPs", listed) };
        if texts.contains(&NONE) {
            read.is_headless = true;
            if texts.len() > 1 {
                notes.error(
                    "spec.clusterIPs",
                    "`None` stands beside others",
                    "give addresses, or `None` alone",
                );
            }
            return read;
        }
        for (place, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            let found = match field {
                "clusterIP" => check::address(text, Path::of("spec.clusterIP"), notes),
                _ => check::address(text, Path::of("spec.clusterIPs").item(place), notes),
            };
            let is_second = match found {
                Some(IpAddr::V4(address)) => read.v4.replace(address).is_some(),
                Some(IpAddr::V6(address)) => read.v6.replace(address).is_some(),
                None => false,
            };
            if is_second {
                let wrong = format!("{} is the second address of its family", shown(text));
                notes.error(
                    Path::of("spec.clusterIPs").item(place),
                    wrong,
                    "give one of IPv4 and one of IPv6 at the most",
                );
            }
            read.check_family(spec, place, found, notes);
        }
        read
    }

    /// `ipFamilies` names the families of `clusterIPs`, in their order.
    fn check_family(&self, spec: &ServiceSpec, place: usize, address: Option<IpAddr>, notes: &mut Notes) {
        let family = spec.ip_families.as_ref().and_then(|families| families.get(place)).map(String::as_str);
        let path = Path::of("spec.ipFamilies").item(place);
        match (family, address) {
            (None, _)
            | (Some("IPv4"), Some(IpAddr::V4(_)) | None)
            | (Some("IPv6"), Some(IpAddr::V6(_)) | None) => {}
            (Some(family @ ("IPv4" | "IPv6")), Some(address)) => {
                let wrong = format!("it is {family}, and the cluster IP is {address}");
                notes.error(path, wrong, "give the families of `clusterIPs` in their order");
            }
            (Some(family), _) => {
                notes.error(path, format!("{} is no family", shown(family)), "give IPv4 or IPv6");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cluster_ip: &str, cluster_ips: &[&str], families: &[&str]) -> (ClusterIps, Vec<String>) {
        let owned = |texts: &[&str]| {
            Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
                .filter(|texts| !texts.is_empty())
        };
        let spec = ServiceSpec {
            cluster_ip: Some(cluster_ip.to_owned()).filter(|text| !text.is_empty()),
            cluster_ips: owned(cluster_ips),
            ip_families: owned(families),
            ..ServiceSpec::default()
        };
        let mut notes = Notes::default();
        let read = ClusterIps::read(&spec, &mut notes);
        (read, notes.into_vec().into_iter().map(|note| format!("{}: {}", note.path, note.wrong)).collect())
    }

    #[test]
    fn families_are_kept_apart() {
        let v4 = Some("10.254.0.1".parse().unwrap());
        let v6 = Some("fd00::1".parse().unwrap());
        for (cluster_ip, cluster_ips, families, expected) in [
            ("10.254.0.1", vec![], vec![], (v4, None)),
            ("10.254.0.1", vec!["10.254.0.1"], vec!["IPv4"], (v4, None)),
            ("10.254.0.1", vec!["10.254.0.1", "fd00::1"], vec!["IPv4", "IPv6"], (v4, v6)),
            ("fd00::1", vec!["fd00::1", "10.254.0.1"], vec!["IPv6", "IPv4"], (v4, v6)),
            ("fd00::1", vec![], vec![], (None, v6)),
            ("10.254.0.1", vec![], vec!["IPv4", "IPv6"], (v4, None)),
            ("", vec![], vec!["IPv4"], (None, None)),
        ] {
            let (read, wrong) = read(cluster_ip, &cluster_ips, &families);
            assert_eq!((read.v4, read.v6, read.is_headless), (expected.0, expected.1, false), "{cluster_ip}");
            assert_eq!(wrong, Vec::<String>::new());
        }
        assert!(read("None", &[], &[]).0.is_headless && read("None", &["None"], &["IPv4"]).0.is_headless);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (cluster_ip, cluster_ips, families, expected) in [
            (
                "",
                vec!["10.254.0.1"],
                vec![],
                "spec.clusterIPs: it begins with `10.254.0.1`, and `clusterIP` is ``",
            ),
            (
                "10.254.0.1",
                vec!["10.254.0.2"],
                vec![],
                "spec.clusterIPs: it begins with `10.254.0.2`, and `clusterIP` is `10.254.0.1`",
            ),
            ("None", vec!["None", "10.254.0.1"], vec![], "spec.clusterIPs: `None` stands beside others"),
            (
                "10.254.0.1",
                vec!["10.254.0.1", "10.254.0.2"],
                vec![],
                "spec.clusterIPs[1]: `10.254.0.2` is the second address of its family",
            ),
            (
                "10.254.0.1",
                vec![],
                vec!["IPv6"],
                "spec.ipFamilies[0]: it is IPv6, and the cluster IP is 10.254.0.1",
            ),
            ("10.254.0.1", vec![], vec!["IPv5"], "spec.ipFamilies[0]: `IPv5` is no family"),
            ("10.254.0.300", vec![], vec![], "spec.clusterIP: `10.254.0.300` is no IP address"),
            ("127.0.0.1", vec![], vec![], "spec.clusterIP: `127.0.0.1` is a loopback address"),
        ] {
            assert_eq!(read(cluster_ip, &cluster_ips, &families).1, [expected]);
        }
    }
}
