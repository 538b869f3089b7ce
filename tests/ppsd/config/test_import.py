"""The import of other programs' configurations: what well-known files become, who may ask afterwards, and that no file breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppsd.config.directives import Fate
from ppsd.config.file import parse
from ppsd.config.import_chrony import CHRONY, INCLUDES, import_chrony
from ppsd.config.import_ntp import NTP, TOGETHER, import_ntp
from ppsd.config.import_receivers import import_gpsd, import_satpulse
from ppsd.config.import_servers import import_timesyncd, seconds
from ppsd.config.imported import Draft
from ppsd.config.tables import Config, PoolUpstream, ServerUpstream
from refclock.config import GpsdSource, PpsSource, ReceiverSource, ShmFeed, ShmSource, SockFeed, SockSource

DATA = Path(__file__).parents[2] / "data" / "import"
CHRONY_DIRECTIVES = """
acquisitionport allow authselectmode bindacqaddress bindacqdevice bindaddress bindcmdaddress bindcmddevice binddevice broadcast
clientloglimit clockprecision cmdallow cmddeny cmdport cmdratelimit combinelimit confdir corrtimeratio deny driftfile dscp dumpdir
dumponexit fallbackdrift hwclockfile hwtimestamp hwtstimeout include initstepslew keyfile leapseclist leapsecmode leapsectz local
lock_all log logbanner logchange logdir mailonchange makestep manual maxchange maxclockerror maxdistance maxdrift maxjitter
maxntsconnections maxsamples maxslewrate maxstratum maxtxbuffers maxupdateskew minsamples minsources minstratum nocerttimecheck
noclientlog nosystemcert ntpsigndsocket ntsaeads ntscachedir ntsdumpdir ntsntpserver ntsport ntsprocesses ntsratelimit ntsrefresh
ntsrotate ntsservercert ntsserverkey ntstrustedcerts opencommands peer pidfile pool port ptpdomain ptpport ratelimit refclock refresh
reselectdist rtcautotrim rtcdevice rtcfile rtconutc rtcsync sched_priority server smoothtime sourcedir stratumweight tempcomp user
"""
"""chrony.conf(5) of 4.9."""
NTP_DIRECTIVES = """
automax broadcast broadcastclient broadcastdelay controlkey crypto delrestrict device disable discard driftfile dscp enable end extra
filegen fudge ident includefile interface keys keysdir leapfile leapsmearinterval limit logconfig logfile manycastclient manycastserver
mru multicastclient nic nts ntpsigndsocket peer phone pidfile pollskewlist pool refclock requestkey reset restrict revoke rlimit
mdnstries nonvolatile saveconfigdir server setvar simulate statistics statsdir tick tinker tos trap trustedkey ttl unconfig unpeer
unrestrict
"""
"""ntp.conf(5) of ntpsec 1.2.5 and of ntp 4.2.8."""


def imported(draft: Draft) -> Config:
    """The configuration that a draft's text is."""
    return parse(draft.text())


def from_file(name: str, reader: Callable[[str, str], Draft]) -> tuple[Config, str]:
    draft = reader((DATA / name).read_text(encoding="utf-8"), name)
    text = draft.text()
    return parse(text), text


def may_ask(config: Config, address: str) -> bool:
    """Whether the server answers a plain request from there."""
    return config.server.enabled and config.access.rules().decide(address).action == "allow"


# ---- the guides' files ----------------------------------------------------------------------------------------------------------------


def test_ubuntus_chrony_with_gpsd() -> None:
    """SHM and SOCK of gpsd stay sources, and gpsd's JSON joins them; everybody may ask, as `allow` says; the NTP pools are asked, and
    followed when the receiver is lost."""
    config, text = from_file("ubuntu-gpsd-chrony.conf", import_chrony)
    kinds = [type(source) for source in config.sources]
    assert kinds == [GpsdSource, ShmSource, SockSource]
    shm, sock = config.sources[1:]
    assert isinstance(shm, ShmSource)
    assert isinstance(sock, SockSource)
    assert (shm.unit, shm.noselect) == (0, True)
    assert sock.path == "/run/chrony.ttyUSB0.sock"
    assert may_ask(config, "203.0.113.9")
    assert may_ask(config, "2001:db8::9")
    assert config.clock.steer == "kernel"
    pools = [one for one in config.upstreams if isinstance(one, PoolUpstream)]
    assert [(one.host, one.most) for one in pools] == [
        *(("ntp.ubuntu.com", 4), ("0.ubuntu.pool.ntp.org", 1), ("1.ubuntu.pool.ntp.org", 1), ("2.ubuntu.pool.ntp.org", 2)),
    ]
    assert config.clock.upstreams == "fallback"
    assert "line 3: pool ntp.ubuntu.com" in text


