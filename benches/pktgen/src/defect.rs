//! What a gateway in memory can do wrong: one thing, in each n-th packet, so that tests see it found and named.

use engine::packet::Packet;
use engine::wire::checksum::{delta_u16, fold, update};
use engine::wire::ipv4::PROTOCOL_UDP;

use crate::template::Ends;

/// Something that a gateway does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The packet is gone.
    Lose,
    /// It comes twice.
    Repeat,
    /// It comes behind so many later packets.
    Delay(u8),
    /// It goes to an endpoint that is no backend.
    WrongBackend,
    /// It goes to the next backend instead of its flow's.
    MoveBackend,
    /// It comes from the next port instead of its flow's.
    MoveSource,
    /// It is not translated.
    LeaveUntranslated,
    /// The outer IP checksum is wrong.
    OuterChecksum,
    /// The inner IP checksum is wrong.
    IpChecksum,
    /// The UDP or TCP checksum is wrong.
    TransportChecksum,
    /// A byte at the end is another, and the checksum agrees.
    Payload,
    /// A hop too many is taken.
    Hops,
    /// It goes into another VXLAN network.
    Network,
    /// It goes to another station.
    Station,
    /// Its last bytes are missing.
    Truncate,
}

/// A gateway's defect, and when it shows.
#[derive(Default)]
pub(crate) struct Defective {
    defect: Option<Defect>,
    every: u64,
    count: u64,
    /// A packet that is late, and how many it still waits for.
    late: Option<(Packet, u8)>,
}

impl Defective {
    pub(crate) fn new(defect: Defect, every: u64) -> Self {
        Self { defect: Some(defect), every: every.max(1), count: 0, late: None }
    }

    /// Whether the packet that is worked on is one of those.
    pub(crate) fn is_due(&self) -> bool {
        self.defect.is_some() && (self.count + 1).is_multiple_of(self.every)
    }

    /// Where a packet that is due goes.
    pub(crate) fn other_ends(&self, mut ends: Ends, before: Ends, is_reply: bool) -> Ends {
        match self.defect {
            Some(Defect::WrongBackend) if !is_reply => ends.destination ^= 0x00ff_0000,
            Some(Defect::MoveBackend) if !is_reply => ends.destination ^= 1,
            Some(Defect::MoveSource) if !is_reply => ends.source_port ^= 1,
            Some(Defect::LeaveUntranslated) => return before,
            _ => {}
        }
        ends
    }

    /// Sends a finished packet on, or does to it what is wrong.
    pub(crate) fn deliver(&mut self, mut packet: Packet, inner_at: usize, mut send: impl FnMut(Packet)) {
        let due = self.is_due();
        self.count += 1;
        if due {
            match self.defect {
                Some(Defect::Lose) => return,
                Some(Defect::Delay(behind)) if self.late.is_none() => {
                    self.late = Some((packet, behind));
                    return;
                }
                Some(Defect::Repeat) => {
                    // The only pool within reach is the packet's own: its copy takes the place of the next one.
                    self.late = Some((packet, 0));
                    return;
                }
                Some(defect) => spoil(defect, packet.data_mut(), inner_at),
                None => {}
            }
            if self.defect == Some(Defect::Truncate) && packet.len() > 4 {
                let _ = packet.truncate(packet.len() - 4);
            }
        }
        match (self.defect, self.late.take()) {
            (Some(Defect::Repeat), Some((original, _))) => {
                let _ = packet.fill(original.data());
                send(original);
                send(packet);
            }
            (_, Some((late, 0))) => {
                send(packet);
                send(late);
            }
            (_, late) => {
                self.late = late.map(|(late, behind)| (late, behind - 1));
                send(packet);
            }
        }
    }
}

fn spoil(defect: Defect, frame: &mut [u8], inner_at: usize) {
    let length = frame.len();
    let mut flip = |at: usize| {
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= 1;
        }
    };
    match defect {
        Defect::OuterChecksum => flip(24),
        Defect::IpChecksum => flip(inner_at + 24),
        Defect::TransportChecksum => flip(length - 1),
        Defect::Network => flip(48),
        Defect::Station => flip(inner_at + 5),
        Defect::Hops => change_word(frame, inner_at + 22, 0x0100, inner_at + 24),
        Defect::Payload => {
            let is_datagram = frame.get(inner_at + 23) == Some(&PROTOCOL_UDP);
            let checksum = if is_datagram { 40 } else { 50 };
            change_word(frame, inner_at + ((length - inner_at - 2) & !1), 1, inner_at + checksum);
        }
        _ => {}
    }
}

/// Takes `less` from a 16-bit word, and mends the checksum.
fn change_word(frame: &mut [u8], at: usize, less: u16, checksum_at: usize) {
    let read =
        |frame: &[u8], at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let Some((old, checksum)) = read(frame, at).zip(read(frame, checksum_at)) else { return };
    let new = old.wrapping_sub(less);
    let mended = update(checksum, fold(delta_u16(old, new)));
    frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
    frame[checksum_at..checksum_at + 2].copy_from_slice(&mended.to_be_bytes());
}
