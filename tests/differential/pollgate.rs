//! Pollgate as a gateway: traces on the same objects, with a configuration of nothing but addresses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use pipelines::control::config::model::Configuration;
use pipelines::control::sources::{SourcePaths, Sources};
use pipelines::trace::grammar::PacketSpec;
use pipelines::trace::{Question, trace};
use serde_json::Value;
use tempfile::TempDir;

use crate::kube_proxy::Settings;
use crate::namespaces::NODE_ADDRESSES;
use crate::outcome::{Outcome, Verdict};
use crate::probe::{Probe, SERVICE_CIDR};

/// Any source port will do.
const SOURCE_PORT: u16 = 40_000;

/// A configuration and objects to ask about.
pub(crate) struct Pollgate {
    folder: TempDir,
    manifests: PathBuf,
    node: String,
    sources: Sources,
    configuration: Configuration,
}

impl Pollgate {
    pub(crate) fn new(manifests: &Path, node: &str, settings: &Settings) -> Pollgate {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pod_cidrs: Vec<&str> = settings.pod_cidr.into_iter().collect();
        let text = format!(
            "[node]\nname = {node:?}\naddresses = {NODE_ADDRESSES:?}\n\
             [services]\npod_cidrs = {pod_cidrs:?}\nservice_cidrs = [{SERVICE_CIDR:?}]\nmasquerade_all = {}\n",
            settings.masquerade_all
        );
        let config = folder.path().join("pollgate.toml");
        std::fs::write(&config, text).expect("the folder is writable");
        let paths = SourcePaths {
            config: Some(config),
            manifests: Some(manifests.to_owned()),
            node: Some(node.to_owned()),
        };
        let sources = Sources::load(&paths).unwrap_or_else(|report| panic!("{report}"));
        let configuration = sources.configuration();
        Pollgate { folder, manifests: manifests.to_owned(), node: node.to_owned(), sources, configuration }
    }

    /// What becomes of a kind of packet, and the trace that says so.
    pub(crate) fn ask(&self, probe: &Probe) -> (Outcome, String) {
        let packet: PacketSpec = probe.packet.text(SOURCE_PORT).parse().expect("it is in the grammar");
        let question = Question { packet: packet.into(), ingress: None, seed: 0 };
        let trace = trace(&self.configuration, &self.sources.objects, &|_| None, &question);
        let trace = trace.unwrap_or_else(|error| panic!("{}: {error}", probe.packet));
        let text = serde_json::to_string_pretty(&trace).expect("a trace is JSON");
        let outcome = serde_json::from_str(&text).ok().and_then(|trace| read(&trace));
        (outcome.unwrap_or_else(|| panic!("{}: not understood: {text}", probe.packet)), text)
    }

    /// The trace that `pollgate trace` prints.
    pub(crate) fn print(&self, probe: &Probe) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_pollgate"))
            .arg("trace")
            .arg("--config")
            .arg(self.folder.path().join("pollgate.toml"))
            .arg("--manifests")
            .arg(&self.manifests)
            .args(["--node", &self.node, "--json", "--packet", &probe.packet.text(SOURCE_PORT)])
            .output()
            .expect("the binary starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", probe.packet);
        String::from_utf8(output.stdout).expect("a trace is text").trim_end().to_owned()
    }
}

fn read(trace: &Value) -> Option<Outcome> {
    let mut endpoints = BTreeMap::new();
    for candidate in trace["candidates"].as_array()? {
        let address: Ipv4Addr = candidate["address"].as_str()?.parse().ok()?;
        let port = u16::try_from(candidate["port"].as_u64()?).ok()?;
        if candidate["probability"].as_f64()? > 0.0 {
            endpoints.insert(SocketAddrV4::new(address, port), candidate["masquerade"].as_bool()?);
        }
    }
    let verdict = match trace["verdict"].as_str()? {
        // An endpoint may be the node itself.
        "forward" | "deliver" if !trace["service"].is_null() => Verdict::Forward,
        // Without routes the gateway has no way for what no service concerns.
        "forward" | "pass" => Verdict::Pass,
        "deliver" => Verdict::Deliver,
        "reject" => Verdict::Reject,
        "drop" => Verdict::Drop,
        _ => return None,
    };
    if verdict != Verdict::Forward {
        endpoints.clear();
    }
    Some(Outcome { verdict, endpoints, reject_with: trace["reject_with"].as_str().map(str::to_owned) })
}
