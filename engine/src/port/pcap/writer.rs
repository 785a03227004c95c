//! Writes a capture whose bytes depend on the frames and their times alone.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use pcap_file::pcap::{PcapHeader, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::CaptureError;
use crate::clock::Timestamp;

/// Bytes that are kept of a frame at the most; no frame that a port carries is longer.
pub const SNAP_LENGTH: u32 = 65_535;

/// A capture file that is being written: pcap with nanoseconds, little-endian on every machine.
pub struct CaptureWriter {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
    records: u64,
}

impl CaptureWriter {
    /// Makes the file, or empties it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref().to_owned();
        let header = PcapHeader {
            snaplen: SNAP_LENGTH,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let file = match File::create(&path) {
            Ok(file) => file,
            Err(source) => return Err(CaptureError::Open { path, source }),
        };
        match PcapWriter::with_header(BufWriter::new(file), header) {
            Ok(writer) => Ok(Self { path, writer, records: 0 }),
            Err(error) => Err(failed(&path, 0, &error)),
        }
    }

    /// Adds a frame. Times are since 1970 and end in 2106, where the format's do.
    pub fn write(&mut self, timestamp: Timestamp, bytes: &[u8]) -> Result<(), CaptureError> {
        let Ok(ts_sec) = u32::try_from(timestamp.seconds()) else {
            return Err(failed(&self.path, self.records, &PcapError::InvalidField("a time after 2106")));
        };
        let kept = &bytes[..bytes.len().min(SNAP_LENGTH as usize)];
        let packet = RawPcapPacket {
            ts_sec,
            ts_frac: (timestamp.0 % 1_000_000_000) as u32,
            incl_len: kept.len() as u32,
            orig_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(kept),
        };
        match self.writer.write_raw_packet(&packet) {
            Ok(_) => {
                self.records += 1;
                Ok(())
            }
            Err(error) => Err(failed(&self.path, self.records, &error)),
        }
    }

    /// Writes out what is still buffered and says how many records the file holds. A writer that is dropped instead
    /// does the first too, but cannot say that it failed.
    pub fn finish(self) -> Result<u64, CaptureError> {
        match self.writer.into_writer().flush() {
            Ok(()) => Ok(self.records),
            Err(source) => Err(failed(&self.path, self.records, &PcapError::IoError(source))),
        }
    }
}

fn failed(path: &Path, records: u64, error: &PcapError) -> CaptureError {
    let detail = match error {
        PcapError::IoError(source) => source.to_string(),
        PcapError::InvalidField(field) => (*field).to_owned(),
        error => error.to_string(),
    };
    CaptureError::Write { path: path.to_owned(), records, detail }
}
