//! Reads one capture file, of either format, record by record.

use std::fs::File;
use std::io::{self, Chain, Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::{ENHANCED_PACKET_BLOCK, PACKET_BLOCK, SIMPLE_PACKET_BLOCK};
use pcap_file::{Endianness, PcapError, TsResolution};

use super::{CaptureError, Record};
use crate::clock::Timestamp;

/// Link type of Ethernet (LINKTYPE_ETHERNET, in both formats).
const ETHERNET: u32 = 1;
/// Frames longer than this are a damaged file's: libpcap captures no longer ones either (its MAXIMUM_SNAPLEN).
const CAPTURED_MAX: u32 = 262_144;
/// A pcapng file's first four bytes, in both byte orders; anything else is tried as pcap.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Bytes in front of the data in an enhanced packet block, and in the obsolete packet block.
const PACKET_BLOCK_HEADER: usize = 20;

type Source = Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>;

enum Format {
    Pcap(PcapReader<Source>),
    PcapNg(PcapNgReader<Source>),
}

/// Why there is no next record.
enum Trouble {
    LinkType(u32),
    Parser(PcapError),
    Detail(&'static str),
}

/// Where the record in the buffer is, and what is known of it.
#[derive(Default)]
struct Found {
    timestamp: Timestamp,
    data: Range<usize>,
    original_length: u32,
}

/// A capture file that is being read.
pub struct CaptureReader {
    path: PathBuf,
    format: Format,
    buffer: Vec<u8>,
    found: Option<Found>,
    ended: bool,
    records: u64,
    truncated: u64,
}

impl CaptureReader {
    /// Opens a capture of Ethernet frames: pcap with microseconds or nanoseconds, in either byte order, or pcapng.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| CaptureError::Open { path: path.to_owned(), source })?;
        Self::from_source(path, Box::new(file))
    }

    /// Reads a capture from `source`; errors call it `path`.
    pub fn from_source(
        path: impl AsRef<Path>,
        mut source: Box<dyn Read + Send>,
    ) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let mut start = Vec::with_capacity(SECTION_HEADER.len());
        let read = source.by_ref().take(SECTION_HEADER.len() as u64).read_to_end(&mut start);
        let is_pcapng = start == SECTION_HEADER;
        let source = Cursor::new(start).chain(source);
        let format = read.map_err(PcapError::IoError).and_then(|_| {
            Ok(if is_pcapng {
                Format::PcapNg(PcapNgReader::new(source)?)
            } else {
                Format::Pcap(PcapReader::new(source)?)
            })
        });
        let format = format.map_err(|error| opening_failed(path, error))?;
        if let Format::Pcap(reader) = &format {
            let link_type = u32::from(reader.header().datalink);
            if link_type != ETHERNET {
                return Err(CaptureError::LinkType { path: path.to_owned(), link_type });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            format,
            buffer: Vec::new(),
            found: None,
            ended: false,
            records: 0,
            truncated: 0,
        })
    }

    /// The next record; none at the end. After an error there are no more.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        self.advance()?;
        Ok(self.record())
    }

    /// Reads the next record into the buffer, if there is one.
    pub(super) fn advance(&mut self) -> Result<(), CaptureError> {
        self.found = None;
        if self.ended {
            return Ok(());
        }
        let found = match &mut self.format {
            Format::Pcap(reader) => next_of_pcap(reader, &mut self.buffer),
            Format::PcapNg(reader) => next_of_pcapng(reader, &mut self.buffer),
        };
        match found.and_then(|found| found.map(|found| plausible(found, self.buffer.len())).transpose()) {
            Ok(found) => {
                self.ended = found.is_none();
                self.found = found;
            }
            Err(trouble) => {
                self.ended = true;
                return Err(self.reading_failed(trouble));
            }
        }
        if let Some(record) = self.record() {
            let truncated = record.is_truncated();
            self.records += 1;
            self.truncated += u64::from(truncated);
        }
        Ok(())
    }

    /// The record last read.
    pub(super) fn record(&self) -> Option<Record<'_>> {
        let found = self.found.as_ref()?;
        let bytes = self.buffer.get(found.data.clone())?;
        Some(Record { timestamp: found.timestamp, bytes, original_length: found.original_length })
    }

    fn reading_failed(&self, trouble: Trouble) -> CaptureError {
        let (path, records) = (self.path.clone(), self.records);
        match trouble {
            Trouble::LinkType(link_type) => CaptureError::LinkType { path, link_type },
            Trouble::Detail(detail) => CaptureError::Damaged { path, records, detail: detail.to_owned() },
            Trouble::Parser(PcapError::IoError(source)) if source.kind() != io::ErrorKind::UnexpectedEof => {
                CaptureError::Read { path, records, source }
            }
            Trouble::Parser(error) => CaptureError::Damaged { path, records, detail: describe(&error) },
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records read so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Records read so far of which the capture kept only the beginning. A capture taken with `-s 0` has none.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }
}

fn opening_failed(path: &Path, error: PcapError) -> CaptureError {
    let path = path.to_owned();
    match error {
        PcapError::IoError(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            CaptureError::Read { path, records: 0, source }
        }
        error => CaptureError::NotACapture { path, detail: describe(&error) },
    }
}

