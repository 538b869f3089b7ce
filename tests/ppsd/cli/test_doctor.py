"""doctor: what is wrong with a machine is found, proved and told with a remedy; on machines built from files."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from leap_list import leap_list
from refclock_sim.receiver import ubx as ubx_messages
from refclock_sim.worlds.scenario import load_scenario
from refclock_sim.worlds.world import GPS, RAW_START_NS, World

from ppsd.appliance import board
from ppsd.cli import main as cli
from ppsd.cli.doctor import clock as doctor_clock
from ppsd.cli.doctor import system as doctor_system
from ppsd.cli.doctor.bug_report import bug_report
from ppsd.cli.doctor.doctor import EXAMINATIONS, doctor, examine, report
from ppsd.cli.doctor.finding import FAIL, OK, SKIP, WARN, Finding, Patient
from ppsd.cli.doctor.probes import Space
from ppsd.cli.query import Address, Try
from ppsd.config.file import parse
from ppsd.discipline.events import Reported
from ppsd.ntp.packet import Exchange, Header
from ppsd.snapshot import Client, NtsReport, ServerReport, Snapshot, Stamping, Unserved, UpstreamStatus
from refclock.condition import Code, Condition
from refclock.kernel.clocks import STA_UNSYNC, Adjtimex
from refclock.kernel.host import Host
from refclock.kernel.interfaces import Address as Own
from refclock.sample import NS, Authentication, FeedStatus, Instant, Leap, LeapNotice, ServerPackets
from refclock.timescales import DAY_S, NTP_UNIX_S

pytestmark = pytest.mark.worlds

NOW_S = 1_795_000_000.0
SCENARIOS = Path(__file__).parents[3] / "hw-sim" / "scenarios"
CONFIG = '[[source]]\ntype = "receiver"\ndevice = "/dev/ttyAMA0"\npps = "/dev/pps0"\n'
LEAP_FILE = "usr/share/zoneinfo/leap-seconds.list"
NTS = "[nts]\nenabled = true\n"
FREE = Adjtimex(-12.5, 0, 16, 1, 37, STA_UNSYNC, 0, Leap.UNSYNCHRONISED)
"""The kernel's clock while nobody keeps it, as in the worlds."""


SERVING = ServerReport(3, 60.0, ("0.0.0.0:123",), False, {})
ABSENT = Unserved("10.9.9.9:123", "listening at 10.9.9.9 port 123: no interface has that address")
ANSWER = Exchange(Header(stratum=1, leap=Leap.NORMAL), 0, 0, 0)
ADDRESS = Address(socket.AF_INET, ("127.0.0.1", 123))
OWN = Own(ip_address("192.168.1.5"), 24, "eth0", True)
ROOM = Space(900 << 20, 0.5, 0.9, False)
FILTERS_OPEN = {"nft": '{"nftables": []}'}


class Machine:
    """A root directory that looks like a Raspberry Pi with a receiver; pulses come while the doctor waits."""

    def __init__(self, root: Path) -> None:
        self.root, self.pulses, self.rate = root, 100, 1.0
        for name, text in {
            "dev/ttyAMA0": "", "dev/pps0": "", "proc/cmdline": "quiet root=/dev/mmcblk0p2\n", "proc/1/comm": "systemd\n",
            "sys/class/pps/pps0/name": "pps@12.-1\n", "sys/class/rtc/rtc0/since_epoch": f"{NOW_S:.0f}\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "proc/sys/kernel/hostname": "shed\n", "proc/sys/kernel/osrelease": "6.12.47-rpi\n",
            "proc/meminfo": "MemTotal:  924000 kB\nMemFree:  110000 kB\nMemAvailable:  640000 kB\n",
            "proc/self/status": "CapBnd:\t000001ffffffffff\n",
            LEAP_FILE: leap_list(expiry=expiry(90)),
        }.items():  # fmt: skip
            self.write(name, text)
        self.wait(0.0)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def wait(self, seconds: float) -> None:
        self.pulses += int(seconds * self.rate)
        self.write("sys/class/pps/pps0/assert", f"1795000000.000001200#{self.pulses}\n")
        self.write("sys/class/pps/pps0/clear", f"1795000000.100003400#{self.pulses}\n")

    def process(self, pid: int, name: str, holds: str = "", words: str = "") -> None:
        self.write(f"proc/{pid}/comm", name + "\n")
        self.write(f"proc/{pid}/cmdline", f"/usr/sbin/{words or name}\0".replace(" ", "\0"))
        if holds:
            (self.root / f"proc/{pid}/fd").mkdir()
            (self.root / f"proc/{pid}/fd/5").symlink_to(holds)

    def examined(
        self,
        config: str = CONFIG,
        clock: Snapshot | None = None,
        server: ServerReport | str = SERVING,
        tried: Try | None = None,
        printed: Mapping[str, str] = FILTERS_OPEN,
        **changes: Any,
    ) -> dict[str, Finding]:
        """By check. ``clock``, ``server``: what the daemon's processes say, those of a good machine by default; ``tried``: how the server
        answers; ``printed``: what commands print, by name; ``changes``: of the other things that are tried."""
        steering = parse(config).clock.steer
        clock = replace(clock or told("clean-pps", 120), steering=steering)
        clock = clock if clock.listen else replace(clock, listen=("0.0.0.0:123",))
        patient = self.patient(config, clock, server)
        patient = replace(patient, ask=lambda *_: tried or Try(ADDRESS, ANSWER, "", ANSWER.header), **changes)
        return {finding.check: finding for finding in examine(replace(patient, output=lambda words: printed.get(words[0])))}

    def patient(self, config: str = CONFIG, clock: Snapshot | None = None, server: ServerReport | str = SERVING) -> Patient:
        """This machine, with nothing of the one that the tests run on."""
        return Patient(
            Host(self.root), parse(config), clock, self.wait, lambda: NOW_S, server=server, output=lambda _: None, addresses=(OWN,),
            answers=lambda asked: [False] * len(asked), stamped=lambda: True, named=lambda *_: [str(OWN.address)],
            space=lambda _: ROOM, has=lambda _: True,
        )  # fmt: skip


@cache
def world(scenario: str, second: int) -> World:
    """A simulated world at that second of a scenario file."""
    found = World(load_scenario(SCENARIOS / f"{scenario}.toml"), 101)
    found.advance(second)
    return found


def told(scenario: str, second: int) -> Snapshot:
    """What the daemon says of itself there."""
    return world(scenario, second).snapshot()


def after(scenario: str, second: int, line: bytes) -> Snapshot:
    """The same a second later, when the receiver's line has brought ``line``."""
    there = World(load_scenario(SCENARIOS / f"{scenario}.toml"), 101)
    there.advance(second)
    there.hear(line)
    there.advance(second + 1)
    return there.snapshot()


def with_condition(code: Code, words: str) -> Snapshot:
    """A daemon that is well but for one condition of its receiver."""
    clock = told("clean-pps", 60)
    (source,) = clock.sources
    return replace(clock, sources=(replace(source, conditions=(*source.conditions, Condition(code, words))),))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: FREE)
    monkeypatch.setattr(doctor_system, "version", lambda: told("clean-pps", 120).version)
    return Machine(tmp_path)


