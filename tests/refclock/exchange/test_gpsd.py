"""gpsd: its JSON as values, whatever comes, and the connection that always comes back."""

from __future__ import annotations

import json
import select
import socket
import threading
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.clock.sources import GpsdLine
from ppsd.config.tables import ClockConfig, Config
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Pulsed, Reported
from ppsd.discipline.saved import Saved
from ppsd.discipline.source import ReceiverSource
from refclock.config import GpsdSource
from refclock.exchange import gpsd as gpsd_socket
from refclock.exchange.gpsd import FIRST_RETRY_NS, GpsdSocket
from refclock.kernel.clocks import LocalClock
from refclock.protocols.gpsd import LINE_BYTES, WATCH, Broken, GpsdPulse, GpsdStream
from refclock.protocols.labels import Reject
from refclock.sample import NS, FixMode, Instant, LabelProtocol, Satellite, SecondLabel, SkyView, SourceId

BUILT_S = 1_767_225_600  # 2026-01-01
UTC_S = 1_795_237_841  # 2026-11-21T05:10:41
AT = Instant(UTC_S * NS, 5 * NS)


def stream(device: str = "") -> GpsdStream:
    return GpsdStream(BUILT_S, device)


def tpv(time: object = "2026-11-21T05:10:41.000Z", mode: object = 3, **more: object) -> bytes:
    return json.dumps({"class": "TPV", "device": "/dev/pts/0", "mode": mode, "time": time, "lat": 48.1, **more}).encode() + b"\n"


def named(utc_ns: int, at: Instant, *, second_60: bool = False, leap_known: bool = False, weeks: int = 0) -> SecondLabel:
    return SecondLabel(utc_ns, at, "TPV", second_60, leap_known, weeks, LabelProtocol.GPSD)


def test_a_fix_names_a_second_once_in_any_cut() -> None:
    """gpsd repeats the second within a cycle: one label, however the bytes are cut into reads."""
    s = stream()
    values = [v for byte in tpv(mode=2) + tpv() for v in s.feed(bytes([byte]), AT)]
    assert values == [named(UTC_S * NS, AT)]
    assert s.feed(tpv("2026-11-21T05:10:42.250Z"), AT.shifted(NS)) == [named((UTC_S + 1) * NS + 250_000_000, AT.shifted(NS))]


def devices(*paths: str) -> bytes:
    return json.dumps({"class": "DEVICES", "devices": [{"class": "DEVICE", "path": path} for path in paths]}).encode() + b"\n"


@pytest.mark.parametrize(
    ("heard", "known"),
    [
        (devices("/dev/pts/0"), True),
        (devices("/dev/pts/0", "/dev/pps0"), True),  # the pulse of the same receiver, as most have it
        (devices("/dev/pts/0") + devices("/dev/pts/0"), True),
        (b"", False),
        (devices("/dev/pts/1"), False),
        (devices("/dev/pts/0", "/dev/pts/1"), False),
        (devices("/dev/pts/0") + b'{"class":"DEVICE","path":"/dev/pts/1","activated":"2026-11-21T05:10:41.000Z"}\n', False),
        (devices("/dev/pts/0", "/dev/pts/1") + devices("/dev/pts/0"), False),  # its count stays in gpsd
    ],
)
def test_the_leap_count_of_gpsd_is_that_of_its_only_receiver(heard: bytes, known: bool) -> None:
    """gpsd tells one leap count with every receiver: it is no witness for one of several, nor once another one has been there."""
    s = stream()
    s.feed(heard, AT)
    assert s.feed(tpv(leapseconds=18), AT) == [named(UTC_S * NS, AT, leap_known=known)]


def test_what_gpsd_gives_no_time_for_is_told() -> None:
    """TPV without a fix, second after second: people read that there is no fix, and no longer once there is."""
    s = stream()
    for i in range(5):
        s.feed(tpv(mode=1), AT.shifted(i * NS))
    assert "without a valid fix" in s.status(AT.mono_ns + 5 * NS).unlabelled
    s.feed(tpv(), AT.shifted(6 * NS))
    assert s.status(AT.mono_ns + 6 * NS).unlabelled == ""


