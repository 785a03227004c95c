//! Time as an argument.
/// Nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);
impl Timestamp { /// ms
 pub fn millis(self) -> u32 { (self.0 / 1_000_000) as u32 } }
