//! Tables without gateway words: what is looked up for packets.

pub mod atomic_map;
pub mod bit_tree;
pub mod chunked_vec;
pub mod flow;
pub mod lpm;
pub mod pages;
pub mod seqlock;
pub mod sharded_map;
mod tags;
