//! Tables without gateway words: what is looked up for packets.

pub mod atomic_map;
pub mod flow;
pub mod lpm;
pub mod pages;
pub mod seqlock;
mod tags;
