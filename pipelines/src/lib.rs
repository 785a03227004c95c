//! The gateway: Pollgate's stages, tables and control side, on the engine. [`gateway`] is where to start reading.

pub mod apply;
pub mod assembly;
pub mod control;
pub mod decision;
pub mod drop_reason;
pub mod events;
pub mod flow;
pub mod gateway;
pub mod meta;
pub mod neighbour_machine;
pub mod ownership;
pub mod prefix;
pub mod replay;
pub mod report;
pub mod stage;
pub mod table;
pub mod trace;
pub mod waiting;
