#!/bin/sh
# Sets up what `make run` and `make test` need, and says what it does and why. Quick when nothing is missing.
#   setup.sh build PACKAGE...   compiler and Python      setup.sh peers PACKAGE...   the real programs that the tests run against
#   setup.sh venv DIRECTORY     virtual environment, the C core and the packages pinned in constraints.txt
set -eu
say() { printf 'setup: %s\n' "$*"; }

packages() {  # packages WHY PACKAGE...
    why=$1; shift
    missing=
    if ! command -v dpkg-query >/dev/null 2>&1; then
        # No Debian package database: look for the commands themselves.
        for command in $commands; do command -v "$command" >/dev/null 2>&1 || missing="$missing $command"; done
        [ -z "$missing" ] && return 0
        say "these commands are missing:$missing ($why)."
        say "Install them with this system's package manager, then run make again."
        exit 1
    fi
    for package in "$@"; do
        case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in *'ok installed') ;; *) missing="$missing $package" ;; esac
    done
    # A compiler, Python or nettle that came otherwise (an image, pyenv) does as well.
    if [ "$commands" = 'cc make python3' ] && cc --version >/dev/null 2>&1 && python3 -c 'import sys, venv, ensurepip, sysconfig, os
sys.exit(sys.version_info < (3, 11) or not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null \
        && printf '#include <nettle/cmac.h>\n' | cc -E - >/dev/null 2>&1; then
        missing=
    fi
    [ -z "$missing" ] && return 0
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing$missing ($why)"
    $sudo apt-get update -qq
    # Daemons installed for the tests must not start and touch this machine's clock.
    policy=/usr/sbin/policy-rc.d
    made=; if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null; $sudo chmod 755 $policy; made=1; fi
    status=0
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null || status=$?
    [ -z "$made" ] || $sudo rm -f $policy
    return $status
}

what=$1; shift
case $what in
build)
    commands='cc make python3'
    packages 'to build the C core and run Python' "$@" ;;
peers)
    commands='chronyd chronyc gpsd ppstest ntpdig clang'
    # The sanitizer runtime carries clang's version in its name.
    packages 'real programs that the tests run refclock against' "$@"
    if command -v dpkg-query >/dev/null 2>&1; then
        major=$(clang -dumpversion | cut -d. -f1)
        packages 'sanitizers and libFuzzer' "libclang-rt-$major-dev"
        # ntpd of ntpsec: apt would remove chrony for it, so it is only unpacked.
        if [ ! -x build/peers/ntpsec/usr/sbin/ntpd ]; then
            say 'unpacking ntpsec into build/peers (a client that the tests serve)'
            mkdir -p build/peers/ntpsec
            (cd build/peers && apt-get download -qq -o APT::Sandbox::User=root ntpsec && dpkg-deb -x ntpsec_*.deb ntpsec) || { rm -r build/peers/ntpsec; say 'ntpsec cannot be downloaded'; exit 1; }
        fi
    fi ;;
venv)
    venv=$1
    [ -x "$venv/bin/python" ] || { say "making a virtual environment in $venv"; python3 -m venv "$venv"; }
    say "building the C core and installing the pinned packages"
    PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install --quiet --editable '.[dev]' ;;
*)
    say "unknown step $what"; exit 64 ;;
esac
