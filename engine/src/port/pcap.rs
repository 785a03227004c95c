//! Capture files: frames with their times, read from pcap and pcapng, written as pcap.
//!
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Files are read record by record; what is damaged ends
//! the reading with an error that names the file.

mod merge;
mod reader;
mod writer;

use std::io;
use std::path::PathBuf;

pub use merge::CaptureMerge;
pub use reader::CaptureReader;
pub use writer::{CaptureWriter, SNAP_LENGTH};

use crate::clock::Timestamp;

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was captured, since 1970 (UTC).
    pub timestamp: Timestamp,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire.
    pub original_length: u32,
}

impl Record<'_> {
    /// Whether the capture kept only the frame's beginning.
    pub fn is_truncated(&self) -> bool {
        self.bytes.len() < self.original_length as usize
    }
}

/// Why a capture file cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened or made.
    #[error("cannot open {}: {source}; check the path and its permissions", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file does not begin as a capture does.
    #[error(
        "{} is no capture file: {detail}; pcap and pcapng are read, as `tcpdump -w FILE` and Wireshark write them",
        path.display()
    )]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What is wrong with its beginning.
        detail: String,
    },
    /// The frames are not Ethernet.
    #[error(
        "{} holds frames of link type {link_type}, and only Ethernet (1) can be used; \
         capture on an Ethernet interface instead of `any` or a tunnel",
        path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type (tcpdump.org's list).
        link_type: u32,
    },
    /// The file stops making sense.
    #[error("{} is damaged or cut short after {records} records: {detail}; capture or copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How many records were read before.
        records: u64,
        /// What is wrong.
        detail: String,
    },
    /// The system failed to read on.
    #[error("cannot read {} after {records} records: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How many records were read before.
        records: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The system failed to write, or the format cannot hold the record.
    #[error("cannot write {} after {records} records: {detail}; check the space left on its disk", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// How many records were written before.
        records: u64,
        /// What is wrong.
        detail: String,
    },
}

#[cfg(test)]
mod tests;
