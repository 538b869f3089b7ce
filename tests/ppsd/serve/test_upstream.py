"""The NTP client's sockets: what a server sees of it, and what the clock process hears."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ppsd.config.tables import PoolUpstream, ServerUpstream
from ppsd.ntp.packet import Header, parse
from ppsd.process.log import open_log
from ppsd.serve.upstream import Resolver, Upstreams
from refclock.exchange.samples import RawSample
from refclock.exchange.upstream import UpstreamIntake
from refclock.sample import Leap, UpstreamServer
from refclock.timescales import ntp64

pytestmark = pytest.mark.device
Heard = list[tuple[UpstreamServer, RawSample | None]]


class Asking:
    """The client beside a server of ours, on loopback."""

    def __init__(self, directory: Path) -> None:
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.port = int(self.server.getsockname()[1])
        self.door = UpstreamIntake(directory / "upstream.sock")
        self.client = Upstreams(directory / "upstream.sock", open_log())
        self.upstream = ServerUpstream(name="ntp0", host="127.0.0.1", port=self.port, minpoll=0, maxpoll=0)

    def run(
        self, until: Callable[[list[tuple[bytes, int]], Heard], bool], answer: Callable[[bytes], bytes]
    ) -> tuple[list[tuple[bytes, int]], Heard]:
        """(requests with their source ports, what the clock process heard), once ``until`` is true of them."""
        seen, heard, end_s = list[tuple[bytes, int]](), Heard(), time.monotonic() + 60
        while not until(seen, heard):
            assert time.monotonic() < end_s, (seen, heard)
            self.client.work()
            ready, _, _ = select.select([self.client, self.server, self.door], [], [], min(1.0, self.client.due_s()))
            if self.server in ready:
                data, source = self.server.recvfrom(1024)
                seen.append((data, source[1]))
                self.server.sendto(answer(data), source)
            if self.client in ready:
                self.client.handle_ready()
            heard += self.door.read()
        return seen, heard

    def close(self) -> None:
        self.client.close()
        self.door.close()
        self.server.close()


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.close()


def right(data: bytes) -> bytes:
    """The answer of a server whose clock is this machine's."""
    request, now = parse(data), ntp64(time.time_ns())
    assert request is not None
    return Header(
        mode=4, stratum=1, precision=-20, refid=0x47505300, root_dispersion=66, origin=request.transmit, receive=now, transmit=now
    ).pack()


def forged(data: bytes) -> bytes:
    """The same, and a kiss with it, for a request that was never sent."""
    answer = parse(right(data))
    assert answer is not None
    return replace(answer, origin=answer.origin ^ 1).pack()


def test_each_request_has_a_port_and_a_number_of_its_own(asking: Asking) -> None:
    """RFC 9109: a new source port each time; data minimisation: nothing but version, mode and a random transmit field."""
    asking.client.configure([asking.upstream], [], [])
    seen, heard = asking.run(lambda seen, _: len(seen) >= 5, right)
    assert len({port for _, port in seen}) == len(seen)
    assert len({data[40:] for data, _ in seen}) == len(seen)
    assert {data[:40] for data, _ in seen} == {b"\x23" + bytes(39)}
    samples = [sample for _, sample in heard if sample is not None]
    assert samples
    assert all(sample.leap is Leap.NORMAL and abs(sample.offset_ns) <= sample.uncertainty_ns for sample in samples)


def test_answers_to_other_requests_make_no_sample(asking: Asking) -> None:
    """A guessed origin: the server is told of as silent, and never as a sample."""
    asking.client.configure([asking.upstream], [], [])
    _, heard = asking.run(lambda _, heard: any(server.why == "no answer" for server, _ in heard), forged)
    assert not [sample for _, sample in heard if sample is not None]


def test_this_machine_itself_is_no_server(asking: Asking) -> None:
    """A server at an address and port of our own is not asked: it would follow itself."""
    asking.client.configure([asking.upstream], [], [asking.port])
    seen, _ = asking.run(lambda _, heard: any("this machine itself" in server.why for server, _ in heard), right)
    assert not seen


def test_a_server_that_is_no_longer_configured_is_told_as_ended(asking: Asking) -> None:
    """The clock process forgets it at once."""
    asking.client.configure([asking.upstream], [], [])
    asking.run(lambda _, heard: any(sample is not None for _, sample in heard), right)
    asking.client.configure([PoolUpstream(name="pool0", host="127.0.0.1", port=asking.port, minpoll=0, maxpoll=0)], [], [])
    _, heard = asking.run(lambda _, heard: any(server.name == "pool0" and sample is not None for server, sample in heard), right)
    assert [server.ended for server, _ in heard if server.name == "ntp0"] == [True]


def test_names_are_resolved_beside_the_loop() -> None:
    """Addresses and why there are none come through a descriptor; asking does not wait."""
    resolver, found = Resolver(), dict[str, tuple[tuple[str, ...], str]]()
    for host in ("192.0.2.7", "no-such-host.invalid"):
        resolver.ask(host)
    end_s = time.monotonic() + 120
    while len(found) < 2 and time.monotonic() < end_s:
        select.select([resolver], [], [], 1.0)
        found |= {host: (addresses, why) for host, addresses, why in resolver.take()}
    assert found["192.0.2.7"] == (("192.0.2.7",), "")
    assert found["no-such-host.invalid"][0] == ()
    assert found["no-such-host.invalid"][1]
    resolver.close()
