//! Tables: data structures that know no gateway words.

pub mod lpm;