def test_second_sixty_and_rollover_are_read() -> None:
    """23:59:60 has the number of 23:59:59 and its mark; a date 1024 weeks back is repaired and says so."""
    assert stream().feed(tpv("2026-12-31T23:59:60Z"), AT) == [named(1_798_761_599 * NS, AT, second_60=True)]
    assert stream().feed(tpv("2007-04-07T05:10:41.000Z"), AT) == [named(UTC_S * NS, AT, weeks=1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (tpv(mode=1), Reject.NO_FIX),
        (tpv(mode=0), Reject.NO_FIX),
        (tpv(mode="3"), Reject.BAD_FIELDS),
        (tpv(mode=True), Reject.BAD_FIELDS),
        (tpv(mode=7), Reject.BAD_FIELDS),
        (b'{"class":"TPV"}\n', Reject.BAD_FIELDS),
        (tpv(""), Reject.EMPTY),
        (tpv(None), Reject.EMPTY),
        (tpv(1795237841.0), Reject.BAD_TIME),
        (tpv("2026-11-21T05:10:60Z"), Reject.BAD_TIME),
        (tpv("2026-11-21T24:00:00Z"), Reject.BAD_TIME),
        (tpv("2026-02-30T00:00:00Z"), Reject.BAD_DATE),
        (tpv("2199-01-01T00:00:00Z"), Reject.DATE_WINDOW),
        (b'{"class":"PPS","real_sec":1}\n', Reject.BAD_FIELDS),
        (b'{"class":"PPS","real_sec":1795237841,"real_nsec":-1,"clock_sec":1,"clock_nsec":0}\n', Reject.BAD_FIELDS),
        (b'{"class":"SKY","satellites":[{"PRN":1}]}\n', Reject.BAD_FIELDS),
        (b'{"class":"NEWS"}\n', Reject.UNKNOWN),
        (b"[1]\n", Broken.NOT_JSON),
        (b"\xff\xfe{\n", Broken.NOT_JSON),
        (b"[" * 50_000 + b"\n", Broken.NOT_JSON),
        (b'{"class":"TPV","mode":' + b"9" * 5000 + b"}\n", Broken.NOT_JSON),
        (b"x" * (LINE_BYTES + 1) + b"\n", Broken.TOO_LONG),
    ],
)
def test_what_gives_nothing_is_counted_and_the_next_line_is_read(line: bytes, reason: str) -> None:
    """Each fault has its reason, raises nothing and spoils no other line."""
    s = stream()
    assert s.feed(line, AT) == []
    assert s.rejected == {reason: 1}
    assert s.feed(tpv(device=None), AT.shifted(10 * NS)) == [named(UTC_S * NS, AT.shifted(10 * NS))]


def test_a_date_that_jumps_is_refused_with_its_reason() -> None:
    """A receiver behind gpsd that jumps by a day gives no label at first, and the counters say why."""
    s = stream()
    s.feed(tpv(), AT)
    assert s.feed(tpv("2026-11-22T05:10:42.000Z"), AT.shifted(NS)) == []
    assert s.rejected == {Reject.DATE_JUMP: 1}


def test_a_line_without_end_takes_no_memory() -> None:
    """An endless line is dropped once and for all of its length, also in small reads."""
    s = stream()
    for _ in range(50):
        s.feed(b"x" * 10_000, AT)
    assert s.feed(b"\n" + tpv(), AT) == [named(UTC_S * NS, AT)]
    assert s.rejected == {Broken.TOO_LONG: 1}


def test_a_pulse_has_both_its_times() -> None:
    """PPS objects give true and local time in ns, exactly."""
    line = b'{"class":"PPS","device":"/dev/pts/0","real_sec":%d,"real_nsec":0,"clock_sec":%d,"clock_nsec":999999877,"precision":-20}\n'
    assert stream().feed(line % (UTC_S, UTC_S - 1), AT) == [GpsdPulse(UTC_S * NS, UTC_S * NS - 123, -20)]


