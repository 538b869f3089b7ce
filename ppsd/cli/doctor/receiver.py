"""The doctor's examinations of receiver, line and pulse: RC01 to RC12."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

from ppsd.cli.detect import release
from ppsd.cli.doctor.finding import FAIL, NO_DAEMON, OK, SKIP, WARN, Finding, Patient, worst
from ppsd.snapshot import HEALTH, SourceStatus
from refclock.condition import Code
from refclock.config import AUTO, ReceiverSource
from refclock.protocols.framing import BROKEN
from refclock.protocols.labels import Reject
from refclock.sample import NS
from refclock.timing.pulses import pulses_a_second

BROKEN_MIN: Final = 20
"""Broken sentences that are harmless: a line opened in the middle of a burst, or a plug that was touched."""
JUNK_BYTES: Final = 80
"""Bytes of junk that count as one broken sentence; NMEA 0183 allows sentences of at most 82."""
PULSES: Final = (
    *(Code.EDGE_NOT_COMING, Code.NO_RHYTHM, Code.WRONG_EDGE, Code.OFF_SECOND, Code.PULSE_AFTER_MESSAGE, Code.OFF_CLOCK),
    *(Code.STRAY_EDGES, Code.PULSES_MISSING),
)
"""Conditions of the pulses themselves."""
DATES: Final = (Code.WEEK_ROLLOVER, Code.TIME_GOES_BACK, Code.DATE_UNCONFIRMED)
"""Conditions of a receiver with an impossible date."""
BAD_DATES: Final = (Reject.DATE_WINDOW, Reject.DATE_JUMP, Reject.BAD_DATE)
"""Reasons of refusal that concern the date."""
AMBIGUOUS: Final = {
    Code.AMBIGUOUS_DELAY: "raise the baud, send fewer messages, enable UBX or ZDA, or state message_delay_ms",
    Code.PULSES_UNNUMBERED: "let NTP keep the system clock (chronyd or ntpd, with servers), or add a receiver",
    Code.WHICH_OF_MANY: "set the receiver's pulse to 1 Hz: refclock receiver configure; or state message_delay_ms",
}
"""Conditions in which a message may belong to more than one pulse -> remedy."""
GOOD_SATELLITES: Final = 4
"""Satellites that a fix needs: its unknowns are three coordinates and the clock."""
SCATTER_US: Final = 50.0
"""us; pulses that scatter more come over USB, or the machine is busy."""
SPREAD_MS: Final = 100.0
"""ms; a larger spread of the message delay is a warning. At 9600 baud, bursts of changing length spread it by some tens of ms."""
ALMANAC_S: Final = 900.0
"""s from a start until which a receiver may lack the leap seconds: 12.5 minutes for all pages of the message (IS-GPS-200), and to begin."""
DRIVER_NAMES: Final = {"serial": "ttyS"}
"""Names under /proc/tty/driver of drivers whose devices are called otherwise (drivers/tty/serial/8250)."""
LOOK_S: Final = 3.2
"""s to count pulses: long enough for three of 1 Hz."""


def receiver(p: Patient) -> Finding:
    """RC01: is every source there, and may this user read the serial devices?"""
    check = "RC01"
    absent = next((s for s in p.clock.sources if not s.present and s.kind not in ("receiver", "pps")), None) if p.clock else None
    if absent is not None:
        what = f"{absent.name}: its time does not come: {absent.why}"
        return Finding(check, FAIL, what, "start the program that gives it, or take the source out of the configuration")
    if not any(isinstance(source, ReceiverSource) for source in p.settings):
        return Finding(check, SKIP, "no receiver's line is configured")
    if not p.devices:
        what = "no serial device that could be a receiver (ttyACM, ttyUSB, ttyAMA0, serial0, gnss)"
        return Finding(check, FAIL, what, "plug the receiver in; on a Raspberry Pi's pins: enable_uart=1 in config.txt")
    missing = [d for d in p.devices if not p.host.path(d).exists()]
    if missing:
        return Finding(check, FAIL, f"{missing[0]} does not exist", "plug it in, or correct device in [[source]]")
    closed = [d for d in p.devices if not os.access(p.host.path(d), os.R_OK | os.W_OK)]
    read = [s.what for s in p.receivers if s.kind == "receiver" and s.present]
    if closed and read:
        return Finding(check, OK, f"the daemon reads {' and '.join(read)}")
    if closed:
        return Finding(check, FAIL, f"{closed[0]} may not be read by this user", "sudo usermod -aG dialout $USER, then log in again")
    return Finding(check, OK, f"{', '.join(p.devices)} there and readable")


def holders(p: Patient) -> Finding:
    """RC02: does another program read the receiver's line?"""
    own = p.clock.pid if p.clock else 0
    for device in p.devices:
        for who in p.host.holders(device):
            if not who.endswith((f"(pid {own})", f"(pid {os.getpid()})")):
                do, writes = release(who, p.host.target(device))
                what = f"{device} is in use by {who}: who reads a line takes bytes from the others"
                return Finding("RC02", FAIL, what, do, writes)
    return Finding("RC02", OK, "nobody else holds the receiver's line") if p.devices else Finding("RC02", SKIP, "no line to look at")


