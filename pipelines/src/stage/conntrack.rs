//! Connection tracking: finds a packet's flow and moves its state on.
//!
//! Both directions of a flow keep the same state; the other direction's line is touched only when the state changes.

use engine::batch::Batch;
use engine::packet::Packet;
use engine::table::flow::{EntryId, FlowEntry, FlowKey};
use engine::wire::ipv4::{PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use engine::wire::tcp::{FLAG_ACK, FLAG_FIN, FLAG_RST, FLAG_SYN, TcpHeader};
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::flow::{FLAG_ASSURED, FLAG_ORIGINAL, FlowValue, Flows};
use crate::meta::{Kind, Meta, NO_ENTRY};
use crate::stage::parse::ECHO_REPLY;
use crate::stage::tcp_state::{self, TcpState, Verdict};
use crate::table::Timeouts;

/// State of a flow that is not TCP and has no answer yet.
pub const STATE_UNREPLIED: u8 = 0;
/// State of a flow that is not TCP and has answers.
pub const STATE_REPLIED: u8 = 1;

/// What a packet means to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It goes on as the flow entry says.
    Pass,
    /// The connection was over, and this packet opens a new one in its place.
    Reopen,
    /// It fits no state.
    Invalid,
}

/// Asks for the entries of all packets that are to be looked up; parse has asked for their buckets.
pub fn prefetch(batch: &mut Batch<Meta>, flows: &Flows) {
    for index in 0..batch.len() {
        let meta = &mut batch.meta[index];
        if matches!(meta.kind, Kind::Flow | Kind::IcmpError) {
            meta.entry = flows.prefetch_entry(meta.hash).map_or(NO_ENTRY, |id| id.0);
        }
    }
}

/// Finds the flow of a packet. The later after [`prefetch`] that is, the less it waits.
#[inline(always)]
pub fn find(meta: &mut Meta, flows: &Flows) {
    if matches!(meta.kind, Kind::Flow | Kind::IcmpError) {
        let hint = (meta.entry != NO_ENTRY).then_some(EntryId(meta.entry));
        meta.entry = flows.find_with_hint(&meta.key, meta.hash, hint).map_or(NO_ENTRY, |id| id.0);
    }
}

/// Moves the state of a flow on by one of its packets.
#[inline(always)]
pub fn advance(flows: &mut Flows, id: EntryId, packet: &Packet, meta: &Meta, now_ms: u32) -> Step {
    let value = flows.value_mut(id);
    if meta.key.protocol != PROTOCOL_TCP {
        value.last_seen_ms = now_ms;
        if !value.has(FLAG_ORIGINAL) && value.state == STATE_UNREPLIED {
            set_state(flows, id, STATE_REPLIED, FLAG_ASSURED);
        }
        return Step::Pass;
    }
    let state = TcpState::from_number(value.state);
    let is_original = value.has(FLAG_ORIGINAL);
    let next = match tcp_state::next(state, meta.tcp_flags, is_original) {
        Verdict::Invalid => return Step::Invalid,
        Verdict::Ignore => state,
        // From either side, as nf_conntrack_tcp_packet has it: whoever sends the SYN is the originator then.
        Verdict::Next(TcpState::SynSent) if state.is_over() => return Step::Reopen,
        Verdict::Next(next) => next,
    };
    let sequence = note_tcp(value, packet, meta);
    value.last_seen_ms = now_ms;
    // A connection picked up in the middle is established before its other side has spoken.
    let is_new_answer = !is_original && next == TcpState::Established && !value.has(FLAG_ASSURED);
    if (next != state || is_new_answer)
        && (meta.tcp_flags & FLAG_RST == 0 || is_reset_credible(flows, id, sequence))
    {
        // As the kernel: assured once both sides have spoken and the handshake is through.
        let assured = if next == TcpState::Established { FLAG_ASSURED } else { 0 };
        set_state(flows, id, next as u8, assured);
    }
    Step::Pass
}