def test_the_sky_is_seen_with_the_fix_of_the_moment() -> None:
    """Satellites, how many are used, and the mode of the last TPV; losing the fix shows at once."""
    s = stream()
    s.feed(tpv(mode=2), AT)
    sats = [
        {"PRN": 1, "el": 40.0, "az": 83.4, "ss": 46.0, "used": True, "gnssid": 0, "svid": 1},
        {"PRN": 70, "used": False, "gnssid": 6, "svid": 6, "el": float("nan")},
        {"PRN": 5, "used": True},
    ]
    sky = json.dumps({"class": "SKY", "device": "/dev/pts/0", "satellites": sats}).encode() + b"\n"
    seen = (
        Satellite("GPS", 1, 40, 83, 46, True),
        Satellite("GLONASS", 6, None, None, None, False),
        Satellite("GPS", 5, None, None, None, True),
    )
    assert s.feed(sky, AT) == [SkyView(FixMode.FIX_2D, 2, seen, AT)]
    assert s.feed(b'{"class":"SKY","device":"/dev/pts/0","hdop":0.9}\n', AT) == []
    assert s.feed(tpv(mode=1), AT) == [SkyView(FixMode.NONE, 2, seen, AT)]


def test_one_of_several_receivers_is_heard() -> None:
    """The named one; else the first, until it has been silent for 5 s."""
    named, first = stream("/dev/b"), stream()
    for s in (named, first):
        s.feed(tpv(device="/dev/a"), AT)
        s.feed(tpv("2026-11-21T05:10:42.000Z", device="/dev/b"), AT.shifted(NS))
    assert named.gate.last is not None and named.gate.last.utc_ns == (UTC_S + 1) * NS
    assert first.gate.last is not None and first.gate.last.utc_ns == UTC_S * NS
    assert len(first.feed(tpv("2026-11-21T05:10:47.000Z", device="/dev/b"), AT.shifted(6 * NS))) == 1


def test_gpsd_introduces_itself() -> None:
    """Version and receivers are kept as printable text."""
    s = stream()
    s.feed(b'{"class":"VERSION","release":"3.22\\u001b[2J\\ud800"}\n{"class":"DEVICES","devices":[{"path":"/dev/ttyACM0"},7]}\n', AT)
    assert (s.version, s.receivers) == ("3.22[2J", ("/dev/ttyACM0",))
    assert s.feed(b'{"class":"TOFF"}\n{"class":"DEVICE"}\n\n', AT) == []
    assert not s.rejected


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("2026-11-21T05:10:41Z")
_VALUES = _SCALARS | st.lists(_SCALARS | st.dictionaries(st.sampled_from(["used", "PRN", "gnssid", "svid", "el"]), _SCALARS), max_size=3)
_KEYS = ["device", "mode", "time", "satellites", "real_sec", "real_nsec", "clock_sec", "clock_nsec", "precision", "devices", "leapseconds"]
_OBJECTS = st.fixed_dictionaries(
    {"class": st.sampled_from(["TPV", "SKY", "PPS", "DEVICES", "VERSION"])}, optional=dict.fromkeys(_KEYS, _VALUES)
)


@given(st.lists(_OBJECTS.map(lambda o: json.dumps(o).encode()) | st.binary(max_size=40), max_size=6))
def test_nothing_that_gpsd_sends_raises(lines: list[bytes]) -> None:
    """Objects with any kind of value in any field, and plain garbage, give values within int64 or reasons."""
    for value in stream().feed(b"\n".join(lines) + b"\n", AT):
        if isinstance(value, SecondLabel):
            assert abs(value.utc_ns) < 1 << 63
        elif isinstance(value, GpsdPulse):
            assert max(value.real_ns, value.clock_ns) < 1 << 63


