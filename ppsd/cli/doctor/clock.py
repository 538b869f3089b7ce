"""The doctor's examinations of the machine's clocks: RC20 to RC29, and RC43."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ppsd.cli.doctor.finding import FAIL, NO_DAEMON, OK, SKIP, WARN, Finding, Patient
from ppsd.cli.query import addresses_of, failures, first_answer, split_server
from ppsd.snapshot import Verdict
from refclock.condition import Code, Condition
from refclock.kernel.clocks import STA_UNSYNC, read_adjtimex
from refclock.kernel.host import Host
from refclock.kernel.rivals import rivals
from refclock.timescales import DAY_S, KNOWN_UNTIL_S, day_of, parse_leap_seconds_list
from refclock.timing.pairing import OFF_CLOCK_NS

if TYPE_CHECKING:
    from ppsd.serve.ntp_server import Authenticator

STEADY_SOURCES: Final = ("tsc", "arch_sys_counter", "kvm-clock", "riscv_clocksource", "hyperv_clocksource_tsc_page")
"""Clock sources that are read from the processor, not from a slow device."""
EXPIRES_SOON_D: Final = 28
"""Days before the end of the leap second table from which on that is a warning: the next one appears five months before (Bulletin C)."""
RTC_OFF_S: Final = 5
"""s; a larger difference between battery clock and system clock is a warning."""


def other_disciplines(p: Patient) -> Finding:
    """RC20: does another program steer the system clock?"""
    found, steered = rivals(p.host), p.steers
    names = " and ".join(map(str, found))
    if steered and found:
        do = f'{found[0].remedy}; or: [clock] steer = "none", then refclock feed, or refclock takeover'
        return Finding("RC20", FAIL, f"{names} and refclock both steer this clock", do)
    if len(found) > 1:
        return Finding(
            "RC20",
            FAIL,
            f"{names} all steer this clock" if len(found) > 2 else f"{names} both steer this clock",
            f"choose one: {found[0].remedy}",
        )
    told = p.clock.has(Code.CLOCK_SHARED) if p.clock else None
    if told is not None:
        return Finding("RC20", FAIL, told.words, 'find it, or: [clock] steer = "none"')
    if found:
        ways = "refclock feed tells how to give it our time, refclock takeover which of the two clocks is better"
        return Finding("RC20", OK, f"{names} steers this clock, we do not: {ways}")
    if p.host.text("/proc/1/comm") is None:
        return Finding("RC20", SKIP, "the machine's processes are hidden from this user (hidepid): run it as root")
    return Finding("RC20", OK, "nobody else steers this clock")


def kernel_clock(p: Patient) -> Finding:
    """RC21: does the kernel report a good clock?"""
    try:
        state = read_adjtimex()
    except OSError as error:
        return Finding("RC21", SKIP, f"the kernel's clock cannot be read: {error.strerror}")
    if abs(state.frequency_ppm) > 450:
        do = "the crystal or the clocksource is broken, or somebody set it: sudo adjtimex -f 0 resets it"
        return Finding("RC21", FAIL, f"the clock's frequency stands at {state.frequency_ppm:+.0f} ppm, near its limit of 500", do)
    if state.status & STA_UNSYNC and p.steers and p.clock and p.clock.verdict is Verdict.LOCKED:
        return Finding("RC21", FAIL, "we are locked, but the kernel says unsynchronised", "look for another program that sets it: RC20")
    off_ns = p.clock.system_offset_ns if p.clock and not p.steers else None
    if off_ns is not None and not state.status & STA_UNSYNC and abs(off_ns) > OFF_CLOCK_NS + state.max_error_ns:
        much = f"{abs(off_ns) / 1e6:.0f} ms {'behind' if off_ns > 0 else 'ahead of'}"
        what = f"the system clock, kept by another program within {state.max_error_ns / 1e6:.0f} ms, is {much} the served time"
        do = "one is wrong: if 100 or 200 ms ahead, a pulse's trailing edge is taken for the second (RC05); ask a third: --against"
        return Finding("RC21", FAIL, what, do)
    told = "unsynchronised" if state.status & STA_UNSYNC else "synchronised"
    return Finding("RC21", OK, f"the kernel's clock: {told}, {state.frequency_ppm:+.1f} ppm")


def clock_source(p: Patient) -> Finding:
    """RC22: are clock source, processor frequency and power supply good?"""
    name = p.host.text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    throttled = p.host.number("/sys/devices/platform/soc/soc:firmware/get_throttled")
    governor = p.host.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if throttled:
        what = f"the Raspberry Pi reports undervoltage or throttling (0x{throttled:x})"
        return Finding("RC22", FAIL, what, "use a better power supply and cable; see to the cooling")
    if name is not None and name not in STEADY_SOURCES:
        what = f"the kernel reads time from {name}, which is slow and coarse"
        return Finding("RC22", WARN, what, "see dmesg for why tsc was given up; clocksource=tsc on the kernel's command line")
    if governor == "powersave":
        do = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        return Finding("RC22", WARN, "the processor is held slow (governor powersave): interrupts are late", do)
    if name is None:
        return Finding("RC22", SKIP, "the kernel does not tell its clocksource (/sys is not there)")
    return Finding("RC22", OK, f"clocksource {name}{', governor ' + governor if governor else ''}")


STARTED_AT_BOOT: Final = {
    "chrony": "chronyd",
    "chronyd": "chronyd",
    "ntp": "ntpd",
    "ntpd": "ntpd",
    "ntpsec": "ntpd",
    "openntpd": "ntpd",
    "ntpd-rs": "ntp-daemon",
    "systemd-timesyncd": "systemd-timesyncd",
    "ptp4l": "ptp4l",
    "phc2sys": "phc2sys",
    "htpdate": "htpdate",
    "tlsdated": "tlsdated",
}
"""systemd units that set the clock -> the name of their process."""


def next_start(p: Patient) -> Finding:
    """RC28: will another program set the system clock after the next start of this machine, although none does now?"""
    if not p.steers:
        return Finding("RC28", SKIP, "refclock does not set the clock here, so others may")
    wants = {path.rpartition("/")[2].removesuffix(".service") for path in p.host.names("/etc/systemd/system/*.wants/*.service")}
    running = {rival.name for rival in rivals(p.host)}
    coming = [unit for unit in sorted(wants & STARTED_AT_BOOT.keys()) if STARTED_AT_BOOT[unit] not in running]
    coming = [unit for unit in coming if p.host.target(f"/etc/systemd/system/{unit}.service") != "/dev/null"]
    if coming:
        what = f"{' and '.join(coming)} will set this clock from the next start of the machine on, and so does refclock"
        return Finding("RC28", WARN, what, f"sudo systemctl disable --now {' '.join(coming)}; or: sudo refclock setup")
    return Finding("RC28", OK, "no other program that sets the clock is enabled for the next start")


VIRTUAL: Final = {
    "QEMU": "QEMU or KVM",
    "KVM": "KVM",
    "VMware": "VMware",
    "VirtualBox": "VirtualBox",
    "innotek": "VirtualBox",
    "Microsoft Corporation Virtual": "Hyper-V",
    "Xen": "Xen",
    "Amazon EC2": "Amazon EC2",
    "Google Compute Engine": "Google Compute Engine",
    "OpenStack": "OpenStack",
    "Parallels": "Parallels",
    "BHYVE": "bhyve",
    "Apple Virtualization": "Apple's virtualization",
}
"""Words in a machine's DMI names that only virtual ones have (systemd-detect-virt(1))."""


