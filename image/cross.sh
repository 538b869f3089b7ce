#!/bin/sh
# Gets compilers for the processors of small boards on Debian, and libraries for them. The libraries are only unpacked, into build/cross: nothing
# of another architecture is installed, and apt's own lists stay as they are.
#   cross.sh            what `make cross` needs: an emulator too, and nettle
#   cross.sh packages   what `make deb` needs: nettle, and the headers of this system's Python
set -eu
if [ "${1:-}" = packages ]; then
    packages='gcc dpkg-dev gcc-arm-linux-gnueabihf libc6-dev-armhf-cross gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
    architectures='amd64 arm64 armhf'
    python=python$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    libraries="nettle-dev libnettle8 lib$python-dev" header="$python"
else
    packages='qemu-user gcc-arm-linux-gnueabi libc6-dev-armel-cross gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-i686-linux-gnu libc6-dev-i386-cross'
    architectures='armel arm64 i386'
    libraries='nettle-dev libnettle8' header=nettle
fi
say() { printf 'cross: %s\n' "$*"; }

command -v dpkg-query >/dev/null 2>&1 || { say "this system has no Debian packages; needed are: $packages, and $libraries for $architectures"; exit 1; }
missing=
for package in $packages; do
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in *'ok installed') ;; *) missing="$missing $package" ;; esac
done
if [ -n "$missing" ]; then
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing$missing"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

lists=
for architecture in $architectures; do
    [ -e "build/cross/$architecture/usr/include/$header" ] && continue
    mkdir -p build/cross/apt/lists/partial build/cross/apt/cache/archives/partial "build/cross/$architecture"
    apt="-qq -o Dir::State::lists=$PWD/build/cross/apt/lists -o Dir::Cache=$PWD/build/cross/apt/cache -o APT::Sandbox::User=root"
    for other in $architectures; do apt="$apt -o APT::Architectures::=$other"; done
    if [ -z "$lists" ]; then
        say "unpacking $libraries for each processor into build/cross"
        # An index that a mirror is just renewing is no reason to give up: the package is in the main archive.
        apt-get $apt -o Acquire::Languages=none update || say 'not every list of packages could be fetched'
        lists=fetched
    fi
    # shellcheck disable=SC2086
    (cd build/cross && apt-get $apt download $(printf "%s:$architecture " $libraries)) || { say "$libraries for $architecture cannot be fetched"; exit 1; }
    for file in build/cross/*_"$architecture".deb; do dpkg-deb -x "$file" "build/cross/$architecture"; done
    rm -f build/cross/*_"$architecture".deb
done
