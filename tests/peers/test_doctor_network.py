"""What the doctor says of real firewalls, ports and networks: real nft, iptables, ufw, firewalld and others in namespaces of their own, and
real packets from a neighbour on a cable, before and after the doctor's own remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packet_net import Lan, Server, Serving, there
from peers import PYTHON, REFCLOCK, Processes, wait_for

from ppsd.cli.doctor.network import exempting

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root reads and sets the rules of a firewall")

SERVED = '[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\nthreads = 1\n'
ASK = b"\x23" + bytes(47)
"""A request of a client: NTP version 4, mode 3."""
PRIVATE = """
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log || exit 1
for there in /etc/ufw /etc/firewalld /etc/default/ufw; do
    [ -e $there ] || continue
    copy=/run/copies$there && mkdir -p ${copy%/*} && cp -a $there $copy && mount --bind $copy $there || exit 1
done
mkdir -p /run/dbus /run/firewalld
echo ready
exec sleep 1000
"""
"""Gives a machine files of its own where firewalls keep their settings and state."""


class Machine:
    """The server's machine, with its own network and its own settings of firewalls, and its neighbour on a cable."""

    def __init__(self, lan: Lan, network: Processes, server: Server) -> None:
        self.lan, self.server = lan, server
        self.processes = Processes(network.directory)
        self.holder = subprocess.Popen([*lan.here.enter, "unshare", "-m", "sh", "-c", PRIVATE], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"
        self.enter = [*lan.here.enter, f"--mount=/proc/{self.holder.pid}/ns/mnt", "--wdns=/"]

    def close(self) -> None:
        self.processes.close()
        self.holder.kill()
        self.holder.wait()
        assert self.holder.stdout is not None
        self.holder.stdout.close()

    def run(self, *words: str) -> str:
        """A command on this machine; fails the test when it fails."""
        done = subprocess.run([*self.enter, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def shell(self, command: str) -> str:
        return self.run("sh", "-c", command)

    def start(self, name: str, *words: str) -> None:
        self.processes.start(name, [*self.enter, *words])

    def examined(self) -> dict[str, dict[str, Any]]:
        """The doctor's findings, by check."""
        words = [*REFCLOCK, "doctor", "--json", "--config", str(self.server.file), "--run-dir", str(self.server.run_dir)]
        done = subprocess.run(
            [*self.enter, "env", f"PYTHONPATH={Path.cwd()}", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert not done.stderr, done.stderr
        return {finding["check"]: finding for finding in json.loads(done.stdout)}

    def answers(self, host: str) -> bool:
        """Whether the neighbour's request is answered."""
        asker = self.lan.sockets.open("::" if ":" in host else "0.0.0.0", timeout=1.0)
        try:
            asker.sendto(ASK, (host, 123))
            return bool(asker.recv(512))
        except (TimeoutError, ConnectionRefusedError):
            return False


@pytest.fixture
def machine(lan: Lan, network: Processes, serve: Serving) -> Iterator[Machine]:
    made = Machine(lan, network, serve(SERVED))
    yield made
    made.close()


NFT = """
table inet filter {
    set trusted { type ipv4_addr; flags interval; elements = { 172.16.0.0/12 } }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        iifname "s0" jump services
        ip saddr @trusted udp dport 123 accept
    }
    chain services {
        tcp dport { 22, 80 } accept
        udp dport vmap { 53 : accept, 5353 : accept }
    }
}
"""


def nft(m: Machine) -> None:
    m.shell(f"nft -f - <<'END'\n{NFT}\nEND")


def iptables(m: Machine) -> None:
    for command in ("iptables", "ip6tables"):
        m.shell(f"{command} -N services && {command} -A services -p udp -m multiport --dports 53,5353 -j ACCEPT")
        m.shell(f"{command} -A INPUT -i lo -j ACCEPT && {command} -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
        m.shell(f"{command} -A INPUT -p {'icmp' if command == 'iptables' else 'ipv6-icmp'} -j ACCEPT")
        m.shell(f"{command} -A INPUT -p udp -j services && {command} -P INPUT DROP")


def ufw(m: Machine) -> None:
    m.shell("ufw allow 22/tcp && ufw --force enable")


def firewalld(m: Machine) -> None:
    if shutil.which("firewalld") is None:
        pytest.skip("firewalld is not installed: its package would shut this machine at the next start (see tests/data/firewalls)")
    m.start("dbus", "dbus-daemon", "--system", "--nofork", "--nopidfile")
    wait_for("the bus", lambda: subprocess.run([*m.enter, "test", "-S", "/run/dbus/system_bus_socket"], check=False).returncode == 0, 10)
    m.start("firewalld", "firewalld", "--nofork", "--nopid")
    wait_for(
        "firewalld", lambda: subprocess.run([*m.enter, "firewall-cmd", "--state"], capture_output=True, check=False).returncode == 0, 20
    )
    m.run("firewall-cmd", "--zone=internal", "--permanent", "--add-interface=s0")
    m.run("firewall-cmd", "--reload")


@pytest.mark.parametrize("shut", [nft, iptables, ufw, firewalld])
def test_the_doctors_command_opens_the_firewall(machine: Machine, shut: Callable[[Machine], None]) -> None:
    """A firewall keeps the neighbour's requests out, by IPv4 and IPv6: the doctor says so while it is true and only then. The command that
    it gives opens it; where that is one for each of the two, the one that is still shut is told next."""
    assert [machine.answers(host) for host in ("10.77.0.1", "fd77::1")] == [True, True]
    assert machine.examined()["RC31"]["state"] == "ok"
    shut(machine)
    assert [machine.answers(host) for host in ("10.77.0.1", "fd77::1")] == [False, False]
    found = machine.examined()["RC31"]
    assert found["state"] == "fail", found
    for _ in range(2):
        machine.shell(found["do"].replace("sudo ", "").partition(";")[0])
        open_to = [machine.answers(host) for host in ("10.77.0.1", "fd77::1")]
        found = machine.examined()["RC31"]
        assert (found["state"] == "ok") == all(open_to), (found, open_to)
        if all(open_to):
            return
        assert found["state"] == "warn"
        assert "fd77::/64 at s0" in found["what"]
    pytest.fail(str(found))


OPENINGS = {
    "by network": "ip saddr 10.77.0.0/24 udp dport 123 accept; ip6 saddr fd77::/16 udp dport 123 accept",
    "by interface": 'iifname "s*" udp dport { 123, 4460 } accept',
    "by interface and port": 'meta iifname . udp dport { "s0" . 123 } accept',
    "by a range of ports": "udp dport 1-1023 accept",
    "by address of this machine": "ip daddr { 10.77.0.1, 10.77.0.2 } accept; ip6 daddr { fd77::1, fd77::2 } udp dport ntp accept",
    "by another network": "ip saddr 10.99.0.0/24 udp dport 123 accept",
    "by another interface": 'iifname "eth0" udp dport 123 accept',
    "but drops it earlier": "udp dport 123 drop; udp dport 123 accept",
    "all but one port": "udp dport != 53 accept",
    "by IPv4 alone": "meta nfproto ipv4 udp dport 123 accept",
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_rules_are_read_as_the_kernel_reads_them(machine: Machine, opening: str) -> None:
    """Whatever a rule names, the doctor finds the port open where the neighbour's packets come through, and shut where they do not."""
    nft(machine)
    rules = "\n".join(f"add rule inet filter services {rule}" for rule in OPENINGS[opening].split("; "))
    machine.shell(f"nft -f - <<'END'\n{rules}\nEND")
    heard = [machine.answers(host) for host in ("10.77.0.1", "fd77::1")]
    expected = "ok" if all(heard) else "warn" if any(heard) else "fail"
    assert machine.examined()["RC31"]["state"] == expected, heard


def test_connections_are_tracked_until_the_doctors_command(machine: Machine) -> None:
    """With a firewall that looks at connections each client takes a place in the kernel's table; the doctor's command exempts NTP, and says
    so then."""

    def places() -> int:
        return int(machine.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))

    nft(machine)
    machine.shell("nft insert rule inet filter input udp dport 123 accept")
    assert machine.answers("10.77.0.1")
    assert places() > 0
    assert "tracked: there is room" in machine.examined()["RC35"]["what"]
    machine.shell(exempting([]).replace("sudo ", "").rpartition("; and")[0])
    before = places()
    assert machine.answers("10.77.0.2")
    assert places() == before
    assert machine.examined()["RC35"]["what"] == "NTP is exempt from connection tracking"


def test_stamps_work_here(machine: Machine) -> None:
    """The kernel's stamps are tried, not assumed: a packet to loopback comes with one."""
    assert machine.examined()["RC34"]["state"] == "ok"


def test_control_protocols_from_outside(machine: Machine) -> None:
    """Our own server answers neither ntpq nor chronyc off loopback. A chronyd that answers chronyc to the network is told, by name."""
    assert machine.examined()["RC38"]["state"] == "ok"
    machine.server.reload(f"{SERVED}[chronyc]\nlisten = []\n", "renewed")
    config = machine.processes.directory / "chrony.conf"
    config.write_text("port 0\ncmdallow all\nbindcmdaddress 0.0.0.0\npidfile /run/chronyd.pid\n")
    machine.start("chronyd", "chronyd", "-d", "-x", "-u", "root", "-f", str(config))
    found = wait_for("chronyd is heard", lambda: (f := machine.examined()["RC38"])["state"] == "warn" and f, 10)
    assert "chronyc is answered at 10.77.0.1:323" in found["what"]
    assert "by chronyd (pid" in found["what"]


def test_addresses_and_loans(machine: Machine) -> None:
    """Addresses that were set by hand are good; one with a lifetime, as DHCP clients set it, is on loan."""
    assert machine.examined()["RC33"]["state"] == "ok"
    there(machine.lan.here, "ip address add 10.77.0.50/24 dev s0 valid_lft 3600 preferred_lft 1800")
    found = machine.examined()["RC33"]
    assert (found["state"], "10.77.0.50 (s0)" in found["what"]) == ("warn", True)


def hand_out(machine: Machine, directory: Path, ntp_server: str) -> None:
    """A dnsmasq at the neighbour that gives addresses and names an NTP server."""
    options = (
        "--dhcp-range=10.77.0.100,10.77.0.150,2m",
        f"--dhcp-leasefile={directory}/leases",
        f"--dhcp-option=option:ntp-server,{ntp_server}",
    )
    own = ("--keep-in-foreground", "--port=0", "--interface=c0", "--user=root", "--conf-file=/dev/null", "--pid-file=")
    machine.lan.clients.start("dnsmasq", ["dnsmasq", *own, *options])


DHCP_SCRIPT = '#!/bin/sh\n[ "$1" = bound ] && ip address add $ip/24 dev $interface\nexit 0\n'


def test_an_address_that_busybox_has_from_dnsmasq_is_on_loan(machine: Machine, tmp_path: Path) -> None:
    """udhcpc sets addresses without a lifetime: it is known by its command line."""
    there(machine.lan.here, "ip address flush dev s0")
    script = tmp_path / "script"
    script.write_text(DHCP_SCRIPT)
    script.chmod(0o755)
    hand_out(machine, tmp_path, "10.77.0.9")
    machine.start("udhcpc", "busybox", "udhcpc", "-i", "s0", "-f", "-s", str(script), "-t", "20", "-T", "1")
    wait_for("an address", lambda: "10.77.0.1" in there(machine.lan.here, "ip -4 address show dev s0"), 20)
    found = machine.examined()["RC33"]
    assert (found["state"], "(s0) is on loan" in found["what"]) == ("warn", True)


@pytest.mark.skipif(shutil.which("dhclient") is None, reason="isc-dhcp-client is not installed")
@pytest.mark.parametrize(("named", "state"), [("10.77.0.9", "warn"), ("10.77.0.1", "ok")])
def test_what_dhcp_hands_out(machine: Machine, tmp_path: Path, named: str, state: str) -> None:
    """A real dnsmasq hands out an NTP server, and a real dhclient remembers it: this machine, or another."""
    machine.shell("mount -t tmpfs tmpfs /var/lib/dhcp")
    hand_out(machine, tmp_path, named)
    config = tmp_path / "dhclient.conf"
    config.write_text("request subnet-mask, ntp-servers;\n")
    machine.start("dhclient", "dhclient", "-d", "-4", "-sf", "/bin/true", "-cf", str(config), "-pf", "/run/dhclient.pid",
                  "-lf", "/var/lib/dhcp/dhclient.s0.leases", "s0")  # fmt: skip
    leased = ["grep", "-q", "ntp-servers", "/var/lib/dhcp/dhclient.s0.leases"]
    wait_for("a lease", lambda: subprocess.run([*machine.enter, *leased], check=False).returncode == 0, 20)
    assert machine.examined()["RC37"]["state"] == state


@pytest.mark.skipif(shutil.which("avahi-daemon") is None, reason="avahi-daemon is not installed")
def test_the_name_on_the_lan(machine: Machine, tmp_path: Path) -> None:
    """A real avahi answers for the name: it is found. When only a neighbour answers for it, that is told."""
    name = os.uname().nodename.partition(".")[0]
    config = tmp_path / "avahi.conf"
    config.write_text(f"[server]\nhost-name={name}\nenable-dbus=no\nuse-ipv6=no\n[publish]\npublish-addresses=yes\n")
    assert machine.examined()["RC32"]["state"] == "skip"
    machine.start("avahi", "avahi-daemon", "--no-drop-root", "--no-chroot", "-f", str(config))
    found = wait_for("the name is found", lambda: (f := machine.examined()["RC32"])["state"] == "ok" and f, 20)
    assert f"{name}.local is found as 10.77.0." in found["what"]


def test_a_vlan_without_an_address(machine: Machine) -> None:
    """A tagged VLAN is seen as one; without an address nobody there is served, with one they are."""
    made = subprocess.run(
        [*machine.enter, "ip", "link", "add", "link", "s0", "name", "s0.10", "type", "vlan", "id", "10"], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("this kernel has no VLANs (8021q)")
    machine.shell("mount -t sysfs sysfs /sys")
    assert machine.examined()["RC49"]["state"] == "warn"
    machine.shell("ip address add 10.10.0.1/24 dev s0.10 && ip link set s0.10 up")
    assert machine.examined()["RC49"]["state"] == "ok"


HOLD = """
import socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 123))
print("held", flush=True)
time.sleep(600)
"""


def test_a_port_that_another_program_holds_by_ipv6(machine: Machine) -> None:
    """A program at [::]:123 has IPv4's port 123 too: the server serves neither, and the doctor names the program."""
    machine.server.process.kill()
    machine.server.process.wait()
    machine.start("holder", PYTHON, "-c", HOLD)
    wait_for("held", lambda: "held" in machine.processes.output("holder"), 10)
    found = machine.examined()["RC30"]
    assert found["state"] == "fail"
    assert "is held by python" in found["what"]


def test_a_disk_that_cannot_be_written(machine: Machine) -> None:
    """A state directory on a file system that is read-only, and on one that is full: a real mount of each."""
    machine.server.configure(f'{SERVED}[run]\nstate = "/run/state"\n')
    machine.shell("mkdir /run/state && mount -t tmpfs -o size=64m tmpfs /run/state")
    assert machine.examined()["RC42"]["state"] == "ok"
    machine.shell("mount -o remount,ro /run/state")
    assert "read-only" in machine.examined()["RC42"]["what"]
    machine.shell("mount -o remount,rw /run/state && head -c 60000000 /dev/zero > /run/state/much")
    assert machine.examined()["RC42"]["state"] == "fail"
    machine.shell("umount /run/state")


def test_rights_of_the_real_processes(machine: Machine) -> None:
    """What may not set the clock is told before it runs; with the right nothing is said."""
    machine.server.configure(f'{SERVED}[clock]\nsteer = "kernel"\n')
    words = [*REFCLOCK, "doctor", "--json", "--config", str(machine.server.file), "--run-dir", str(machine.server.run_dir)]
    bare = subprocess.run(
        [*machine.enter, "setpriv", "--bounding-set", "-sys_time", "env", f"PYTHONPATH={Path.cwd()}", *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert next(f for f in json.loads(bare.stdout) if f["check"] == "RC40")["state"] == "fail"
    assert machine.examined()["RC40"]["state"] == "skip"
