//! A reference cluster that lives as long as the value does. `scripts/cluster.sh hold` builds it around the real binary
//! and removes it when the pipe from this process ends, so it goes away even when the test process is killed.

pub(crate) mod capture;

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Programs that the cluster and the captures are made with.
const PROGRAMS: [&str; 7] = ["ip", "bridge", "ethtool", "ping", "python3", "tcpdump", "tshark"];

/// One cluster at a time: each pins a worker to the same core, and the checks measure times.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running cluster.
pub(crate) struct Cluster {
    holder: Child,
    variables: Vec<(String, String)>,
    _turn: MutexGuard<'static, ()>,
}

/// Root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The binary under test: this build's, or the one that POLLGATE_BINARY names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("POLLGATE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_pollgate").into(), PathBuf::from)
}

/// Why no cluster can be made here, if so.
fn obstacle() -> Option<String> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() != b"0" {
        return Some("network namespaces need root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("TAP ports need /dev/net/tun".into());
    }
    let path = std::env::var_os("PATH")?;
    let missing = PROGRAMS
        .iter()
        .find(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    missing.map(|program| format!("{program} is not installed"))
}

impl Cluster {
    /// Builds a cluster; none where that is impossible, after saying why. With `watch` the gateway reloads when its file
    /// changes, otherwise on SIGHUP.
    pub(crate) fn up(watch: bool) -> Option<Cluster> {
        if let Some(reason) = obstacle() {
            assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "CI must run this: {reason}");
            // Past the test harness, which shows no output of a test that passes.
            let _ = writeln!(io::stderr(), "skipped: {reason}");
            return None;
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holder = Command::new(root().join("scripts/cluster.sh"))
            .arg("hold")
            .arg(binary())
            .env("CLUSTER_WATCH", watch.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/cluster.sh starts");
        let output = BufReader::new(holder.stdout.take().expect("standard output is a pipe"));
        let lines: Vec<String> =
            output.lines().map_while(Result::ok).take_while(|line| !line.starts_with("ready")).collect();
        let variables: Vec<(String, String)> = lines
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let cluster = Cluster { holder, variables, _turn: turn };
        assert!(cluster.variables.len() == 4, "the cluster did not come up: {lines:?}");
        Some(cluster)
    }

    fn variable(&self, name: &str) -> &str {
        let found = self.variables.iter().find(|(known, _)| known == name);
        &found.expect("scripts/cluster.sh prints it").1
    }

    /// The folder with the gateway's configuration and logs; files that tests put there go with it.
    pub(crate) fn folder(&self) -> PathBuf {
        self.variable("CLUSTER_DIR").into()
    }

    /// Runs checks of scripts/lib/checks.sh and prints their evidence; fails when one of them does.
    pub(crate) fn check<S: AsRef<std::ffi::OsStr>>(&self, names: &[S]) {
        let output = Command::new(root().join("scripts/cluster.sh"))
            .arg("check")
            .args(names)
            .envs(self.variables.iter().cloned())
            .output()
            .expect("scripts/cluster.sh starts");
        let evidence = String::from_utf8_lossy(&output.stdout);
        println!("{evidence}");
        assert!(output.status.success(), "{evidence}\nthe gateway's log:\n{}", self.gateway_log());
    }

    fn gateway_log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder().join(name)).unwrap_or_default();
        read("gateway.log") + &read("gateway.out")
    }

    /// A command in one of the namespaces.
    pub(crate) fn inside(&self, namespace: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{}-{namespace}", self.variable("CLUSTER_PREFIX"))])
            .args(arguments);
        command
    }

    /// Runs a command in one of the namespaces and returns what it printed; fails when the command does.
    pub(crate) fn run(&self, namespace: &str, arguments: &[&str]) -> String {
        let output = self.inside(namespace, arguments).output().expect("ip starts");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{namespace}: {arguments:?}: {text}\n{}", self.gateway_log());
        text.into_owned()
    }

    /// Sends `count` HTTP requests from a namespace, a connection each; all must be answered.
    pub(crate) fn request(&self, namespace: &str, target: &str, count: u32) -> String {
        let client = root().join("scripts/lib/client.py");
        let python = self.variable("CLUSTER_PYTHON").to_owned();
        self.run(
            namespace,
            &[&python, &client.to_string_lossy(), "spread", target, "--count", &count.to_string()],
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Names of all checks, in order; the last one stops the gateway.
pub(crate) fn all_checks() -> Vec<String> {
    let output = Command::new(root().join("scripts/cluster.sh"))
        .arg("checks")
        .output()
        .expect("scripts/cluster.sh starts");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
