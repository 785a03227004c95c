//! The control side: configuration, sources, building tables, and the thread that publishes them.
pub mod build;
pub mod config;
pub mod slots;
