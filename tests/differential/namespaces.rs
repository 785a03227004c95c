//! Two network namespaces joined by three veth pairs: the gateway's, and everybody else's. A shell holds them and removes
//! them when the pipe from this process ends, so they go away even when the test is killed.
//!
//! ```text
//!   far                        gateway, node 1
//!   pods of node 1    -- pods --      172.30.76.1/24
//!   pods elsewhere    -- overlay --   172.30.76.0/32, route to 172.30.0.0/16
//!   everybody else    -- underlay --  192.168.0.21/24, default route
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The gateway's addresses: the primary one, and those of the bridge and the tunnel.
pub(crate) const NODE_ADDRESSES: [&str; 3] = ["192.168.0.21", "172.30.76.1", "172.30.76.0"];

/// Programs that all this is made with.
const PROGRAMS: [&str; 3] = ["ip", "nft", "sh"];

const HOLD: &str = r#"
trap 'ip netns del "$1"; ip netns del "$2"' EXIT
trap 'exit 1' HUP INT TERM
ip netns add "$1" && ip netns add "$2" && echo ready
read -r _
"#;

/// An interface of the gateway; its other end has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) gateway_mac: &'static str,
    pub(crate) far_mac: &'static str,
}

pub(crate) const PODS: Link =
    Link { name: "pods", gateway_mac: "02:00:00:00:01:01", far_mac: "02:00:00:00:01:02" };
pub(crate) const OVERLAY: Link =
    Link { name: "overlay", gateway_mac: "02:00:00:00:02:01", far_mac: "02:00:00:00:02:02" };
pub(crate) const UNDERLAY: Link =
    Link { name: "underlay", gateway_mac: "02:00:00:00:03:01", far_mac: "02:00:00:00:03:02" };
pub(crate) const LINKS: [Link; 3] = [PODS, OVERLAY, UNDERLAY];

/// In the gateway, before there are interfaces: it forwards, trusts sources, and answers everybody at any rate.
const SETTINGS: [(&str, &str); 6] = [
    ("ip_forward", "1"),
    ("icmp_ratemask", "0"),
    ("conf/all/rp_filter", "0"),
    ("conf/default/rp_filter", "0"),
    ("conf/all/send_redirects", "0"),
    ("conf/default/send_redirects", "0"),
];

/// The namespaces, for as long as the value lives.
pub(crate) struct Namespaces {
    holder: Child,
    gateway: String,
    far: String,
}

/// Why namespaces with rules cannot be made here, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    let path = std::env::var_os("PATH")?;
    let is_missing =
        |program: &&&str| !std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    PROGRAMS.iter().find(is_missing).map(|program| format!("{program} is not installed"))
}

impl Namespaces {
    /// `name` tells those apart that exist at the same time.
    pub(crate) fn up(name: &str) -> Namespaces {
        let prefix = format!("pg-diff-{}-{name}", std::process::id());
        let (gateway, far) = (format!("{prefix}-gw"), format!("{prefix}-far"));
        let mut holder = Command::new("sh")
            .args(["-c", HOLD, "sh", &gateway, &far])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let mut said = String::new();
        let output = holder.stdout.take().expect("standard output is a pipe");
        BufReader::new(output).read_line(&mut said).expect("the shell says something");
        let namespaces = Namespaces { holder, gateway, far };
        assert_eq!(said, "ready\n", "namespaces cannot be made");
        namespaces.enter_gateway();
        for (name, value) in SETTINGS {
            let file = Path::new("/proc/sys/net/ipv4").join(name);
            std::fs::write(&file, value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        namespaces.feed(&namespaces.gateway, &["ip", "-batch", "-"], &namespaces.links());
        let far_links: String = LINKS.iter().map(|link| format!("link set {} up\n", link.name)).collect();
        namespaces.feed(&namespaces.far, &["ip", "-batch", "-"], &far_links);
        namespaces
    }

    /// Without ARP every address is taken to be at the other end of its link.
    fn links(&self) -> String {
        let mut commands = String::from("link set lo up\n");
        for Link { name, gateway_mac, far_mac } in LINKS {
            commands += &format!(
                "link add {name} address {gateway_mac} type veth peer name {name} address {far_mac} netns {}\n\
                 link set {name} arp off up\n",
                self.far
            );
        }
        commands
            + "address add 172.30.76.1/24 dev pods\n\
               address add 172.30.76.0/32 dev overlay\n\
               address add 192.168.0.21/24 dev underlay\n\
               route add 172.30.0.0/16 dev overlay\n\
               route add default dev underlay\n"
    }

    /// Loads rules into the gateway.
    pub(crate) fn load(&self, rules: &str) {
        self.feed(&self.gateway, &["nft", "-f", "-"], rules);
    }

    /// Runs a command in a namespace and gives it its input.
    fn feed(&self, namespace: &str, command: &[&str], input: &str) {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(command)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip starts");
        let mut pipe = child.stdin.take().expect("standard input is a pipe");
        pipe.write_all(input.as_bytes()).expect("the command reads its input");
        drop(pipe);
        let output = child.wait_with_output().expect("the command ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}\n{input}");
    }

    /// Moves this thread into the gateway's namespace.
    pub(crate) fn enter_gateway(&self) {
        enter(&self.gateway);
    }

    /// Moves this thread to the other ends of the gateway's links.
    pub(crate) fn enter_far(&self) {
        enter(&self.far);
    }
}

fn enter(namespace: &str) {
    let file = File::open(Path::new("/run/netns").join(namespace)).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