def test_maas_chrony() -> None:
    """It serves everybody, and asks its upstream server, and its peer like one."""
    config, text = from_file("maas-chrony.conf", import_chrony)
    assert may_ask(config, "10.1.2.3")
    assert may_ask(config, "198.51.100.1")
    assert not config.sources
    assert [type(one) for one in config.upstreams] == [ServerUpstream, ServerUpstream]
    assert [one.host for one in config.upstreams] == ["10.0.0.2", "10.0.0.3"]
    assert re.search(r"# line 3: peer 10.0.0.3 iburst: taken over: asked as a server", text)


def test_the_pools_ntp_conf() -> None:
    """The pool's restrictions let in everybody; a network without time, a machine in it, and one that is ignored stay so. The NMEA clock is
    a receiver at the same speed."""
    config, text = from_file("pool-ntp.conf", import_ntp)
    assert may_ask(config, "192.0.2.1")
    assert may_ask(config, "2001:db8::1")
    assert may_ask(config, "198.51.100.7")
    assert not may_ask(config, "198.51.100.8")
    assert config.access.rules().decide("203.0.113.66").action == "ignore"
    (receiver,) = config.sources
    assert isinstance(receiver, ReceiverSource)
    assert (receiver.device, receiver.baud, receiver.prefer) == ("/dev/gps0", 9600, True)
    assert [(one.host, one.prefer) for one in config.upstreams] == [
        *(("ntp1.example.net", False), ("ntp2.example.org", False), ("ntp3.example.com", False), ("ntp4.example.edu", True)),
    ]
    for flag in ("kod", "limited", "nomodify", "notrap", "nopeer", "noquery"):
        assert f"{flag}: " in text


def test_a_pis_chrony_of_a_hundred_lines() -> None:
    """Each of its hundred lines ends in a setting or in a line of explanation, and the same clients are let in."""
    config, text = from_file("pi-chrony.conf", import_chrony)
    lines = (DATA / "pi-chrony.conf").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            assert re.search(rf"\bline {number}\b", text), line
    gpsd = config.sources[0]
    assert isinstance(gpsd, GpsdSource)
    assert (gpsd.pps, gpsd.prefer, gpsd.trust) == ("/dev/pps0", True, True)
    for address, expected in {
        "192.168.3.4": True, "192.168.66.1": False, "192.168.66.7": True, "10.9.9.9": True, "172.16.0.1": False, "127.0.0.1": False,
        "fd12::1": True, "2001:db8:1::1": True, "2001:db8:1:bad::1": False, "2001:db8:2::1": False,
    }.items():  # fmt: skip
        assert may_ask(config, address) == expected, address
    assert config.limits.rate == 0.5
    assert (config.limits.burst, config.limits.leak) == (16, 4)
    assert config.server.interface == "eth0"
    assert config.server.listen == ("192.168.1.10:123", "[::]:123")


def test_gpsds_devices() -> None:
    """Its line and its pulse become one receiver, at the speed that gpsd was told; how gpsd is stopped is said."""
    config, text = from_file("gpsd", import_gpsd)
    (receiver,) = config.sources
    assert isinstance(receiver, ReceiverSource)
    assert (receiver.device, receiver.pps, receiver.baud) == ("/dev/ttyAMA0", "/dev/pps0", 9600)
    assert "systemctl disable --now gpsd" in text


def test_satpulse() -> None:
    """Its receiver keeps line, speed, place and cable, its samples go to the same socket; what needs a PTP clock is told."""
    config, text = from_file("satpulse.toml", import_satpulse)
    (receiver,) = config.sources
    assert isinstance(receiver, ReceiverSource)
    assert (receiver.device, receiver.baud, receiver.fixed_position) == ("/dev/ttyUSB0", 38400, "51.5007 -0.1246 11")
    assert receiver.cable_delay_ns == 56
    (feed,) = config.feeds
    assert isinstance(feed, SockFeed)
    assert feed.path == "/var/run/chrony.satpulse.sock"
    assert "phc.interface" in text
    assert isinstance(imported(import_satpulse("[ntp]\nshm.segment = 2\n", "x")).feeds[0], ShmFeed)