fn describe(error: &PcapError) -> String {
    match error {
        PcapError::IoError(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            "it ends within a header or a record".to_owned()
        }
        PcapError::InvalidField(field) => (*field).to_owned(),
        error => error.to_string(),
    }
}

/// Passes on a record whose lengths can be true.
fn plausible(found: Found, available: usize) -> Result<Found, Trouble> {
    let length = found.data.len();
    if found.data.end > available {
        Err(Trouble::Detail("a record's data do not fit into its block"))
    } else if length > CAPTURED_MAX as usize {
        Err(Trouble::Detail("a record is longer than any capture's"))
    } else if length > found.original_length as usize {
        Err(Trouble::Detail("a record holds more than there was on the wire"))
    } else {
        Ok(found)
    }
}

fn next_of_pcap(reader: &mut PcapReader<Source>, buffer: &mut Vec<u8>) -> Result<Option<Found>, Trouble> {
    let (units_per_second, unit) = match reader.header().ts_resolution {
        TsResolution::MicroSecond => (1_000_000, 1_000),
        TsResolution::NanoSecond => (1_000_000_000, 1),
    };
    // The raw form, since the checked one refuses frames longer than the snap length, which truncated frames are.
    let Some(packet) = reader.next_raw_packet().transpose().map_err(Trouble::Parser)? else {
        return Ok(None);
    };
    if packet.ts_frac >= units_per_second {
        return Err(Trouble::Detail("a record's time has more than a second's fraction"));
    }
    buffer.clear();
    buffer.extend_from_slice(&packet.data);
    Ok(Some(Found {
        timestamp: Timestamp(u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit),
        data: 0..buffer.len(),
        original_length: packet.orig_len,
    }))
}

fn next_of_pcapng(reader: &mut PcapNgReader<Source>, buffer: &mut Vec<u8>) -> Result<Option<Found>, Trouble> {
    loop {
        let Some(block) = reader.next_raw_block().transpose().map_err(Trouble::Parser)? else {
            return Ok(None);
        };
        let kind = block.type_;
        if kind == SIMPLE_PACKET_BLOCK {
            return Err(Trouble::Detail("its simple packet blocks carry no times; replay needs them"));
        }
        if kind != ENHANCED_PACKET_BLOCK && kind != PACKET_BLOCK {
            continue;
        }
        buffer.clear();
        buffer.extend_from_slice(&block.body);
        let found = packet_block(kind, reader.section().endianness, reader.interfaces(), buffer)?;
        return Ok(Some(found));
    }
}

/// Reads the fixed part of an enhanced packet block (section 4.3) or packet block (appendix A): interface, time,
/// captured and original length. They differ in the width of the interface's number.
fn packet_block(
    kind: u32,
    order: Endianness,
    interfaces: &[InterfaceDescriptionBlock<'_>],
    body: &[u8],
) -> Result<Found, Trouble> {
    let Some((header, _)) = body.split_first_chunk::<PACKET_BLOCK_HEADER>() else {
        return Err(Trouble::Detail("a packet block is shorter than its header"));
    };
    let word = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        match order {
            Endianness::Big => u32::from_be_bytes(bytes),
            Endianness::Little => u32::from_le_bytes(bytes),
        }
    };
    let interface = match (kind, order) {
        (ENHANCED_PACKET_BLOCK, _) => word(0),
        (_, Endianness::Big) => word(0) >> 16,
        (_, Endianness::Little) => word(0) & 0xffff,
    };
    let Some(interface) = interfaces.get(interface as usize) else {
        return Err(Trouble::Detail("a packet names an interface that was not described"));
    };
    if u32::from(interface.linktype) != ETHERNET {
        return Err(Trouble::LinkType(interface.linktype.into()));
    }
    let units = u64::from(word(4)) << 32 | u64::from(word(8));
    let end = PACKET_BLOCK_HEADER.saturating_add(word(12) as usize);
    Ok(Found {
        timestamp: interface_time(interface, units),
        data: PACKET_BLOCK_HEADER..end,
        original_length: word(16),
    })
}

/// A packet's time, from its interface's resolution and offset (section 4.2: if_tsresol, if_tsoffset).
fn interface_time(interface: &InterfaceDescriptionBlock<'_>, units: u64) -> Timestamp {
    let (mut resolution, mut offset_s) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            // A signed number of seconds, which the parser gives as its bits.
            InterfaceDescriptionOption::IfTsOffset(value) => offset_s = value.cast_signed(),
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let units = u128::from(units);
    // Below 2^94 whatever the units; a power that does not fit makes a unit too short to count.
    let nanoseconds = if resolution & 0x80 != 0 {
        (units * 1_000_000_000) >> exponent
    } else {
        10u128.checked_pow(exponent).map_or(0, |per_second| units * 1_000_000_000 / per_second)
    };
    let offset = i128::from(offset_s) * 1_000_000_000;
    let time = i128::try_from(nanoseconds).unwrap_or(i128::MAX).saturating_add(offset);
    Timestamp(u64::try_from(time.max(0)).unwrap_or(u64::MAX))
}
