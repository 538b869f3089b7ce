"""The serve process and its rules: access, rates and keys, reloads, floods, broadcasts and the leap smear."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import select
import signal
import socket
import struct
import time

import packet_net
import pytest
from packet_net import (
    LOOPBACK,
    OPEN_HOUSE,
    SECRETS,
    Lan,
    Serving,
    Sockets,
    ask,
    drain,
    key_lines,
    keyed,
    receive,
    request,
    secret_file,
    send_from,
    served_ns,
    there,
)
from peers import PYTHON, REFCLOCK, Processes, wait_for

from refclock.sample import NS


def ask_many(sock: socket.socket, sources: list[str], seconds: float, every: float) -> list[bytes]:
    """Requests from these addresses in turn for so long; the replies."""
    until, turn = time.monotonic() + seconds, itertools.cycle(sources)
    found = []
    while time.monotonic() < until:
        send_from(sock, next(turn), LOOPBACK, request())
        found += [data for data, _ in drain(sock, every)]
    return found


def test_public_sources_are_denied_unless_let_in(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """By default a public address gets KoD DENY and nothing else, no more than kod_rate a second in all however many ask and whatever the
    threads; silence with denied = "silence"; the time once it is let in. ``access test`` tells which and exits accordingly."""
    assert network.network is not None
    there(network.network, "ip address add 198.51.100.1/24 dev lo")
    base = '[server]\nlisten = ["127.0.0.1:123"]\nthreads = 4\n[limits]\nkod_rate = 0.5\n'
    server = serve(base)
    sock = sockets.open()
    sources = [f"198.51.100.{n}" for n in range(2, 200)]
    replies = ask_many(sock, sources, 4.0, 0.005)
    assert replies
    assert {(len(data), data[0] >> 6, data[1], data[12:16]) for data in replies} == {(48, 3, 0, b"DENY")}
    assert len(replies) <= 0.5 * 4 + 4, "kod_rate, and one at once for each thread"
    assert ask(sockets.open("127.0.0.5"), LOOPBACK)[0][1] == 1

    def tested() -> tuple[int, str]:
        done = network.run([*REFCLOCK, "access", "test", "198.51.100.7", "--config", str(server.file), "--run-dir", str(server.run_dir)])
        return done.returncode, done.stdout

    assert tested()[0] == 1
    assert "is denied" in tested()[1]
    renewed = "rules, limits and keys renewed"
    server.reload(base + '[access]\ndenied = "silence"\n', renewed)
    assert not ask_many(sock, sources, 0.5, 0.005)
    server.reload(base + '[access]\nallow = ["198.51.100.0/24"]\nignore = ["198.51.100.8"]\n', renewed)
    assert ask(sockets.open("198.51.100.7"), LOOPBACK)[0][1] == 1
    assert tested()[0] == 0
    assert "198.51.100.0/24 in access.allow - the running server" in tested()[1]
    with pytest.raises(TimeoutError):
        ask(sockets.open("198.51.100.8", timeout=0.3), LOOPBACK)
    counters = server.counters()
    assert counters["drop"]["ignored"] == 1
    assert counters["kod"] == {"denied": len(replies)}


def test_reload_loses_no_request(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """SIGHUP with other rules and keys, ten times in five seconds, under a client that asks 200 times a second: every request answered."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    server = serve(OPEN_HOUSE)
    sock = sockets.open("127.0.0.5")
    began, sent, hups, answered = time.monotonic(), set[bytes](), 0, set[bytes]()
    while (gone := time.monotonic() - began) < 5.0:
        if gone * 200 >= len(sent):
            sent.add(cookie := os.urandom(8))
            sock.sendto(request(cookie=cookie), LOOPBACK)
        if gone >= 0.25 + 0.5 * hups:
            config = OPEN_HOUSE + f'[access]\ndeny = ["10.{hups}.0.0/16"]\n'
            server.configure(keyed(config, keys) if hups % 2 else config)
            server.signal(signal.SIGHUP)
            hups += 1
        if select.select([sock], [], [], 0.002)[0]:
            answered.add(sock.recv(2048)[24:32])
    answered |= {data[24:32] for data, _ in drain(sock, 0.5)}
    assert len(sent) > 900
    assert answered == sent
    assert server.log().count("rules, limits and keys renewed") == hups == 10
    assert "deny" not in server.counters()["drop"]