SKIPPED_WHEN_WELL = {"RC12", "RC25", "RC27", "RC28", "RC36", "RC37", "RC40", "RC44", "RC48", "RC49", "RC50", "RC52"}
"""Nothing surveys, no server was named to compare with, nobody is fed; the clock is left to others; nobody has asked yet, nor DHCP; rights
are not seen; neither NTS, IPv6, VLANs nor the internet are wanted; no NTP server is asked."""


def test_a_good_machine_is_well(machine: Machine) -> None:
    """Nothing is found where nothing is wrong; what is not there is not examined. Each check has one number, and they come in order."""
    states = {check: finding.state for check, finding in machine.examined().items()}
    assert {check: state for check, state in states.items() if state != OK} == dict.fromkeys(sorted(SKIPPED_WHEN_WELL), SKIP)
    assert list(states) == [f"RC{n:02}" for n in (*range(1, 13), *(n for n in range(20, 53) if n != 26))]
    assert len(EXAMINATIONS) == len(states)


def expiry(days: int) -> int:
    """NTP second of that many days from now."""
    return round(NOW_S) + NTP_UNIX_S + days * DAY_S


UPSTREAM = UpstreamStatus(
    name="ntp0", host="a.example", address="192.0.2.1", tally="-", why="agrees", stratum=2, refid=0xC0000201, poll=6, reach=0o377,
    last_sample_s=21.0, span_s=640.0, offset_ns=150_000, delay_ns=4_000_000, root_delay_ns=1_000_000, dispersion_ns=200_000,
    jitter_ns=30_000, bound_ns=2_700_000, frequency_ppm=-12.3, skew_ppm=0.1, samples=14, packets=ServerPackets(sent=16),
)  # fmt: skip
"""A server that agrees."""
GPSD = '[[source]]\ntype = "gpsd"\nname = "gps0"\n'
PPS_ONLY = '[[source]]\ntype = "pps"\nname = "gps0"\npps = "/dev/pps0"\n'


def gpsd_source(*, present: bool = True) -> Snapshot:
    """A daemon whose only source is gpsd, without a pulse."""
    clock = told("nmea-only", 60)
    why = clock.sources[0].why if present else "gpsd at 127.0.0.1:2947 refuses the connection"
    return replace(clock, sources=(replace(clock.sources[0], kind="gpsd", present=present, why=why, pulses=0, pulse=None),))


Changes = dict[str, Any]
"""Of ``Machine.examined``'s arguments."""


def gpsd(m: Machine) -> Changes:
    m.process(412, "gpsd", "/dev/ttyAMA0")
    return {}


def modem_manager(m: Machine) -> Changes:
    m.process(413, "ModemManager", "/dev/ttyAMA0")
    return {}


def console(m: Machine) -> Changes:
    m.write("proc/cmdline", "console=serial0,115200 console=tty1 root=/dev/mmcblk0p2")
    (m.root / "dev/serial0").symlink_to("ttyAMA0")
    return {}


def no_pulses(m: Machine) -> Changes:
    m.rate = 0.0
    return {"clock": told("nmea-only", 20)}


def fast_pulses(m: Machine) -> Changes:
    m.rate = 10.0
    return {"clock": told("nmea-only", 20)}


def kernel_timer(m: Machine) -> Changes:
    m.write("sys/class/pps/pps0/name", "ktimer\n")
    return {}


def overruns(m: Machine) -> Changes:
    m.write("proc/tty/driver/ttyAMA", "serinfo:1.0 driver revision:\n0: uart:PL011 rev3 mmio:0xFE201000 irq:23 tx:0 rx:9213 fe:2 oe:17\n")
    return {}


def undervoltage(m: Machine) -> Changes:
    m.write("sys/devices/platform/soc/soc:firmware/get_throttled", "0x50005\n")
    return {}


def slow_clocksource(m: Machine) -> Changes:
    m.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n")
    return {}


def wrong_rtc(m: Machine) -> Changes:
    m.write("sys/class/rtc/rtc0/since_epoch", f"{NOW_S - 7200:.0f}\n")
    return {}


def chronyd_too(m: Machine) -> Changes:
    m.process(733, "chronyd")
    return {"config": CONFIG + '[clock]\nsteer = "kernel"\n'}


def no_receiver(m: Machine) -> Changes:
    (m.root / "dev/ttyAMA0").unlink()
    return {"config": ""}


def unplugged(m: Machine) -> Changes:
    (m.root / "dev/ttyAMA0").unlink()
    return {}


def usb_adapter(m: Machine) -> Changes:
    m.write("dev/ttyUSB0", "")
    m.write("sys/bus/usb-serial/devices/ttyUSB0/latency_timer", "16\n")
    return {"config": CONFIG.replace("ttyAMA0", "ttyUSB0")}


BROKEN_LINE = b"$GPRMC,120001.00,A,5130.0000,N,00007.0000,W,0.0,,211126,,,A*00\r\n" * 90
SHUT = b"$GNTXT,01,01,01,More than 100 frame errors, UART RX was disabled*70\r\n"
SURVEYING = ubx_messages.tim_svin((120, 2.3, True, False))


def daemon(clock: Callable[[], Snapshot]) -> Callable[[Machine], Changes]:
    """Nothing is wrong with the machine but what the daemon says."""
    return lambda _: {"clock": clock()}


def table(m: Machine, text: str | None) -> Changes:
    if text is None:
        (m.root / LEAP_FILE).unlink()
    else:
        m.write(LEAP_FILE, text)
    return {}


def contradicted() -> Snapshot:
    """A receiver states 38 s, the valid table 37 s."""
    there = World(load_scenario(SCENARIOS / "clean-pps.toml"), 101)
    there.advance(60)
    notice = LeapNotice(38, 0, None, Instant(0, RAW_START_NS + 60 * NS))
    there.engine.handle(Reported(GPS, (notice,), notice.at))
    return there.snapshot()


def port_held(m: Machine) -> Changes:
    m.process(640, "chronyd", "socket:[4711]")
    row = "0: 00000000:007B 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0\n"
    m.write("proc/net/udp", f"sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n{row}")
    return {"server": "not running"}


NFT_SHUT = {
    "nft": json.dumps(
        {
            "nftables": [
                {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}},
                {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [
                    {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}}, {"accept": None}]}},
            ]
        }
    )
}  # fmt: skip
IPTABLES_SHUT = {
    "iptables-save": "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
    "-A INPUT -j REJECT\nCOMMIT\n"
}
NTP_ALONE = {"nft": NFT_SHUT["nft"].replace('"protocol": "tcp"', '"protocol": "udp"').replace('"right": 22', '"right": 123')}
NTP_ALONE_BY_IPTABLES = {
    "iptables-save": "*filter\n:INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 123 -j ACCEPT\nCOMMIT\n",
}
METRICS_IN = {"nft": NFT_SHUT["nft"].replace('"right": 22', '"right": 9124')}
MONITOR = {
    "iptables-save": "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 9.9.9.0/24 -p tcp -m tcp --dport 9124 -j ACCEPT\n"
    "-A INPUT -p tcp -m tcp --dport 9124 --syn -j DROP\nCOMMIT\n"
}


