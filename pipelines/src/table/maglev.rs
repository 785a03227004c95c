//! Consistent choice: the same connection goes to the same backend at every gateway that has the same backends, and few
//! connections move when one of them goes.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4: each backend
//! has a permutation of the table's places and takes them in turns; a backend of twice the weight has twice the turns.
//! Permutations depend on a backend's address and port alone, so neither the order of backends nor the gateway matters.

/// Places of a table: a prime (section 3.4), as large as Cilium's default. With N backends of equal weight each has its
/// share to within N/16,381, and more backends than places cannot all be chosen.
pub const PLACES: usize = 16_381;

/// What a connection is chosen by, all in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Client's address.
    pub source: u32,
    /// Client's port; 0 where all of a client's connections belong together.
    pub source_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// The table of one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaglevTable {
    places: Box<[u16]>,
}

/// One backend as the table sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its place in the caller's list.
    pub index: u16,
    /// Its address.
    pub address: u32,
    /// Its port.
    pub port: u16,
    /// Its share.
    pub weight: u16,
}

/// A mix of 64 bits (SplitMix64's finalizer), the same everywhere and for ever: gateways must agree on it.
fn mix(word: u64) -> u64 {
    let mixed = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct Turns {
    index: u16,
    next: usize,
    skip: usize,
    /// Share of the largest weight, and how much of it has gathered: a whole one is a turn.
    weight: u32,
    gathered: u32,
}

impl MaglevTable {
    /// A table of these backends; those of weight 0 get no place. None: no backend has any weight.
    pub fn build(members: impl Iterator<Item = Member>) -> Option<Self> {
        let mut members: Vec<Member> = members.filter(|member| member.weight > 0).collect();
        // In an order that is the members' own.
        members.sort_unstable_by_key(|member| (member.address, member.port));
        members.truncate(PLACES);
        let largest = members.iter().map(|member| u32::from(member.weight)).max()?;
        let mut turns: Vec<Turns> = members.iter().map(Turns::new).collect();
        let mut places = vec![u16::MAX; PLACES].into_boxed_slice();
        let mut free = PLACES;
        while free > 0 {
            for backend in &mut turns {
                backend.gathered += backend.weight;
                if backend.gathered < largest {
                    continue;
                }
                backend.gathered -= largest;
                while places[backend.next] != u16::MAX {
                    backend.next = (backend.next + backend.skip) % PLACES;
                }
                places[backend.next] = backend.index;
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        Some(Self { places })
    }

    /// The backend of a connection.
    #[inline]
    pub fn choose(&self, connection: Connection) -> usize {
        let word = u64::from(connection.source) << 32
            | u64::from(connection.source_port) << 8
            | u64::from(connection.protocol);
        let place = ((u128::from(mix(word ^ 0x9e37_79b9_7f4a_7c15)) * PLACES as u128) >> 64) as usize;
        usize::from(self.places[place])
    }
}

impl Turns {
    fn new(member: &Member) -> Self {
        let name = u64::from(member.address) << 16 | u64::from(member.port);
        // Two independent hashes: where the permutation begins, and by how much it goes on.
        let (offset, skip) = (mix(name), mix(name ^ 0xd6e8_feb8_6659_fd93));
        Self {
            index: member.index,
            next: (offset % PLACES as u64) as usize,
            skip: (skip % (PLACES as u64 - 1)) as usize + 1,
            weight: u32::from(member.weight),
            gathered: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(count: u16) -> Vec<Member> {
        (0..count)
            .map(|index| Member { index, address: 0xac1e_0900 + u32::from(index), port: 8080, weight: 1 })
            .collect()
    }

    fn addresses(members: &[Member]) -> Vec<u32> {
        let table = MaglevTable::build(members.iter().copied()).unwrap();
        table
            .places
            .iter()
            .map(|index| members.iter().find(|member| member.index == *index).unwrap().address)
            .collect()
    }

    #[test]
    fn few_connections_move_when_a_backend_goes() {
        for count in [2u16, 3, 10, 100] {
            let all = members(count);
            let rest: Vec<Member> = all.iter().copied().filter(|member| member.index != 1).collect();
            let (before, after) = (addresses(&all), addresses(&rest));
            let moved = before.iter().zip(&after).filter(|(one, other)| one != other).count() as f64;
            let share = moved / PLACES as f64;
            // What was the gone one's must move; docs/decisions.md says what else was seen to.
            let least = 1.0 / f64::from(count);
            assert!(share >= least * 0.99 && share < least + 0.05, "{count} backends: {share}");
        }
    }

    #[test]
    fn neither_order_nor_place_in_the_list_matters() {
        let all = members(7);
        let mut turned: Vec<Member> = all.iter().rev().copied().collect();
        turned.iter_mut().enumerate().for_each(|(index, member)| member.index = index as u16);
        assert_eq!(addresses(&all), addresses(&turned));
    }

    #[test]
    fn connections_spread_over_the_places() {
        let table = MaglevTable::build(members(4).into_iter()).unwrap();
        let mut counts = [0u32; 4];
        for port in 1_024..41_024 {
            let connection = Connection { source: 0x0a00_0001, source_port: port, protocol: 6 };
            counts[table.choose(connection)] += 1;
        }
        assert!(counts.iter().all(|count| (9_400..10_600).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in proptest::collection::vec(0u16..200, 1..60)) {
            let listed = weights.iter().enumerate().map(|(index, weight)| Member {
                index: index as u16, address: 0x0a00_0000 + index as u32, port: 80, weight: *weight,
            });
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let Some(table) = MaglevTable::build(listed) else {
                prop_assert_eq!(total, 0.0);
                return Ok(());
            };
            for (index, weight) in weights.iter().enumerate() {
                let count = table.places.iter().filter(|place| usize::from(**place) == index).count() as f64;
                let share = f64::from(*weight) / total * PLACES as f64;
                prop_assert!((count - share).abs() <= 1.0 + share * 0.02, "{} of {}", count, share);
            }
        }
    }
}
