"""Which addresses the serve process serves while interfaces, addresses and rivals come and go, and what it leaves unanswered."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import packet_net
import pytest
from packet_net import LOOPBACK, Lan, Server, Serving, Sockets, ask, drain, request, there
from peers import REFCLOCK, Processes, snapshot, wait_for

SOON = 15
"""Seconds: some looks at addresses (LOOK_S of ppsd/serve/main.py)."""


def reported(server: Server) -> dict[str, Any]:
    """What the server says of itself."""
    seen = snapshot(server.run_dir, "serve.sock")
    assert seen is not None, "the server does not answer on its socket"
    return seen


def answers(sock: socket.socket, host: str, port: int = 123, scope: int = 0) -> bool:
    """Whether a request to that address is answered."""
    sock.settimeout(0.3)
    try:
        return ask(sock, (host, port, 0, scope) if ":" in host else (host, port))[0][1] == 1
    except OSError:
        return False


# ---- all that can be served -------------------------------------------------------------------------------------------------------------


def test_a_missing_address_leaves_the_others_served_and_is_taken_up_when_it_comes(serve: Serving, lan: Lan) -> None:
    """One of three addresses that no interface has: the others are served, the report and the log name it and why; when it comes it is
    served, when it goes it is reported, when it comes again it is served again."""
    server = serve('[server]\nlisten = ["10.77.0.7:123", "10.77.0.1:123", "[fd77::7]:123"]\n')
    four, six = lan.sockets.open(), lan.sockets.open("::")
    assert ask(four, ("10.77.0.1", 123))[1] == "10.77.0.1"
    assert reported(server)["addresses"] == ["10.77.0.1:123"]
    assert [one["address"] for one in reported(server)["unserved"]] == ["10.77.0.7:123", "[fd77::7]:123"]
    assert "no interface has this address yet" in server.log()
    for _ in range(2):
        there(lan.here, "ip address add 10.77.0.7/24 dev s0")
        there(lan.here, "ip address add fd77::7/64 dev s0")  # not usable before duplicate address detection is over
        wait_for("10.77.0.7", lambda: answers(four, "10.77.0.7"), SOON)
        wait_for("fd77::7", lambda: answers(six, "fd77::7"), SOON)
        wait_for("nothing missing", lambda: not reported(server)["unserved"], SOON)
        there(lan.here, "ip address del 10.77.0.7/24 dev s0")
        there(lan.here, "ip address del fd77::7/64 dev s0")
        wait_for("it is missed", lambda: len(reported(server)["unserved"]) == 2, SOON)
    assert ask(four, ("10.77.0.1", 123))[1] == "10.77.0.1"


def test_a_server_whose_only_address_is_not_there_yet_waits_for_it(serve: Serving, lan: Lan) -> None:
    """A VPN's address or interface that comes later: the process does not end, and serves when it comes."""
    server = serve('[server]\nlisten = ["10.77.0.7:123"]\n')
    assert reported(server)["addresses"] == []
    there(lan.here, "ip address add 10.77.0.7/24 dev s0")
    four = lan.sockets.open()
    wait_for("it is served", lambda: answers(four, "10.77.0.7"), SOON)


def test_without_ipv6_the_rest_is_served(network: Processes, sockets: Sockets, tmp_path: Path) -> None:
    """The default addresses on a kernel that was started with ipv6.disable=1: IPv4 is served, and what is missing is no fault."""
    preload = tmp_path / "no_ipv6.so"
    source = Path(packet_net.__file__).with_name("no_ipv6.c")
    compiler = shutil.which("cc")
    assert compiler is not None
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(preload), str(source)], check=True, timeout=60)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    config = tmp_path / "empty.toml"
    config.write_text("", encoding="utf-8")
    network.start("serve", [*REFCLOCK, "serve", "--config", str(config), "--run-dir", str(run_dir)], LD_PRELOAD=str(preload))
    told = wait_for("the server answers", lambda: snapshot(run_dir, "serve.sock"), 20)
    assert ask(sockets.open(), LOOPBACK)[0][0] >> 6 == 3
    assert told["addresses"] == ["0.0.0.0:123"]
    assert told["unserved"] == [{"address": "[::]:123", "why": told["unserved"][0]["why"], "harmless": True}]  # type: ignore[index]
    assert "no IPv6" in network.output("serve")


