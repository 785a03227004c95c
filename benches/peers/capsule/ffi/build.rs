//! Builds the shim with the flags that pkg-config tells for DPDK.
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/shim.c");
    let output = Command::new("pkg-config").args(["--cflags", "libdpdk"]).output();
    let flags = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => {
            println!("cargo::error=needs DPDK's headers: apt-get install libdpdk-dev pkg-config gcc");
            return;
        }
    };
    let mut build = cc::Build::new();
    build.file("src/shim.c").std("gnu11").define("_GNU_SOURCE", None).opt_level(3);
    for flag in flags.split_whitespace() {
        build.flag(flag);
    }
    build.compile("capsule_dpdk_shim");
    for name in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"] {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
}
