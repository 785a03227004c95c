//! The plan of flows: which addresses and ports the flow with a number has. Arithmetic, no table.
//!
//! A number is cut into a client's port and a client's address, and, apart from that, chooses a service. So neighbouring
//! numbers go to different services, and no two numbers below [`Plan::space`] share a client's endpoint: with one that is
//! shared, flows to two services could get the same backend and then be told apart by nothing in the answers.

use crate::address::{AddressRange, EndpointRange, PortRange};

/// Services of a plan at the most: 64 times what a large cluster has.
pub const SERVICES_MAX: u64 = 1 << 20;

/// A virtual endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its address.
    pub address: u32,
    /// Its port.
    pub port: u16,
    /// Which of the plan's sets of backends it has.
    pub group: u16,
}

/// What a flow's first packet says, and which service that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// The client.
    pub client: u32,
    /// Its port.
    pub client_port: u16,
    /// The service.
    pub service: Service,
}

/// Who talks to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    clients: AddressRange,
    client_ports: PortRange,
    services: Vec<Service>,
    groups: Vec<Vec<EndpointRange>>,
    masquerade: Vec<AddressRange>,
    by_service: Divider,
    by_port: Divider,
}

/// Services that share their backends.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their virtual addresses.
    pub addresses: AddressRange,
    /// Their port.
    pub port: u16,
    /// Who may serve them; empty: nothing is translated, packets go to the addresses themselves.
    pub backends: Vec<EndpointRange>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to send to.
    #[error("no services: write [[services]] with addresses and a port")]
    NoServices,
    /// More than the plan holds.
    #[error("{0} virtual addresses are too many: at most {SERVICES_MAX}")]
    TooManyServices(u64),
    /// More than the plan can tell apart.
    #[error(
        "more than 65535 [[services]]: put those with the same backends together as a range of addresses"
    )]
    TooManyGroups,
}

impl Plan {
    /// A plan for clients with these addresses and ports. With `masquerade`, backends see one of those addresses and
    /// any port instead of the client's.
    pub fn new(
        clients: AddressRange,
        client_ports: PortRange,
        groups: &[Group],
        masquerade: Vec<AddressRange>,
    ) -> Result<Self, PlanError> {
        let total: u64 = groups.iter().map(|group| group.addresses.count()).sum();
        if total > SERVICES_MAX {
            return Err(PlanError::TooManyServices(total));
        }
        let mut services = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let number = u16::try_from(number).map_err(|_| PlanError::TooManyGroups)?;
            services.extend((0..group.addresses.count()).map(|place| Service {
                address: group.addresses.at(place as u32),
                port: group.port,
                group: number,
            }));
        }
        if services.is_empty() {
            return Err(PlanError::NoServices);
        }
        Ok(Self {
            by_service: Divider::new(services.len() as u32),
            by_port: Divider::new(client_ports.count()),
            clients,
            client_ports,
            services,
            groups: groups.iter().map(|group| group.backends.clone()).collect(),
            masquerade,
        })
    }

    /// How many flows have a client's endpoint of their own.
    pub fn space(&self) -> u64 {
        self.clients.count() * u64::from(self.client_ports.count())
    }

    /// The services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// What the flow with this number says. Numbers from [`Self::space`] on are flows that were there before.
    #[inline(always)]
    pub fn tuple(&self, number: u32) -> Tuple {
        let (_, service) = self.by_service.divide(number);
        let (rest, port) = self.by_port.divide(number);
        let clients = self.clients.count();
        // Mostly there are more clients than numbers reach.
        let client = if u64::from(rest) < clients { rest } else { (u64::from(rest) % clients) as u32 };
        Tuple {
            client: self.clients.at(client),
            client_port: self.client_ports.at(port),
            service: self.services[service as usize],
        }
    }

    /// Whether the service may be served by this endpoint.
    #[inline]
    pub fn serves(&self, service: Service, address: u32, port: u16) -> bool {
        match self.groups[usize::from(service.group)].as_slice() {
            [] => (address, port) == (service.address, service.port),
            backends => backends.iter().any(|backend| backend.contains(address, port)),
        }
    }

    /// Whether a backend may see the flow come from here.
    #[inline]
    pub fn comes_from(&self, tuple: &Tuple, address: u32, port: u16) -> bool {
        if self.masquerade.is_empty() {
            (address, port) == (tuple.client, tuple.client_port)
        } else {
            port != 0 && self.masquerade.iter().any(|range| range.contains(address))
        }
    }

    /// Backends of a service by its group; empty for one that is not translated.
    pub fn backends(&self, service: Service) -> &[EndpointRange] {
        &self.groups[usize::from(service.group)]
    }

    /// Addresses that backends see instead of clients; empty: the clients' own.
    pub fn masquerade(&self) -> &[AddressRange] {
        &self.masquerade
    }
}

/// Divides by a number that stays the same: a multiplication instead of a division (Lemire, Kaser and Kurz, "Faster
/// remainder by direct computation", Software: Practice and Experience 49(6), 2019). Exact for all 32-bit numbers.
#[derive(Clone, Copy, Debug)]
pub struct Divider {
    divisor: u32,
    /// The quotient of 2^64 and the divisor, rounded up; 0 for a divisor of 1.
    inverse: u64,
}

impl Divider {
    /// For this divisor; 0 counts as 1.
    pub fn new(divisor: u32) -> Self {
        let divisor = divisor.max(1);
        Self { divisor, inverse: (u64::MAX / u64::from(divisor)).wrapping_add(1) }
    }

