//! The binary from outside: exit codes and output of `check`, `show` and `replay`, and the life of `run` on devices that
//! lead nowhere (net_null), with reloads, metrics and a clean end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs the binary, for a minute at the most.
fn pollgate(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_pollgate")).args(arguments);
    command.env_remove("POLLGATE_LOG").output().expect("the binary starts")
}

/// Exit status, standard output, standard error.
fn outcome(arguments: &[&str]) -> (i32, String, String) {
    let output = pollgate(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("what is written is UTF-8");
    (output.status.code().expect("an exit status"), text(output.stdout), text(output.stderr))
}

/// A file in a folder of its own.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn version_and_help_are_there_and_wrong_command_lines_end_with_2() {
    let (status, output, _) = outcome(&["--version"]);
    assert_eq!((status, output.trim()), (0, concat!("pollgate ", env!("CARGO_PKG_VERSION"))));
    let (status, output, _) = outcome(&["--help"]);
    for command in ["run", "check", "replay", "show"] {
        assert!(status == 0 && output.contains(&format!("\n  {command} ")), "{output}");
    }
    for wrong in [
        &["check"][..],
        &["fly"],
        &["show", "weather"],
        &["replay", "--config", "x"],
        &["check", "--config", "x", "--log-level", "a=b=c"],
    ] {
        assert_eq!(outcome(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn check_finds_nothing_wrong_with_the_reference_cluster() {
    let path = root().join("configs/reference-cluster.toml").display().to_string();
    let (status, output, _) = outcome(&["check", "--config", &path]);
    assert_eq!((status, output), (0, format!("{path}: ok (0 errors, 0 warnings)\n")));
    let (status, output, _) = outcome(&["check", "--json", "--config", &path]);
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, &report["errors"], &report["diagnostics"]), (0, &0.into(), &serde_json::json!([])));
}

#[test]
fn check_tells_all_errors_with_their_places() {
    let (_folder, path) = file("[node]\nnane = \"a\"\n\n[metrics]\nlisten = \"here\"\n");
    let (status, output, _) = outcome(&["check", "--config", &path]);
    assert_eq!(status, 1);
    let lines: Vec<&str> = output.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{path}:2:1: error: ")) && lines[0].contains("did you mean `name`?")
    );
    assert!(lines[1].starts_with(&format!("{path}:5:10: error: ")), "{output}");
    assert_eq!(lines[2], format!("{path}: not usable (2 errors, 0 warnings)"));
    let (status, output, _) = outcome(&["check", "--json", "--config", &path]);
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, &report["errors"]), (1, &2.into()));
    assert_eq!(
        (&report["diagnostics"][1]["line"], &report["diagnostics"][1]["key"]),
        (&5.into(), &"metrics.listen".into())
    );
    let (status, output, _) = outcome(&["check", "--config", "/nowhere/gateway.toml"]);
    assert!(status == 1 && output.contains("cannot be read: No such file"), "{output}");
}

#[test]
fn warnings_leave_the_status_at_0_and_the_host_is_asked_only_on_demand() {
    // Nobody has that many cores; without `--host` nobody looks.
    let text = "[workers]\ncores = [1000]\n[services]\n[[service]]\nname = \"a\"\ncluster_ip = \"10.254.0.1\"\n\
                [[service.ports]]\nport = 1\nbackends = [{ address = \"10.0.0.1:1\", weight = 0 }]\n";
    let (_folder, path) = file(text);
    let (status, output, _) = outcome(&["check", "--config", &path]);
    assert!(
        status == 0 && output.contains("warning: ") && output.contains("ok (0 errors, 1 warning)"),
        "{output}"
    );
    let (status, output, _) = outcome(&["check", "--host", "--config", &path]);
    assert_eq!(status, 1);
    assert!(output.contains(":2:10: error: this machine has no core 1000 online"), "{output}");
    assert!(output.contains("there is no port to run on"), "{output}");
}