# ---- the connection ---------------------------------------------------------------------------------------------------------------


def later(clock: LocalClock, shift_ns: int) -> Any:
    """A clock that runs ``shift_ns`` ahead of another, so that no test waits for a back-off."""

    class Later:
        def now(self) -> Instant:
            return clock.now().shifted(shift_ns)

    return Later()


def pump_until_connected(link: GpsdSocket) -> bytes:
    data = b""
    for _ in range(50):
        data += link.pump()[0]
        if link.connected:
            return data
        select.select([], [link] if link.connecting else [], [], 0.2)
    raise AssertionError(link.why)


def test_the_connection_asks_reads_and_comes_back() -> None:
    """It sends WATCH, hands on what arrives, tells why when gpsd goes, waits before it tries again, and connects anew."""
    clock = LocalClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        link = GpsdSocket("127.0.0.1", server.getsockname()[1], clock)
        pump_until_connected(link)
        gpsd, _ = server.accept()
        assert gpsd.recv(100) == WATCH
        gpsd.sendall(tpv())
        assert select.select([link], [], [], 5)[0]
        data, at = link.pump()
        assert data == tpv()
        assert at.mono_ns <= clock.now().mono_ns
        assert (link.pump()[0], link.why, link.deadline_ns) == (b"", "", None)
        gpsd.close()
        assert select.select([link], [], [], 5)[0]
        assert link.pump()[0] == b""
        assert (link.connected, link.fileno()) == (False, -1)
        assert "closed the connection" in link.why
        assert link.deadline_ns is not None and link.deadline_ns > clock.now().mono_ns
        link._clock = later(clock, FIRST_RETRY_NS)
        pump_until_connected(link)
        assert link.connections == 2
        server.accept()[0].close()
        link.close()


