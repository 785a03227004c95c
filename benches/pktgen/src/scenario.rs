//! What is offered to whom, and what must come back: all that stays the same from trial to trial.

use crate::link::Link;
use crate::plan::{Plan, Tuple};
use crate::received::Peer;
use crate::sizes::SizeMix;
use crate::template::Ends;

/// A generator's surroundings.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The ports.
    pub links: Vec<Link>,
    /// Which of them clients are behind.
    pub client_port: u16,
    /// Which of them backends are behind; may be the same.
    pub backend_port: u16,
    /// Who talks to whom.
    pub plan: Plan,
    /// How large the frames are.
    pub sizes: SizeMix,
    /// What is between the ports.
    pub peer: Peer,
    /// Hops left in packets that are sent.
    pub time_to_live: u8,
    /// Hops that the gateway takes from each packet.
    pub hops: u8,
}

impl Scenario {
    /// The link that clients send and receive by.
    pub fn client_link(&self) -> &Link {
        &self.links[usize::from(self.client_port)]
    }

    /// The link that backends send and receive by.
    pub fn backend_link(&self) -> &Link {
        &self.links[usize::from(self.backend_port)]
    }

    /// Whether a packet for one side may come by this port. A mirror sends back by the port it received from, or by its
    /// other one.
    #[inline(always)]
    pub fn may_come_by(&self, port: u16, wanted: u16) -> bool {
        port == wanted || self.peer == Peer::Mirror
    }

    /// What a request says when it is sent.
    #[inline(always)]
    pub fn request_ends(tuple: &Tuple) -> Ends {
        Ends {
            source: tuple.client,
            source_port: tuple.client_port,
            destination: tuple.service.address,
            destination_port: tuple.service.port,
        }
    }
}
