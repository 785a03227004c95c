//! Metric families about what the tables are made from: objects, health, and what waits for workers.

use super::families::{Family, counter, gauge};

/// All of them, in the order of the answer.
pub(super) const FAMILIES: &[Family] = &[
    gauge("pollgate_objects", "Kubernetes objects in force, by kind.", |snapshot, samples| {
        let counts = snapshot.view.objects();
        counts
            .objects
            .iter()
            .try_for_each(|(kind, count)| samples.add(&[("kind", kind.name())], *count as u64))
    }),
    gauge("pollgate_objects_rejected", "Kubernetes objects that are refused now.", |snapshot, samples| {
        samples.add(&[], snapshot.view.objects().rejected as u64)
    }),
    counter("pollgate_object_rejections", "Times that an object was refused.", |snapshot, samples| {
        samples.add(&[], snapshot.view.objects().rejected_total)
    }),
    gauge("pollgate_objects_skipped", "Objects of kinds that are not read.", |snapshot, samples| {
        samples.add(&[], snapshot.view.objects().skipped as u64)
    }),
    gauge("pollgate_object_findings", "What is wrong with objects now.", |snapshot, samples| {
        samples.add(&[], snapshot.view.objects().findings as u64)
    }),
    gauge(
        "pollgate_objects_not_programmed",
        "What objects say that is not programmed, by why.",
        |snapshot, samples| {
            let counts = snapshot.view.objects();
            for (why, count) in [
                ("service_not_proxied", counts.services_not_proxied),
                ("service_ipv6", counts.services_ipv6),
                ("endpoint_ipv6", counts.endpoints_ipv6),
            ] {
                samples.add(&[("reason", why)], count as u64)?;
            }
            Ok(())
        },
    ),
    gauge(
        "pollgate_affinity_capacity",
        "Clients whose session affinity is remembered at the most.",
        |snapshot, samples| samples.add(&[], snapshot.view.affinity.capacity() as u64),
    ),
    counter(
        "pollgate_affinity_replaced",
        "Clients whose session affinity made place for another's.",
        |snapshot, samples| samples.add(&[], snapshot.view.affinity.replaced()),
    ),
    counter("pollgate_health_probes", "Probes of backends, by how they ended.", |snapshot, samples| {
        let checks = snapshot.view.health().checks;
        for (result, count) in
            [("passed", checks.passed), ("failed", checks.failed), ("not_made", checks.not_made)]
        {
            samples.add(&[("result", result)], count)?;
        }
        Ok(())
    }),
    gauge("pollgate_health_backends", "Backends that are probed, by what they are.", |snapshot, samples| {
        let checks = snapshot.view.health().checks;
        let healthy = checks.targets.saturating_sub(checks.unhealthy);
        samples.add(&[("state", "healthy")], healthy as u64)?;
        samples.add(&[("state", "unhealthy")], checks.unhealthy as u64)
    }),
    counter(
        "pollgate_health_changes",
        "Times that a probed backend became something else.",
        |snapshot, samples| {
            let checks = snapshot.view.health().checks;
            samples.add(&[("state", "healthy")], checks.became_healthy)?;
            samples.add(&[("state", "unhealthy")], checks.became_unhealthy)
        },
    ),
    gauge("pollgate_health_node_ports", "Health check node ports that are open.", |snapshot, samples| {
        samples.add(&[], snapshot.view.health().open_node_ports as u64)
    }),
    counter(
        "pollgate_health_node_port_clients",
        "Clients of health check node ports, by what became of them.",
        |snapshot, samples| {
            let ports = snapshot.view.health().node_ports;
            for (result, count) in [
                ("answered_ok", ports.answered_ok),
                ("answered_unavailable", ports.answered_unavailable),
                ("refused_request", ports.refused_requests),
                ("timed_out", ports.timed_out),
                ("evicted", ports.evicted),
                ("accept_error", ports.accept_errors),
            ] {
                samples.add(&[("result", result)], count)?;
            }
            Ok(())
        },
    ),
    counter(
        "pollgate_health_node_port_errors",
        "Times that a health check node port could not be opened.",
        |snapshot, samples| samples.add(&[], snapshot.view.health().node_ports.apply_errors),
    ),
];