def test_an_absent_gpsd_is_tried_ever_more_rarely() -> None:
    """Refused connections double the wait up to 30 s, and the reason names address and remedy."""
    clock = LocalClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    link = GpsdSocket("127.0.0.1", port, clock)
    shift, waits = 0, []
    for _ in range(7):
        link._clock = later(clock, shift)
        before = link._clock.now().mono_ns
        for _ in range(10):
            link.pump()
            if not link.connecting:
                break
            select.select([], [link], [], 0.5)
        assert link.deadline_ns is not None
        waits.append((link.deadline_ns - before) // NS)
        shift += (waits[-1] + 1) * NS
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert "is gpsd running" in link.why
    link.close()
    assert link.pump()[0] == b""


def test_a_host_that_cannot_be_is_no_exception() -> None:
    """A name that no resolver takes ends as a reason."""
    link = GpsdSocket("x" * 70 + ".invalid", 2947, LocalClock())
    assert link.pump()[0] == b""
    assert "not a host name" in link.why or link.why.startswith("gpsd at")


def test_a_slow_resolver_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a name is being looked up a try ends at once and says so; the next one finds the answer."""
    answer, real = threading.Event(), socket.getaddrinfo

    def resolver(host: str, port: int, **rest: Any) -> Any:
        if rest.get("flags"):
            raise socket.gaierror("not an address")
        assert answer.wait(60)
        return real("127.0.0.1", port, **rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    clock = LocalClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        link = GpsdSocket("gps.example", port, clock)
        link.pump()
        assert link.why == f"gpsd at gps.example:{port}: its name is being looked up; waiting for it"
        answer.set()
        gpsd_socket._lookups["gps.example", port][0].join(60)
        another = GpsdSocket("gps.example", port, clock)  # the failed one is thrown away by the shell
        pump_until_connected(another)
        server.accept()[0].close()
        another.close()


def test_toff_and_qerr_are_read() -> None:
    """TOFF tells when the receiver's message arrived, for the second that it names only; qErr of a pulse is kept, absurd ones not."""
    s = stream()
    stamps = {"device": "/dev/pts/0", "real_sec": UTC_S, "real_nsec": 0, "clock_sec": UTC_S, "clock_nsec": 140_000_000}
    assert s.feed(json.dumps({"class": "TOFF", **stamps}).encode() + b"\n", AT) == []
    (label,) = s.feed(tpv(), AT)
    assert isinstance(label, SecondLabel)
    assert s.arrived(label) == UTC_S * NS + 140_000_000
    (late,) = s.feed(tpv("2026-11-21T05:10:42.000Z"), AT.shifted(NS))
    assert isinstance(late, SecondLabel)
    assert s.arrived(late) is None
    for error, early in ((-4200, -4.2), (10**9, 0.0), ("x", 0.0)):
        pulse = json.dumps({"class": "PPS", "precision": -20, "qErr": error, **stamps}).encode() + b"\n"
        assert s.feed(pulse, AT) == [GpsdPulse(UTC_S * NS, UTC_S * NS + 140_000_000, -20, early)]


def test_pulses_of_a_gpsd_on_this_host_are_used_and_said() -> None:
    """Without a pulse device of our own gpsd's PPS reports are the pulses, labels are stamped by TOFF, and which way is taken is said."""
    clock = LocalClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = GpsdSource(name="gpsd0", host="127.0.0.1", port=server.getsockname()[1])
        config = Config(clock=ClockConfig(not_before=date(2026, 1, 1)), sources=(source,))
        engine = Engine(config, Saved(), clock.now(), simulated=True, version="", pid=0)
        line = GpsdLine(source, clock, engine.not_before_s)
        gpsd = server.accept()[0]
        while not line.what:
            line.tick(clock.now())
        assert line.what.startswith("gpsd at 127.0.0.1:")
        now = clock.now()
        stamps = {"device": "/dev/pts/0", "real_sec": UTC_S, "real_nsec": 0, "clock_sec": now.real_ns // NS, "clock_nsec": now.real_ns % NS}
        objects = [{"class": "PPS", "precision": -20, "qErr": 7000, **stamps}, {"class": "TOFF", **stamps}]
        gpsd.sendall(b"".join(json.dumps(o).encode() + b"\n" for o in objects) + tpv())
        events: list[Any] = []
        while len(events) < 2:
            assert select.select([line], [], [], 60)[0]
            events += line.read()
        pulse, label = events
        assert isinstance(pulse, Pulsed) and isinstance(label, Reported)
        assert abs(pulse.edge.at.mono_ns - now.mono_ns - 7) < 1_000_000
        assert abs(label.values[0].at.mono_ns - now.mono_ns) < 1_000_000
        line.read()
        assert line.what.endswith("with the pulses that it reports")
        for event in events:
            engine.handle(event)
        gps = engine.sources[SourceId("gpsd0")]
        assert isinstance(gps, ReceiverSource) and gps.time.has_pulse
        gpsd.close()
        line.close()


@pytest.mark.device
def test_what_gpsd_says_in_vain_is_told() -> None:
    """Reports of gpsd that give no label are counted, by reason, in what `refclock status` shows of the source."""
    clock = LocalClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = GpsdSource(name="gpsd0", host="127.0.0.1", port=server.getsockname()[1])
        engine = Engine(Config(sources=(source,)), Saved(), clock.now(), simulated=True, version="", pid=0)
        line = GpsdLine(source, clock, engine.not_before_s)
        gpsd = server.accept()[0]
        while not line.what:
            line.tick(clock.now())
        gpsd.sendall(b'{"class":"TPV","mode":1,"time":"2026-11-21T05:10:41.000Z"}\nno JSON\n')
        for _ in range(10):  # two lines may come in one read or in two
            if select.select([line], [], [], 0.2)[0]:
                line.read()
            for event in line.tick(clock.now()):
                engine.handle(event)
        told = dict(engine.snapshot(clock.now()).sources[0].rejected)
        assert told == {"no-fix": 1, "not-json": 1}
        gpsd.close()
        line.close()
