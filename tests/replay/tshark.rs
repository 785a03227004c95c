//! Wireshark's opinion of captures, where it is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is wrong with a packet, as a display filter.
const WRONG: &str = "_ws.malformed or _ws.expert.severity == error or ip.checksum.status == Bad \
     or udp.checksum.status == Bad or tcp.checksum.status == Bad or icmp.checksum.status == Bad \
     or ip.len > frame.len";

/// The packets of a capture that the filter selects, one a line; none if there is no tshark.
fn select(file: &Path, filter: &str, fields: &[&str]) -> Option<Vec<String>> {
    let checks = ["ip.check_checksum:TRUE", "udp.check_checksum:TRUE", "tcp.check_checksum:TRUE"];
    let mut command = Command::new("tshark");
    command.args(["-n", "-d", "udp.port==8472,vxlan", "-Y", filter, "-r"]).arg(file);
    command.args(checks.iter().flat_map(|check| ["-o", check]));
    if !fields.is_empty() {
        command.args(["-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", field]));
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: tshark is not installed");
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Asserts that Wireshark finds nothing malformed and no bad checksum, and reads the tunnel as flannel's.
pub(crate) fn check(files: &[PathBuf], folder: &Path) {
    let mut tunnelled = 0;
    for file in files {
        let Some(wrong) = select(file, WRONG, &[]) else { return };
        assert!(wrong.is_empty(), "{}:\n{}", file.display(), wrong.join("\n"));
        let fields = ["udp.dstport", "vxlan.vni", "eth.src", "eth.dst", "ip.src", "ip.dst"];
        for line in select(file, "vxlan", &fields).unwrap_or_default() {
            let columns: Vec<&str> = line.split('\t').collect();
            assert!(columns[0].starts_with("8472"), "{line}");
            assert_eq!(columns[1], "1");
            assert_eq!(columns[2], "02:00:c0:a8:00:15,8a:22:81:5e:d8:b7");
            assert_eq!(columns[3], "02:00:c0:a8:00:16,96:8f:2d:49:c5:31");
            assert!(
                columns[4].starts_with("192.168.0.21,") && columns[5].starts_with("192.168.0.22,172.30.9."),
                "{line}"
            );
            tunnelled += 1;
        }
    }
    assert!(tunnelled > 0);
    check_the_check(&files[0], folder);
}

/// One damaged byte in a packet must be found, or the check above says nothing.
fn check_the_check(file: &Path, folder: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    // The last byte of a TCP packet is under TCP's checksum, wherever it stands.
    let tcp = select(file, "tcp", &["frame.number"]).unwrap_or_default();
    assert!(!tcp.is_empty());
    let mut at = 24;
    for _ in 1..tcp[0].parse::<usize>().unwrap() {
        at += 16 + u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    bytes[at + 16 + length - 1] ^= 1;
    let damaged = folder.join("damaged.pcap");
    std::fs::write(&damaged, bytes).unwrap();
    assert_eq!(select(&damaged, WRONG, &["frame.number"]), Some(vec![tcp[0].clone()]));
}
