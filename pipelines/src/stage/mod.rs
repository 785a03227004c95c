//! The stages: small pure functions over a batch or a decision. None knows ports, clocks, threads or another stage's
//! insides; time, randomness and tables are arguments. Their order is in [`crate::gateway`].

pub mod arp;
pub mod conntrack;
pub mod dnat;
pub mod fdb_lookup;
pub mod parse;
pub mod reject;
pub mod route_lookup;
pub mod snat_mark;
pub mod stateless;
pub mod tcp_state;
pub mod validate;
pub mod vxlan_decap;
