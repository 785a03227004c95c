//! Services: from what sources say of them to the tables that the data path reads.
//!
//! A source (the configuration file, Kubernetes objects) tells what is wanted of each service ([`desired`]), all sources
//! in the same words.

pub mod desired;
