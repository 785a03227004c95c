//! Order within a flow: which packets of one direction have come, and whether each came in its place.

/// Packets sent one way, and which of them came.
///
/// Remembers the newest and, by a bit each, the 32 before it, as IPsec's anti-replay window does (RFC 4303, section
/// 3.4.3). A packet that comes later than that counts as out of order: nothing tells whether it came before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    sent: u32,
    newest: u32,
    /// Bit n: the packet `newest` - n has come.
    seen: u32,
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Behind all that came before it. Those between are lost or late.
    InOrder,
    /// Behind a later one.
    Late,
    /// A second time.
    Again,
    /// Never sent.
    Unknown,
}

impl Sequence {
    /// The number of the next packet to send, from 1.
    #[inline(always)]
    pub fn send(&mut self) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        self.sent
    }

    /// Takes note of a packet that came.
    #[inline(always)]
    pub fn receive(&mut self, number: u32) -> Arrival {
        let ahead = number.wrapping_sub(self.newest);
        // The usual case first: the next one.
        if ahead == 1 && number <= self.sent {
            self.seen = self.seen << 1 | 1;
            self.newest = number;
            return Arrival::InOrder;
        }
        if number == 0 || number > self.sent {
            return Arrival::Unknown;
        }
        if number > self.newest {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = number;
            return Arrival::InOrder;
        }
        let Some(bit) = 1u32.checked_shl(self.newest - number) else { return Arrival::Late };
        if self.seen & bit != 0 {
            return Arrival::Again;
        }
        self.seen |= bit;
        Arrival::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_way_of_coming_has_its_name() {
        let mut sequence = Sequence::default();
        (0..50).for_each(|_| {
            sequence.send();
        });
        let seen = [1, 2, 2, 5, 4, 4, 3, 1, 0, 51, 50, 49, 10].map(|number| sequence.receive(number));
        use Arrival::{Again, InOrder, Late, Unknown};
        assert_eq!(
            seen,
            [
                InOrder, InOrder, Again, InOrder, Late, Again, Late, Again, Unknown, Unknown, InOrder, Late,
                Late
            ]
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(numbers in proptest::collection::vec(1..40u32, 0..200)) {
            let mut sequence = Sequence::default();
            (0..32).for_each(|_| { sequence.send(); });
            let mut seen = std::collections::HashSet::new();
            let mut newest = 0;
            for number in numbers {
                let expected = match number {
                    33.. => Arrival::Unknown,
                    _ if !seen.insert(number) => Arrival::Again,
                    _ if number > newest => Arrival::InOrder,
                    _ => Arrival::Late,
                };
                newest = if number <= 32 { newest.max(number) } else { newest };
                prop_assert_eq!(sequence.receive(number), expected);
            }
        }
    }
}