def line(p: Patient) -> Finding:
    """RC03: do the receiver's messages arrive intact?"""
    lines = {p.host.target(device).rpartition("/")[2] for device in p.devices}
    for name in p.host.names("/proc/tty/driver/*"):
        driver = name.rpartition("/")[2]
        for row in (p.host.text(name) or "").splitlines():
            counts = dict(re.findall(r"\b(fe|oe|brk):(\d+)", row))
            device = f"{DRIVER_NAMES.get(driver, driver)}{row.partition(':')[0].strip()}"
            if device in lines and int(counts.get("oe", "0")):
                what = f"{device}: {counts['oe']} overruns: characters were not taken in time"
                return Finding("RC03", WARN, what, "lower the load, or let the receiver send fewer messages: refclock receiver configure")
    return _each(p, "RC03", _line, "messages arrive intact")


def _line(source: SourceStatus) -> Finding | None:
    broken = sum(source.rejected.get(reason, 0) for reason in (Reject.CHECKSUM, *BROKEN)) + source.junk_bytes // JUNK_BYTES
    if broken > BROKEN_MIN and broken > source.labels / 10:
        what = f"{source.name}: {broken} broken sentences for {source.labels} good ones: a wrong speed, or a bad cable"
        return Finding("RC03", FAIL, what, "leave baud = 0 to have it found; try another cable")
    if (found := source.has(Code.LINE_SATURATED)) is not None:
        return Finding("RC03", WARN, f"{source.name}: {found.words}", "refclock receiver configure; or state baud in [[source]]")
    do = "refclock nmea DEVICE shows what comes"
    if (found := source.has(Code.LABELS_REFUSED)) is not None:
        return Finding("RC03", FAIL, f"{source.name}: nothing that comes names a second by itself; {found.words}", do)
    if source.kind == "receiver" and source.present and not source.labels:
        return Finding("RC03", FAIL, f"{source.name}: nothing on the line names a second yet; {source.why}", do)
    if (found := source.has(Code.RECEIVER_COMPLAINS)) is not None:
        return Finding("RC03", WARN, f"{source.name}: {found.words}", do)
    return None


def _counted(p: Patient, device: str, edge: str) -> tuple[float, int] | None:
    """(time of the last edge, edges so far) of a pulse device, from sysfs: "1700000000.000000123#17"."""
    match = re.fullmatch(r"(\d+\.\d+)#(\d+)", p.host.text(f"/sys/class/pps/{device.rpartition('/')[2]}/{edge}") or "")
    return (float(match[1]), int(match[2])) if match else None


