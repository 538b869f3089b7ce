"""Client configurations in the programs themselves: each that Debian has reads what is printed for it, and its NTP clients follow it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from packet_net import NO_CLOCK, Lan, chronyc, chronyd, ntpsec_programs
from peers import PYTHON, REFCLOCK, Processes, locked, wait_for
from refclock_sim.ports.device import clock_environment
from unpacked import unpacked, with_libraries

from refclock.kernel.clocks import read_clocks
from refclock.sample import NS

HERE = "192.0.2.5"
ALSO = "2001:db8::5"
AHEAD_S = 0.3
"""s; beyond what ntpd slews."""
RIGHT_S = 0.002
"""s; what a client may be off after its first corrections on a busy machine."""
BOTH = ["--server", HERE, "--server", ALSO]


def printed(processes: Processes, *words: str) -> str:
    """What `refclock client-config` prints in the network of ``processes``."""
    done = processes.run([*REFCLOCK, "client-config", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(processes: Processes, name: str, *words: str) -> Path:
    """The same, in a file."""
    path = processes.directory / name
    path.write_text(printed(processes, *words), encoding="utf-8")
    return path


@pytest.fixture
def cable(network: Processes) -> Processes:
    """A network with an interface that has addresses of both kinds, and a default route."""
    commands = f"""ip link add lan0 type veth peer name lan1; ip addr add {HERE}/24 dev lan0; ip addr add {ALSO}/64 dev lan0 nodad
        ip addr add 2001:db8::bad/64 dev lan0 nodad preferred_lft 0
        ip link set lan0 up; ip link set lan1 up; ip route add default dev lan0"""
    done = network.run(["sh", "-ec", commands])
    assert done.returncode == 0, done.stderr
    return network


def test_our_real_addresses(cable: Processes) -> None:
    """The addresses of the interface are told, IPv4 first and IPv6 as another way; an address that is being given up is not."""
    text = printed(cable, "chrony", "--config", os.devnull)
    assert f"\nserver {HERE} iburst\n" in text
    assert f"server {ALSO} iburst" in text
    assert "bad" not in text


def test_chronyd_reads_it(network: Processes) -> None:
    """chronyd -p prints the servers, and nothing is refused; so it does with a key."""
    for words in ([*BOTH], [*BOTH, "--key", "10"]):
        path = written(network, "chrony.conf", "chrony", *words)
        done = network.run(["chronyd", "-p", "-f", str(path)])
        assert done.returncode == 0, done.stderr
        assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("server")] == [HERE, ALSO]


@pytest.mark.parametrize("word", ["ntpd", "ntpsec"])
@pytest.mark.parametrize("key", [[], ["--key", "10"]])
def test_ntpd_reads_it(network: Processes, word: str, key: list[str]) -> None:
    """ntpd of ntpsec, which reads ntp's configuration too, has both servers as its own, and knows every word; so it does with a key."""
    ntpd, ntpq = ntpsec_programs()
    text = printed(network, word, *BOTH, *key).replace("/etc/ntp.keys", str(network.directory / "keys"))
    (network.directory / "keys").write_text("10 AES-128 000102030405060708090a0b0c0d0e0f\n", encoding="ascii")
    path = network.directory / "ntp.conf"
    path.write_text(f"restrict 127.0.0.1\n{text}", encoding="utf-8")
    network.start("ntpd", [*NO_CLOCK, ntpd, "-n", "-N", "-c", str(path)])
    wait_for(
        "ntpd has both",
        lambda: set(re.findall(r"^.(\S+) ", network.run([ntpq, "-pnw", "127.0.0.1"]).stdout, re.MULTILINE)) >= {HERE, ALSO},
        20,
    )
    seen = network.output("ntpd")
    assert "error" not in seen.lower(), seen


def test_openntpd_reads_it(network: Processes) -> None:
    """OpenNTPD's own check accepts it."""
    program = unpacked("openntpd") / "usr/sbin/openntpd"
    done = network.run([str(program), "-n", "-f", str(written(network, "ntpd.conf", "openntpd", *BOTH))])
    assert "configuration OK" in done.stdout + done.stderr
    assert done.returncode == 0


def test_timesyncd_reads_it(network: Processes) -> None:
    """systemd-timesyncd takes both servers and knows every key."""
    program = unpacked("systemd-timesyncd") / "lib/systemd/systemd-timesyncd"
    written(network, "refclock.conf", "timesyncd", *BOTH)
    drop_in = network.directory / "refclock.conf"
    script = f"""mount -t tmpfs none /run/systemd; mkdir -m 777 -p /run/systemd/timesync /run/systemd/timesyncd.conf.d
        cp {drop_in} /run/systemd/timesyncd.conf.d/; export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console
        exec {" ".join(NO_CLOCK)} --reuid 65534 --clear-groups {program}"""
    network.start("timesyncd", ["unshare", "-m", "sh", "-ec", script])
    wait_for("timesyncd runs", lambda: "running as pid" in network.output("timesyncd"), 10)
    seen = network.output("timesyncd")
    assert re.findall(r"Added new system server (\S+)\.\n", seen) == [HERE, ALSO]
    assert "Unknown" not in seen


