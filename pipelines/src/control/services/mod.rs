//! Services: from what sources say of them to the tables that the data path reads.
//!
//! A source (the configuration file, Kubernetes objects) tells what is wanted of each service ([`desired`]), all sources
//! in the same words. Which endpoints are asked is worked out by [`categorize`]; [`builder`] keeps the table and changes it
//! service by service.

pub mod builder;
pub mod categorize;
pub mod desired;
mod hashed;
mod new_frontends;
mod ports;
mod retired;
mod toml;

pub use toml::desired as desired_of_toml;