def test_addresses_that_overlap_are_served_and_found_by_config_check(network: Processes, serve: Serving, lan: Lan) -> None:
    """A wildcard beside single addresses, before or after them: everything is answered, nothing is reported missing; ``config check`` says
    which one is superfluous, with its line, and exits 78."""
    server = serve('[server]\nlisten = ["10.77.0.1:123", "0.0.0.0:123", "[fd77::1]:123", "[::]:123"]\n')
    four, six = lan.sockets.open(), lan.sockets.open("::")
    for host in ("10.77.0.1", "10.77.0.2"):
        assert ask(four, (host, 123))[1] == host
    assert ask(six, ("fd77::1", 123))[1] == "fd77::1"
    assert (reported(server)["addresses"], reported(server)["unserved"]) == (["0.0.0.0:123", "[::]:123"], [])
    checked = network.run([*REFCLOCK, "config", "check", "--config", str(server.file)])
    assert checked.returncode == 78
    assert f"{server.file}:2" in checked.stderr
    assert "10.77.0.1:123" in checked.stderr
    assert "[fd77::1]:123" in checked.stderr


def test_a_port_that_another_program_holds_leaves_the_others_served(serve: Serving, sockets: Sockets) -> None:
    """The report names who holds it; when that program ends, the address is taken over."""
    rival = sockets.open("127.0.0.1", 123)
    server = serve('[server]\nlisten = ["127.0.0.1:123", "127.0.0.2:123"]\n')
    client = sockets.open("127.0.0.5")
    assert ask(client, ("127.0.0.2", 123))[0][1] == 1
    (missing,) = reported(server)["unserved"]
    assert missing["address"] == "127.0.0.1:123"
    assert "held by" in missing["why"]
    rival.close()
    wait_for("it is taken over", lambda: answers(client, "127.0.0.1"), SOON)
    assert reported(server)["unserved"] == []


# ---- interfaces -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ['["0.0.0.0:123"]\ninterface = "s0"', '["10.77.0.1:123"]\ninterface = "s0"', '["[fe80::77%s0]:123"]'])
def test_an_interface_that_is_deleted_and_made_again_is_served_again(serve: Serving, lan: Lan, listen: str) -> None:
    """A USB adapter, a VLAN or a tunnel that goes and comes back under its name, also one that comes after the start."""
    there(lan.here, "ip link del s0")
    server = serve(f"[server]\nlisten = {listen}\n")
    assert reported(server)["addresses"] == []
    assert "there is no interface s0 yet" in server.log()
    host = "fe80::77" if "fe80" in listen else "10.77.0.1"
    for _ in range(2):
        there(lan.here, f"ip link add s0 type veth peer name c0 netns {lan.neighbour.holder.pid}")
        there(lan.here, "ip address add 10.77.0.1/24 dev s0")
        there(lan.here, "ip address add fe80::77/64 dev s0 nodad")
        there(lan.neighbour, "ip address add 10.77.0.9/24 dev c0")
        there(lan.neighbour, "ip address add fe80::99/64 dev c0 nodad")
        there(lan.here, "ip link set s0 up")
        there(lan.neighbour, "ip link set c0 up")
        client = lan.sockets.open("::" if ":" in host else "0.0.0.0")
        scope = int(there(lan.neighbour, "ip -o link show c0").split(":")[0]) if ":" in host else 0
        wait_for("it is served", lambda client=client, scope=scope: answers(client, host, 123, scope), SOON)
        assert len(reported(server)["addresses"]) == 1
        there(lan.here, "ip link del s0")
        wait_for("it is missed", lambda: reported(server)["addresses"] == [], SOON)


def test_the_control_socket_is_made_anew_when_a_cleaner_removes_it(network: Processes, serve: Serving) -> None:
    """The run directory emptied, then removed altogether: the server can be asked again within seconds, and serves on."""
    server = serve('[server]\nlisten = ["127.0.0.1:123"]\n')
    assert network.network is not None
    for how in ("emptied", "removed"):
        shutil.rmtree(server.run_dir)
        if how == "emptied":
            server.run_dir.mkdir()
        wait_for(f"a socket after the directory was {how}", lambda: snapshot(server.run_dir, "serve.sock"), SOON)
    assert server.process.poll() is None
    assert "removed by somebody" in server.log()


# ---- who is answered, and how -----------------------------------------------------------------------------------------------------------


def test_a_request_to_everybody_is_answered_by_nobody(serve: Serving, lan: Lan) -> None:
    """Requests to the broadcast addresses and to multicast groups, over IPv4 and IPv6, get no reply at all, whatever the number of threads:
    one answer each from every thread of every server would be an amplifier. Requests to the server alone are answered."""
    there(lan.here, "ip address add 10.78.0.1/24 broadcast 10.78.0.255 dev s0")
    there(lan.neighbour, "ip address add 10.78.0.9/24 broadcast 10.78.0.255 dev c0")
    there(lan.neighbour, "ip route add 224.0.0.0/4 dev c0")
    there(lan.neighbour, "ip route add 255.255.255.255/32 dev c0")
    server = serve('[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\nthreads = 4\n[limits]\nrate = 0\n')
    four, six = lan.sockets.open(), lan.sockets.open("::")
    scope = int(there(lan.neighbour, "ip -o link show c0").split(":")[0])
    wait_for("IPv6 is up", lambda: answers(six, "fd77::1"), SOON)
    for first in (0x23, 0x1B, 0x21, 0x19):
        for host in ("10.78.0.255", "255.255.255.255", "224.0.0.1"):
            four.sendto(request(first), (host, 123))
        six.sendto(request(first), ("ff02::1", 123, 0, scope))
    assert not drain(four, 0.5)
    assert not drain(six, 0.2)
    assert ask(four, ("10.78.0.1", 123))[1] == "10.78.0.1"
    assert server.counters()["drop"]["not_unicast"] >= 8
    assert set(server.clients()) <= {"10.78.0.9", "10.77.0.9", "9 (local)"}