    /// Quotient and remainder.
    #[inline(always)]
    pub fn divide(self, number: u32) -> (u32, u32) {
        if self.inverse == 0 {
            return (number, 0);
        }
        let quotient = ((u128::from(self.inverse) * u128::from(number)) >> 64) as u32;
        (quotient, number.wrapping_sub(quotient.wrapping_mul(self.divisor)))
    }
}

/// Mixes the numbers below a power of two: every number comes out once, in an order with no stride.
///
/// Odd multiplications and shifted exclusive ors can each be undone, so together they are a permutation (as in the
/// finalizers of MurmurHash3 and SplitMix64).
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    mask: u32,
    shift: u32,
}

impl Shuffle {
    /// Of the numbers below `count`, rounded up to a power of two.
    pub fn new(count: u32) -> Self {
        let mask = count.max(2).checked_next_power_of_two().unwrap_or(0).wrapping_sub(1);
        Self { mask, shift: mask.count_ones().div_ceil(2) }
    }

    /// The largest number that comes out.
    pub fn max(self) -> u32 {
        self.mask
    }

    /// Where this number goes.
    #[inline(always)]
    pub fn at(self, number: u32) -> u32 {
        let mut mixed = number & self.mask;
        for multiplier in [0x9e37_79b1_u32, 0x85eb_ca6b, 0xc2b2_ae35] {
            mixed ^= mixed >> self.shift;
            mixed = mixed.wrapping_mul(multiplier) & self.mask;
        }
        mixed ^ (mixed >> self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn plan(clients: &str, ports: &str, services: &str) -> Plan {
        let group = Group { addresses: services.parse().unwrap(), port: 80, backends: vec![] };
        Plan::new(clients.parse().unwrap(), ports.parse().unwrap(), &[group], vec![]).unwrap()
    }

    #[test]
    fn every_number_of_the_space_is_a_flow_of_its_own() {
        let plan = plan("10.0.0.0/30", "1000-1006", "10.9.0.0-10.9.0.4");
        assert_eq!(plan.space(), 4 * 7);
        let tuples: Vec<_> = (0..28).map(|number| plan.tuple(number)).collect();
        let clients: HashSet<_> = tuples.iter().map(|tuple| (tuple.client, tuple.client_port)).collect();
        let services: HashSet<_> = tuples.iter().map(|tuple| tuple.service.address).collect();
        assert_eq!((clients.len(), services.len()), (28, 5));
        assert_eq!(
            (plan.tuple(28).client, plan.tuple(28).client_port),
            (tuples[0].client, tuples[0].client_port)
        );
        assert_ne!(plan.tuple(0).service, plan.tuple(1).service);
    }

    #[test]
    fn backends_and_sources_are_checked_against_the_plan() {
        let group = |addresses: &str, backends: &[&str]| Group {
            addresses: addresses.parse().unwrap(),
            port: 80,
            backends: backends.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let groups = [group("10.9.0.1", &["10.1.0.1-10.1.0.3:8080", "10.2.0.1:90"]), group("10.9.0.2", &[])];
        let clients = "10.0.0.1".parse().unwrap();
        let open = Plan::new(clients, "5".parse().unwrap(), &groups, vec![]).unwrap();
        let [translated, plain] = [open.services()[0], open.services()[1]];
        assert!(open.serves(translated, 0x0a01_0003, 8080) && open.serves(translated, 0x0a02_0001, 90));
        assert!(!open.serves(translated, 0x0a01_0004, 8080) && !open.serves(translated, 0x0a01_0003, 90));
        assert!(open.serves(plain, 0x0a09_0002, 80) && !open.serves(plain, 0x0a09_0002, 81));
        let tuple = open.tuple(0);
        assert!(open.comes_from(&tuple, 0x0a00_0001, 5) && !open.comes_from(&tuple, 0x0a00_0001, 6));
        let hidden =
            Plan::new(clients, "5".parse().unwrap(), &groups, vec!["10.7.0.1".parse().unwrap()]).unwrap();
        assert!(hidden.comes_from(&tuple, 0x0a07_0001, 6) && !hidden.comes_from(&tuple, 0x0a00_0001, 5));
        let none = Plan::new(clients, "5".parse().unwrap(), &[], vec![]);
        assert_eq!(none.unwrap_err(), PlanError::NoServices);
        let many = Plan::new(clients, "5".parse().unwrap(), &[group("10.0.0.0/8", &[])], vec![]);
        assert_eq!(many.unwrap_err(), PlanError::TooManyServices(1 << 24));
    }

    proptest! {
        #[test]
        fn dividing_by_multiplying_is_dividing(number: u32, divisor in 1..=u32::MAX) {
            let small = divisor % 1000 + 1;
            prop_assert_eq!(Divider::new(divisor).divide(number), (number / divisor, number % divisor));
            prop_assert_eq!(Divider::new(small).divide(number), (number / small, number % small));
        }

        #[test]
        fn shuffling_loses_no_number(count in 1..5000u32) {
            let shuffle = Shuffle::new(count);
            let out: HashSet<_> = (0..=shuffle.max()).map(|number| shuffle.at(number)).collect();
            prop_assert_eq!(out.len(), shuffle.max() as usize + 1);
            prop_assert!(out.iter().all(|number| *number <= shuffle.max()));
        }
    }
}