def fed(state: str, sent: int, why: str) -> Snapshot:
    """A daemon with a feed."""
    clock, told_of = told("clean-pps", 120), (Condition(Code.FEED_NOT_TAKEN, f"feed sock: {why}"),) if why else ()
    return replace(clock, feeds=(FeedStatus("sock", "sock", "/run/x.sock", state, sent, 0, why),), conditions=(*clock.conditions, *told_of))


def unsynchronised(_: Machine) -> Changes:
    return {"tried": Try(ADDRESS, None, "unsynchronised", Header(leap=Leap.UNSYNCHRONISED, stratum=0))}


STEERED = CONFIG + '[clock]\nsteer = "kernel"\n'
OWN6 = Own(ip_address("2001:db8:5::5"), 64, "eth0", True)
PUBLIC = Own(ip_address("8.8.8.5"), 24, "eth0", True)
SHARED = Own(ip_address("100.64.9.9"), 10, "wwan0", True)
VLAN = Own(ip_address("10.0.10.1"), 24, "eth0.10", True)
EVERYBODY = CONFIG + '[access]\nallow = ["0.0.0.0/0", "::/0"]\n'
METRICS = CONFIG + '[metrics]\nlisten = ["0.0.0.0:9124"]\n'
BOTH = ("0.0.0.0:123", "[::]:123")
ASKED = Client("192.168.1.77", 900, 500, 0.1, 1.0, 3600.0, 4, False, False)
STRANGER = replace(ASKED, address="8.8.4.4")
APT = "refclock:\n  Installed: 0.1.0-1\n  Candidate: {}\n  Version table:\n"
CONNTRACK_COLUMNS = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop\n"


def listening(*addresses: str) -> Snapshot:
    """A good daemon that is to serve these."""
    return replace(told("clean-pps", 120), listen=addresses)


def counted(**counters: dict[str, int]) -> ServerReport:
    """A server that has counted packets."""
    return replace(SERVING, counters=counters)


def files(**texts: str) -> Callable[[Machine], Changes]:
    """Nothing is wrong but what these files say; in a name "__" stands for "/"."""

    def spoil(m: Machine) -> Changes:
        for name, text in texts.items():
            m.write(name.replace("__", "/"), text)
        return {}

    return spoil


def changed(**changes: Any) -> Callable[[Machine], Changes]:
    """Nothing is wrong but what these things say that are tried."""
    return lambda _: changes


KEYED = Authentication("nts", 1, 15, 256, 0, 3600, 0, 8, 100)
UNKEYED = {"authentication": Authentication("nts", ke_attempts=2)}
"""A server that is asked with NTS, with keys and without."""


def asking(
    *servers: dict[str, Any] | None, role: str = "witness", hosts: tuple[str, ...] = ("a.example", "b.test", "c.invalid", "d.example.net")
) -> Callable[[Machine], Changes]:
    """NTP servers are asked, one behind each of the ``hosts``; all is well with them but for these changes. None: it has no address."""
    tables = "".join(f'[[upstream]]\nhost = "{host}"\n' for host in hosts[: len(servers)])
    heard = tuple(
        replace(UPSTREAM, **{"name": f"ntp{i}", "host": hosts[i], "address": f"192.0.2.{i + 1}", **told})
        for i, told in enumerate(servers)
        if told is not None
    )
    return lambda _: {
        "config": f'{CONFIG}[clock]\nupstreams = "{role}"\n{tables}',
        "clock": replace(told("clean-pps", 120), upstreams=heard),
    }


def certified(**changes: Any) -> Callable[[Machine], Changes]:
    """NTS is on, and its process reports a good certificate but for ``changes``."""
    report = NtsReport(7, 60.0, ("0.0.0.0:4460",), (), True, ("box",), int(NOW_S) + 300 * DAY_S, int(NOW_S) + 3000 * DAY_S, "", 0, {})
    return changed(config=f"{CONFIG}{NTS}", nts=replace(report, **changes))


def enabled(m: Machine) -> Changes:
    m.write("etc/systemd/system/multi-user.target.wants/chrony.service", "")
    return {"config": STEERED}


def bare_container(m: Machine) -> Changes:
    m.write(".dockerenv", "")
    return {"config": CONFIG.replace("ttyAMA0", "ttyUSB3"), "clock": told("nmea-only", 20)}


def avahi(m: Machine) -> Changes:
    m.process(300, "avahi-daemon")
    return {"named": lambda *_: []}


def udhcpc(m: Machine) -> Changes:
    m.process(301, "busybox", words="udhcpc -i eth0")
    return {}


def tracked(m: Machine, count: int, drops: int = 0) -> Changes:
    m.write("proc/sys/net/netfilter/nf_conntrack_count", f"{count}\n")
    m.write("proc/sys/net/netfilter/nf_conntrack_max", "1000\n")
    m.write("proc/net/stat/nf_conntrack", f"{CONNTRACK_COLUMNS}{'00000000 ' * 10}{drops:08x} 00000000\n")
    return {}


EXEMPT = {
    "iptables-save": "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --dport 123 -j CT --notrack\nCOMMIT\n",
}


def exempt(m: Machine) -> Changes:
    return tracked(m, 990) | {"printed": EXEMPT}


def lease(servers: str) -> Callable[[Machine], Changes]:
    """As dhclient 4.4 keeps it, with an older one before."""
    older, option = 'lease {\n  interface "eth0";\n  option ntp-servers 192.168.1.5;\n}\n', f"  option ntp-servers {servers};\n"
    text = f'{older}lease {{\n  interface "eth0";\n  fixed-address 192.168.1.5;\n{option if servers else ""}}}\n'
    return files(**{"var__lib__dhcp__dhclient.eth0.leases": text})


def rights(clock: int, serve: int, **changes: Any) -> Callable[[Machine], Changes]:
    """The effective capabilities of the two processes."""

    def spoil(m: Machine) -> Changes:
        m.write(f"proc/{told('clean-pps', 120).pid}/status", f"Name:\tppsd\nCapEff:\t{clock:016x}\n")
        m.write(f"proc/{SERVING.pid}/status", f"Name:\tppsd\nCapEff:\t{serve:016x}\n")
        return changes

    return spoil


def vlan(m: Machine) -> Changes:
    m.write("sys/class/net/eth0.10/uevent", "DEVTYPE=vlan\nINTERFACE=eth0.10\nIFINDEX=4\n")
    m.write("sys/class/net/eth0/uevent", "INTERFACE=eth0\nIFINDEX=2\n")
    return {"addresses": (OWN, VLAN)}


def swapped(m: Machine) -> Changes:
    m.write(f"proc/{told('clean-pps', 120).pid}/status", "Name:\tppsd\nVmSwap:\t    9000 kB\n")
    return {}


