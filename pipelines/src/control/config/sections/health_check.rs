//! `health_check` in `[[service.ports]]`.

use crate::control::config::draft::{HealthCheck, ServicePort};
use crate::control::config::model::Protocol;
use crate::control::config::notes::At;
use crate::control::config::reader::Table;
use crate::control::config::values::{HttpPath, ProbeKind, StatusRange};

/// Default of `timeout_ms`, where the interval is not shorter.
const TIMEOUT_MS: u32 = 1_000;

pub(super) fn health_check(table: &Table<'_>) -> HealthCheck {
    let interval_ms = table.integer("interval_ms", 100..=3_600_000, 2_000);
    let shortest = interval_ms.map_or(TIMEOUT_MS, |interval| interval.value.min(TIMEOUT_MS));
    let check = HealthCheck {
        offset: table.offset(),
        kind: table.with_default("kind", ProbeKind::Tcp),
        path: table.with_default("path", HttpPath("/".to_owned())),
        status: table.with_default("status", StatusRange { first: 200, last: 200 }),
        port: table.optional_integer("port", 1..=65_535),
        has_port: table.has("port"),
        interval_ms,
        timeout_ms: table.integer("timeout_ms", 10..=60_000, shortest),
        rise: table.integer("rise", 1..=100, 2),
        fall: table.integer("fall", 1..=100, 3),
    };
    if let (Some(interval), Some(timeout)) = (check.interval_ms, check.timeout_ms)
        && timeout.value > interval.value
    {
        table.notes().error(
            timeout.offset,
            format!("`timeout_ms` {} is above `interval_ms` {}", timeout.value, interval.value),
            "shorten it: a probe ends before the next begins",
        );
    }
    check_kind(table, &check);
    check
}

/// What belongs to HTTP alone.
fn check_kind(table: &Table<'_>, check: &HealthCheck) {
    if check.kind.is_none_or(|kind| kind.value == ProbeKind::Http) {
        return;
    }
    let path = check.path.as_ref().map(|path| ("path", path.offset));
    let status = check.status.map(|status| ("status", status.offset));
    for (key, offset) in [path, status].into_iter().flatten().filter(|(key, _)| table.has(key)) {
        table.notes().error(
            offset,
            format!("a health check of kind \"tcp\" has a `{key}`"),
            "it connects, and asks for nothing: remove it, or write `kind = \"http\"`",
        );
    }
}

