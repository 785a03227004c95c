//! What a replay is asked to do, and whether that makes sense.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use engine::batch::PortId;

use crate::control::config::closest;
use crate::control::config::model::Configuration;
use crate::control::sources::SourcePaths;

/// Name of the host's own stack where a port is named.
pub const HOST: &str = "host";

/// A capture and the port it belongs to: `PORT=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFile {
    /// The port's name in the configuration, or [`HOST`].
    pub port: String,
    /// The capture file.
    pub path: PathBuf,
}

/// Why a text is no [`PortFile`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not PORT=FILE: write a port's name in the configuration and a capture file, as in eth0=capture.pcap"
)]
pub struct PortFileError;

impl FromStr for PortFile {
    type Err = PortFileError;

    fn from_str(text: &str) -> Result<Self, PortFileError> {
        match text.split_once('=') {
            Some((port, path)) if !port.is_empty() && !path.is_empty() => {
                Ok(Self { port: port.to_owned(), path: path.into() })
            }
            _ => Err(PortFileError),
        }
    }
}

/// What a replay is asked to do.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The configuration and manifests. Devices, cores and sockets in the configuration are not looked at.
    pub sources: SourcePaths,
    /// What comes in. A port may have several captures, which are merged by time.
    pub inputs: Vec<PortFile>,
    /// Where to write what leaves. A port without is counted alone.
    pub outputs: Vec<PortFile>,
    /// Decides all that is random: backends, masquerade ports, hashes.
    pub seed: u64,
    /// Let stations answer the gateway's ARP requests; see docs/replay.md.
    pub resolve_neighbours: bool,
}

impl ReplayOptions {
    /// Seed 0, neighbours resolved, no captures yet.
    pub fn new(config: impl Into<PathBuf>) -> Self {
        Self {
            sources: SourcePaths::of_config(config),
            inputs: Vec::new(),
            outputs: Vec::new(),
            seed: 0,
            resolve_neighbours: true,
        }
    }

    /// Where each capture belongs, or what is wrong with one of them and what would be right.
    pub(super) fn resolve(&self, configuration: &Configuration) -> Result<Places, String> {
        if self.inputs.is_empty() {
            return Err("there is nothing to replay: give captures as in --in eth0=capture.pcap".to_owned());
        }
        let places = |option: &str, files: &[PortFile]| -> Result<Vec<Place>, String> {
            files.iter().map(|file| place(option, &file.port, configuration)).collect()
        };
        let places =
            Places { inputs: places("--in", &self.inputs)?, outputs: places("--out", &self.outputs)? };
        self.check_files()?;
        Ok(places)
    }

    fn check_files(&self) -> Result<(), String> {
        for input in &self.inputs {
            if let Err(error) = fs::metadata(&input.path) {
                return Err(format!(
                    "--in {}={}: {error}; make the capture with `tcpdump -w`, or correct the path",
                    input.port,
                    input.path.display()
                ));
            }
        }
        let read: HashMap<PathBuf, &str> =
            self.inputs.iter().map(|input| (real(&input.path), input.port.as_str())).collect();
        let mut written: HashMap<PathBuf, &str> = HashMap::new();
        for (index, output) in self.outputs.iter().enumerate() {
            let (port, path) = (output.port.as_str(), output.path.display());
            if self.outputs[..index].iter().any(|other| other.port == port) {
                return Err(format!(
                    "--out {port}={path}: `{port}` has an output already; give one for each port"
                ));
            }
            if let Some(other) = read.get(&real(&output.path)) {
                return Err(format!(
                    "--out {port}={path}: `{other}` is read from this file, which would be overwritten; \
                     write to another"
                ));
            }
            if let Some(other) = written.insert(real(&output.path), port) {
                return Err(format!(
                    "--out {port}={path}: `{other}` is written to this file; give each port its own"
                ));
            }
        }
        Ok(())
    }
}

/// The file that a path means, whether it is there yet or not.
fn real(path: &Path) -> PathBuf {
    let folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    fs::canonicalize(path).ok().or_else(folder).unwrap_or_else(|| path.to_owned())
}

/// Where a capture belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At a port.
    Port(PortId),
    /// At the host's own stack.
    Host,
}

/// Places of all captures, in the options' order.
pub(super) struct Places {
    pub(super) inputs: Vec<Place>,
    pub(super) outputs: Vec<Place>,
}

fn place(option: &str, name: &str, configuration: &Configuration) -> Result<Place, String> {
    let names = || configuration.ports.iter().map(|port| port.name.as_str());
    if let Some(port) = names().position(|known| known == name) {
        return Ok(Place::Port(port as PortId));
    }
    if name == HOST {
        return match configuration.exception {
            Some(_) => Ok(Place::Host),
            None => Err(format!(
                "{option} {HOST}: the configuration has no way to the host's own stack; add `[exception]` to it"
            )),
        };
    }
    let right = match closest(name, names().chain([HOST])) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are {}", names().chain([HOST]).collect::<Vec<_>>().join(", ")),
    };
    Err(format!("{option} {name}: there is no such port in the configuration; {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config;

    fn configuration() -> Configuration {
        let text = include_str!("../../../configs/reference-cluster.toml");
        config::parse(text, "test.toml").unwrap().configuration
    }

    fn file(text: &str) -> PortFile {
        text.parse().unwrap()
    }

    #[test]
    fn port_files_have_a_port_and_a_file() {
        assert_eq!(file("eth0=a=b.pcap"), PortFile { port: "eth0".into(), path: "a=b.pcap".into() });
        for wrong in ["", "eth0", "=a.pcap", "eth0="] {
            assert_eq!(wrong.parse::<PortFile>(), Err(PortFileError), "{wrong}");
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("in.pcap"), b"").unwrap();
        let mut configuration = configuration();
        let expect = |inputs: &[String], outputs: &[String], expected: &str| {
            let mut options = ReplayOptions::new("unused.toml");
            options.inputs = inputs.iter().map(|text| file(text)).collect();
            options.outputs = outputs.iter().map(|text| file(text)).collect();
            let message =
                options.resolve(&configuration).err().unwrap_or_else(|| "nothing is wrong".to_owned());
            assert!(message.contains(expected), "{message}");
        };
        let input = format!("eth0={}", path("in.pcap"));
        let output = |port: &str, name: &str| format!("{port}={}", path(name));
        expect(&[], &[], "give captures as in --in eth0=capture.pcap");
        expect(&["et0=a".into()], &[], "did you mean `eth0`?");
        expect(&["something=a".into()], &[], "there are eth0, business-manager-1");
        expect(&["eth0=/nowhere/a.pcap".into()], &[], "make the capture with `tcpdump -w`");
        let input = [input];
        expect(&input, &[output("eth0", "in.pcap")], "would be overwritten");
        expect(&input, &[output("eth0", "a"), output("host", "a")], "`eth0` is written to this file");
        expect(&input, &[output("eth0", "a"), output("eth0", "b")], "has an output already");
        expect(
            &input,
            &[output("eth0", "a"), output("ingress-nginx", "b"), output("host", "c")],
            "nothing is wrong",
        );
        configuration.exception = None;
        let mut options = ReplayOptions::new("unused.toml");
        options.inputs = vec![file("host=a")];
        assert!(options.resolve(&configuration).err().unwrap().contains("add `[exception]`"));
    }
}