def pulses(p: Patient) -> Finding:
    """RC04: is there a pulse device, and do pulses come once a second?"""
    check, names = "RC04", p.pulse_devices
    if not p.pulses:
        return Finding(check, SKIP, "no source of the configuration has a pulse (pps)")
    missing = [n for n in p.pulses if n != AUTO and not p.host.path(n.partition(":")[0]).exists()]
    if missing:
        return Finding(check, FAIL, f"{missing[0]} does not exist", "load its driver or plug it in, or correct pps in [[source]]")
    silent = next(((s.name, c) for s in p.sources if s.present and (c := s.has(Code.PULSES_STOPPED)) is not None), None)
    if silent is not None:
        do = "see to its wire and pin, and to the receiver's pulse setting: refclock pps"
        return Finding(check, FAIL, f"{silent[0]}: {silent[1].words}", do)
    if not names:
        do = "on a Raspberry Pi: dtoverlay=pps-gpio,gpiopin=18,capture_clear=on in config.txt; over a serial line: ldattach 18 DEVICE"
        return Finding(check, WARN, "no pulse device (/dev/ppsN): the time will be good to milliseconds only", do)
    timers = [d for d in names if (p.host.text(f"/sys/class/pps/{d.rpartition('/')[2]}/name") or "").startswith("ktimer")]
    if names == timers:
        return Finding(check, FAIL, f"{names[0]} is the kernel's own timer (ktimer), not a receiver", "sudo modprobe -r pps-ktimer")
    told = [
        Finding(check, OK, f"{source.name}: {pulses_a_second(round(NS / source.pulse.rate_hz))}")
        for source in p.sources
        if source.pulse is not None and source.pulse.rate_hz
    ]
    if told:
        return told[0]
    device = next(d for d in names if d not in timers)
    before = _counted(p, device, "assert"), _counted(p, device, "clear")
    p.pause(LOOK_S)
    after = _counted(p, device, "assert"), _counted(p, device, "clear")
    come = max((b[1] - a[1] for a, b in zip(before, after, strict=True) if a and b), default=0)
    if come == 0:
        do = "wait for a fix (many receivers are silent without), check the wire and the pin: refclock pps"
        return Finding(check, FAIL, f"{device}: no pulse in {LOOK_S:.0f} s", do)
    if not 2 <= come <= 4:
        what = f"{device}: {come} pulses in {LOOK_S:.0f} s instead of one a second"
        return Finding(check, WARN, what, "set the receiver's pulse to 1 Hz: refclock receiver configure; or the line picks up noise")
    return Finding(check, OK, f"{device}: one pulse a second")


def edges(p: Patient) -> Finding:
    """RC05: are edge, width and jitter of the pulse good? By the daemon, else by the kernel's stamps."""
    if not p.pulses:
        return Finding("RC05", SKIP, "no source of the configuration has a pulse (pps)")
    if told := [found for source in p.sources if (found := _edges(source)) is not None]:
        return worst(told, told[0])
    for device in p.pulse_devices:
        risen, fallen = _counted(p, device, "assert"), _counted(p, device, "clear")
        if risen and fallen and risen[1] and fallen[1]:
            width = (fallen[0] - risen[0]) % 1.0
            if 0.45 < width < 0.55:
                what = f"{device}: the pulse is half a second wide, so its edges cannot be told apart by it"
                return Finding("RC05", WARN, what, 'state edge = "assert" or "clear" in [[source]], or shorten the pulse (100 ms)')
            return Finding("RC05", OK, f"{device}: the pulse is {min(width, 1 - width) * 1e3:.0f} ms wide")
    for source in p.sources:
        if source.pulses and source.jitter_ns is not None:
            if source.jitter_ns > SCATTER_US * 1e3:
                return _scattered(source.name, source.jitter_ns / 1e3)
            return Finding("RC05", OK, f"{source.name}: pulses scatter by {source.jitter_ns / 1e3:.1f} µs")
    return Finding("RC05", SKIP, "one edge only, and no daemon that measures it")