#[test]
fn show_says_that_no_gateway_answers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock").display().to_string();
    let (status, output, error) = outcome(&["show", "workers", "--socket", &socket]);
    assert_eq!((status, output.as_str()), (1, ""));
    assert!(error.contains(&format!("no gateway answers at {socket}")), "{error}");
    let (_folder, path) = file(&format!("[control]\nsocket = \"{socket}\"\n"));
    assert!(outcome(&["show", "workers", "--config", &path]).2.contains(&socket));
    let (_folder, path) = file("");
    let (status, _, error) = outcome(&["show", "workers", "--config", &path]);
    assert!(status == 1 && error.contains("no `[control] socket`"), "{error}");
    let (status, _, error) = outcome(&["show", "workers", "--port", "1", "--socket", &socket]);
    assert!(status == 2 && error.contains("--port means nothing"), "{error}");
}

#[test]
fn a_trace_of_no_gateway_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock").display().to_string();
    let trace = |arguments: &[&str]| {
        outcome(&[&["trace", "--packet", "gre 1.2.3.4 > 5.6.7.8"][..], arguments].concat())
    };
    let (status, output, error) = trace(&["--live", "--socket", &socket]);
    assert_eq!((status, output.as_str()), (1, ""));
    assert!(error.contains(&format!("no gateway answers at {socket}")), "{error}");
    let (_folder, path) = file("");
    let (status, _, error) = trace(&["--live", "--config", &path]);
    assert!(status == 1 && error.contains("no `[control] socket`"), "{error}");
    for (wrong, message) in [
        (&["--config", &path, "--socket", &socket][..], "--socket"),
        (&["--socket", &socket], "--live"),
        (&["--live", "--manifests", &path], "--manifests"),
        (&["--live", "--node", "a"], "--node"),
    ] {
        let (status, _, error) = trace(wrong);
        assert!(status == 2 && error.contains(message), "{wrong:?}: {error}");
    }
    // Nothing is configured: no service, no route.
    assert_eq!(trace(&[]).0, 0);
    // The packet is wrong, wherever it would be asked about.
    let (status, _, error) = outcome(&["trace", "--live", "--socket", &socket, "--packet", "tcp 1.2.3.4"]);
    assert!(status == 2 && error.contains("column 5"), "{error}");
}

#[test]
fn replay_writes_the_same_bytes_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let config = root().join("configs/reference-cluster.toml").display().to_string();
    let input = format!("eth0={}", root().join("tests/fixtures/kernel-vxlan.pcap").display());
    let run = |name: &str, seed: &str| {
        let output = folder.path().join(name);
        let argument = format!("data-product-1={}", output.display());
        let arguments =
            ["replay", "--config", &config, "--in", &input, "--out", &argument, "--seed", seed, "--json"];
        let (status, report, error) = outcome(&arguments);
        assert_eq!(status, 0, "{error}");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["accounting"]["balanced"], true);
        std::fs::read(output).unwrap()
    };
    assert!(run("first", "7") == run("second", "7"));
    let wrong = format!("eth9={}", root().join("tests/fixtures/kernel-vxlan.pcap").display());
    let (status, _, error) = outcome(&["replay", "--config", &config, "--in", &wrong]);
    assert!(status == 2 && error.contains("did you mean `eth0`?"), "{error}");
    let (_folder, broken) = file("[node\n");
    assert_eq!(outcome(&["replay", "--config", &broken, "--in", &input]).0, 1);
}

#[cfg(not(feature = "dpdk"))]
#[test]
fn a_build_without_devices_says_so() {
    let path = root().join("configs/reference-cluster.toml").display().to_string();
    let (status, _, error) = outcome(&["run", "--config", &path]);
    assert!(status == 1 && error.contains("this build has no devices"), "{error}");
}

#[cfg(feature = "dpdk")]
#[path = "trace/schema.rs"]
mod schema;

#[cfg(feature = "dpdk")]
mod run {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use serde_json::Value;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A gateway as its own process, on devices that neither send nor receive.
    struct Gateway {
        folder: tempfile::TempDir,
        process: Child,
        metrics: SocketAddr,
    }

