# shellcheck shell=bash
# Installs what is missing from Debian's registry. Sourced.

# Commands, each with the package that brings it.
PACKAGES_TO_BUILD="cc:gcc pkg-config:pkg-config"
PACKAGES_FOR_CLUSTER="ip:iproute2 bridge:iproute2 ethtool:ethtool ping:iputils-ping python3:python3 timeout:coreutils ps:procps"
PACKAGES_FOR_CAPTURES="tcpdump:tcpdump tshark:tshark"
PACKAGES_FOR_RULES="nft:nftables"

# The oldest compiler that builds the workspace, as Cargo.toml says.
minimum_rust() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../../Cargo.toml"
}

# Is there a cargo that is new enough?
have_rust() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
    [ -n "$version" ] && printf '%s\n%s\n' "$(minimum_rust)" "$version" | sort -VC
}

# install_missing COMMAND:PACKAGE...: installs the packages whose commands are not there, as root.
install_missing() {
    local pair missing=""
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=" ${pair#*:}"
    done
    install_packages $missing
}

# install_packages PACKAGE...: with nothing to do it needs neither root nor a registry.
install_packages() {
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing: $*. Run again as root, or: sudo apt-get install $*" >&2
        return 1
    fi
    echo "installing $*"
    # tshark asks whether others than root may capture unless it is told not to ask.
    (
        start_no_services
        DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null </dev/null
    )
}

# What Debian would start when it is installed (Open vSwitch, say) stays off: policy-rc.d's answer to invoke-rc.d(8), until
# the subshell that calls this ends. A policy that the host has is left as it is.
start_no_services() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -f '$policy'" EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

# Everything that a build needs: a compiler, DPDK's headers and drivers, and Rust. Debian's `cargo` is too old in
# Debian 12; its `cargo-web`, kept up to date for browsers, is not. A toolchain from elsewhere is used as it is.
install_to_build() {
    # shellcheck disable=SC2086 # one word a pair
    install_missing $PACKAGES_TO_BUILD || return 1
    pkg-config --atleast-version=22.11 libdpdk || install_packages libdpdk-dev || return 1
    if ! have_rust; then
        install_packages cargo-web rustc-web
        hash -r
        have_rust || { echo "needs Rust $(minimum_rust) or later" >&2 && return 1; }
    fi
}