def _edges(source: SourceStatus) -> Finding | None:
    """What the daemon says of the edges of one source; None without any."""
    doubt, pulse = source.has(*PULSES), source.pulse
    if doubt is not None:
        return Finding("RC05", WARN, f"{source.name}: {doubt.words}", "refclock pps shows the edges as they come")
    if pulse is not None and pulse.jitter_us is not None and pulse.jitter_us > SCATTER_US:
        return _scattered(source.name, pulse.jitter_us)
    return None if pulse is None else Finding("RC05", OK, f"{source.name}: {pulse.words}")


def _scattered(name: str, us: float) -> Finding:
    return Finding("RC05", WARN, f"{name}: pulses scatter by {us:.0f} µs", "use a GPIO pin or a real serial port instead of USB; see RC07")


def console(p: Patient) -> Finding:
    """RC06: is the kernel's console on the receiver's line?"""
    if not p.devices:
        return Finding("RC06", SKIP, "no line to look at")
    used = {p.host.target(d).rpartition("/")[2] for d in p.devices} | {d.rpartition("/")[2] for d in p.devices}
    for word in (p.host.text("/proc/cmdline") or "").split():
        name = word.removeprefix("console=").split(",")[0]
        if word.startswith("console=") and (name in used or p.host.target(f"/dev/{name}").rpartition("/")[2] in used):
            do = f"take {word} out of /boot/firmware/cmdline.txt (or: sudo raspi-config nonint do_serial_cons 1) and reboot"
            return Finding("RC06", FAIL, f"the kernel's console is on the receiver's line ({word})", do)
    return Finding("RC06", OK, "no console on the receiver's line")


def usb(p: Patient) -> Finding:
    """RC07: does the USB adapter delay characters?"""
    if not p.devices:
        return Finding("RC07", SKIP, "no line to look at")
    for device in p.devices:
        name = p.host.target(device).rpartition("/")[2]
        file = f"/sys/bus/usb-serial/devices/{name}/latency_timer"
        held = p.host.number(file)
        if held is not None and held > 1:
            what = f"{device}: the adapter holds characters back for up to {held} ms"
            return Finding("RC07", WARN, what, f"echo 1 | sudo tee {file}", ((file, "1\n"),))
    if any("ttyUSB" in p.host.target(d) or "ttyACM" in p.host.target(d) for d in p.devices):
        return Finding("RC07", OK, "a USB line; pulses over it are good to some 0.1 to 1 ms, over a GPIO pin to microseconds")
    return Finding("RC07", OK, "no USB adapter in between")


def _each(p: Patient, check: str, look: Callable[[SourceStatus], Finding | None], good: str, *, pulses: bool = False) -> Finding:
    """The worst finding of ``look`` at the receivers, and with ``pulses`` at pulses without a receiver; OK with the words ``good`` when it
    finds nothing at any. A receiver that is not there is not examined."""
    if not p.clock:
        return Finding(check, SKIP, NO_DAEMON)
    some = p.sources if pulses else p.receivers
    if not some:
        return Finding(check, SKIP, "no receiver among the sources")
    absent = [Finding(check, SKIP, f"{s.name}: not there: {s.why}") for s in some if not s.present]
    found = [finding for s in some if s.present and (finding := look(s)) is not None]
    return worst([*found, *absent], Finding(check, OK, good))


def _unnamed(check: str, source: SourceStatus) -> Finding | None:
    """What is to be said of seconds that a receiver has not named; None when it names some."""
    return None if source.labels else Finding(check, SKIP, f"{source.name}: it has named no second yet")


