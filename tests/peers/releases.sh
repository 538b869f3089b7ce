#!/bin/sh
# Unpacks chrony, ntpsec and ntpd-rs of other releases of Debian, each with its own libraries, into build/releases/RELEASE. Nothing is
# installed, and apt's own lists stay as they are. Where that is not possible, build/releases/RELEASE.why says why, and tests skip that release
# (tests/peers/unpacked.py).
#   releases.sh [RELEASE ...]
set -eu
cd "$(dirname "$0")/../.."
mkdir -p build/releases
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -n 1)
[ $# -gt 0 ] || set -- trixie forky

unpack() {  # unpack RELEASE: into its directory, or a complaint on standard error.
    [ -n "$archive" ] || { echo 'this system has no Debian archive' >&2; return 1; }
    mkdir -p "$at/apt/lists/partial" "$at/apt/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$at/apt/sources.list"
    : >"$at/apt/status"
    apt="-qq -o Dir::State::lists=$at/apt/lists -o Dir::Cache=$at/apt -o Dir::Etc::sourcelist=$at/apt/sources.list -o Dir::Etc::sourceparts=-"
    apt="$apt -o Dir::State::status=$at/apt/status -o APT::Sandbox::User=root -o Acquire::Languages=none"
    # shellcheck disable=SC2086
    apt-get $apt update || return 1
    # shellcheck disable=SC2086
    (cd "$at/apt" && apt-get $apt download chrony ntpsec ntpd-rs libc6 libbrotli1 libbsd0 libcap2 libedit2 libffi8 libgcc-s1 libgmp10 \
        libgnutls30t64 libhogweed6t64 libidn2-0 libmd0 libnettle8t64 libp11-kit0 libreadline8t64 libseccomp2 libssl3t64 libtasn1-6 libtinfo6 \
        libunistring5 libzstd1 zlib1g) || return 1
    for package in "$at"/apt/*.deb; do dpkg-deb -x "$package" "$at" || return 1; done
    rm -r "$at/apt"
}

for release in "$@"; do
    at=$PWD/build/releases/$release
    [ -d "$at/usr" ] && [ ! -d "$at/apt" ] && continue
    rm -rf "$at"
    if unpack "$release" 2>"$at.why"; then rm -f "$at.why"; else rm -rf "$at"; echo "programs of $release: $(tail -n 1 "$at.why")"; fi
done