def test_a_reply_carries_the_requests_dscp_or_the_configured_one(serve: Serving, lan: Lan) -> None:
    """Expedited forwarding in, expedited forwarding out; nothing in, nothing out; with server.dscp always that one."""
    plain = '[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\n'
    server = serve(plain)
    for sock, to, level, sent, told in (
        (lan.sockets.open(), ("10.77.0.1", 123), socket.IPPROTO_IP, socket.IP_TOS, 13),  # IP_RECVTOS of linux/in.h
        (lan.sockets.open("::"), ("fd77::1", 123, 0, 0), socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS),
    ):
        sock.setsockopt(level, told, 1)

        def came(sock: socket.socket = sock, to: Any = to, level: int = level, sent: int = sent) -> int:
            sock.sendto(request(), to)
            _, ancillary, _, _ = sock.recvmsg(2048, 256)
            return next(data[0] for at, kind, data in ancillary if (at, kind) == (level, sent))

        for dscp in (0, 46, 10):
            sock.setsockopt(level, sent, dscp << 2)
            assert came() == dscp << 2
        server.reload(plain.replace("listen", "dscp = 46\nlisten"), "rules, limits and keys renewed")
        assert came() == 46 << 2
        server.reload(plain, "rules, limits and keys renewed")


def test_own_networks_are_those_the_interfaces_are_in(network: Processes, serve: Serving, lan: Lan) -> None:
    """By default clients on the link's global IPv6 and IPv4 networks, and in 100.64.0.0/10 when an interface is in it, are answered, also
    when the network comes later; others are denied; ``access list`` and ``access test`` tell; allow without "own" excludes them."""
    there(lan.neighbour, "ip address add 2001:db8:77::9/64 dev c0 nodad")
    there(lan.neighbour, "ip address add 203.0.113.9/24 dev c0")
    there(lan.neighbour, "ip address add 100.99.1.9/32 dev c0")
    there(lan.neighbour, "ip address add 198.51.100.9/32 dev c0")
    there(lan.neighbour, "ip route add 10.77.0.0/16 dev c0")
    there(lan.here, "ip route add 198.51.100.9/32 dev s0")
    there(lan.here, "ip route add 100.99.1.9/32 dev s0")
    server = serve('[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\n')

    def told(*words: str) -> tuple[int, str]:
        done = network.run([*REFCLOCK, "access", *words, "--config", str(server.file), "--run-dir", str(server.run_dir)])
        return done.returncode, done.stdout

    stranger = lan.sockets.open("198.51.100.9")
    reply, _ = ask(stranger, ("10.77.0.1", 123))
    assert reply[12:16] == b"DENY"
    assert told("test", "203.0.113.9")[0] == 1
    there(lan.here, "ip address add 2001:db8:77::1/64 dev s0 nodad")
    there(lan.here, "ip address add 203.0.113.1/24 dev s0")
    there(lan.here, "ip address add 100.99.1.1/32 dev s0")
    for source, to in (("203.0.113.9", "203.0.113.1"), ("100.99.1.9", "10.77.0.1"), ("2001:db8:77::9", "2001:db8:77::1")):
        client = lan.sockets.open(source)
        wait_for(f"{source} is answered", lambda client=client, to=to: answers(client, to), SOON)
        assert told("test", source)[0] == 0
        assert "on s0" in told("test", source)[1]
    listed = told("list")[1]
    for prefix in ("203.0.113.0/24", "100.64.0.0/10", "2001:db8:77::/64", "192.168.0.0/16"):
        assert prefix in listed
    assert "s0" in listed
    assert answers(stranger, "10.77.0.1") is False
    server.reload('[access]\nallow = ["10.0.0.0/8"]\n[server]\nlisten = ["0.0.0.0:123", "[::]:123"]\n', "rules, limits and keys renewed")
    assert ask(lan.sockets.open("203.0.113.9"), ("203.0.113.1", 123))[0][12:16] == b"DENY"
    assert struct.unpack("!B", reply[1:2]) == (0,)