def sky(p: Patient) -> Finding:
    """RC08: are fix, satellites and health of the receiver good?"""

    def look(source: SourceStatus) -> Finding | None:
        if (found := source.has(*HEALTH)) is not None:
            return Finding("RC08", WARN, f"{source.name}: {found.words}", "see to antenna and cable; refclock sats")
        if source.fix == "unknown" and source.present:
            return Finding("RC08", SKIP, f"{source.name}: it tells neither fix nor satellites (GGA, GSA, GSV or NAV-SAT would)")
        if source.fix == "none":
            do = "give the antenna a wide view of the sky; a cold start takes up to 15 minutes; refclock sats"
            return Finding("RC08", FAIL, f"{source.name}: no fix, {source.satellites_seen or 0} satellites heard", do)
        if source.satellites_used is not None and source.satellites_used < GOOD_SATELLITES:
            what = f"{source.name}: only {source.satellites_used} satellites used"
            return Finding("RC08", WARN, what, "give the antenna a wider view of the sky")
        return None

    return _each(p, "RC08", look, "fix and satellites are good")


def dates(p: Patient) -> Finding:
    """RC09: are the receiver's dates possible?"""

    def look(source: SourceStatus) -> Finding | None:
        if (found := source.has(*DATES)) is not None:
            do = "set the clock if it is wrong; else update the receiver's firmware, or replace it: its week count has rolled over"
            return Finding("RC09", FAIL, f"{source.name}: {found.words}", do)
        bad = sum(source.rejected.get(reason, 0) for reason in BAD_DATES)
        if bad > source.labels:
            what = f"{source.name}: {bad} labels refused for their date; {source.why}"
            return Finding("RC09", FAIL, what, "update the receiver's firmware, or replace it: its week count has rolled over, or it lies")
        return _unnamed("RC09", source)

    return _each(p, "RC09", look, "the receiver's dates are possible")


def leap_count(p: Patient) -> Finding:
    """RC10: does the receiver know the leap seconds?"""

    def look(source: SourceStatus) -> Finding | None:
        unknown = source.has(Code.LEAP_COUNT_UNKNOWN)
        unresolved = source.rejected.get(Reject.UNRESOLVED) and not source.samples
        if unknown is not None or unresolved:
            why = source.why if unknown is None else unknown.words
            what = f"{source.name}: does not know the leap seconds yet; {why}"
            if p.clock is not None and p.clock.uptime_s < ALMANAC_S:
                return Finding("RC10", SKIP, f"{what}; they come within 13 minutes of a cold start")
            return Finding("RC10", WARN, what, "give the antenna a wider view of the sky: the count is sent every 12.5 minutes")
        return _unnamed("RC10", source)

    return _each(p, "RC10", look, "leap seconds are known")


def message_delay(p: Patient) -> Finding:
    """RC11: is it clear to which pulse a message belongs?"""

    def look(source: SourceStatus) -> Finding | None:
        if (found := source.has(*AMBIGUOUS)) is not None:
            return Finding("RC11", FAIL, f"{source.name}: {found.words}", AMBIGUOUS[found.code])
        delay, spread = source.message_delay_ms, source.message_spread_ms
        if delay is not None and spread is not None and spread > SPREAD_MS and source.pulses:
            what = f"{source.name}: messages arrive {delay:.0f} ms after the pulse (spread {spread:.0f} ms): much for one line"
            return Finding("RC11", WARN, what, "send fewer messages, or raise the baud")
        return None if source.kind == "pps" else _unnamed("RC11", source)

    if p.clock and p.sources and not any(source.pulses for source in p.sources):
        return Finding("RC11", SKIP, "no pulses that messages could belong to")
    return _each(p, "RC11", look, "messages and pulses belong together clearly", pulses=True)


def timing_mode(p: Patient) -> Finding:
    """RC12: does a timing receiver still survey its place?"""

    def look(source: SourceStatus) -> Finding | None:
        if source.has(Code.SURVEYING) is not None:
            return Finding("RC12", OK, f"{source.name}: it surveys its position; the pulse improves when that is done")
        return Finding("RC12", OK, f"{source.name}: {source.timing}") if source.timing else None

    if p.receivers and all(look(source) is None for source in p.receivers):
        return Finding("RC12", SKIP, "no receiver that surveys its position")
    return _each(p, "RC12", look, "")


EXAMINATIONS: Final = (receiver, holders, line, pulses, edges, console, usb, sky, dates, leap_count, message_delay, timing_mode)