/// Remembers how far this side has come. Gives the packet's sequence number.
#[inline(always)]
fn note_tcp(value: &mut FlowValue, packet: &Packet, meta: &Meta) -> u32 {
    let bytes = packet.data().get(usize::from(meta.transport_offset)..).unwrap_or_default();
    let Ok((header, _)) = TcpHeader::ref_from_prefix(bytes) else { return 0 };
    let sequence = header.sequence.get();
    if meta.tcp_flags & FLAG_RST != 0 {
        // It may be forged, and its numbers would decide which of the other side's resets are believed.
        return sequence;
    }
    let length = u32::from(meta.payload_length)
        + u32::from(meta.tcp_flags & FLAG_SYN != 0)
        + u32::from(meta.tcp_flags & FLAG_FIN != 0);
    let end = sequence.wrapping_add(length);
    if value.tcp_end == 0 || end.wrapping_sub(value.tcp_end) as i32 > 0 {
        value.tcp_end = end;
    }
    if meta.tcp_flags & FLAG_ACK != 0 {
        value.tcp_acknowledged = header.acknowledgement.get();
    }
    value.tcp_window = value.tcp_window.max(u32::from(header.window.get()));
    sequence
}

/// Window that a reset may fall into: the largest that scaling allows (RFC 7323, section 2.3).
const WINDOW_MAX: u32 = 1 << 30;

/// Whether a reset lies in the window that the other side has announced (RFC 5961, section 3.2). One that does not is
/// passed on for the other side to judge, but does not end the flow here, or anybody could.
fn is_reset_credible(flows: &Flows, id: EntryId, sequence: u32) -> bool {
    let peer = flows.entry(id.peer()).value;
    if peer.tcp_acknowledged == 0 {
        return true;
    }
    // The announced window is unscaled: allow the largest scale (2^14).
    let window = (peer.tcp_window << 14).clamp(1, WINDOW_MAX);
    sequence.wrapping_sub(peer.tcp_acknowledged) <= window
}

/// Moves a flow to another state. Its mark says whether it may make place for another when the table is full.
fn set_state(flows: &mut Flows, id: EntryId, state: u8, flags: u8) {
    for id in [id, id.peer()] {
        let value = flows.value_mut(id);
        value.state = state;
        value.flags |= flags;
    }
    let original = if flows.entry(id).value.has(FLAG_ORIGINAL) { id } else { id.peer() };
    let may_go = may_be_evicted(flows.entry(original));
    flows.set_mark(id, may_go);
}

/// Whether a flow may make place for another: nobody has answered it, or it is closed. A port that a connection was given
/// here rests through TIME_WAIT all the same: its backend takes no other connection from there before.
fn may_be_evicted(original: &FlowEntry<FlowValue>) -> bool {
    let FlowEntry { key, value } = original;
    if !value.has(FLAG_ASSURED) {
        return true;
    }
    let state = TcpState::from_number(value.state);
    let is_given = (value.new_source, value.new_source_port) != (key.source, key.source_port);
    let rests = state == TcpState::TimeWait && is_given;
    key.protocol == PROTOCOL_TCP && state.is_over() && !rests
}

/// The state that a first packet puts its flow in, or why it starts none.
pub fn initial_state(meta: &Meta) -> Result<u8, DropReason> {
    match meta.key.protocol {
        PROTOCOL_TCP => match tcp_state::next(TcpState::None, meta.tcp_flags, true) {
            Verdict::Next(state) => Ok(state as u8),
            _ => Err(DropReason::TcpInvalid),
        },
        PROTOCOL_ICMP if meta.tcp_flags == ECHO_REPLY => Err(DropReason::IcmpUnsolicited),
        _ => Ok(STATE_UNREPLIED),
    }
}

/// Records a first packet's TCP numbers in its new entry.
pub fn note_first(flows: &mut Flows, id: EntryId, packet: &Packet, meta: &Meta) {
    if meta.key.protocol == PROTOCOL_TCP {
        note_tcp(flows.value_mut(id), packet, meta);
    }
}