AILMENTS: dict[str, tuple[str, str, Callable[[Machine], Changes]]] = {
    "no receiver": ("RC01", FAIL, no_receiver),
    "receiver unplugged": ("RC01", FAIL, unplugged),
    "gpsd holds the line": ("RC02", FAIL, gpsd),
    "ModemManager holds the line": ("RC02", FAIL, modem_manager),
    "overruns": ("RC03", WARN, overruns),
    "broken sentences": ("RC03", FAIL, daemon(lambda: after("clean-pps", 60, BROKEN_LINE))),
    "junk on the line": ("RC03", FAIL, daemon(lambda: after("clean-pps", 60, bytes(range(128, 256)) * 40))),
    "its input is shut": ("RC03", WARN, daemon(lambda: after("clean-pps", 60, SHUT))),
    "line never idle": ("RC03", WARN, daemon(lambda: with_condition(Code.LINE_SATURATED, "its line is never idle: raise the speed"))),
    "only ZDA": ("RC03", FAIL, daemon(lambda: with_condition(Code.LABELS_REFUSED, "it sends only ZDA: add RMC or GGA"))),
    "nothing names a second": ("RC03", FAIL, daemon(lambda: told("pains/01-reach-stays-zero", 60))),
    "no pulses": ("RC04", FAIL, no_pulses),
    "ten pulses a second": ("RC04", WARN, fast_pulses),
    "kernel's own timer": ("RC04", FAIL, kernel_timer),
    "trailing edge": ("RC05", WARN, daemon(lambda: told("pains/11-trailing-edge-configured", 60))),
    "hum instead of pulses": ("RC05", WARN, daemon(lambda: told("pains/17-hum-instead-of-pulses", 60))),
    "console on the line": ("RC06", FAIL, console),
    "USB adapter holds back": ("RC07", WARN, usb_adapter),
    "no fix": ("RC08", FAIL, daemon(lambda: told("pains/17-pulses-before-the-fix", 30))),
    "antenna cut": ("RC08", WARN, daemon(lambda: told("pains/18-antenna-cable-cut", 402))),
    "week rollover": ("RC09", FAIL, daemon(lambda: told("pains/08-week-rollover-contradicted", 60))),
    "time goes back": ("RC09", FAIL, daemon(lambda: told("pains/08-time-does-not-go-back", 60))),
    "leap seconds unknown": ("RC10", WARN, daemon(lambda: told("pains/07-seconds-wrong-on-cold-start", 901))),
    "ambiguous messages": ("RC11", FAIL, daemon(lambda: told("pains/06-half-a-second-after-the-pulse", 800))),
    "which of five pulses": ("RC11", FAIL, daemon(lambda: told("pains/21-five-pulses-a-second", 60))),
    "chronyd too": ("RC20", FAIL, chronyd_too),
    "slow clocksource": ("RC22", WARN, slow_clocksource),
    "undervoltage": ("RC22", FAIL, undervoltage),
    "wrong RTC": ("RC23", WARN, wrong_rtc),
    "clock set by others": ("RC24", WARN, daemon(lambda: told("clock-stepped", 410))),
    "no leap second table": ("RC43", WARN, lambda m: table(m, None)),
    "leap second table cut short": ("RC43", FAIL, lambda m: table(m, leap_list(((2_272_060_800, 10), (2_287_785_600, 11))))),
    "leap second table changed": ("RC43", FAIL, lambda m: table(m, leap_list(hashed="49db2447 571e5e1b 2f002a53 9c8da8e4 39b8e49e"))),
    "leap second table without a hash": ("RC43", WARN, lambda m: table(m, leap_list(expiry=expiry(90), hashed=""))),
    "leap second table expired": ("RC43", WARN, lambda m: table(m, leap_list(expiry=expiry(-40)))),
    "leap second table expires soon": ("RC43", WARN, lambda m: table(m, leap_list(expiry=expiry(27)))),
    "leap second table contradicted": ("RC43", WARN, daemon(contradicted)),
    "pulses stopped": ("RC04", FAIL, daemon(lambda: with_condition(Code.PULSES_STOPPED, "no pulse for 40 s"))),
    "pulse device missing": ("RC04", FAIL, lambda _: {"config": CONFIG.replace("pps0", "pps7")}),
    "gpsd is not running": ("RC01", FAIL, lambda _: {"config": GPSD, "clock": gpsd_source(present=False)}),
    "port held by another": ("RC30", FAIL, port_held),
    "server not running": ("RC30", FAIL, lambda _: {"server": "not running"}),
    "nothing bound": ("RC30", FAIL, lambda _: {"server": replace(SERVING, addresses=())}),
    "an address not there yet": ("RC30", WARN, lambda _: {"server": replace(SERVING, unserved=(ABSENT,))}),
    "one of two held by another": ("RC30", FAIL, lambda _: {"server": replace(SERVING, unserved=(replace(ABSENT, taken=True),))}),
    "server does not answer": ("RC39", FAIL, lambda _: {"tried": Try(ADDRESS, None, "no reply")}),
    "server has no time": ("RC39", FAIL, unsynchronised),
    "firewall (nft)": ("RC31", FAIL, lambda _: {"printed": NFT_SHUT}),
    "firewall (iptables)": ("RC31", FAIL, lambda _: {"printed": IPTABLES_SHUT}),
    "firewall keeps NTS keys (nft)": ("RC31", FAIL, changed(config=CONFIG + NTS, printed=NTP_ALONE)),
    "firewall keeps NTS keys (iptables)": ("RC31", FAIL, changed(config=CONFIG + NTS, printed=NTP_ALONE_BY_IPTABLES)),
    "chronyd starts at the next boot": ("RC28", WARN, enabled),
    "WSL": ("RC29", WARN, files(proc__sys__kernel__osrelease="5.15.167.4-microsoft-standard-WSL2\n")),
    "virtual machine": ("RC29", WARN, files(sys__class__dmi__id__sys_vendor="QEMU\n")),
    "virtual machine of an unknown kind": ("RC29", WARN, files(proc__cpuinfo="flags\t\t: fpu vme hypervisor lahf_lm\n")),
    "container without devices": ("RC29", WARN, bare_container),
    "IPv6 forgotten in the firewall": (
        "RC31",
        WARN,
        changed(
            printed={"iptables-save": "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "ip6tables-save": "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"},
            clock=listening(*BOTH),
            addresses=(OWN, OWN6),
        ),
    ),
    "another machine has the name": ("RC32", WARN, changed(named=lambda *_: ["192.168.1.9"])),
    "avahi does not answer": ("RC32", WARN, avahi),
    "address on loan": ("RC33", WARN, changed(addresses=(OWN._replace(lasting=False),))),
    "address on loan (udhcpc)": ("RC33", WARN, udhcpc),
    "no time stamps": ("RC34", WARN, changed(stamped=lambda: False)),
    "requests without a stamp": ("RC34", WARN, changed(server=counted(reply={"basic": 1000}, server={"unstamped": 400}))),
    "connection table full": ("RC35", FAIL, lambda m: tracked(m, 1000)),
    "connection table lost packets": ("RC35", FAIL, lambda m: tracked(m, 400, 12)),
    "connection table nearly full": ("RC35", WARN, lambda m: tracked(m, 900)),
    "a client asks too often": (
        "RC36",
        WARN,
        changed(server=counted(reply={"basic": 500}, drop={"rate": 500}), clients=(STRANGER, ASKED)),
    ),
    "clients are denied": ("RC36", WARN, changed(server=counted(reply={"basic": 500}, kod={"denied": 80}))),
    "requests lost in the kernel": ("RC36", WARN, changed(server=counted(reply={"basic": 500}, server={"kernel_drops": 80}))),
    "DHCP hands out another": ("RC37", WARN, lease("192.168.1.1, 192.168.1.2")),
    "DHCP hands out another (networkd)": ("RC37", WARN, files(run__systemd__netif__leases__2="ADDRESS=192.168.1.5\nNTP=192.168.1.1\n")),
    "ntpq from outside": ("RC38", WARN, changed(answers=lambda asked: [port == 123 and request[0] == 0x16 for _, port, request in asked])),
    "chronyc from outside": ("RC38", WARN, changed(answers=lambda asked: [port == 323 for _, port, _ in asked])),
    "metrics in the internet": ("RC51", WARN, changed(config=METRICS, addresses=(OWN, PUBLIC))),
    "metrics let in (nft)": ("RC51", WARN, changed(config=METRICS, addresses=(PUBLIC,), printed=METRICS_IN)),
    "may not set the clock": ("RC40", FAIL, rights(0, 0, config=STEERED)),
    "server with rights": ("RC40", WARN, rights(1 << 25, 1 << 25 | 1 << 10, config=STEERED)),
    "server may not take the port later": ("RC40", WARN, rights(1 << 25, 0, server=replace(SERVING, unserved=(ABSENT,)))),
    "configuration wrong": ("RC41", FAIL, changed(problems=("refclock.toml:3 server.thread: unknown key; did you mean threads?",))),
    "no user": ("RC41", WARN, changed(config=f'{CONFIG}[run]\nuser = "no-such-user"\n')),
    "read-only": ("RC42", FAIL, changed(space=lambda _: ROOM._replace(read_only=True))),
    "disk full": ("RC42", FAIL, changed(space=lambda _: ROOM._replace(free_bytes=1 << 20))),
    "no more files": ("RC42", FAIL, changed(space=lambda _: ROOM._replace(files_share=0.0))),
    "disk nearly full": ("RC42", WARN, changed(space=lambda _: ROOM._replace(free_share=0.02))),
    "file system with errors": ("RC42", WARN, files(sys__fs__ext4__mmcblk0p2__errors_count="3\n")),
    "eMMC worn": ("RC42", WARN, files(sys__block__mmcblk0__device__life_time="0x02 0x0a\n")),
    "certificate of NTS has ended": ("RC44", FAIL, certified(until_s=int(NOW_S) - 5 * DAY_S)),
    "certificate of NTS ends soon": ("RC44", WARN, certified(until_s=int(NOW_S) + 5 * DAY_S, own=False, authority_until_s=None)),
    "own authority of NTS ends soon": ("RC44", WARN, certified(authority_until_s=int(NOW_S) + 90 * DAY_S)),
    "certificate of NTS cannot be read": ("RC44", FAIL, certified(until_s=None, problem="/etc/x.crt: no such file")),
    "renewed certificate of NTS is no good": ("RC44", WARN, certified(problem="/etc/x.crt: certificate and key do not belong together")),
    "port of NTS is taken": ("RC44", FAIL, certified(addresses=(), unserved=(Unserved("0.0.0.0:4460", "another program has it"),))),
    "nobody establishes keys of NTS": ("RC44", FAIL, lambda _: {"clock": told("clean-pps", 120), "config": f"{CONFIG}{NTS}"}),
    "system clock before the program": ("RC45", FAIL, changed(now_s=lambda: 0.0)),
    "floor in the future": ("RC45", FAIL, changed(config=f"{CONFIG}[clock]\nnot_before = 2031-01-01\n")),
    "floor too early": ("RC45", WARN, changed(config=f"{CONFIG}[clock]\nnot_before = 2007-01-01\n")),
    "old daemon runs": ("RC46", WARN, daemon(lambda: replace(told("clean-pps", 120), version="0.0.9"))),
    "newer package known": ("RC46", WARN, changed(printed=FILTERS_OPEN | {"apt-cache": APT.format("0.2.0-1")})),
    "little memory": ("RC47", WARN, files(proc__meminfo="MemTotal:  924000 kB\nMemAvailable:  9000 kB\n")),
    "swapped out": ("RC47", WARN, swapped),
    "processes ended for want of memory": ("RC47", WARN, files(proc__vmstat="pgfault 12\noom_kill 2\n")),
    "IPv6 not served": ("RC48", WARN, changed(addresses=(OWN, OWN6))),
    "VLAN without an address": ("RC49", WARN, lambda m: vlan(m) | {"addresses": (OWN,)}),
    "VLAN beside the only interface": ("RC49", WARN, lambda m: vlan(m) | {"config": f'{CONFIG}[server]\ninterface = "eth0"\n'}),
    "VLAN not listened at": ("RC49", WARN, lambda m: vlan(m) | {"clock": listening("192.168.1.5:123")}),
    "VLAN refused": ("RC49", WARN, lambda m: vlan(m) | {"config": f'{CONFIG}[access]\nallow = ["192.168.1.0/24"]\n'}),
    "behind a router": ("RC50", WARN, changed(config=EVERYBODY)),
    "address shared by the provider": ("RC50", WARN, changed(config=EVERYBODY, addresses=(SHARED,))),
    "nobody asks from outside": ("RC50", WARN, changed(config=EVERYBODY, addresses=(PUBLIC,), server=replace(SERVING, uptime_s=9e5))),
    "server that does not answer": ("RC52", WARN, asking({}, {"reach": 0, "tally": "?", "why": "no answer"}, {}, {})),
    "server without keys of NTS": ("RC52", WARN, asking({}, {"reach": 0, "tally": "?", "why": "no keys of NTS: ...", **UNKEYED}, {}, {})),
    "keys of NTS that are not renewed": ("RC52", WARN, asking({}, {"authentication": replace(KEYED, ke_attempts=9)}, {}, {})),
    "server that lies": ("RC52", WARN, asking({}, {"tally": "x", "why": "says +0.200000 s, more than both errors"}, {}, {})),
    "server without an address": ("RC52", WARN, asking({}, {}, {}, None)),
    "two servers that may be followed": ("RC52", WARN, asking({}, {}, role="fallback")),
    "servers of one operator": ("RC52", WARN, asking({}, {}, {}, hosts=("a.example.net", "b.example.net", "example.net"))),
    "feed not taken": ("RC27", FAIL, daemon(lambda: fed("absent", 0, "nobody listens on /run/x.sock; waiting for chronyd to start"))),
}


WELL: dict[str, tuple[str, Callable[[Machine], Changes]]] = {
    "nothing starts at the next boot": ("RC28", changed(config=STEERED)),
    "container with its devices": ("RC29", files(**{"run__.containerenv": ""})),
    "a virtual machine with a simulated receiver": (
        "RC29",
        lambda m: files(sys__class__dmi__id__sys_vendor="QEMU\n")(m) | {"clock": replace(told("clean-pps", 120), simulated=True)},
    ),
    "firewall open by IPv4 and IPv6": ("RC31", changed(clock=listening(*BOTH), addresses=(OWN, OWN6))),
    "firewall open for NTS": ("RC31", changed(config=CONFIG + NTS)),
    "firewall shut for NTS that nobody wants": ("RC31", changed(printed=NTP_ALONE)),
    "only loopback has no stamps of departures": (
        "RC34",
        changed(server=replace(SERVING, interfaces=(Stamping("lo", "kernel", "none", ""),))),
    ),
    "four servers that may be followed": ("RC52", asking({}, {}, {}, {}, role="fallback")),
    "a witness alone": ("RC52", asking({})),
    "a witness with NTS": ("RC52", asking({"authentication": KEYED})),
    "servers of one site": ("RC52", asking({}, {}, {}, hosts=("10.0.0.1", "10.0.0.2", "10.0.0.3"))),
    "table of connections with room": ("RC35", lambda m: tracked(m, 200)),
    "NTP is not tracked": ("RC35", exempt),
    "few refusals": ("RC36", changed(server=counted(reply={"basic": 5000}, drop={"rate": 5}, kod={"rate": 1}))),
    "DHCP hands out this one": ("RC37", lease("192.168.1.1, 192.168.1.5")),
    "metrics in a network of one's own": ("RC51", changed(config=METRICS)),
    "metrics behind a firewall (nft)": ("RC51", changed(config=METRICS, addresses=(PUBLIC,), printed=NFT_SHUT)),
    "metrics behind a firewall (iptables)": ("RC51", changed(config=METRICS, addresses=(PUBLIC,), printed=IPTABLES_SHUT)),
    "metrics for one monitor": ("RC51", changed(config=METRICS, addresses=(PUBLIC,), printed=MONITOR)),
    "rights as they should be": ("RC40", rights(1 << 25, 1 << 10, config=STEERED)),
    "certificate of NTS good for long": ("RC44", certified()),
    "same version in the lists": ("RC46", changed(printed=FILTERS_OPEN | {"apt-cache": APT.format("0.1.0-1")})),
    "IPv6 served": ("RC48", changed(clock=listening(*BOTH), addresses=(OWN, OWN6))),
    "VLAN served": ("RC49", vlan),
    "IPv6 by router announcement beside a lasting address": ("RC33", changed(addresses=(OWN, OWN6._replace(lasting=False)))),
    "asked from outside": ("RC50", changed(config=EVERYBODY, clients=(ASKED, STRANGER))),
}


@pytest.mark.parametrize("case", WELL)
def test_what_is_well_is_found_well(machine: Machine, case: str) -> None:
    """The other world of each ailment, where a good machine has nothing to show."""
    check, prepare = WELL[case]
    finding = machine.examined(**prepare(machine))[check]
    assert finding.state == OK, finding


def test_a_server_for_this_machine_alone_needs_no_network(machine: Machine) -> None:
    """At loopback addresses only, nothing is said of IPv6, VLANs, the internet and the firewall."""
    changes = vlan(machine) | {"clock": listening("127.0.0.1:123"), "config": EVERYBODY, "addresses": (OWN, OWN6, VLAN)}
    found = machine.examined(**changes)
    assert {found[check].state for check in ("RC31", "RC48", "RC49", "RC50")} == {SKIP}


def test_a_container_without_the_right_is_told_before_anything_runs(machine: Machine) -> None:
    """A daemon that is to set the clock where nobody may: the remedy is the container's own option."""
    machine.write(".dockerenv", "")
    machine.write("proc/self/status", "CapBnd:\t00000000a80425fb\n")  # docker's default set
    finding = next(f for f in examine(machine.patient(STEERED)) if f.check == "RC40")
    assert (finding.state, finding.do) == (FAIL, "docker run --cap-add SYS_TIME")
    machine.write("proc/self/status", "CapBnd:\t000001ffffffffff\n")
    assert next(f for f in examine(machine.patient(STEERED)) if f.check == "RC40").state == SKIP


def test_who_has_the_port_is_named_by_either_family(machine: Machine) -> None:
    """A program at [::]:123 holds IPv4's port too; the server's own sockets are nobody else's."""
    machine.process(640, "ntpd", "socket:[4711]")
    machine.process(SERVING.pid, "python3", "socket:[4712]")
    head = "  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n"
    rows = [f"1: {'0' * 32}:007B {'0' * 32}:0000 07 00000000:00000000 00:00000000 00000000 0 0 {inode} 2 0 0\n" for inode in (4711, 4712)]
    machine.write("proc/net/udp6", head + "".join(rows))
    held = Unserved("0.0.0.0:123", "listening at 0.0.0.0 port 123: another program has it", taken=True)
    finding = machine.examined(server=replace(SERVING, addresses=("[::]:123",), unserved=(held,)))["RC30"]
    assert finding.state == FAIL
    assert "(ntpd (pid 640) has it)" in finding.what


def test_what_cannot_be_read_is_not_called_good(machine: Machine) -> None:
    """Without the right to read the firewall's rules nothing is claimed of them."""
    assert machine.examined(printed={})["RC31"].state == SKIP
    machine.write("proc/modules", "usbserial 12288 1 ftdi_sio, Live 0x0\n")
    assert machine.examined(printed={})["RC31"].state == OK


@pytest.mark.parametrize("ailment", AILMENTS)
def test_an_ailment_is_found(machine: Machine, ailment: str) -> None:
    """Each is found by its own check, and has a remedy."""
    check, state, spoil = AILMENTS[ailment]
    finding = machine.examined(**spoil(machine))[check]
    assert finding.state == state
    assert finding.do


def test_a_receiver_that_tells_no_fix_is_not_called_good(machine: Machine) -> None:
    """Where nothing states fix or satellites, they are not examined, and said to be so."""
    clock = told("clean-pps", 60)
    silent = replace(clock, sources=(replace(clock.sources[0], fix="unknown", satellites_used=None, satellites_seen=None),))
    finding = machine.examined(clock=silent)["RC08"]
    assert finding.state == SKIP
    assert "neither fix nor satellites" in finding.what


def test_the_words_are_the_golden_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]) -> None:
    """What users read, to the letter."""
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: FREE)
    monkeypatch.setattr(doctor_system, "version", lambda: told("clean-pps", 120).version)
    lines: list[str] = []
    for number, (ailment, (check, _, spoil)) in enumerate(AILMENTS.items()):
        machine = Machine(tmp_path / str(number))
        lines.append(f"{ailment}\n{report([machine.examined(**spoil(machine))[check]]).rpartition(chr(10))[0]}")
    golden("doctor.txt", "\n\n".join(lines) + "\n")