# ---- every directive ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", CHRONY_DIRECTIVES.split())
def test_every_directive_of_chrony(word: str) -> None:
    """Each directive of chrony 4.9 is taken over, or said not to be needed or not to be there, and why."""
    assert word in INCLUDES or CHRONY[word].take is not None or CHRONY[word].what
    assert Fate.WRONG not in {remark.fate for remark in import_chrony(word, "x").remarks if "no such directive" in remark.what}


@pytest.mark.parametrize("word", NTP_DIRECTIVES.split())
def test_every_directive_of_ntp(word: str) -> None:
    """Each directive of ntpsec 1.2.5 and ntp 4.2.8 likewise."""
    assert word in TOGETHER or NTP[word].take is not None or NTP[word].what
    assert "no such directive" not in import_ntp(word, "x").text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("refclock PPS /dev/pps1:clear refid PPS prefer", PpsSource(name="PPS", pps="/dev/pps1", edge="clear", prefer=True)),
        ("refclock SHM 7 delay 0.2 trust", ShmSource(name="shm0", unit=7, bias_us=100_000.0, trust=True)),
        ("refclock SOCK /run/mine.sock refid X", SockSource(name="X", path="/run/mine.sock", bias_us=2000.0)),
        ("refclock PPS /dev/pps0 optional offset 0.000000120", PpsSource(name="pps0", pps="/dev/pps0", edge="assert", cable_delay_ns=120)),
    ],
)
def test_chronys_reference_clocks(text: str, found: object) -> None:
    """Driver, parameter, edge, cable and choice of a reference clock are those of the source."""
    assert imported(import_chrony(text, "x")).sources == (found,)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("refclock shm unit 7 prefer", ShmSource(name="shm0", unit=7, bias_us=2000.0, prefer=True)),
        ("server 127.127.22.1\nfudge 127.127.22.1 flag2 1 refid PPS", PpsSource(name="PPS", pps="/dev/pps1", edge="clear")),
        ("refclock nmea path /dev/ttyS1 baud 9600", ReceiverSource(name="gps0", device="/dev/ttyS1", baud=9600)),
        ("server 127.127.46.0", GpsdSource(name="gpsd0")),
    ],
)
def test_ntpds_reference_clocks(text: str, found: object) -> None:
    """The same of ntpd's, by address and fudge and as ntpsec writes them."""
    assert imported(import_ntp(text, "x")).sources == (found,)


@pytest.mark.parametrize(
    ("reader", "text", "found"),
    [
        (import_chrony, "server ntp.example.net", ServerUpstream(name="ntp0", host="ntp.example.net")),
        (import_chrony, "server 192.0.2.1 iburst burst minpoll 3 maxpoll 5 version 3 port 1123 offset -0.00005 prefer trust ipv4",
         ServerUpstream(name="ntp0", host="192.0.2.1", burst=True, minpoll=3, maxpoll=5, version=3, port=1123, offset_us=-50.0,
                        prefer=True, trust=True, family="ipv4")),
        (import_chrony, "maxdistance 1.0\nserver 2001:db8::1 maxdelay 0.2 maxdelayratio 2 maxdelaydevratio 10 minstratum 3 noselect",
         ServerUpstream(name="ntp0", host="2001:db8::1", maxdistance_ms=1000.0, maxdelay_ms=200.0, maxdelayratio=2.0,
                        maxdelaydevratio=10.0, minstratum=3, noselect=True)),
        (import_chrony, "server a.example minpoll 12", ServerUpstream(name="ntp0", host="a.example", minpoll=12, maxpoll=12)),
        (import_chrony, "server a.example maxpoll 4", ServerUpstream(name="ntp0", host="a.example", minpoll=4, maxpoll=4)),
        (import_chrony, "server a.example minpoll -4 maxpoll -2", ServerUpstream(name="ntp0", host="a.example", minpoll=0, maxpoll=0)),
        (import_chrony, "server a.example nts ntsport 4461\nntstrustedcerts 1 /etc/ca.pem\nnocerttimecheck 2",
         ServerUpstream(name="ntp0", host="a.example", nts=True, nts_port=4461, ca="/etc/ca.pem", unchecked_dates=2)),
        (import_ntp, "server a.example:4461 nts ca /etc/ca.pem aead AES_SIV_CMAC_256",
         ServerUpstream(name="ntp0", host="a.example", nts=True, nts_port=4461, ca="/etc/ca.pem")),
        (import_chrony, "pool pool.ntp.org maxsources 3", PoolUpstream(name="pool0", host="pool.ntp.org", most=3)),
        (import_ntp, "pool -6 pool.ntp.org iburst", PoolUpstream(name="pool0", host="pool.ntp.org", family="ipv6")),
        (import_ntp, "server 192.0.2.1 true bias 0.002", ServerUpstream(name="ntp0", host="192.0.2.1", trust=True, offset_us=2000.0)),
        (import_timesyncd,
         "[Time]\nNTP=192.0.2.1\nFallbackNTP=ntp.debian.org\nRootDistanceMaxSec=1.5\nPollIntervalMinSec=32\nPollIntervalMaxSec=34min 8s",
         ServerUpstream(name="ntp0", host="192.0.2.1", maxdistance_ms=1500.0, minpoll=5, maxpoll=11)),
    ],
)  # fmt: skip
def test_servers_are_asked_as_they_were(reader: Callable[[str, str], Draft], text: str, found: object) -> None:
    """Each option of a server that there is here has the same effect; who served nobody goes on to serve nobody but this machine."""
    config = imported(reader(text, "x"))
    assert config.upstreams == (found,)
    assert config.clock.upstreams == "only"
    assert config.server.enabled
    if reader is not import_ntp:
        assert config.server.listen == ("127.0.0.1:123", "[::1]:123")


