//! Captures, written out byte by byte from the formats' descriptions.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

type Owned = (u64, Vec<u8>, u32);

#[derive(Clone, Copy, Debug)]
struct Layout {
    big: bool,
    nanoseconds: bool,
}

const LAYOUTS: [Layout; 4] = [
    Layout { big: false, nanoseconds: false },
    Layout { big: false, nanoseconds: true },
    Layout { big: true, nanoseconds: false },
    Layout { big: true, nanoseconds: true },
];

impl Layout {
    fn u32(self, out: &mut Vec<u8>, number: u32) {
        out.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn u16(self, out: &mut Vec<u8>, number: u16) {
        out.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn pcap(self, link_type: u32, records: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        self.u32(&mut out, if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
        self.u16(&mut out, 2);
        self.u16(&mut out, 4);
        for number in [0, 0, 100, link_type] {
            self.u32(&mut out, number);
        }
        for (time, bytes, original) in records {
            let fraction = time % 1_000_000_000 / if self.nanoseconds { 1 } else { 1000 };
            for number in [time / 1_000_000_000, fraction, bytes.len() as u64, u64::from(*original)] {
                self.u32(&mut out, number as u32);
            }
            out.extend(bytes);
        }
        out
    }

    fn block(self, out: &mut Vec<u8>, kind: u32, body: &[u8]) {
        let length = 12 + body.len().next_multiple_of(4) as u32;
        self.u32(out, kind);
        self.u32(out, length);
        out.extend(body);
        out.resize(out.len().next_multiple_of(4), 0);
        self.u32(out, length);
    }

    fn interface(self, out: &mut Vec<u8>, link_type: u16) {
        let mut body = Vec::new();
        self.u16(&mut body, link_type);
        self.u16(&mut body, 0);
        self.u32(&mut body, 0);
        if self.nanoseconds {
            // if_tsresol is option 9, one byte, padded; opt_endofopt ends the list.
            self.u16(&mut body, 9);
            self.u16(&mut body, 1);
            body.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.block(out, 1, &body);
    }

    fn pcapng(self, link_type: u16, records: &[Owned]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut body = Vec::new();
        self.u32(&mut body, 0x1a2b_3c4d);
        self.u16(&mut body, 1);
        self.u16(&mut body, 0);
        body.extend([0xff; 8]);
        self.block(&mut out, 0x0a0d_0d0a, &body);
        self.interface(&mut out, link_type);
        // A block of an unknown kind, which readers skip.
        self.block(&mut out, 0x0bad, &[1, 2, 3, 4]);
        for (time, bytes, original) in records {
            let units = time / if self.nanoseconds { 1 } else { 1000 };
            let mut body = Vec::new();
            for number in [0, units >> 32, units & 0xffff_ffff, bytes.len() as u64, u64::from(*original)] {
                self.u32(&mut body, number as u32);
            }
            body.extend(bytes);
            self.block(&mut out, 6, &body);
        }
        out
    }
}

fn open(bytes: Vec<u8>) -> Result<CaptureReader, CaptureError> {
    CaptureReader::from_source("test.pcap", Box::new(Cursor::new(bytes)))
}

fn read_all(reader: &mut CaptureReader) -> Result<Vec<Owned>, CaptureError> {
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push((record.timestamp.0, record.bytes.to_vec(), record.original_length));
    }
    Ok(records)
}

fn record(time: u64, length: usize) -> Owned {
    (time, vec![length as u8; length], length as u32)
}

#[test]
fn truncated_records_are_passed_on_and_counted() {
    for layout in LAYOUTS {
        let records = vec![record(1_000, 60), (2_000, vec![1; 100], 1500), record(3_000, 0)];
        for file in [layout.pcap(1, &records), layout.pcapng(1, &records)] {
            let mut reader = open(file).unwrap();
            assert_eq!(read_all(&mut reader).unwrap(), records);
            assert_eq!((reader.records(), reader.truncated()), (3, 1));
            assert!(reader.next_record().unwrap().is_none());
        }
    }
}

#[test]
fn only_ethernet_is_read() {
    let layout = LAYOUTS[0];
    // 113 is LINKTYPE_LINUX_SLL, which a capture on `any` has.
    let error = open(layout.pcap(113, &[])).err().unwrap().to_string();
    assert_eq!(
        error,
        "test.pcap holds frames of link type 113, and only Ethernet (1) can be used; \
         capture on an Ethernet interface instead of `any` or a tunnel"
    );
    let mut reader = open(layout.pcapng(113, &[record(1, 60)])).unwrap();
    assert!(matches!(reader.next_record(), Err(CaptureError::LinkType { link_type: 113, .. })));
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"abc", b"#!/bin/sh\nexit 0 # and so on", &[0x0a, 0x0d, 0x0d, 0x0a]] {
        assert!(matches!(open(bytes.to_vec()), Err(CaptureError::NotACapture { .. })), "{bytes:?}");
    }
    let missing = CaptureReader::open("/nonexistent/a.pcap").err().unwrap().to_string();
    assert!(missing.starts_with("cannot open /nonexistent/a.pcap: "), "{missing}");
}

#[test]
fn damage_ends_the_reading_with_an_error() {
    let layout = LAYOUTS[1];
    let records = [record(1, 60), record(2, 61)];
    let whole = layout.pcap(1, &records);
    let damaged = |at: usize, byte: u8| {
        let mut file = whole.clone();
        file[at] = byte;
        file
    };
    let second = 24 + 16 + 60;
    let cut_short = whole[..whole.len() - 1].to_vec();
    // Little-endian high bytes of: the fraction, the captured length, the original length (its low byte).
    for file in [cut_short, damaged(second + 7, 0x7f), damaged(second + 11, 0x7f), damaged(second + 12, 60)] {
        let mut reader = open(file).unwrap();
        assert!(reader.next_record().unwrap().is_some());
        assert!(matches!(reader.next_record(), Err(CaptureError::Damaged { records: 1, .. })));
        assert!(reader.next_record().unwrap().is_none());
    }
}

#[test]
fn blocks_that_cannot_be_used_are_errors() {
    let layout = LAYOUTS[0];
    let detail = |kind: u32, body: &[u8]| {
        let mut file = layout.pcapng(1, &[]);
        layout.block(&mut file, kind, body);
        match open(file).unwrap().next_record() {
            Err(CaptureError::Damaged { detail, .. }) => detail,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(detail(3, &[0; 8]), "its simple packet blocks carry no times; replay needs them");
    assert_eq!(detail(6, &[0; 8]), "a packet block is shorter than its header");
    let mut body = [0; 20];
    body[0] = 1;
    assert_eq!(detail(6, &body), "a packet names an interface that was not described");
    body[0] = 0;
    body[12] = 4;
    assert_eq!(detail(6, &body), "a record's data do not fit into its block");
}

#[test]
fn an_interfaces_resolution_and_offset_count() {
    // if_tsresol 0x8a: units of 2^-10 seconds; if_tsoffset (14): 2 seconds later. Then the obsolete packet block.
    let layout = LAYOUTS[2];
    let mut file = layout.pcapng(1, &[]);
    let mut interface = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 14, 0, 8];
    interface.extend(2u64.to_be_bytes());
    interface.extend([0; 4]);
    layout.block(&mut file, 1, &interface);
    let mut packet = vec![0, 1, 0, 7];
    for number in [0u32, 1536, 1, 60] {
        packet.extend(number.to_be_bytes());
    }
    packet.push(9);
    layout.block(&mut file, 2, &packet);
    assert_eq!(read_all(&mut open(file).unwrap()).unwrap(), [(3_500_000_000, vec![9], 60)]);
}

#[test]
fn merging_keeps_to_time_and_to_the_order_of_inputs() {
    let layout = LAYOUTS[1];
    let first = layout.pcap(1, &[record(10, 1), record(30, 2), record(20, 3), record(40, 4)]);
    let second = layout.pcapng(1, &[record(10, 5), record(35, 6), record(40, 7)]);
    let empty = layout.pcap(1, &[]);
    let inputs = [first, empty, second].map(|file| open(file).unwrap());
    let mut merge = CaptureMerge::new(inputs.into()).unwrap();
    let mut seen = Vec::new();
    while let Some((input, record)) = merge.next_record().unwrap() {
        seen.push((input, record.timestamp.0, record.bytes.len()));
    }
    let expected = [(0, 10, 1), (2, 10, 5), (0, 30, 2), (0, 30, 3), (2, 35, 6), (0, 40, 4), (2, 40, 7)];
    assert_eq!((seen.as_slice(), merge.reordered()), (&expected[..], 1));
    assert_eq!(merge.inputs().iter().map(CaptureReader::records).collect::<Vec<_>>(), [4, 0, 3]);
}

#[test]
fn written_bytes_are_the_formats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    let mut writer = CaptureWriter::create(&path).unwrap();
    writer.write(Timestamp(1_700_000_000_123_456_789), &[0xab; 3]).unwrap();
    assert!(matches!(writer.write(Timestamp::MAX, &[]), Err(CaptureError::Write { records: 1, .. })));
    assert_eq!(writer.finish().unwrap(), 1);
    let mut expected = LAYOUTS[1].pcap(1, &[(1_700_000_000_123_456_789, vec![0xab; 3], 3)]);
    expected[16..20].copy_from_slice(&SNAP_LENGTH.to_le_bytes());
    assert_eq!(std::fs::read(&path).unwrap(), expected);
    let error = CaptureWriter::create(folder.path()).err().unwrap();
    assert!(matches!(error, CaptureError::Open { .. }));
}

#[test]
fn frames_longer_than_the_snap_length_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    let mut writer = CaptureWriter::create(&path).unwrap();
    writer.write(Timestamp(7), &vec![1; 70_000]).unwrap();
    writer.finish().unwrap();
    let mut reader = CaptureReader::open(&path).unwrap();
    assert_eq!(read_all(&mut reader).unwrap(), [(7, vec![1; 65_535], 70_000)]);
}

fn records(step: u64) -> impl Strategy<Value = Vec<Owned>> {
    let time = (0..u64::from(u32::MAX) * 1_000_000_000 / step).prop_map(move |units| units * step);
    let record = (time, proptest::collection::vec(any::<u8>(), 0..200), 0..3000u32).prop_map(
        |(time, bytes, longer)| (time, bytes.clone(), bytes.len() as u32 + longer.saturating_sub(2000)),
    );
    proptest::collection::vec(record, 0..20)
}

proptest! {
    #[test]
    fn both_formats_read_back(records in records(1000), layout in 0..4usize) {
        let layout = LAYOUTS[layout];
        prop_assert_eq!(&read_all(&mut open(layout.pcap(1, &records)).unwrap()).unwrap(), &records);
        prop_assert_eq!(&read_all(&mut open(layout.pcapng(1, &records)).unwrap()).unwrap(), &records);
    }

    #[test]
    fn what_was_written_reads_back(records in records(1)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.pcap");
        let mut writer = CaptureWriter::create(&path).unwrap();
        for (time, bytes, _) in &records {
            writer.write(Timestamp(*time), bytes).unwrap();
        }
        prop_assert_eq!(writer.finish().unwrap(), records.len() as u64);
        let whole: Vec<Owned> =
            records.into_iter().map(|(time, bytes, _)| (time, bytes.clone(), bytes.len() as u32)).collect();
        prop_assert_eq!(read_all(&mut CaptureReader::open(&path).unwrap()).unwrap(), whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic(start in 0..3usize, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut file = [&[][..], &[0x0a, 0x0d, 0x0d, 0x0a], &[0xd4, 0xc3, 0xb2, 0xa1]][start].to_vec();
        file.extend(rest);
        if let Ok(mut reader) = open(file) {
            let _ = read_all(&mut reader);
        }
    }

    #[test]
    fn damaged_captures_never_panic_and_end(
        records in records(1000),
        layout in 0..4usize,
        pcapng: bool,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let layout = LAYOUTS[layout];
        let mut file = if pcapng { layout.pcapng(1, &records) } else { layout.pcap(1, &records) };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(file.len() - cut.index(8));
        let length = file.len();
        if let Ok(mut reader) = open(file) {
            let mut count = 0;
            while let Ok(Some(record)) = reader.next_record() {
                prop_assert!(record.bytes.len() <= record.original_length as usize);
                count += 1;
            }
            prop_assert!(count * 16 <= length);
        }
    }
}
