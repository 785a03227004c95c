//! TCP's states as one table: `[direction][flags][state]` to the next state.
//!
//! The table is Linux's (net/netfilter/nf_conntrack_proto_tcp.c, `tcp_conntracks`), since kube-proxy's users know its
//! behaviour: a connection in the middle is picked up, simultaneous open works, and what fits no state is invalid.

use engine::wire::tcp::{FLAG_ACK, FLAG_FIN, FLAG_PSH, FLAG_RST, FLAG_SYN, FLAG_URG};

/// State of a connection as a middlebox sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing seen.
    None,
    /// SYN seen.
    SynSent,
    /// SYN and its answer seen.
    SynReceived,
    /// Open.
    Established,
    /// One side has closed.
    FinWait,
    /// That was acknowledged.
    CloseWait,
    /// The other side has closed too.
    LastAck,
    /// All is acknowledged.
    TimeWait,
    /// Reset.
    Close,
    /// Both sides have sent a SYN.
    SynSent2,
}

impl TcpState {
    /// All states, by number.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];

    /// The state with this number; None for another.
    #[inline(always)]
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::None)
    }

    /// Its name in `pollgate show`.
    pub fn name(self) -> &'static str {
        [
            "none",
            "syn_sent",
            "syn_received",
            "established",
            "fin_wait",
            "close_wait",
            "last_ack",
            "time_wait",
            "close",
            "syn_sent2",
        ][self as usize]
    }

    /// Whether a SYN that the table lets pass starts a new connection in its place.
    #[inline(always)]
    pub fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }
}

/// What the table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection is now in this state.
    Next(TcpState),
    /// Let it pass; the state stays.
    Ignore,
    /// It fits no state.
    Invalid,
}

const SS: u8 = TcpState::SynSent as u8;
const SR: u8 = TcpState::SynReceived as u8;
const ES: u8 = TcpState::Established as u8;
const FW: u8 = TcpState::FinWait as u8;
const CW: u8 = TcpState::CloseWait as u8;
const LA: u8 = TcpState::LastAck as u8;
const TW: u8 = TcpState::TimeWait as u8;
const CL: u8 = TcpState::Close as u8;
const S2: u8 = TcpState::SynSent2 as u8;
const IV: u8 = 0xfe;
const IG: u8 = 0xff;

/// Rows: SYN, SYN and ACK, FIN, ACK, RST, none. Columns: the state, in the order of [`TcpState`].
#[rustfmt::skip]
const TRANSITIONS: [[[u8; 10]; 6]; 2] = [
    // From the side that opened.
    // NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
    [
        [SS, SS, IG, IG, IG, IG, IG, SS, SS, S2],
        [IV, IV, SR, IV, IV, IV, IV, IV, IV, SR],
        [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        [ES, IV, ES, ES, CW, CW, TW, TW, CL, IV],
        [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
    // From the other side.
    [
        [IV, S2, IV, IV, IV, IV, IV, SS, IV, S2],
        [IV, SR, IG, IG, IG, IG, IG, IG, IG, SR],
        [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        [IV, IG, SR, ES, CW, CW, TW, TW, CL, IG],
        [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
];

/// Whether a connection has segments with these flags.
pub fn is_plausible(flags: u8) -> bool {
    usize::from(ROWS[usize::from(flags & 0x3f)]) + 1 < TRANSITIONS[0].len()
}

/// The row for each combination of the six flags of RFC 793. Those that no connection has (SYN with FIN or RST, FIN
/// without ACK, none) count as none: `tcp_valid_flags` and `get_conntrack_index` in the same file.
const ROWS: [u8; 64] = {
    let mut rows = [5; 64];
    let mut pushed = 0;
    while pushed < 2 {
        let push = pushed * FLAG_PSH as usize;
        let urgent = FLAG_URG as usize;
        let (syn, ack) = (FLAG_SYN as usize, FLAG_ACK as usize);
        let (fin, reset) = (FLAG_FIN as usize, FLAG_RST as usize);
        rows[push | syn] = 0;
        rows[push | syn | urgent] = 0;
        rows[push | syn | ack] = 1;
        rows[push | fin | ack] = 2;
        rows[push | fin | ack | urgent] = 2;
        rows[push | ack] = 3;
        rows[push | ack | urgent] = 3;
        rows[push | reset] = 4;
        rows[push | reset | ack] = 4;
        pushed += 1;
    }
    rows
};

/// What a packet with these flags does to a connection in this state.
#[inline(always)]
pub fn next(state: TcpState, flags: u8, from_originator: bool) -> Verdict {
    let row = ROWS[usize::from(flags & 0x3f)];
    match TRANSITIONS[usize::from(!from_originator)][usize::from(row)][state as usize] {
        IV => Verdict::Invalid,
        IG => Verdict::Ignore,
        number => Verdict::Next(TcpState::from_number(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(steps: &[(u8, bool)]) -> Vec<Verdict> {
        let mut state = TcpState::None;
        steps
            .iter()
            .map(|(flags, from_originator)| {
                let verdict = next(state, *flags, *from_originator);
                if let Verdict::Next(next) = verdict {
                    state = next;
                }
                verdict
            })
            .collect()
    }

    #[test]
    fn a_connection_opens_and_closes() {
        use TcpState::*;
        let expected = [SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, TimeWait];
        let steps = [
            (FLAG_SYN, true),
            (FLAG_SYN | FLAG_ACK, false),
            (FLAG_ACK, true),
            (FLAG_FIN | FLAG_ACK, true),
            (FLAG_ACK, false),
            (FLAG_FIN | FLAG_ACK, false),
            (FLAG_ACK, true),
        ];
        assert_eq!(walk(&steps), expected.map(Verdict::Next));
    }

    #[test]
    fn what_starts_no_connection_is_invalid() {
        let nonsense = [FLAG_SYN | FLAG_FIN, FLAG_SYN | FLAG_RST, FLAG_FIN | FLAG_PSH | FLAG_URG, 0x3f];
        for flags in [0, FLAG_SYN | FLAG_ACK, FLAG_FIN, FLAG_FIN | FLAG_ACK, FLAG_RST].iter().chain(&nonsense)
        {
            assert_eq!(walk(&[(*flags, true)]), [Verdict::Invalid], "{flags:02x}");
        }
        for flags in nonsense {
            assert_eq!(next(TcpState::Established, flags, true), Verdict::Invalid, "{flags:02x}");
        }
        // ECN's negotiation flags change nothing (RFC 3168, section 6.1.1).
        assert_eq!(next(TcpState::None, FLAG_SYN | 0xc0, true), Verdict::Next(TcpState::SynSent));
        assert_eq!(
            walk(&[(FLAG_ACK, true)]),
            [Verdict::Next(TcpState::Established)],
            "picked up in the middle"
        );
        assert_eq!(
            walk(&[(FLAG_SYN, true), (FLAG_RST | FLAG_ACK, false)])[1],
            Verdict::Next(TcpState::Close)
        );
    }
}
