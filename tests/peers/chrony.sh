#!/bin/sh
# Unpacks chrony of other releases of Debian, each with its own libraries, into build/chrony/RELEASE. Nothing is installed, and apt's own
# lists stay as they are. tests/peers/test_chronyc.py runs every chronyc that it finds there.
#   chrony.sh [RELEASE ...]
set -eu
cd "$(dirname "$0")/../.."
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
[ -n "$archive" ] || { echo 'chrony: this system has no Debian archive'; exit 1; }
[ $# -gt 0 ] || set -- trixie forky
for release in "$@"; do
    at=$PWD/build/chrony/$release
    [ -x "$at/usr/bin/chronyc" ] && continue
    mkdir -p "$at/apt/lists/partial" "$at/apt/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $release main" >"$at/apt/sources.list"
    : >"$at/apt/status"
    apt="-qq -o Dir::State::lists=$at/apt/lists -o Dir::Cache=$at/apt -o Dir::Etc::sourcelist=$at/apt/sources.list -o Dir::Etc::sourceparts=-"
    apt="$apt -o Dir::State::status=$at/apt/status -o APT::Sandbox::User=root -o Acquire::Languages=none"
    # shellcheck disable=SC2086
    apt-get $apt update
    # shellcheck disable=SC2086
    (cd "$at/apt" && apt-get $apt download chrony libc6 libbsd0 libcap2 libedit2 libgnutls30t64 libmd0 libnettle8t64 libreadline8t64 libseccomp2 libtinfo6)
    for package in "$at"/apt/*.deb; do dpkg-deb -x "$package" "$at"; done
    rm -r "$at/apt"
done
