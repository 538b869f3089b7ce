"""The networks that interfaces are in, as the kernel of a network namespace tells them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.device

LINK = ["ip link set lo up", "ip link add v0 type veth peer name v1", "ip link set v0 up", "ip link set v1 up"]
TELL = "import json; from refclock.kernel.interfaces import networks; print(json.dumps(networks()))"
NOTICE = """
import select, subprocess
from refclock.kernel.interfaces import InterfaceWatch
watch = InterfaceWatch()
subprocess.run(["ip", "address", "add", "203.0.113.7/28", "dev", "v0"], check=True)
print(bool(select.select([watch], [], [], 10)[0]), watch.drain(), bool(select.select([watch], [], [], 0)[0]))
"""


def inside(*commands: str, program: str = TELL) -> str:
    """What ``program`` prints in a network namespace after these commands."""
    if shutil.which("ip") is None:
        pytest.skip("no ip(8)")
    script = " && ".join([*LINK, *commands, f'exec {shlex.quote(sys.executable)} -c "$PROGRAM"'])
    words = ["unshare", "-r", "-n", "sh", "-c", script]
    return subprocess.run(
        words, capture_output=True, text=True, check=True, timeout=30, env={"PROGRAM": program, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    ).stdout


def told(*commands: str) -> dict[str, str]:
    """The networks besides loopback's: prefix -> interface."""
    return {prefix: name for prefix, name in json.loads(inside(*commands)) if name != "lo"}


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("ip address add 203.0.113.7/28 dev v0", {"203.0.113.0/28": "v0"}),
        ("ip address add 2001:db8:1:2::5/64 dev v0 nodad", {"2001:db8:1:2::/64": "v0"}),
        ("ip address add 10.9.0.1 peer 10.9.0.2/32 dev v0", {"10.9.0.1/32": "v0", "10.9.0.2/32": "v0"}),
        ("ip address add 100.101.1.2/32 dev v0", {"100.64.0.0/10": "v0"}),
        ("ip address add 198.51.100.1/24 dev lo", {}),
        ("ip address add 169.254.3.4/16 dev v0", {}),
        ("ip address add 10.1.1.1/0 dev v0", {"10.1.1.1/32": "v0"}),
        ("ip -6 route add 2001:db8:9::/64 dev v0 proto ra", {"2001:db8:9::/64": "v0"}),
        ("ip -6 route add default dev v0 proto ra", {}),
        ("ip -6 route add 2001:db8:a::/64 dev v0 proto static", {}),
    ],
)
def test_a_network_is_what_an_interface_is_in(command: str, wanted: dict[str, str]) -> None:
    """The networks of addresses, the peers of tunnels, what a router announced for the link; not what lies behind a router, not everybody,
    not the addresses of loopback as a network."""
    assert told(command) == wanted


def test_changes_are_noticed() -> None:
    """A new address makes the watch readable, once."""
    assert inside(program=NOTICE).split() == ["True", "True", "False"]