def test_a_clock_that_runs_away(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frequency near the kernel's limit is told."""
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: Adjtimex(-499.9, 0, 16, 1, 37, 0, 0, Leap.NORMAL))
    assert machine.examined()["RC21"].state == FAIL


def test_safe_remedies_are_carried_out_and_others_refused(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """--fix writes what the finding says and nothing else."""
    changes = usb_adapter(machine)
    patient = machine.patient(changes["config"])
    out = io.StringIO()
    assert doctor(patient, False, "rc07", out) == 0
    assert (machine.root / "sys/bus/usb-serial/devices/ttyUSB0/latency_timer").read_text() == "1\n"
    assert doctor(patient, False, "RC07", out) == 1
    assert "nothing is wrong there" in capsys.readouterr().err
    assert doctor(patient, False, "RC99", out) == 64
    machine.process(5, "ModemManager", "/dev/ttyUSB0")
    (machine.root / "etc/udev/rules.d").mkdir(parents=True)
    assert doctor(patient, False, "RC02", out) == 0
    assert 'KERNEL=="ttyUSB*", ENV{ID_MM_DEVICE_IGNORE}="1"' in (machine.root / "etc/udev/rules.d/77-refclock.rules").read_text()


def test_json_and_exit_codes(machine: Machine) -> None:
    """0 all well, 1 something to look at, 2 something wrong; JSON has every finding."""
    out = io.StringIO()
    patient = machine.patient(CONFIG)
    assert doctor(patient, True, None, out) == 0
    assert {finding["check"] for finding in json.loads(out.getvalue())} >= {"RC01", "RC25"}
    wrong_rtc(machine)
    assert doctor(patient, False, None, io.StringIO()) == 1
    no_pulses(machine)
    assert doctor(patient, False, None, io.StringIO()) == 2


def test_a_simulated_receiver_needs_no_device(tmp_path: Path, machine: Machine) -> None:
    """On a machine without line and pulse nothing is wrong while the receiver is simulated; without that it is."""
    (machine.root / "dev/ttyAMA0").unlink()
    assert machine.examined("")["RC01"].state == FAIL
    assert machine.examined("", replace(told("clean-pps", 120), simulated=True))["RC01"].state == SKIP


def test_the_command_examines_the_machine(
    machine: Machine, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs without a daemon, and says how many checks there were."""
    monkeypatch.setattr("ppsd.cli.doctor.doctor.patient_of", lambda _, config: replace(machine.patient(), config=config))
    monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda: FREE)
    assert cli.main(["doctor", "--run-dir", str(tmp_path)]) in (0, 1, 2)
    assert "not examined" in capsys.readouterr().out


def test_what_the_daemon_says_of_its_pulses_is_told(machine: Machine) -> None:
    """RC05 shows the daemon's own verdict; RC04 takes its word for a rate that it can use."""
    found = machine.examined()["RC05"]
    assert (found.state, found.what.partition(",")[0]) == (OK, "gps0: one pulse a second")
    off = machine.examined(clock=told("pains/11-edge-that-moves", 310))["RC05"]
    assert off.state == WARN
    assert off.what.startswith("gps0: its pulses come 100 ms after the served seconds")
    assert "RC07" in machine.examined(clock=told("usb-polling", 120))["RC05"].do
    machine.rate = 5.0
    assert machine.examined(clock=told("pains/21-five-pulses-a-second", 60))["RC04"] == Finding("RC04", OK, "gps0: 5 pulses a second")


@pytest.mark.parametrize("scenario", ["pains/08-week-rollover", "pains/07-leap-second-told-by-nmea-alone", "clean-pps"])
def test_a_receiver_that_is_well_is_found_well(machine: Machine, scenario: str) -> None:
    """A minute after the start of a receiver that works, also one whose date had to be repaired: dates, leap seconds, survey are good."""
    found = machine.examined(clock=told(scenario, 60))
    assert {found[check].state for check in ("RC03", "RC05", "RC08", "RC09", "RC10", "RC11")} == {OK}


def test_the_doctor_warns_of_leap_seconds_exactly_while_the_daemon_does(machine: Machine) -> None:
    """A cold receiver, second by second around the changes: RC10 tells while the daemon waits for the leap count, and never else. It
    is a warning once waiting has not helped for a quarter of an hour."""
    there = World(load_scenario(SCENARIOS / "pains/07-seconds-wrong-on-cold-start.toml"), 101)
    for second in (2, 5, 60, 299, 303, 1079, 1083, 1100):
        there.advance(second)
        clock = there.snapshot()
        waits = "leap count" in clock.why
        state = machine.examined(clock=clock)["RC10"].state
        named = all(source.labels for source in clock.sources)
        assert state == (WARN if waits and second >= 900 else SKIP if waits or not named else OK), (second, clock.why)


def test_a_clock_that_ntp_keeps_and_the_served_time_must_agree(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served time 100 ms behind a system clock that is kept to 3 ms: told with the trailing edge as what it looks like; one that nobody
    keeps, or that is kept to 200 ms only, says nothing."""
    for status, error_ns, state in ((0, 3_000_000, FAIL), (0x40, 3_000_000, OK), (0, 200_000_000, OK)):
        kept = Adjtimex(-12.5, 0, error_ns, 1, 37, status, 0, Leap.NORMAL)
        monkeypatch.setattr(doctor_clock, "read_adjtimex", lambda kept=kept: kept)
        found = machine.examined(clock=replace(told("clean-pps", 120), system_offset_ns=-100_000_000))["RC21"]
        assert found.state == state
        if state == FAIL:
            assert "is 100 ms ahead of the served time" in found.what
            assert "trailing edge" in found.do


def test_what_needs_nothing_done_is_no_warning(machine: Machine) -> None:
    """A survey that runs, a machine without a battery clock and a leap count that is still awaited are told and change no exit code."""
    (machine.root / "sys/class/rtc/rtc0/since_epoch").unlink()
    assert machine.examined()["RC23"].state == SKIP
    surveying = machine.examined(clock=after("clean-pps", 60, SURVEYING))["RC12"]
    assert (surveying.state, "surveys" in surveying.what) == (OK, True)
    assert machine.examined(clock=told("pains/07-seconds-wrong-on-cold-start", 117))["RC10"].state == SKIP


def test_only_what_there_is_is_called_good(machine: Machine) -> None:
    """Behind gpsd, without a line or a pulse of our own, the checks of lines and pulses are skipped, whoever holds the machine's ports."""
    machine.process(412, "gpsd", "/dev/ttyAMA0")
    found = machine.examined(GPSD, gpsd_source())
    assert {check for check, finding in found.items() if finding.state == SKIP} >= {
        *("RC01", "RC02", "RC04", "RC05", "RC06", "RC07", "RC11", "RC25", "RC27")
    }
    assert all(finding.state in (OK, SKIP) for finding in found.values())
    lost = machine.examined(GPSD, gpsd_source(present=False))
    assert {lost[check].state for check in ("RC08", "RC09", "RC10", "RC12")} == {SKIP}


def test_seconds_that_no_receiver_has_named_are_not_called_good(machine: Machine) -> None:
    """A receiver that is there and says nothing of the time yet: its dates, leap seconds and delays were not examined."""
    clock = told("clean-pps", 120)
    silent = replace(clock, sources=tuple(replace(source, labels=0, rejected={}) for source in clock.sources))
    found = machine.examined(clock=silent)
    assert {found[check].state for check in ("RC09", "RC10", "RC11")} == {SKIP}
    assert found["RC09"].what.endswith("it has named no second yet")


def test_a_pulse_without_a_line_is_no_receiver(machine: Machine) -> None:
    """Of a source of kind pps neither fix nor dates, leap seconds or survey are examined; its pulses are."""
    clock = told("clean-pps", 120)
    alone = replace(clock, sources=(replace(clock.sources[0], kind="pps", fix="none", satellites_seen=0, labels=0),))
    found = machine.examined(PPS_ONLY, alone)
    assert {found[check].state for check in ("RC03", "RC08", "RC09", "RC10", "RC12")} == {SKIP}
    assert {found[check].state for check in ("RC04", "RC05", "RC11")} == {OK}


def test_the_worst_of_several_receivers_is_shown(machine: Machine) -> None:
    """A receiver that tells nothing of its fix, and one that is good, do not hide the third, which has none; nor good pulses wrong ones."""
    clock = told("clean-pps", 120)
    (good,) = clock.sources
    silent = replace(good, name="silent", fix="unknown", satellites_used=None)
    blind = replace(good, name="blind", fix="none", conditions=(Condition(Code.WRONG_EDGE, "the other edge leads"),))
    saturated = replace(good, name="slow", conditions=(Condition(Code.LINE_SATURATED, "its line is never idle"),))
    mute = replace(good, name="mute", labels=0, conditions=(Condition(Code.LABELS_REFUSED, "it sends only ZDA"),))
    found = machine.examined(clock=replace(clock, sources=(silent, good, blind, saturated, mute)))
    assert (found["RC08"].state, found["RC08"].what.partition(":")[0]) == (FAIL, "blind")
    assert (found["RC05"].state, found["RC05"].what.partition(":")[0]) == (WARN, "blind")
    assert (found["RC03"].state, found["RC03"].what.partition(":")[0]) == (FAIL, "mute")


def test_overruns_of_another_line_are_not_the_receivers(machine: Machine) -> None:
    """A console that lost characters says nothing of the receiver."""
    machine.write("proc/tty/driver/serial", "serinfo:1.0 driver revision:\n0: uart:16550A port:000003F8 irq:4 tx:0 rx:9213 oe:17\n")
    assert machine.examined()["RC03"].state == OK


def test_a_server_that_is_not_wanted_is_not_missed(machine: Machine) -> None:
    """With [server] enabled = false the checks of server, answer and firewall are skipped."""
    clock = replace(told("clean-pps", 120), steering="none", listen=())
    states = {finding.check: finding.state for finding in examine(machine.patient(CONFIG, clock))}
    assert {states[check] for check in ("RC30", "RC31", "RC39", "RC48")} == {SKIP}


PLANTED_JOURNAL = """\
2026-11-28T10:11:12+0000 refclock-clock[71]: shed.garden.example.org: $GNGGA,101112.00,4807.03801,N,01131.0,E,1,08,0.9,545.4,M*47
2026-11-28T10:11:13+0000 refclock-serve[72]: client 8.8.4.4 refused; 2a01:4f8:1:2::9 refused; own networks 192.168.1.0/24 (eth0)
2026-11-28T10:11:14+0000 refclock-serve[72]: carrier of enxdca632010203 (dc:a6:32:01:02:03) lost on SHED, key xyzzy-staple refused
2026-11-28T10:11:15+0000 refclock-clock[71]: LOCKED event=locked bound_us=1.5 reader=/home/jane/gps
"""
TELLING = (
    *("shed", "garden", "nas1", "gpsbox", "4807", "01131", "545.4", "48.1173", "11.5167", "8.8.4.4", "8.8.8.5", "2a01", "203.0.113"),
    *("2001:db8", "dc:a6", "dca632", "xyzzy", "staple", "00112233445566", "A50285BI", "jane", 'azimuth": 1', 'elevation": 1'),
)


def test_a_bug_report_tells_nothing_of_its_owner(machine: Machine, tmp_path: Path) -> None:
    """Keys, places, names, hardware and public addresses are planted wherever a report looks: none of them is in it, and what helps is."""
    keys = tmp_path / "refclock.keys"
    keys.write_text("1 SHA1 xyzzy-staple\n2 AES128 HEX:00112233445566778899aabbccddeeff\n")
    machine.write("etc/hosts", "127.0.0.1 localhost\n192.168.1.9 nas1 nas1.shed\n")
    machine.write("dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0", "")
    machine.write("sys/bus/usb/devices/1-1/product", "u-blox GNSS receiver\n")
    machine.write("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    config = (
        f'{CONFIG}fixed_position = "48.1173 11.5167 545.4"\n[[source]]\ntype = "gpsd"\nhost = "gpsbox"\n'
        '[access]\nallow = ["own", "203.0.113.0/24", "2001:db8::/32"]\n[keys]\nfile = "/refclock.keys"\n'
    )
    clock = told("clean-pps", 120)
    at_home = Condition(Code.POSITION_JUMPED, "its position jumped to 48.11730 N 11.51670 E")
    (source,) = clock.sources
    assert any(satellite.azimuth for satellite in source.satellites)
    clock = replace(clock, listen=("8.8.8.5:123", "0.0.0.0:123"), sources=(replace(source, conditions=(at_home,)),))
    patient = replace(
        machine.patient(config, clock), addresses=(OWN, PUBLIC, OWN6), clients=(STRANGER,), servers=("nas1.garden.example.org",)
    )
    patient = replace(patient, output=lambda words: PLANTED_JOURNAL if words[0] == "journalctl" else None)
    text = bug_report(patient, report(examine(patient)))
    assert not [each for each in TELLING if each.lower() in text.lower()], text
    for helpful in (
        *("RC31", "[limits]", '"mode": "track"', "0.0.0.0:123", "192.168.1.5", "Debian GNU/Linux 12", "u-blox GNSS", "6.12.47-rpi"),
        *("LOCKED event=locked bound_us=1.5", "192.168.1.0/24 (eth0)", 'device = "/dev/ttyAMA0"', "<place>", "<public-v4-1>", "<key>"),
    ):
        assert helpful in text, helpful


def test_a_report_of_the_appliance_has_its_board(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the image the facts of the board are in the report, too; elsewhere they are not."""
    fact = board.Fact("watchdog", board.State.GOOD, "bcm2835, active", "restarts the box", "active")
    monkeypatch.setattr(board, "facts", lambda *_: iter([fact]))
    assert "bcm2835" not in bug_report(machine.patient(), "")
    machine.write("proc/cmdline", "quiet refclock.slot=A root=/dev/mmcblk0p2\n")
    assert "bcm2835, active" in bug_report(machine.patient(), "")


def test_a_report_is_written_for_its_owner_alone(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor --report FILE` writes one file that nobody else may read, also when the configuration is broken; it exits as the doctor."""
    monkeypatch.setattr("ppsd.cli.doctor.doctor.patient_of", lambda _, config: replace(machine.patient(), config=config))
    broken, out = tmp_path / "refclock.toml", tmp_path / "report.txt"
    broken.write_text('[server]\nthread = 2\npassword = "hunter2"\n')
    assert cli.main(["doctor", "--report", str(out), "--config", str(broken), "--run-dir", str(tmp_path)]) == 2
    assert "Look through it" in capsys.readouterr().out
    assert out.stat().st_mode & 0o777 == 0o600
    text = out.read_text()
    assert "did you mean threads?" in text
    assert "hunter2" not in text
    assert cli.main(["doctor", "--report", str(tmp_path / "none/report"), "--run-dir", str(tmp_path)]) == 74
