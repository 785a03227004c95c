//! What a health check node port answers to which bytes, after kube-proxy's pkg/proxy/healthcheck/service_health.go
//! (`hcHandler.ServeHTTP`) and what Go's net/http makes of that.
//!
//! Every path and method is answered alike, as there. Only what cannot be a request is refused.

use std::time::SystemTime;

use super::node_port_server::HealthNodePort;

/// What an answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// HEAD: the answer has no body.
    pub(super) is_head: bool,
    /// HTTP/1.1, or else HTTP/1.0.
    pub(super) is_http_1_1: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is none.
    Malformed,
    /// Its head is too long.
    TooLong,
}

/// Reads a head that is there to its end.
pub(super) fn read_head(bytes: &[u8]) -> Result<Request, Refusal> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request = read_request_line(lines.next().unwrap_or_default()).ok_or(Refusal::Malformed)?;
    let mut has_host = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal::Malformed)?;
        let (name, _) = line.split_at(colon);
        // Also refuses folded lines and spaces before the colon (RFC 9112 sections 5.1 and 5.2).
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Refusal::Malformed);
        }
        has_host |= name.eq_ignore_ascii_case(b"host");
    }
    // RFC 9112 section 3.2.
    if request.is_http_1_1 && !has_host {
        return Err(Refusal::Malformed);
    }
    Ok(request)
}

/// Method, target and version (RFC 9112 section 3).
fn read_request_line(line: &[u8]) -> Option<Request> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    let is_target = !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic());
    if !is_method || !is_target || words.next().is_some() {
        return None;
    }
    let is_http_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    Some(Request { is_head: method == b"HEAD", is_http_1_1 })
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the load balancer may send here.
pub(super) fn is_available(port: &HealthNodePort, is_proxy_healthy: bool) -> bool {
    port.local_endpoints != 0 && is_proxy_healthy
}

/// The whole answer. Header fields stand in the order in which Go writes them; unlike Go's server this one closes the
/// connection after each answer.
pub(super) fn answer(
    port: &HealthNodePort,
    is_proxy_healthy: bool,
    request: Request,
    now: SystemTime,
) -> Vec<u8> {
    // kube-proxy quotes as Go does (%q). Names are DNS labels, which look alike in both, and JSON is right in any case.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {},\n\t\t\"name\": {}\n\t}},\n\
         \t\"localEndpoints\": {},\n\t\"serviceProxyHealthy\": {is_proxy_healthy}\n}}",
        quoted(&port.namespace),
        quoted(&port.name),
        port.local_endpoints,
    );
    let status = if is_available(port, is_proxy_healthy) { "200 OK" } else { "503 Service Unavailable" };
    let head = format!(
        "HTTP/1.{} {status}\r\n\
         Content-Type: application/json\r\n\
         X-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {}\r\n\
         Date: {}\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\r\n",
        u8::from(request.is_http_1_1),
        port.local_endpoints,
        httpdate::fmt_http_date(now),
        body.len(),
    );
    let body = if request.is_head { String::new() } else { body };
    (head + &body).into_bytes()
}

/// What is said to what cannot be a request: as Go's server has it (net/http/server.go, `conn.serve`).
pub(super) fn refusal(refusal: Refusal) -> Vec<u8> {
    let status = match refusal {
        Refusal::Malformed => "400 Bad Request",
        Refusal::TooLong => "431 Request Header Fields Too Large",
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{status}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: Request = Request { is_head: false, is_http_1_1: true };

    fn port(local_endpoints: usize) -> HealthNodePort {
        let (namespace, name) = ("ingress-nginx".to_owned(), "controller".to_owned());
        HealthNodePort { port: 30_100, namespace, name, local_endpoints }
    }

    fn text(local_endpoints: usize, is_proxy_healthy: bool, request: Request) -> String {
        let bytes = answer(&port(local_endpoints), is_proxy_healthy, request, SystemTime::UNIX_EPOCH);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn answers_are_kube_proxys_to_the_byte() {
        let fields = "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n";
        let date = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"ingress-nginx\",\n\t\t\"name\": \"controller\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        let end = format!("{date}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let weight = "X-Load-Balancing-Endpoint-Weight: 2\r\n";
        assert_eq!(text(2, true, GET), format!("HTTP/1.1 200 OK\r\n{fields}{weight}{end}{body}"));

        let head = Request { is_head: true, is_http_1_1: false };
        assert_eq!(text(2, true, head), format!("HTTP/1.0 200 OK\r\n{fields}{weight}{end}"));

        let none = text(0, true, GET);
        assert!(none.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{none}");
        assert!(none.contains("\r\nX-Load-Balancing-Endpoint-Weight: 0\r\n"), "{none}");
        assert!(none.ends_with("\t\"localEndpoints\": 0,\n\t\"serviceProxyHealthy\": true\n}"), "{none}");

        let unhealthy = text(7, false, GET);
        assert!(unhealthy.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{unhealthy}");
        assert!(unhealthy.contains("\r\nX-Load-Balancing-Endpoint-Weight: 7\r\n"), "{unhealthy}");
        assert!(
            unhealthy.ends_with("\t\"localEndpoints\": 7,\n\t\"serviceProxyHealthy\": false\n}"),
            "{unhealthy}"
        );
    }

    #[test]
    fn the_body_is_json_with_kube_proxys_keys() {
        let text = text(3, true, GET);
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        let service = serde_json::json!({ "namespace": "ingress-nginx", "name": "controller" });
        let expected =
            serde_json::json!({ "service": service, "localEndpoints": 3, "serviceProxyHealthy": true });
        assert_eq!(value, expected);
    }

    #[test]
    fn refusals_say_why() {
        let text = |why| String::from_utf8(refusal(why)).unwrap();
        assert_eq!(
            text(Refusal::Malformed),
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
        );
        assert!(text(Refusal::TooLong).starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
    }

    #[test]
    fn requests_are_told_from_what_is_none() {
        let read = |text: &str| read_head(text.as_bytes());
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(GET));
        assert_eq!(read("POST /x?y HTTP/1.1\nhOsT:\nAccept: */*\n\n"), Ok(GET));
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), Ok(Request { is_head: false, is_http_1_1: false }));
        assert_eq!(read("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Request { is_head: true, ..GET }));
        for wrong in [
            "",
            "\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: nameless\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\n\n",
        ] {
            assert_eq!(read(wrong), Err(Refusal::Malformed), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = read_head(&bytes);
        }
    }
}