    impl Drop for Gateway {
        fn drop(&mut self) {
            // Only when a test has failed: a gateway that was stopped is gone already.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    fn configuration(folder: &Path, metrics: SocketAddr, service: &str) -> String {
        format!(
            "[node]\nname = \"test\"\naddresses = [\"192.168.0.21\"]\n\
             [dpdk]\nmemory = \"none\"\nbuffers = 4096\n\
             [control]\nsocket = \"{}/control.sock\"\n\
             [metrics]\nlisten = \"{metrics}\"\n\
             [[ports]]\nname = \"eth0\"\nrole = \"underlay\"\ndevice = \"net_null0,no-rx=1\"\n\
             mac = \"02:00:c0:a8:00:15\"\naddress = \"192.168.0.21/24\"\n\
             [[ports]]\nname = \"pod-1\"\nrole = \"pod\"\ndevice = \"net_null1,no-rx=1\"\n\
             [bridge]\naddress = \"172.30.76.1/24\"\nmac = \"02:42:67:05:b5:30\"\n\
             [conntrack]\ncapacity = 1024\n\
             [services]\nservice_cidrs = [\"10.254.0.0/16\"]\n\
             [[service]]\nname = \"{service}\"\ncluster_ip = \"10.254.0.9\"\n\
             [[service.ports]]\nport = 80\nbackends = [{{ address = \"172.30.76.5:8080\" }}]\n",
            folder.display()
        )
    }

    impl Gateway {
        fn start() -> Self {
            Self::start_as(|_, text| text)
        }

