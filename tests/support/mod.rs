//! The reference cluster and captures on it, for the end-to-end tests.

pub(crate) mod capture;
pub(crate) mod cluster;