def test_a_receiver_that_is_only_watched_stays_so_beside_servers() -> None:
    """noselect holds for every source when servers give the time; without servers it is left out, and told."""
    watched = "refclock SHM 7 refid GPS noselect"
    config = imported(import_chrony(f"{watched}\nserver 192.0.2.1", "x"))
    assert (config.sources[0].noselect, config.clock.upstreams) == (True, "fallback")
    draft = import_chrony(watched, "x")
    assert not imported(draft).sources[0].noselect
    assert "noselect is left out" in draft.text()


@pytest.mark.parametrize("text", ["server a.example autokey", "server a.example key 7"])
def test_a_server_that_was_authenticated_is_not_asked_without(text: str) -> None:
    """It is left out, and said why: anybody could answer in its place."""
    draft = import_chrony(f"server 192.0.2.1\n{text}", "x")
    assert [one.host for one in imported(draft).upstreams] == ["192.0.2.1"]
    assert re.search(r"# line 2: server a.example .*: (not there yet|left out): ", draft.text())


@pytest.mark.parametrize(("text", "found"), [("5", 5), ("1min 30s", 90), ("1.5 h", 5400), ("", None), ("1 fortnight", None), ("x", None)])
def test_spans_of_systemd(text: str, found: float | None) -> None:
    """Units as in systemd.time(7); what is none is told as not understood."""
    assert seconds(text) == found


def test_timesyncds_own_servers() -> None:
    """FallbackNTP is asked when NTP names none; without either it is said that they come from elsewhere."""
    (one,) = imported(import_timesyncd("[Time]\nNTP=\nFallbackNTP=ntp.debian.org\n", "x")).upstreams
    assert one.host == "ntp.debian.org"
    assert "it names no server" in import_timesyncd("[Time]\n#NTP=\n", "x").text()


@pytest.mark.parametrize(
    ("lines", "listen", "socket", "allow"),
    [
        ((), ("127.0.0.1:323", "[::1]:323"), "", ()),
        (("cmdport 0", "bindcmdaddress 192.168.1.1"), (), "", ()),
        (("cmdport 3233", "bindcmdaddress 192.168.1.1"), ("192.168.1.1:3233", "[::1]:3233"), "", ()),
        (("bindcmdaddress ::", "cmdallow 192.168.1.0/24", "cmdallow 10"), ("127.0.0.1:323", "[::]:323"), "",
         ("192.168.1.0/24", "10.0.0.0/8")),
        (("bindcmdaddress /run/c.sock", "cmdallow 10.0.0.0/8", "cmddeny 10"), ("127.0.0.1:323", "[::1]:323"), "/run/c.sock", ()),
        (("bindcmdaddress /", "cmdallow all"), ("127.0.0.1:323", "[::1]:323"), "", ("0.0.0.0/0", "::/0")),
    ],
)  # fmt: skip
def test_who_may_ask_with_chronyc(lines: tuple[str, ...], listen: tuple[str, ...], socket: str, allow: tuple[str, ...]) -> None:
    """Where chronyc is answered, and which other machines are, is as it was."""
    told = imported(import_chrony("\n".join(lines), "chrony.conf")).chronyc
    assert (told.listen, told.socket, told.allow) == (listen, socket, allow)


