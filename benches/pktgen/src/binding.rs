//! What the gateway made of a flow: the backend it chose and the source it shows. Both must stay.

use crate::fault::Fault;
use crate::plan::{Plan, Tuple};
use crate::template::Ends;

/// Source and destination of a flow as its backend sees them; nothing before the first packet has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    source: u32,
    backend: u32,
    source_port: u16,
    /// 0: nothing seen yet.
    backend_port: u16,
}

impl Binding {
    /// Compares a request that came to a backend with the plan, and with the flow's requests before.
    #[inline(always)]
    pub fn check(&mut self, plan: &Plan, tuple: &Tuple, ends: &Ends) -> Option<Fault> {
        let seen = Self {
            source: ends.source,
            backend: ends.destination,
            source_port: ends.source_port,
            backend_port: ends.destination_port,
        };
        if seen == *self {
            return None;
        }
        self.judge(plan, tuple, seen)
    }

    #[inline(never)]
    fn judge(&mut self, plan: &Plan, tuple: &Tuple, seen: Self) -> Option<Fault> {
        if !plan.serves(tuple.service, seen.backend, seen.backend_port) {
            // The service itself: not translated at all.
            let untranslated =
                (seen.backend, seen.backend_port) == (tuple.service.address, tuple.service.port);
            return Some(if untranslated { Fault::Address } else { Fault::WrongBackend });
        }
        if !plan.comes_from(tuple, seen.source, seen.source_port) {
            return Some(Fault::Address);
        }
        let before = core::mem::replace(self, seen);
        if before == Self::default() {
            None
        } else if (before.backend, before.backend_port) != (seen.backend, seen.backend_port) {
            Some(Fault::MovedBackend)
        } else {
            Some(Fault::MovedSource)
        }
    }

    /// What the backend's replies say; none before a request has come.
    #[inline(always)]
    pub fn reply_ends(&self) -> Option<Ends> {
        (self.backend_port != 0).then_some(Ends {
            source: self.backend,
            source_port: self.backend_port,
            destination: self.source,
            destination_port: self.source_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Group;

    #[test]
    fn a_flow_keeps_what_it_got_and_gets_nothing_foreign() {
        let group = Group {
            addresses: "10.9.0.1".parse().unwrap(),
            port: 80,
            backends: vec!["10.1.0.1-10.1.0.2:8080".parse().unwrap()],
        };
        let (clients, ports) = ("10.0.0.1".parse().unwrap(), "1000".parse().unwrap());
        let open = Plan::new(clients, ports, std::slice::from_ref(&group), vec![]).unwrap();
        let hidden = Plan::new(clients, ports, &[group], vec!["10.7.0.1".parse().unwrap()]).unwrap();
        let tuple = open.tuple(0);
        let ends = |source: u32, source_port: u16, destination: u32, destination_port: u16| Ends {
            source,
            source_port,
            destination,
            destination_port,
        };
        let mut binding = Binding::default();
        assert_eq!(binding.reply_ends(), None);
        let mut check = |ends| binding.check(&open, &tuple, &ends);
        let (client, backend) = (0x0a00_0001, 0x0a01_0001);
        assert_eq!(check(ends(client, 1000, 0x0a09_0001, 80)), Some(Fault::Address));
        assert_eq!(check(ends(client, 1000, backend, 80)), Some(Fault::WrongBackend));
        assert_eq!(check(ends(client, 1001, backend, 8080)), Some(Fault::Address));
        assert_eq!(check(ends(client, 1000, backend, 8080)), None);
        assert_eq!(check(ends(client, 1000, backend, 8080)), None);
        assert_eq!(check(ends(client, 1000, backend + 1, 8080)), Some(Fault::MovedBackend));
        assert_eq!(check(ends(client, 1000, backend + 1, 8080)), None);
        assert_eq!(binding.reply_ends(), Some(ends(backend + 1, 8080, client, 1000)));
        let mut binding = Binding::default();
        let mut check = |ends| binding.check(&hidden, &tuple, &ends);
        assert_eq!(check(ends(client, 1000, backend, 8080)), Some(Fault::Address));
        assert_eq!(check(ends(0x0a07_0001, 5, backend, 8080)), None);
        assert_eq!(check(ends(0x0a07_0001, 6, backend, 8080)), Some(Fault::MovedSource));
    }
}
