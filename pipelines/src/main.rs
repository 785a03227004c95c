//! The pollgate binary.
fn main() {}
