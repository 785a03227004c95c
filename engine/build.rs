//! Builds the C shim around DPDK when the `dpdk` feature is on; without it nothing of the system is needed.
use std::env;
use std::process::Command;

/// What the binding itself calls. Drivers are plugins that DPDK loads at start.
const LIBRARIES: [&str; 4] = ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"];
const OLDEST_DPDK: &str = "22.11";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/dpdk/shim.c");
    if env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    if let Err(reason) = build_shim() {
        println!(
            "cargo::error=the feature `dpdk` needs DPDK {OLDEST_DPDK} or later with its headers, found through \
             pkg-config: apt-get install libdpdk-dev pkg-config gcc (or build with --no-default-features). {reason}"
        );
    }
}

fn build_shim() -> Result<(), String> {
    let library = pkg_config::Config::new()
        .atleast_version(OLDEST_DPDK)
        .cargo_metadata(false)
        .probe("libdpdk")
        .map_err(|error| one_line(&error.to_string()))?;

    let mut build = cc::Build::new();
    build
        .file("src/dpdk/shim.c")
        .std("gnu11")
        .define("_GNU_SOURCE", None)
        .opt_level(3)
        .extra_warnings(true)
        .flag("-Werror=implicit-function-declaration")
        .flag("-Werror=int-conversion");
    let flags = compiler_flags()?;
    let mut words = flags.split_whitespace();
    while let Some(word) = words.next() {
        match (word, word.strip_prefix("-I")) {
            ("-include", _) => drop(build.flag("-include").flag(words.next().unwrap_or_default())),
            // As system headers, so that warnings are about our file alone.
            (_, Some(folder)) => drop(build.flag("-isystem").flag(folder)),
            _ => drop(build.flag(word)),
        }
    }
    // DPDK's inline functions use SSSE3 and SSE4 even where a distribution's flags forget to say so.
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") && !flags.contains("-march=") {
        build.flag("-mssse3").flag("-msse4.2");
    }
    build.try_compile("pollgate_dpdk_shim").map_err(|error| error.to_string())?;

    for folder in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", folder.display());
    }
    for name in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    Ok(())
}

/// The flags that the pkg-config crate does not hand on: `-include rte_config.h`, `-march`.
fn compiler_flags() -> Result<String, String> {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("cannot run pkg-config: {error}"))?;
    if !output.status.success() {
        return Err(one_line(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Cargo's messages are lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
