//! The gateway: Pollgate's stages, tables and control side, on the engine.

pub mod control;
pub mod prefix;