def test_dhcp_servers_read_it(network: Processes) -> None:
    """dnsmasq --test, kea-dhcp4 -t, kea-dhcp6 -t and dhcpd -t accept options 42 and 56."""
    dnsmasq = unpacked("dnsmasq-base", "libnetfilter-conntrack3", "libnfnetlink0")
    path = written(network, "dnsmasq.conf", "dnsmasq", *BOTH)
    done = network.run([*with_libraries(dnsmasq), str(dnsmasq / "usr/sbin/dnsmasq"), "--test", "-C", str(path)])
    assert done.returncode == 0, done.stderr
    kea = unpacked("kea-dhcp4-server", "kea-dhcp6-server", "kea-common", "liblog4cplus-2.0.5", "libmariadb3", "libpq5")
    for program, server in (("kea-dhcp4", HERE), ("kea-dhcp6", ALSO)):
        path = written(network, f"{program}.conf", "kea", "--server", server)
        done = network.run([*with_libraries(kea), str(kea / "usr/sbin" / program), "-t", str(path)])
        assert done.returncode == 0, done.stdout + done.stderr
    path = written(network, "dhcpd.conf", "isc-dhcp", *BOTH)
    leases = network.directory / "leases"
    leases.touch()
    dhcpd = unpacked("isc-dhcp-server") / "usr/sbin/dhcpd"
    for version in ("-4", "-6"):
        done = network.run([str(dhcpd), "-t", version, "-cf", str(path), "-lf", str(leases)])
        assert done.returncode == 0, done.stderr


def test_shells_read_it(network: Processes) -> None:
    """What is written for a shell, a shell reads."""
    for word in ("busybox", "openwrt", "macos", "maas"):
        done = subprocess.run(["sh", "-n", str(written(network, word, word, *BOTH))], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class Client:
    """A machine's clock, which its NTP client sets and steers (hw-sim/fake_clock.c). It begins as the host's."""

    def __init__(self, processes: Processes, name: str) -> None:
        host = read_clocks()
        self._processes, self._host = processes, host
        self.clock = clock_environment(processes.directory / f"{name}.clock", host.real_ns)

    def ahead_s(self) -> float:
        """How far it is ahead of the host's clock."""
        program = "from refclock.kernel.clocks import read_clocks; now = read_clocks(); print(now.real_ns, now.raw_ns)"
        told = self._processes.run(["env", *(f"{name}={value}" for name, value in self.clock.items()), PYTHON, "-c", program]).stdout
        real_ns, raw_ns = map(int, told.split())
        return (real_ns - self._host.real_ns - (raw_ns - self._host.raw_ns)) / NS


def test_chronyd_and_ntpd_follow_it(network: Processes, lan: Lan) -> None:
    """Two other machines, one with chronyd and one with ntpsec's ntpd, each with what `client-config` prints beside the running server and
    no line more for it, select it, and their clocks become right: the server's is 0.3 s ahead of what they began with."""
    run_dir, config = network.directory / "run", network.directory / "refclock.toml"
    config.write_text(f"[simulation]\noffset_s = {AHEAD_S}\n", encoding="ascii")
    network.start("refclock", [*REFCLOCK, "run", "--sim", "--ntp", "10.77.0.1:123", "--run-dir", str(run_dir), "--config", str(config)])
    wait_for("LOCKED", lambda: locked(run_dir), 60)
    chrony, ntp = Client(lan.clients, "chrony"), Client(lan.clients, "ntp")
    follower = chronyd(lan.clients, "chronyd", printed(network, "chrony", "--run-dir", str(run_dir)), preload=chrony.clock, steer=True)
    ntpd, ntpq = ntpsec_programs()
    path = lan.clients.directory / "ntp.conf"
    path.write_text(f"restrict 127.0.0.1\n{printed(network, 'ntpsec', '--run-dir', str(run_dir))}", encoding="utf-8")
    lan.clients.start("ntpd", [*NO_CLOCK, ntpd, "-n", "-N", "-g", "-c", str(path)], **ntp.clock)
    wait_for("chronyd follows", lambda: "^* 10.77.0.1" in chronyc(lan.clients, follower, "sources"), 40)
    wait_for("its clock is right", lambda: abs(chrony.ahead_s() - AHEAD_S) < RIGHT_S, 40)

    def selected() -> bool:
        return re.search(r"^\*10\.77\.0\.1 +\.SIM\. +1 ", lan.clients.run([ntpq, "-pn", "127.0.0.1"]).stdout, re.MULTILINE) is not None

    wait_for("ntpd selects it", selected, 100)
    assert abs(ntp.ahead_s() - AHEAD_S) < RIGHT_S
    assert "syntax error" not in lan.clients.output("ntpd")