/// How long a flow in this state lives without packets.
pub fn timeout_ms(timeouts: &Timeouts, key: &FlowKey, state: u8) -> u32 {
    match key.protocol {
        PROTOCOL_TCP => timeouts.tcp_ms[TcpState::from_number(state) as usize],
        PROTOCOL_UDP if state == STATE_REPLIED => timeouts.udp_stream_ms,
        PROTOCOL_UDP => timeouts.udp_ms,
        PROTOCOL_ICMP => timeouts.icmp_ms,
        _ => timeouts.generic_ms,
    }
}

/// Milliseconds since either direction of a pair was last seen.
pub fn idle_ms(first: &FlowValue, second: &FlowValue, now_ms: u32) -> u32 {
    now_ms.wrapping_sub(first.last_seen_ms).min(now_ms.wrapping_sub(second.last_seen_ms))
}

/// Whether a pair has been silent for its timeout.
pub fn is_expired(flows: &Flows, pair: u32, timeouts: &Timeouts, now_ms: u32) -> bool {
    flows.pair(pair).is_some() && has_ended(flows, EntryId(pair * 2), timeouts, now_ms)
}

/// Whether the flow of an entry in use has been silent for its timeout. The other direction's line is read only when
/// this one's has been silent for so long.
#[inline(always)]
pub fn has_ended(flows: &Flows, id: EntryId, timeouts: &Timeouts, now_ms: u32) -> bool {
    let entry = flows.entry(id);
    let timeout_ms = timeout_ms(timeouts, &entry.key, entry.value.state);
    now_ms.wrapping_sub(entry.value.last_seen_ms) > timeout_ms
        && now_ms.wrapping_sub(flows.entry(id.peer()).value.last_seen_ms) > timeout_ms
}

#[cfg(test)]
mod tests {
    use engine::pool::MemoryPool;
    use engine::table::flow::HashSecret;

    use super::*;
    use crate::flow::flow_key;

    /// A connection in this state, and what becomes of it with one segment from either side.
    fn segment(state: TcpState, flags: u8, from_originator: bool) -> (Step, FlowValue) {
        let mut flows = Flows::new(8, HashSecret::new(1, 2)).unwrap();
        let key = flow_key(PROTOCOL_TCP, 1, 2, 3, 4);
        let value = |flags| FlowValue { state: state as u8, flags, ..FlowValue::rewrite(&key, &key) };
        let id = flows.insert((key, value(FLAG_ORIGINAL)), (key.reversed(), value(0))).unwrap();
        let id = if from_originator { id } else { id.peer() };
        let packet = MemoryPool::new(1).packet(0, &[0; 20]).unwrap();
        let meta = Meta { key: flows.entry(id).key, tcp_flags: flags, ..Meta::default() };
        (advance(&mut flows, id, &packet, &meta, 5), flows.entry(id).value)
    }

    #[test]
    fn a_connection_picked_up_in_the_middle_is_assured_by_its_answer() {
        let (_, value) = segment(TcpState::Established, FLAG_ACK, true);
        assert!(!value.has(FLAG_ASSURED), "one side has spoken");
        let (step, value) = segment(TcpState::Established, FLAG_ACK, false);
        assert_eq!((step, value.has(FLAG_ASSURED)), (Step::Pass, true));
    }

    #[test]
    fn either_side_opens_a_finished_connection_anew() {
        for (state, from_originator, step) in [
            (TcpState::TimeWait, true, Step::Reopen),
            (TcpState::TimeWait, false, Step::Reopen),
            (TcpState::Close, true, Step::Reopen),
            (TcpState::Close, false, Step::Invalid),
            (TcpState::LastAck, true, Step::Pass),
        ] {
            assert_eq!(segment(state, FLAG_SYN, from_originator).0, step, "{state:?} {from_originator}");
        }
    }
}