def test_a_part_that_may_not_ask_is_told() -> None:
    """Networks may ask, and no part of one can be left out: so it is said, and what else is meant holds."""
    draft = import_chrony("cmdallow 10.0.0.0/8\ncmddeny 10.1.0.0/16", "chrony.conf")
    assert imported(draft).chronyc.allow == ("10.0.0.0/8",)
    assert "a part of 10.0.0.0/8 cannot be left out" in draft.text()


def test_what_cannot_be_is_left_out_and_told() -> None:
    """A key file that is no path, a port that is none, a pulse alone under a steered clock: the rest is valid, and each is told."""
    text = import_chrony("port 99999\nkeyfile relative\ndscp 77\nallow 10/8", "x").text()
    assert parse(text).access.allow == ("10.0.0.0/8",)
    for number in (1, 2, 3):
        assert re.search(rf"# line {number}: .*: (left out|not understood): ", text)
    alone = import_chrony("refclock PPS /dev/pps0\nallow", "x").text()
    assert parse(alone).clock.steer == "none"
    assert "left out" in alone


def test_included_files_are_read() -> None:
    """What an included file allows is allowed; a file that includes itself ends."""
    files = {"conf.d/*.conf": [("conf.d/a.conf", "allow 10/8\ninclude again")], "again": [("again", "include again")]}
    draft = import_chrony("confdir conf.d", "x", lambda pattern: files.get(pattern, []))
    text = draft.text()
    assert may_ask(parse(text), "10.1.1.1")
    assert "conf.d/a.conf line 1" in text


# ---- the same clients -----------------------------------------------------------------------------------------------------------------

PREFIXES = st.one_of(
    st.builds(lambda a, n: str(ip_network((a << 24, n), strict=False)), st.sampled_from((10, 11, 192)), st.integers(0, 12)),
    st.builds(lambda a, n: str(ip_network((a << 120, n), strict=False)), st.sampled_from((0x20, 0xFD)), st.integers(0, 12)),
    st.just(""),
)
ADDRESSES = ("10.0.0.1", "10.255.0.1", "11.0.0.1", "192.0.0.1", "203.0.113.1", "127.0.0.1", "2000::1", "20ff::1", "fd00::1", "::1")


def chronyd_allows(rules: list[tuple[str, bool, str]], address: str) -> bool:
    """What chronyd decides (addrfilt.c): a tree of 4 bits a level; a prefix is written into all entries of its level that it has."""
    at = ip_address(address)
    tree: dict[tuple[int, int], bool] = {}
    for action, everything, text in rules:
        for net in [ip_network(text)] if text else [ip_network("0.0.0.0/0"), ip_network("::/0")]:
            if net.version == at.version:
                level = -(-net.prefixlen // 4) * 4
                for part in net.subnets(new_prefix=level):
                    if everything:
                        first, last = int(part.network_address), int(part.broadcast_address)
                        for key in [key for key in tree if first <= key[0] <= last and key[1] >= level]:
                            del tree[key]
                    tree[int(part.network_address), level] = action == "allow"
    bits, allowed = at.max_prefixlen, False
    for level in range(0, bits + 1, 4):
        key = (int(at) >> (bits - level) << (bits - level), level)
        allowed = tree.get(key, allowed)
    return allowed


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(("allow", "deny")), st.booleans(), PREFIXES), max_size=12))
def test_the_same_clients_as_chronyd(rules: list[tuple[str, bool, str]]) -> None:
    """Whatever allow and deny say, in any order: chronyd and the imported configuration let in the same addresses."""
    text = "\n".join(f"{action} {'all ' if everything else ''}{prefix}" for action, everything, prefix in rules)
    config = imported(import_chrony(text, "x"))
    for address in ADDRESSES:
        assert may_ask(config, address) == chronyd_allows(rules, address), (address, text)