def container(host: Host) -> str:
    """What kind of container this process is in; "" for none (systemd's container interface, and the marks of docker and podman)."""
    if (told := host.text("/run/systemd/container")) or (told := host.text("/run/host/container-manager")):
        return told
    found = next((name for file, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")) if host.path(file).exists()), "")
    if not found:
        words = (host.text("/proc/1/environ") or "").split("\0")
        found = next((word.partition("=")[2] for word in words if word.startswith("container=")), "")
    if not found and (match := re.search(r"docker|libpod|kubepods|lxc", host.text("/proc/1/cgroup") or "")):
        found = match[0]
    return found


def machine(p: Patient) -> Finding:
    """RC29: is this a real machine, or one whose clock and devices are another's (a virtual machine, WSL, a container)?"""
    simulated = p.clock is not None and p.clock.simulated
    if re.search(r"microsoft|WSL", p.host.text("/proc/sys/kernel/osrelease") or ""):
        do = "use a Raspberry Pi or a PC with Linux of its own; for a look at refclock: refclock run --sim"
        return Finding(
            "RC29", WARN, "this is WSL: Windows keeps its clock, it has neither serial lines nor pulses, and stops with Windows", do
        )
    board = f"{p.host.text('/sys/class/dmi/id/sys_vendor') or ''} {p.host.text('/sys/class/dmi/id/product_name') or ''}"
    kind = next((name for mark, name in VIRTUAL.items() if mark in board), "")
    if not kind and re.search(r"^flags\s*:.*\bhypervisor\b", p.host.text("/proc/cpuinfo") or "", re.MULTILINE):
        kind = "an unknown kind"
    inside = container(p.host)
    if kind:
        what = (
            f"this is a virtual machine ({kind}): its clock stops with it, and pulses that are handed through come late by 0.1 ms and more"
        )
        do = "run refclock on the host, and let the virtual machine ask it (refclock client-config chrony)"
        return Finding("RC29", OK if simulated else WARN, what, do)
    if inside:
        lacks = [device for device in (*p.devices, *p.pulse_devices) if not p.host.path(device).exists()]
        if lacks and not simulated:
            do = " ".join(("docker run", *(f"--device {device}" for device in lacks)))
            return Finding("RC29", WARN, f"this is a container ({inside}) without {', '.join(lacks)}", do)
        return Finding("RC29", OK, f"this is a container ({inside}); it has its host's clock")
    return Finding("RC29", OK, "this is a real machine, as far as can be seen")


def rtc(p: Patient) -> Finding:
    """RC23: is there a battery clock, and is it right?"""
    told = p.host.battery_clock_s()
    if told is None:
        others = ["NTP servers"] if p.config.asked else []
        who = " and ".join([*(["the receiver"] if p.settings else []), *others])
        return Finding("RC23", SKIP, f"no battery clock (RTC): after power is back the date comes from {who} alone")
    off = told - p.now_s()
    if abs(off) > RTC_OFF_S:
        do = "sudo hwclock --systohc, when the system's is right"
        return Finding("RC23", WARN, f"the battery clock is {off:+.0f} s from the system's", do)
    return Finding("RC23", OK, "the battery clock agrees with the system's")


def steps(p: Patient) -> Finding:
    """RC24: has another program set the system clock?"""
    if not p.clock:
        return Finding("RC24", SKIP, NO_DAEMON)
    if (stepped := p.clock.has(Code.CLOCK_STEPPED)) is not None:
        what = f"{stepped.words} since the daemon started; the served time did not follow"
        return Finding("RC24", WARN, what, "find out who: RC20, or a virtual machine's guest tools")
    return Finding("RC24", OK, "nobody set the system clock")


def _ask(server: str, key: Authenticator | None) -> tuple[float | None, str]:
    """(the server's time minus this clock's in s, ""), or (None, what failed). Every address of the server is tried."""
    host, port = split_server(server)
    addresses = addresses_of(host, port)
    if isinstance(addresses, str):
        return None, addresses
    tries = first_answer(addresses, key)
    exchange = tries[-1].exchange
    return (exchange.offset_ns / 1e9, "") if exchange is not None else (None, failures(tries))


def cross_check(p: Patient) -> Finding:
    """RC25: do other servers agree? Only servers that the user names are asked."""
    if not p.servers:
        return Finding("RC25", SKIP, "not asked to compare with other servers (--against HOST)")
    found = [(server, *_ask(server, p.key)) for server in p.servers]
    answered = [(server, offset) for server, offset, _ in found if offset is not None]
    failed = "; ".join(why if why.startswith(server) else f"{server}: {why}" for server, offset, why in found if offset is None)
    do = "check the name, the network and the firewall (UDP 123 out), and that it serves this machine"
    if not answered:
        return Finding("RC25", WARN, f"no time from {failed}", do)
    server, worst = max(answered, key=lambda pair: abs(pair[1]))
    if abs(worst) > 0.5:
        return Finding("RC25", FAIL, f"{server} is {worst:+.1f} s from this clock", "one of the two is wrong: RC09 to RC11")
    agree = f"{len(answered)} of {len(found)} servers agree within {abs(worst) * 1e3:.0f} ms"
    return Finding("RC25", WARN, f"{agree}; no time from {failed}", do) if failed else Finding("RC25", OK, agree)


def leap_table(p: Patient) -> Finding:
    """RC43: is the table of leap seconds whole and valid?"""
    path, now_s = p.config.leap.file, round(p.now_s())
    text = p.host.text(path)
    if text is None:
        what = f"{path} cannot be read: leap seconds are known up to {day_of(KNOWN_UNTIL_S)} only"
        return Finding("RC43", WARN, what, "sudo apt install tzdata, or set leap.file")
    table = parse_leap_seconds_list(text)
    if isinstance(table, Condition):
        return Finding("RC43", FAIL, f"{path} is not used: {table.words}", "sudo apt install --reinstall tzdata, or set leap.file")
    if (expired := table.expired(path, now_s)) is not None:
        do = "sudo apt install --only-upgrade tzdata; without a valid table no time is served for some seconds each half year"
        return Finding("RC43", WARN, expired.words, do)
    told = p.clock.has(Code.LEAP_TABLE_DAMAGED, Code.LEAP_REFUSED) if p.clock else None
    if told is not None:
        return Finding("RC43", WARN, told.words, "find the wrong one: compare with IERS Bulletin C")
    if not table.hashed or table.expires_s is None:
        what = f"{path} has no {'date of expiry (#@)' if table.hashed else 'hash (#h)'}: it is not relied upon for coming leap seconds"
        return Finding("RC43", WARN, what, "take the file of tzdata, or from https://data.iana.org/time-zones/data/leap-seconds.list")
    left = (table.expires_s - now_s) // DAY_S
    if left < EXPIRES_SOON_D:
        what = f"{path} expires on {day_of(table.expires_s)}, in {left} days"
        return Finding("RC43", WARN, what, "sudo apt install --only-upgrade tzdata")
    return Finding("RC43", OK, f"leap seconds are known until {day_of(table.expires_s)}")


def feeds(p: Patient) -> Finding:
    """RC27: do the programs that are fed take the samples?"""
    if not (p.clock.feeds if p.clock is not None else p.config.feeds):
        return Finding("RC27", SKIP, "no feed is configured")
    if p.clock is None:
        return Finding("RC27", SKIP, NO_DAEMON)
    if (lost := p.clock.has(Code.FEED_NOT_TAKEN)) is not None:
        return Finding("RC27", FAIL, lost.words, "refclock feed prints the other program's line and watches whether samples are taken")
    waiting = [feed for feed in p.clock.feeds if not feed.sent]
    if waiting:
        return Finding("RC27", SKIP, f"feed {waiting[0].name}: {waiting[0].why or 'no sample has been made yet'}")
    return Finding("RC27", OK, ", ".join(f"feed {feed.name}: {feed.sent} samples taken" for feed in p.clock.feeds))


EXAMINATIONS: Final = (other_disciplines, kernel_clock, clock_source, rtc, steps, cross_check, feeds, next_start, machine, leap_table)