        /// With another configuration, made in the gateway's folder.
        fn start_as(change: impl Fn(&Path, String) -> String) -> Self {
            let folder = tempfile::tempdir().unwrap();
            // Free now, and nobody else on this machine is likely to take it before the gateway does.
            let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let text = change(folder.path(), configuration(folder.path(), metrics, "web"));
            std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
            let log = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
            let process = Command::new(env!("CARGO_BIN_EXE_pollgate"))
                .args(["run", "--config", "gateway.toml", "--log-level", "info"])
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(log("out"))
                .stderr(log("log"))
                .spawn()
                .expect("the binary starts");
            let mut gateway = Self { folder, process, metrics };
            gateway.wait_for("the first answer", |gateway| {
                let ended = gateway.process.try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?}:\n{}", gateway.text("log"));
                gateway.try_show("workers").ok().map(|_| ())
            });
            gateway
        }

        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.folder.path().join(name)).unwrap()
        }

        fn try_show(&self, what: &str) -> Result<Vec<Value>, String> {
            let config = self.folder.path().join("gateway.toml");
            let socket = config.with_file_name("control.sock").display().to_string();
            let (status, output, error) = outcome(&["show", what, "--json", "--socket", &socket]);
            if status != 0 {
                return Err(error);
            }
            let mut reply: Value = serde_json::from_str(&output).unwrap();
            Ok(reply["rows"]
                .as_array_mut()
                .map(core::mem::take)
                .unwrap_or_else(|| vec![reply["counters"].take()]))
        }

        fn show(&self, what: &str) -> Vec<Value> {
            self.try_show(what).unwrap_or_else(|error| panic!("{error}\n{}", self.text("log")))
        }

        fn generation(&self) -> u64 {
            self.show("workers")[0]["generation"].as_u64().unwrap()
        }

        fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Some(found) = look(self) {
                    return found;
                }
                assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}\n{}", self.text("log"));
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        fn write_configuration(&self, text: &str) {
            // In one step, as editors do.
            let path = self.folder.path().join("gateway.toml");
            std::fs::write(path.with_extension("new"), text).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        }

        fn signal(&self, name: &str) {
            let status = Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap();
            assert!(status.success());
        }

        fn scrape(&self, path: &str) -> String {
            let mut stream = TcpStream::connect(self.metrics).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }

        /// Stops it; exit status and standard output.
        fn stop(mut self, signal: &str) -> (Option<i32>, String) {
            self.signal(signal);
            let status = self.wait_for("the end", |gateway| gateway.process.try_wait().unwrap());
            assert!(!self.folder.path().join("control.sock").exists());
            (status.code(), self.text("out"))
        }
    }

    #[test]
    fn a_gateway_lives_reloads_and_ends_with_every_buffer_back() {
        let mut gateway = Gateway::start();
        let ports = gateway.show("ports");
        let drivers: Vec<&str> = ports.iter().filter_map(|port| port["driver"].as_str()).collect();
        assert_eq!(drivers, ["net_null", "net_null"], "{ports:?}");
        assert_eq!((&ports[1]["name"], &ports[1]["role"]), (&"pod-1".into(), &"pod".into()));
        assert_eq!(gateway.show("services")[0]["title"], "default/web");
        assert_eq!(gateway.show("conntrack").len(), 0);
        assert_eq!(
            (gateway.generation(), gateway.show("workers")[0]["flow_capacity"].as_u64()),
            (1, Some(1_024))
        );
        let answer = gateway.scrape("/metrics");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("\npollgate_generation 1\n"),
            "{answer}"
        );

        // A second one finds the socket taken and leaves the first alone.
        let config = gateway.folder.path().join("gateway.toml").display().to_string();
        let (status, _, error) = outcome(&["run", "--config", &config]);
        assert!(status == 1 && error.contains("another gateway answers at"), "{error}");

        gateway.signal("-HUP");
        gateway.wait_for("SIGHUP", |gateway| (gateway.generation() == 2).then_some(()));
        gateway.write_configuration(&configuration(gateway.folder.path(), gateway.metrics, "shop"));
        gateway.wait_for("the changed file", |gateway| (gateway.generation() >= 3).then_some(()));
        let titles: Vec<serde_json::Value> =
            gateway.show("services").iter().map(|service| service["title"].clone()).collect();
        assert!(titles.contains(&"default/shop".into()), "{titles:?}");

        let broken =
            configuration(gateway.folder.path(), gateway.metrics, "shop").replace("[node]", "[nude]");
        gateway.write_configuration(&broken);
        gateway.signal("-HUP");
        gateway.wait_for("the refusal", |gateway| {
            (gateway.show("counters")[0]["reloads"]["failed"].as_u64() > Some(0)).then_some(())
        });
        assert_eq!(gateway.show("counters")[0]["reloads"]["applied"], 2);
        assert!(gateway.text("log").contains("did you mean `node`?"), "{}", gateway.text("log"));
        assert!(gateway.text("log").contains("the running tables stay"), "{}", gateway.text("log"));

        let (status, summary) = gateway.stop("-TERM");
        assert_eq!(status, Some(0), "{summary}");
        assert!(summary.ends_with("\naccounting: balanced\nbuffers in flight: 0\n"), "{summary}");
    }

    /// A TCP SYN as it arrives at eth0.
    fn syn(source: &str, source_port: u16, destination: &str, port: u16) -> Vec<u8> {
        use pnet::packet::ip::IpNextHeaderProtocols;
        use pnet::packet::ipv4::{self, MutableIpv4Packet};
        use pnet::packet::tcp::{MutableTcpPacket, TcpFlags};
        let mut bytes = [&[2, 0, 0xc0, 0xa8, 0, 0x15, 2, 0, 0, 0, 0, 0x50, 8, 0][..], &[0; 40]].concat();
        let mut segment = MutableTcpPacket::new(&mut bytes[34..]).unwrap();
        segment.set_source(source_port);
        segment.set_destination(port);
        segment.set_data_offset(5);
        segment.set_flags(TcpFlags::SYN);
        let mut packet = MutableIpv4Packet::new(&mut bytes[14..]).unwrap();
        packet.set_version(4);
        packet.set_header_length(5);
        packet.set_total_length(40);
        packet.set_ttl(64);
        packet.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
        packet.set_source(source.parse().unwrap());
        packet.set_destination(destination.parse().unwrap());
        let checksum = ipv4::checksum(&packet.to_immutable());
        packet.set_checksum(checksum);
        bytes
    }

    /// What people and programs see of it that moves when packets, flows or next hops do.
    fn state(gateway: &Gateway) -> Vec<Value> {
        let mut seen = Vec::new();
        for what in ["ports", "drops", "conntrack", "services", "backends", "neighbours", "fdb"] {
            seen.extend(gateway.show(what));
        }
        seen.iter_mut().filter_map(Value::as_object_mut).for_each(|row| {
            row.retain(|field, _| field != "idle_s" && field != "expires_in_s");
        });
        seen
    }

    #[test]
    fn a_running_gateway_is_asked_about_packets_and_nothing_moves() {
        let gateway = Gateway::start_as(|folder, text| {
            // One connection arrives when the gateway starts.
            let path = folder.join("in.pcap");
            let mut capture = engine::port::pcap::CaptureWriter::create(&path).unwrap();
            let frame = syn("192.168.0.50", 40_001, "10.254.0.9", 80);
            capture.write(engine::clock::Timestamp::from_seconds(1), &frame).unwrap();
            capture.finish().unwrap();
            let device = format!("net_pcap0,rx_pcap={}", path.display());
            text.replace("net_null0,no-rx=1", &device).replace("172.30.76.5:8080", "192.168.0.31:8080")
                + "[[neighbours]]\ninterface = \"eth0\"\naddress = \"192.168.0.31\"\nmac = \"02:00:c0:a8:00:1f\"\n"
        });
        let mut gateway = gateway;
        gateway.wait_for("the flow", |gateway| (gateway.show("conntrack").len() == 1).then_some(()));
        let before = state(&gateway);
        let config = gateway.folder.path().join("gateway.toml").display().to_string();
        let socket = gateway.folder.path().join("control.sock").display().to_string();
        let trace = |arguments: &[&str]| {
            let (status, output, error) = outcome(&[&["trace", "--live"][..], arguments].concat());
            assert_eq!(status, 0, "{arguments:?}: {error}");
            output
        };
        let known =
            trace(&["--config", &config, "--json", "--packet", "tcp 192.168.0.50:40001 > 10.254.0.9:80"]);
        let known: Value = serde_json::from_str(&known).unwrap();
        assert_eq!(known["flow"]["known"]["service"], "default/web", "{known:#}");
        assert_eq!((&known["verdict"], &known["egress"]["port"]), (&"forward".into(), &"eth0".into()));
        let source = known["steps"][1]["object"]["source"].as_str().unwrap();
        assert!(source.starts_with("gateway.toml:"), "{source}");
        let new =
            trace(&["--socket", &socket, "--json", "--packet", "tcp 192.168.0.50:40002 > 10.254.0.9:80"]);
        let new: Value = serde_json::from_str(&new).unwrap();
        assert_eq!((&new["flow"]["known"], &new["flow"]["state"]), (&Value::Null, &"syn_sent".into()));
        let capture = gateway.folder.path().join("in.pcap").display().to_string();
        let text = trace(&["--socket", &socket, "--pcap", &capture]);
        assert!(
            text.contains("\nconntrack    flow tcp 192.168.0.50:40001 > 10.254.0.9:80, answers "),
            "{text}"
        );
        let frame: String =
            syn("192.168.0.50", 40_003, "10.254.0.9", 81).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = trace(&["--socket", &socket, "--hex", &frame, "--in", "eth0"]);
        assert!(text.contains("\nverdict      reject: service_unknown_port\n"), "{text}");
        assert_eq!(state(&gateway), before);
        let schema = std::fs::read_to_string(root().join("docs/trace.schema.json")).unwrap();
        let schema = serde_json::from_str(&schema).unwrap();
        for trace in [known, new] {
            assert_eq!(schema::problems(&schema, &trace), Vec::<String>::new());
        }

        let wrong =
            ["trace", "--live", "--socket", &socket, "--packet", "gre 1.2.3.4 > 5.6.7.8", "--in", "eth9"];
        let (status, _, error) = outcome(&wrong);
        assert!(
            status == 2 && error.contains("there is no port `eth9`; expected one of eth0, pod-1"),
            "{error}"
        );
        let (status, summary) = gateway.stop("-TERM");
        assert_eq!(status, Some(0), "{summary}");
    }

    #[test]
    fn an_interrupted_gateway_ends_well_too() {
        let (status, summary) = Gateway::start().stop("-INT");
        assert_eq!(status, Some(0), "{summary}");
        assert!(summary.contains("\naccounting: balanced\nbuffers in flight: 0\n"), "{summary}");
    }

    #[test]
    fn what_cannot_run_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = configuration(folder.path(), taken.local_addr().unwrap(), "web");
        let metrics = format!("[metrics]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
        let path = folder.path().join("gateway.toml");
        let run = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let (status, output, error) = outcome(&["run", "--config", &path.display().to_string()]);
            assert_eq!((status, output.as_str()), (1, ""), "{error}");
            error
        };
        assert!(run(&good).contains("is in use already"));
        let good = good.replace(&metrics, "");
        let error = run(&good.replace("device = \"net_null1,no-rx=1\"\n", ""));
        assert!(error.contains("port `pod-1` has no `device` to run on"), "{error}");
        let error = run(&good.replace("net_null1", "net_nowhere1"));
        assert!(error.contains("DPDK did not start") || error.contains("did not come up"), "{error}");
        assert!(run("[node\n").contains("cannot be run:"));
    }
}