/// Probes are TCP, whatever the service is.
pub(super) fn check_protocol(table: &Table<'_>, port: &ServicePort) {
    let Some(check) = port.health_check.as_ref().filter(|check| !check.has_port) else { return };
    if let Some(At { value: Protocol::Udp | Protocol::Sctp, .. }) = port.protocol {
        table.notes().warning(
            check.offset,
            "backends are probed by TCP, on a port that the service does not use TCP on",
            "say where they answer TCP, as in `port = 8080`",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::model::{HealthCheck, Probe};
    use crate::control::config::testing::{changed, expect, parsed};

    /// The reference's first service with a health check, `text` in its braces.
    fn with(text: &str) -> String {
        changed(&[("port = 80\n", &format!("port = 80\nhealth_check = {{ {text} }}\n"))])
    }

    fn read(text: &str) -> HealthCheck {
        parsed(&with(text)).services[0].ports[0].health_check.clone().unwrap()
    }

    #[track_caller]
    fn one(text: &str, severity: &str, at: &str, key: &str, said: &str) {
        let path = format!("service[0].ports[0].health_check{key}");
        expect(&with(text), &[(severity, at, &path, said)]);
    }

    #[test]
    fn every_key_has_its_default() {
        let expected = HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval_ms: 2_000,
            timeout_ms: 1_000,
            rise: 2,
            fall: 3,
        };
        assert_eq!(read(""), expected);
        let http = Probe::Http { path: "/".to_owned(), status: (200, 200) };
        assert_eq!(read("kind = \"http\""), HealthCheck { probe: http, ..expected.clone() });
        assert_eq!(read("interval_ms = 300"), HealthCheck { interval_ms: 300, timeout_ms: 300, ..expected });
        assert_eq!(parsed(&changed(&[])).services[0].ports[0].health_check, None);
    }

    #[test]
    fn what_is_written_is_read() {
        let check = read(
            "kind = \"http\", path = \"/healthz?full=1\", status = \"200-399\", port = 8081, interval_ms = 5000, \
             timeout_ms = 5000, rise = 1, fall = 7",
        );
        let probe = Probe::Http { path: "/healthz?full=1".to_owned(), status: (200, 399) };
        let expected =
            HealthCheck { probe, port: Some(8081), interval_ms: 5_000, timeout_ms: 5_000, rise: 1, fall: 7 };
        assert_eq!(check, expected);
        let backend = "172.30.76.7:8080".parse().unwrap();
        assert_eq!(check.target(backend).to_string(), "172.30.76.7:8081");
        assert_eq!(read("").target(backend), backend);
        let Probe::Http { status, .. } = read("kind = \"http\", status = 204").probe else { panic!() };
        assert_eq!(status, (204, 204));
    }

    #[test]
    fn each_value_is_of_use() {
        one("kind = \"icmp\"", "error", "\"icmp\"", ".kind", "not one of \"tcp\", \"http\"");
        one("kind = \"htp\"", "error", "\"htp\"", ".kind", "did you mean \"http\"?");
        one("rise = 0", "error", "0", ".rise", "give an integer from 1 to 100");
        one("fall = 101", "error", "101", ".fall", "out of range");
        one("interval_ms = 99", "error", "99", ".interval_ms", "an integer from 100 to 3600000");
        one("timeout_ms = 9", "error", "9", ".timeout_ms", "an integer from 10 to 60000");
        one("port = 0", "error", "0", ".port", "an integer from 1 to 65535");
        one(
            "intervall_ms = 1",
            "error",
            "intervall_ms",
            ".intervall_ms",
            "unknown key `intervall_ms` in `[service.ports.health_check]`; did you mean `interval_ms`?",
        );
    }

    #[test]
    fn a_probe_ends_before_the_next() {
        let said = "`timeout_ms` 3000 is above `interval_ms` 2000; shorten it";
        one("timeout_ms = 3000", "error", "3000", ".timeout_ms", said);
        one(
            "timeout_ms = 600, interval_ms = 500",
            "error",
            "600",
            ".timeout_ms",
            "is above `interval_ms` 500",
        );
    }

    #[test]
    fn paths_and_statuses_are_those_of_http() {
        let path = |value: &str, said| {
            one(&format!("kind = \"http\", path = {value}"), "error", value, ".path", said);
        };
        path("\"healthz\"", "which is no path; begin it with a slash, as in \"/healthz\"");
        path("\"\"", "which is no path");
        path("\"/a b\"", "which holds what cannot stand in a request");
        path("\"/a\\r\\nX: y\"", "which holds what cannot stand in a request");
        path("\"/\u{e9}\"", "write it with percent signs");
        path("\"/a#b\"", "which holds what cannot stand in a request");
        path(&format!("\"/{}\"", "a".repeat(1024)), "which is longer than 1024 bytes");
        let status = |value: &str, said| {
            one(&format!("kind = \"http\", status = {value}"), "error", value, ".status", said);
        };
        status("199", "which is no status of an answer; write one from 200 to 599");
        status("600", "which is no status of an answer");
        status("\"200\"", "which is no range of statuses");
        status("\"399-200\"", "write the smaller one first: \"200-399\"");
        status("\"200-700\"", "which is no range of statuses");
        status("[200, 204]", "write an integer, or the first and the last in a string");
    }

    #[test]
    fn a_connection_alone_has_neither_path_nor_status() {
        one("path = \"/\"", "error", "\"/\"", ".path", "of kind \"tcp\" has a `path`");
        one("kind = \"tcp\", status = 200", "error", "200", ".status", "or write `kind = \"http\"`");
    }

    #[test]
    fn services_without_tcp_say_where_tcp_is_answered() {
        let dns = |text: &str| changed(&[("protocol = \"udp\"\n", &format!("protocol = \"udp\"\n{text}\n"))]);
        expect(&dns("health_check = { port = 53 }"), &[]);
        expect(
            &dns("health_check = {}"),
            &[("warning", "{}", "service[3].ports[0].health_check", "say where they answer TCP")],
        );
    }

    #[test]
    fn health_checks_are_tables() {
        let text = changed(&[("port = 80\n", "port = 80\nhealth_check = true\n")]);
        let said = "`health_check` is a boolean; write a table, `[service.ports.health_check]`";
        expect(&text, &[("error", "true", "service[0].ports[0].health_check", said)]);
    }
}
