#!/bin/sh
# Sets up what `make run` and `make test` need, and says what it does and why. Quick when nothing is missing.
#   setup.sh build PACKAGE...   compiler and Python      setup.sh peers PACKAGE...   the real programs that the tests run against
#   setup.sh venv DIRECTORY [EXTRA]   virtual environment, the C core and the packages pinned in constraints.txt; EXTRA: dev
# The whole output of pip and apt goes to build/setup.log. What people see is one sentence.
set -eu
LOG=build/setup.log
say() { printf 'setup: %s\n' "$*"; }
fail() { say "$@" >&2; exit 1; }

find_python() {  # Set $python to the first Python that is new enough; "" when there is none.
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        command -v $python >/dev/null 2>&1 && $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
    done
    python=
}

old_python() {  # End here when there is a Python, but only an old one: no package of ours would install.
    [ -n "$python" ] || ! command -v python3 >/dev/null 2>&1 || fail "refclock needs Python 3.11 or later, and python3 is $(python3 -c \
'import platform; print(platform.python_version())'): install a later one beside it, such as python3.11 with python3.11-venv and" \
        "python3.11-dev, or upgrade this system; then run make again."
}

reached() {  # Whether the log says nothing of a network that is not there.
    ! grep -qiE 'name resolution|name or service|resolving|not resolve|unreachable|connection (refused|failed|broken)|timed out' $LOG
}

packages() {  # packages WHY PACKAGE...
    why=$1; shift
    missing=
    if ! command -v dpkg-query >/dev/null 2>&1; then
        # No Debian package database: look for the commands themselves.
        for command in $commands; do command -v "$command" >/dev/null 2>&1 || missing="$missing $command"; done
        [ -z "$missing" ] || fail "these commands are missing:$missing ($why). Install them with this system's package manager, then run make again."
        return 0
    fi
    for package in "$@"; do
        case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in *'ok installed') ;; *) missing="$missing $package" ;; esac
    done
    # A compiler, Python or nettle that came otherwise (an image, pyenv) does as well.
    if [ "$commands" = 'cc make python3' ] && cc --version >/dev/null 2>&1 && [ -n "$python" ] && $python -c 'import sys, venv, ensurepip, sysconfig, os
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null \
        && printf '#include <nettle/cmac.h>\n' | cc -E - >/dev/null 2>&1; then
        missing=
    fi
    [ -z "$missing" ] && return 0
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null 2>&1 || fail "these packages are missing:$missing ($why). As root: apt-get install$missing; then run make again."
    fi
    say "installing$missing ($why)"
    $sudo true || fail "apt-get needs root. As root: apt-get install$missing; then run make again."
    $sudo apt-get update -qq >>$LOG 2>&1 || true  # a single index that is out of order need not matter
    # Daemons installed for the tests must not start and touch this machine's clock.
    policy=/usr/sbin/policy-rc.d
    made=; if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null; $sudo chmod 755 $policy; made=1; fi
    status=0
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >>$LOG 2>&1 || status=$?
    [ -z "$made" ] || $sudo rm -f $policy
    [ $status = 0 ] && return 0
    reached || fail "there is no way to the package servers:$missing cannot be installed ($why). Is there a network? Then run make again."
    fail "apt-get cannot install$missing ($why): $(grep '^E: ' $LOG | tail -n 1). The whole output is in $LOG."
}

mkdir -p build; : >$LOG
what=$1; shift
find_python
case $what in
build)
    old_python
    commands='cc make python3'
    case $python in python3.*) set -- $(printf '%s ' "$@" | sed "s/python3/$python/g") ;; esac
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
            (cd build/peers && apt-get download -qq -o APT::Sandbox::User=root ntpsec && dpkg-deb -x ntpsec_*.deb ntpsec) >>$LOG 2>&1 \
                || { rm -r build/peers/ntpsec; fail "ntpsec cannot be downloaded: $(tail -n 1 $LOG)"; }
        fi
        if [ ! -d build/releases/trixie ] || [ ! -d build/releases/forky ]; then
            say 'unpacking chrony, ntpsec and ntpd-rs of later releases of Debian into build/releases (tests ask us with them)'
            sh tests/peers/releases.sh
        fi
    fi ;;
venv)
    venv=$1
    old_python
    # One of an older Python, or of a directory that was moved or copied, does not work: its scripts name their interpreter by the full path.
    if [ -e "$venv" ] && ! { grep -qF "$(pwd -P)/$venv" "$venv/pyvenv.cfg" && "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))'; } >/dev/null 2>&1; then
        say "making $venv anew: it was made elsewhere, or is not whole"
        rm -rf "$venv"
    fi
    made=
    if [ ! -e "$venv" ]; then
        say "making a virtual environment in $venv"
        made=1
        trap 'rm -rf "$venv"; exit 130' INT TERM HUP
        $python -m venv "$venv" >>$LOG 2>&1 || { rm -rf "$venv"; fail "$python cannot make $venv: $(tail -n 1 $LOG). The whole output is in $LOG."; }
    fi
    say "building the C core and installing the pinned packages: half a minute, some minutes on a Raspberry Pi"
    PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$venv/bin/python" -m pip install --retries 2 --editable ".${2:+[$2]}" >>$LOG 2>&1 && {
        # Compiled now, by the owner of the source: what root would compile at the first `sudo refclock run` the owner could not remove.
        "$venv/bin/python" -m compileall -q refclock ppsd hw-sim/refclock_sim >>$LOG 2>&1 || true
        exit 0
    }
    [ -z "$made" ] || rm -rf "$venv"
    reached || fail "the Python packages that refclock needs cannot be fetched: is there a network? Then run make again."
    fail "the Python packages cannot be installed: $(grep -iE '^ *(error|fatal)|: error:|: fatal error:' $LOG | tail -n 1). The whole output is in $LOG." ;;
*)
    say "unknown step $what"; exit 64 ;;
esac