def ntpd_answers(rules: list[tuple[str, str]], address: str) -> str:
    """What ntpd decides: the longest prefix, whose flags add up; without any, the default."""
    at = ip_address(address)
    flags: dict[int, set[str]] = {0: set()}
    for prefix, flag in rules:
        net = ip_network(prefix) if prefix else ip_network("0.0.0.0/0" if at.version == 4 else "::/0")
        if at in net:
            flags.setdefault(net.prefixlen, set()).add(flag)
    found = flags[max(flags)]
    return next(
        (action for flag, action in (("ignore", "ignore"), ("noserve", "deny"), ("notrust", "authenticated")) if flag in found), "allow"
    )


@settings(max_examples=100)
@given(st.lists(st.tuples(PREFIXES, st.sampled_from(("", "ignore", "noserve", "notrust", "kod", "limited"))), max_size=10))
def test_the_same_clients_as_ntpd(rules: list[tuple[str, str]]) -> None:
    """Whatever restrict says, as a mask or a prefix: the imported configuration does the same with every address."""
    lines = []
    for index, (prefix, flag) in enumerate(rules):
        net = ip_network(prefix) if prefix else None
        where = "default" if net is None else prefix if index % 2 else f"{net.network_address} mask {net.netmask}"
        lines.append(f"restrict {where} {flag}")
    config = imported(import_ntp("\n".join(lines), "x"))
    for address in ADDRESSES:
        assert config.access.rules().decide(address).action == ntpd_answers(rules, address), (address, lines)


# ---- hostile files --------------------------------------------------------------------------------------------------------------------

READERS = (import_chrony, import_ntp, import_gpsd, import_satpulse, import_timesyncd)
HOSTILE = (
    *(
        "SHM",
        "SOCK",
        "PPS",
        "0",
        "-1",
        "1e9",
        "nan",
        "inf",
        "9" * 30,
        "/dev/pps0",
        "/run/x.sock",
        "127.127.28.0",
        "127.127.20.1",
        "127.127.22.3",
    ),
    *(
        "127.127.999.1",
        "10/8",
        "::/0",
        "mask",
        "255.0.255.0",
        "default",
        "-4",
        "-6",
        "all",
        "ignore",
        "noserve",
        "prefer",
        "noselect",
        "offset",
    ),
    *(
        "delay",
        "refid",
        "X",
        '"',
        "'",
        "\\",
        "leaponly",
        "average",
        "panic",
        'DEVICES="/dev/ttyS0',
        "GPSD_OPTIONS=-nbs",
        "[gps]",
        "[serial]",
    ),
    *("config = true", "speed = 9600", "device", "=", "ntp.sock.path = 1", "\x1b[2J", "key", "1", "listen", "eth0", "wildcard", "lo:1"),
    *("\ufeff", "\x85", "\u2028", "server", "pool", "iburst", "nts", "maxdelay", "NTP=a", "[Time]", "PollIntervalMinSec=1s"),
)
WORDS = st.sampled_from((*CHRONY_DIRECTIVES.split(), *NTP_DIRECTIVES.split(), *HOSTILE))
LINES = st.lists(WORDS, max_size=8).map(" ".join)


@settings(max_examples=150)
@given(st.sampled_from(READERS), st.one_of(st.lists(LINES, max_size=12).map("\n".join), st.text(max_size=300)))
def test_no_file_breaks_it(reader: Callable[[str, str], Draft], text: str) -> None:
    """Whatever a file holds: nothing is raised, and what comes out is a valid configuration."""
    imported(reader(text, text[:50]))


@settings(max_examples=150)
@given(st.sampled_from((import_chrony, import_ntp, import_gpsd, import_timesyncd)), st.lists(LINES, max_size=12))
def test_no_line_is_dropped_in_silence(reader: Callable[[str, str], Draft], lines: list[str]) -> None:
    """Every line that is no comment is named in the result: beside the setting that it became, or with what became of it instead."""
    draft = reader("\n".join(lines), "x")
    text = draft.text()
    for line in draft.lines:
        assert re.search(rf"\bline {line.number}\b", text), (line, text)


@pytest.mark.parametrize("reader", [import_chrony, import_ntp, import_gpsd, import_satpulse])
def test_characters_that_do_not_print_leave_a_valid_configuration(reader: Callable[[str, str], Draft]) -> None:
    """A file that a disk has damaged: what is told of such a line shows them as escapes."""
    noise = (
        'restri\0\0ct \x1b[2J\0 nomodify\nserver nt\0p1 ibur\x07st\nrefclock SHM 0 poll\0 3\nallow 10.0.0.0/8 \0\nDEVICES="/dev/tty\0"\n'
    )
    parse(reader(noise, "file").text(), "imported")
