//! Builds the C shim around DPDK when the `dpdk` feature is on.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
