//! The Linux side of a TAP interface: a network namespace of our own, and a packet socket in it.
#![allow(unsafe_code, reason = "sockets of a family that the standard library does not have")]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::process::Command;
use std::thread;

/// IEEE 802's first EtherType for local experiments.
const ETHER_TYPE: u16 = 0x88b5;

/// Why TAP interfaces and namespaces cannot be tried here.
pub(crate) fn is_possible() -> Result<(), String> {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err("needs root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("needs /dev/net/tun".into());
    }
    Command::new("ip").arg("-V").output().map(drop).map_err(|_| "needs the command ip".into())
}

/// A frame from an address to another, both local, with bytes that differ by place.
pub(crate) fn test_frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ETHER_TYPE.to_be_bytes());
    frame.extend((frame.len()..length).map(|place| place as u8));
    frame
}

/// A network namespace that is removed again.
pub(crate) struct Namespace {
    name: String,
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        ip(&["netns", "add", name]);
        Self { name: name.into() }
    }

    /// Moves an interface here and sets it up.
    pub(crate) fn take(&self, interface: &str) {
        ip(&["link", "set", interface, "netns", &self.name]);
        ip(&["-n", &self.name, "link", "set", interface, "up"]);
    }

    /// Sends a frame out of an interface here and returns the next frame of its type that comes in by it.
    pub(crate) fn exchange(&self, interface: &str, frame: &[u8]) -> Vec<u8> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let (interface, frame) = (CString::new(interface).unwrap(), frame.to_vec());
        // A thread, because it stays in the namespace that it enters.
        let work = move || {
            // SAFETY: the descriptor is a network namespace's and open.
            assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            let mut socket = packet_socket(&interface);
            assert_eq!(socket.write(&frame).unwrap(), frame.len());
            let mut answer = vec![0; 4096];
            let length = socket.read(&mut answer).expect("no answer within 5 seconds");
            answer.truncate(length);
            answer
        };
        thread::spawn(work).join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing more can be done about it; panicking while panicking would hide the reason.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// packet(7): a raw socket bound to an interface and one EtherType, which waits for 5 seconds at the most.
fn packet_socket(interface: &CString) -> File {
    let protocol = i32::from(ETHER_TYPE.to_be());
    // SAFETY: all structures are initialised and outlive the calls, which get their sizes; the descriptor is new and
    // given to the File alone.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol);
        assert!(socket >= 0);
        let file = File::from_raw_fd(socket);
        let wait = libc::timeval { tv_sec: 5, tv_usec: 0 };
        let size = size_of::<libc::timeval>() as libc::socklen_t;
        let set =
            libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const wait).cast(), size);
        assert_eq!(set, 0);
        let mut address: libc::sockaddr_ll = core::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETHER_TYPE.to_be();
        address.sll_ifindex = libc::if_nametoindex(interface.as_ptr()) as i32;
        assert!(address.sll_ifindex > 0);
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        assert_eq!(libc::bind(socket, (&raw const address).cast(), size), 0);
        file
    }
}