def test_bad_reloads_change_nothing(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """SIGHUP with a bad file or a bad key file: the log says what is wrong and where, the old rules and keys stay in force; likewise a key
    file that everybody may read, with the command that mends it. No secret gets into the log."""
    assert network.network is not None
    keys = secret_file(network.directory / "keys", ["1 SHA256 HEX:" + bytes(20).hex()])
    good = keyed(OPEN_HOUSE, keys) + '[access]\nignore = ["127.0.0.6"]\n'
    server = serve(good)

    def unchanged() -> None:
        data = request()
        code = hashlib.sha256(bytes(20) + data).digest()[:20]
        reply, _ = ask(sockets.open("127.0.0.5"), LOOPBACK, data + struct.pack(">I", 1) + code)
        assert reply[48:] == struct.pack(">I", 1) + hashlib.sha256(bytes(20) + reply[:48]).digest()[:20]
        with pytest.raises(TimeoutError):
            ask(sockets.open("127.0.0.6", timeout=0.3), LOOPBACK)

    unchanged()
    refused = "configuration refused"
    server.reload(good.replace("127.0.0.6", "127.0.0.6/8"), refused)
    assert "access.ignore" in server.log()
    unchanged()
    server.reload("[server\n", refused)
    unchanged()
    secret_file(keys, ["1 SHA256 HEX:" + bytes(20).hex(), "2 AES128 HEX:0123456789abcdef"])
    server.reload(good, refused)
    assert f"{keys}:2" in server.log()
    unchanged()
    secret_file(keys, ["1 SHA256 HEX:" + bytes(range(20)).hex()])
    keys.chmod(0o644)
    server.reload(good, f"chmod 640 {keys}")
    unchanged()
    elsewhere = good.replace("127.0.0.1:123", "203.0.113.1:123").replace(str(keys), "").replace("weak = true", "")
    server.reload(elsewhere, refused)  # the sockets were given up for an address that is not ours, and the old keys are needed again
    assert server.log().count(refused) == 5
    unchanged()
    assert "0123456789abcdef" not in server.log()
    assert bytes(20).hex() not in server.log()


def test_a_key_file_for_everybody_is_refused(network: Processes) -> None:
    """A server whose key file everybody may read does not start: exit 78 and the chmod to run; after that it starts."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    keys.chmod(0o644)
    config = network.directory / "refclock.toml"
    config.write_text(keyed(OPEN_HOUSE, keys), encoding="utf-8")
    words = [*REFCLOCK, "serve", "--config", str(config), "--run-dir", str(network.directory / "run")]
    refused = network.run(words)
    assert refused.returncode == 78, refused.stderr
    assert f"chmod 640 {keys}" in refused.stderr
    assert SECRETS["AES128"][1].hex() not in refused.stderr
    keys.chmod(0o640)
    started = network.start("serve", words)
    wait_for("it serves", lambda: "serving" in network.output("serve"), 10)
    started.terminate()
    assert started.wait(5) == 0


# ---- floods -------------------------------------------------------------------------------------------------------------------------


def test_a_flood_does_not_hurt_the_others(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """While one address sends tens of thousands of requests a second, 50 others that ask once a second get every reply; the kernel blocks
    the flooder, who is told so at kod_rate at most, and it is not blocked any more afterwards."""
    seconds = 5.0
    server = serve('[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\n')
    sock = sockets.open()
    flood = [PYTHON, packet_net.__file__, "flood", "127.9.9.9", "127.0.0.1", "123", "50000", str(seconds)]
    flooder = network.start("flood", flood)
    began, asked, answered, blocked, turn = time.monotonic(), set[bytes](), set[bytes](), 0, 0
    while (gone := time.monotonic() - began) < seconds + 1:
        if gone >= turn * 0.02:
            cookie = os.urandom(8)
            asked.add(cookie)
            send_from(sock, f"127.1.0.{1 + turn % 50}", LOOPBACK, request(cookie=cookie))
            turn += 1
            if turn % 25 == 0:
                blocked = max(blocked, server.counters()["server"]["blocked"])
        if select.select([sock], [], [], 0.005)[0]:
            data = receive(sock)[0]
            assert data[1] == 1
            answered.add(data[24:32])
    answered |= {data[24:32] for data, _ in drain(sock, 0.5)}
    assert flooder.wait(10) == 0
    sent = int(network.output("flood"))
    assert sent > 5000 * seconds, "the flooder is too slow to be one"
    assert len(asked) >= 50 * seconds
    assert answered == asked, f"{len(asked - answered)} of {len(asked)} lost"
    counters = server.counters()
    assert blocked == 1
    assert 0 < counters["kod"]["rate"] <= 4 * (seconds + 1) + 4
    assert counters["server"]["kernel_drops"] > sent // 2, "most of it never reached the process"
    wait_for("unblocked", lambda: server.counters()["server"]["blocked"] == 0, 5)
    flooding = sockets.open("127.9.9.9")
    time.sleep(0.5)
    assert ask(flooding, LOOPBACK)[0][1] == 1
    assert server.taken() == sent + len(asked) + 1


def test_two_thousand_at_once(serve: Serving, sockets: Sockets) -> None:
    """2000 requests of 2000 addresses that are all there before the server looks: 2000 answers."""
    server = serve('[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\n')
    sources = [f"127.2.{n // 250}.{1 + n % 250}" for n in range(2000)]
    sock = sockets.open()
    server.pause()
    for source in sources:
        send_from(sock, source, LOOPBACK, request())
    server.signal(signal.SIGCONT)
    found = drain(sock, 1.0)
    room = server.counters()["server"]["receive_buffer"]
    if len(found) < 2000 and room < 4 << 20:
        pytest.skip(f"a receive buffer of {room} bytes is all that this user may have (net.core.rmem_max)")
    assert sorted(to for _, to in found) == sorted(sources)
    assert {(len(data), data[1]) for data, _ in found} == {(48, 1)}
    assert server.known() == 2000


def test_garbage(network: Processes, serve: Serving, sockets: Sockets) -> None:
    """100,000 random packets and 100,000 mutated requests from everywhere: the server serves on, every packet is in one counter or among
    the kernel's drops, no answer is longer than the longest code allows, and memory has not grown by more than the table."""
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    config = '[server]\nlisten = ["127.0.0.1:123"]\nthreads = 2\nclient_table_mib = 1\nsymmetric = true\n'
    server = serve(keyed(config, keys))
    sock, asker = sockets.open(), sockets.open("127.0.0.5")
    assert ask(asker, LOOPBACK)[0][1] == 1
    before, dice, longest = server.rss(), random.Random(1), 0
    noise = dice.randbytes(1 << 16)
    wholes = [request(first, bytes(8), more) for first in (0x23, 0x1B, 0x21, 0x08) for more in (b"", struct.pack(">I", 1) + bytes(16))]
    wholes += [request(more=b"\x01\x04\x00\x20" + bytes(28) + struct.pack(">I", 3) + bytes(20))]
    for turn in range(200_000):
        if turn % 2:
            at = dice.randrange(1 << 15)
            data = noise[at : at + dice.choice((0, 1, 47, 48, 52, 68, 72, 100, 500, 2048, 2049, 3000))]
        else:
            whole = bytearray(dice.choice(wholes))
            for _ in range(dice.randrange(4)):
                whole[dice.randrange(len(whole))] = dice.randrange(256)
            data = bytes(whole)
        send_from(sock, f"127.{dice.randrange(3, 250)}.{dice.randrange(256)}.{dice.randrange(1, 255)}", LOOPBACK, data)
        if turn % 500 == 0:
            longest = max([longest, *(len(data) for data, _ in drain(sock, 0))])
    longest = max([longest, *(len(data) for data, _ in drain(sock, 0.5))])
    assert 48 <= longest <= 84
    wait_for("every packet is accounted for", lambda: server.taken() == 200_001, 10)
    assert ask(asker, LOOPBACK)[0][1] == 1
    assert server.rss() - before < (1 + 2) << 20
    assert server.process.poll() is None


# ---- broadcast, smear ---------------------------------------------------------------------------------------------------------------


def test_broadcast(network: Processes, serve: Serving, lan: Lan) -> None:
    """With server.broadcast, packets in mode 5 with the poll and a valid MAC of that key arrive at the broadcast address every
    2**broadcast_poll s from port 123; without it none do; without a key it is refused."""
    there(lan.here, "ip address add 10.78.0.1/24 broadcast 10.78.0.255 dev s0")
    there(lan.neighbour, "ip address add 10.78.0.9/24 broadcast 10.78.0.255 dev c0")
    keys = secret_file(network.directory / "keys", key_lines("chrony"))
    plain = f'[server]\nlisten = ["0.0.0.0:123"]\n{{}}[keys]\nfile = "{keys}"\nweak = true\n'
    server = serve(plain.format(""))
    sock = lan.sockets.open("0.0.0.0", 123)
    assert not drain(sock, 1.0), "off by default"
    on = 'broadcast = ["10.78.0.255:123"]\nbroadcast_poll = 3\n'
    server.reload(plain.format(on), "configuration refused")
    assert "broadcast_key" in server.log()
    began = time.monotonic()
    server.reload(plain.format(on + "broadcast_key = 3\n"), "rules, limits and keys renewed")
    sock.settimeout(12)
    packets = [receive(sock), receive(sock)]
    assert 7 < time.monotonic() - began < 11
    for data, to, source in packets:
        assert (to, source) == ("10.78.0.255", ("10.78.0.1", 123))
        assert (data[0], data[1], data[2], data[12:16]) == (4 << 3 | 5, 1, 3, b"GPS\0")
        assert data[48:] == struct.pack(">I", 3) + hashlib.sha256(SECRETS["SHA256"][1] + data[:48]).digest()[:20]
    sent = (int.from_bytes(data[40:48], "big") / 2**32 - packet_net.ERA_S for data, _, _ in packets)
    assert abs(time.time() - list(sent)[1]) < 1


@pytest.mark.parametrize(("step", "hours"), [(1, 3), (1, -3), (-1, 3), (-1, -3)])
def test_leap_smear(serve: Serving, sockets: Sockets, step: int, hours: int) -> None:
    """With leap_smear and a leap second in three hours, or three hours ago, no leap is announced and the time served is off UTC by what a
    linear smear from noon to noon UTC demands; without it leap is announced and the time is UTC."""
    server = serve(OPEN_HOUSE)
    sock = sockets.open("127.0.0.5")

    def shift() -> tuple[float, int]:
        """(served minus UTC before the leap second in s, leap bits)"""
        before = time.time_ns()
        reply, _ = ask(sock, LOOPBACK)
        after = time.time_ns()
        assert after - before < 0.1 * NS
        return (served_ns(reply) - (before + after) // 2) / NS, reply[0] >> 6

    now_tai = time.time_ns() + 37 * NS
    server.publish(leap_tai_ns=now_tai + hours * 3600 * NS, leap_step_s=step)
    plain, leap = shift()
    assert abs(plain - (0 if hours > 0 else -step)) < 0.05
    assert leap == ((1 if step > 0 else 2) if hours > 0 else 0)
    server.reload(OPEN_HOUSE.replace("threads", "leap_smear = true\nthreads"), "rules, limits and keys renewed")
    smeared, leap = shift()
    length = 86400 + step
    gone = 43200 + min(step, 0) - hours * 3600  # SI seconds since noon; the 12 h before a deleted second are one shorter
    assert abs(smeared - (gone * 86400 / length - gone)) < 0.05
    assert leap == 0


def test_the_rules_in_force_are_listed(network: Processes, serve: Serving) -> None:
    """``refclock access list`` shows the rules by which the server decides: after a reload the new ones."""
    server = serve(OPEN_HOUSE)
    words = [*REFCLOCK, "access", "list", "--config", os.devnull, "--run-dir", str(server.run_dir)]
    assert "192.0.2.0/24" not in network.run(words).stdout
    server.reload(OPEN_HOUSE + '[access]\nignore = ["192.0.2.0/24"]\n', "rules, limits and keys renewed")
    told = network.run(words)
    assert told.returncode == 0, told.stderr
    assert re.search(r"^192\.0\.2\.0/24 +ignore$", told.stdout, re.MULTILINE), told.stdout
