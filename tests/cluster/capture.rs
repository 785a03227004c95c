//! Captures by tcpdump, decoded by tshark: the judges of what is on the wire are not ours.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Cluster;

/// A capture that runs.
pub(crate) struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Starts capturing on a namespace's `eth0` and returns once packets are seen. `direction` is tcpdump's: `in`, `out`
    /// or `inout`.
    pub(crate) fn start(cluster: &Cluster, namespace: &str, direction: &str) -> Capture {
        let file = cluster.folder().join(format!("{namespace}.pcap"));
        let name = file.to_string_lossy().into_owned();
        // --immediate-mode: what was seen last must not wait in a buffer when the capture ends.
        let arguments =
            ["tcpdump", "-n", "-U", "--immediate-mode", "-i", "eth0", "-Q", direction, "-w", &name];
        let mut tcpdump = cluster
            .inside(namespace, &arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump is installed");
        let messages = BufReader::new(tcpdump.stderr.take().expect("standard error is a pipe"));
        let listens = messages.lines().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(listens, "tcpdump does not capture in {namespace}");
        Capture { tcpdump, file }
    }

    /// Ends it and gives the file.
    pub(crate) fn stop(mut self) -> PathBuf {
        let status = Command::new("kill").args(["-TERM", &self.tcpdump.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "tcpdump has ended by itself");
        let _ = self.tcpdump.wait();
        self.file
    }
}

/// Runs tshark over a file, with every checksum verified and flannel's port known, and returns its lines.
fn tshark(file: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-d", "udp.port==8472,vxlan"]);
    for protocol in ["ip", "udp", "tcp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    let output = command.arg("-r").arg(file).args(arguments).output().expect("tshark is installed");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Fails when tshark finds a malformed packet or a bad checksum, on any layer, inner ones included.
pub(crate) fn assert_sound(file: &Path) {
    let bad = "_ws.malformed || ip.checksum.status == Bad || udp.checksum.status == Bad || \
               tcp.checksum.status == Bad || icmp.checksum.status == Bad";
    let packets = tshark(file, &["-Y", bad]);
    assert!(packets.is_empty(), "{}: {packets:#?}", file.display());
}

/// How many packets of a file match one of tshark's display filters.
pub(crate) fn count(file: &Path, filter: &str) -> usize {
    tshark(file, &["-Y", filter]).len()
}

/// One VXLAN packet as tshark reads it: each list has the outer value first and the inner one second.
#[derive(Debug)]
pub(crate) struct Tunnelled {
    fields: BTreeMap<&'static str, Vec<String>>,
}

const FIELDS: [&str; 12] = [
    "eth.src",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ip.len",
    "ip.flags.df",
    "ip.ttl",
    "udp.srcport",
    "udp.dstport",
    "vxlan.vni",
    "tcp.srcport",
    "tcp.dstport",
];

impl Tunnelled {
    /// A field's outer value: of VXLAN's own packet.
    pub(crate) fn outer(&self, field: &str) -> &str {
        self.value(field, 0)
    }

    /// A field's value in the frame that is carried.
    pub(crate) fn inner(&self, field: &str) -> &str {
        self.value(field, 1)
    }

    fn value(&self, field: &str, place: usize) -> &str {
        self.fields.get(field).and_then(|values| values.get(place)).map_or("", String::as_str)
    }

    /// A field of the TCP header, of which a tunnelled packet has one, inside; empty where it carries none.
    pub(crate) fn tcp(&self, field: &str) -> &str {
        self.value(field, 0)
    }

    /// The carried connection, one direction of it: addresses and TCP ports, which only the inner packet has.
    pub(crate) fn inner_flow(&self) -> (String, String, String, String) {
        let text = |value: &str| value.to_owned();
        (
            text(self.inner("ip.src")),
            text(self.tcp("tcp.srcport")),
            text(self.inner("ip.dst")),
            text(self.tcp("tcp.dstport")),
        )
    }
}

/// The VXLAN packets of a file that match a display filter.
pub(crate) fn tunnelled(file: &Path, filter: &str) -> Vec<Tunnelled> {
    let filter = format!("vxlan && ({filter})");
    let mut arguments = vec!["-Y", &filter, "-T", "fields", "-E", "separator=;", "-E", "occurrence=a"];
    for field in FIELDS {
        arguments.extend(["-e", field]);
    }
    let split = |line: &String| {
        let columns = line.split(';').map(|column| column.split(',').map(str::to_owned).collect());
        Tunnelled { fields: FIELDS.into_iter().zip(columns).collect() }
    };
    tshark(file, &arguments).iter().map(split).collect()
}
