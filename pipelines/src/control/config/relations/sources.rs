//! Which pods' answers pass this gateway. A connection from one of `pod_cidrs` to a service keeps its source; if its
//! pod lies behind another VTEP, the backend's answer goes straight home, untranslated, and the client never knows it.

use crate::control::config::draft::Draft;
use crate::control::config::model::InterfaceName;
use crate::control::config::notes::Notes;

use super::forwarding::Forwarding;

pub(super) fn check(draft: &Draft, forwarding: &Forwarding, notes: &Notes) {
    let overlay = Some(InterfaceName::Overlay);
    // A network that could not be read may be where the pods are.
    let networks_read = notes.all_read(&["ports", "bridge", "routes"]);
    for cidr in &draft.settings.pod_cidrs {
        let routed = draft.routes.iter().filter(|route| route.on.interface == overlay);
        let covered = routed.filter_map(|route| route.destination).filter(|destination| {
            cidr.value.length() <= destination.value.length() && cidr.value.contains(destination.value.base())
        });
        let covered: Vec<String> = covered.map(|destination| destination.value.to_string()).collect();
        let what = match covered.as_slice() {
            [] if networks_read && forwarding.interface(cidr.value) == overlay => {
                "is routed to other VTEPs".to_owned()
            }
            [] => continue,
            few if few.len() <= 4 => format!("covers {}, routed to other VTEPs", few.join(", ")),
            [first, rest @ ..] => {
                format!("covers {first} and {} more prefixes, routed to other VTEPs", rest.len())
            }
        };
        let own = draft.bridge.as_ref().and_then(|bridge| bridge.address);
        let right = own.map_or_else(String::new, |own| format!(" ({} here)", own.value.prefix));
        notes.warning(
            cidr.offset,
            format!("pod CIDR {} {what}", cidr.value),
            format!(
                "name this node's own pods alone{right}: answers to other nodes' pods go home past this gateway, untranslated"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    fn one(cidr: &str, said: &str) {
        let at = format!("\"{cidr}\"");
        let to = format!("pod_cidrs = [{at}]");
        expect_one("pod_cidrs = [\"172.30.76.0/24\"]", &to, ("warning", &at, "services.pod_cidrs[0]", said));
    }

    #[test]
    fn pods_of_other_nodes_are_masqueraded() {
        one("172.30.0.0/16", "covers 172.30.0.0/16, 172.30.9.0/24, routed to other VTEPs");
        one(
            "172.30.9.0/24",
            "covers 172.30.9.0/24, routed to other VTEPs; name this node's own pods alone (172.30.76.0/24 here)",
        );
        one("172.30.9.128/25", "is routed to other VTEPs");
        one("172.30.77.0/24", "is routed to other VTEPs");
        // Half of this node's own pods are its own.
        expect(&changed(&[("pod_cidrs = [\"172.30.76.0/24\"]", "pod_cidrs = [\"172.30.76.0/25\"]")]), &[]);
    }
}
