"""The settings of programs that read receivers to a Draft: gpsd's /etc/default/gpsd, and satpulse.toml (satpulse.toml(5))."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ppsd.config.directives import Fate
from ppsd.config.imported import Draft, Line, Settings, whole
from refclock.config import BAUDS

# ---- gpsd -----------------------------------------------------------------------------------------------------------------------------

_OPTIONS_WITH_VALUE: Final = "DFSPsfi"
"""Letters of gpsd's options that are followed by a value (gpsd(8))."""
_STOP_GPSD: Final = (
    "refclock reads the receiver itself then: sudo systemctl disable --now gpsd.socket gpsd. To leave it to gpsd, for programs that want "
    'positions: [[source]] type = "gpsd" instead'
)
_GPSD_WORDS: Final = {
    "START_DAEMON": "the service is started by systemd",
    "USBAUTO": "receivers that are plugged in later are found by themselves",
    "GPSD_SOCKET": "receivers are found when they are plugged in, without a socket",
    "OPTIONS": "",
    "GPSD_OPTIONS": "",
    "DEVICES": "",
}


def _assignments(text: str) -> Iterator[tuple[Line, str]]:
    """(line, value) of each NAME="value" of a file of a shell."""
    for at, raw in enumerate(text.splitlines(), 1):
        match = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", raw)
        if match is None:
            if raw.split() and not raw.lstrip().startswith("#"):
                yield Line(at, tuple(raw.split())), ""
            continue
        try:
            value = " ".join(shlex.split(match[2], comments=True))
        except ValueError:  # a quotation mark is missing
            value = match[2].strip(" \"'")
        yield Line(at, (match[1], *value.split())), value


def _gpsd_options(draft: Draft, line: Line, words: list[str]) -> tuple[int, bool]:
    """(speed, whether the receiver is only read) of gpsd's options."""
    baud, only_read, at = 0, False, 0
    while at < len(words):
        word = words[at]
        at += 1
        letters = word[1:] if word.startswith("-") and not word.startswith("--") else ""
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _OPTIONS_WITH_VALUE:
                value, letters = (letters, "") if letters else (" ".join(words[at : at + 1]), "")
                at += not word[2:]
                baud = (whole(value) or 0) if letter == "s" else baud
            only_read = only_read or letter == "b"
    if baud and baud not in BAUDS:
        draft.tell(line, Fate.WRONG, f"{baud} is no speed of a receiver: it is found")
        baud = 0
    draft.tell(
        line, Fate.NOT_NEEDED, "the receiver is read from the start (-n), and the clock is not set by gpsd; -s and -b are taken over"
    )
    return baud, only_read


def import_gpsd(text: str, origin: str) -> Draft:
    """A file /etc/default/gpsd: its devices become sources, and its other settings are told."""
    draft, baud, only_read = Draft(origin), 0, False
    devices: list[tuple[Line, str]] = []
    last = Line(0, ("gpsd",))
    for line, value in _assignments(text):
        draft.lines.append(line)
        name = line.words[0]
        if name == "DEVICES":
            devices, last = [(line, device) for device in value.split()], line
        elif name in ("GPSD_OPTIONS", "OPTIONS"):
            baud, only_read = _gpsd_options(draft, line, value.split())
            devices += [(line, word) for word in value.split() if word.startswith("/dev/")]
        elif name in _GPSD_WORDS:
            draft.tell(line, Fate.NOT_NEEDED, _GPSD_WORDS[name])
        else:
            draft.tell(line, Fate.WRONG, "no such setting is known")
    receivers: list[Settings] = []
    pulses: list[tuple[Line, str]] = []
    for line, device in devices:
        if re.match(r"/dev/pps\d", device):
            pulses.append((line, device))
        elif device.startswith("/"):
            receivers.append(draft.source("receiver", line, device=device))
        else:
            draft.tell(line, Fate.MISSING, "receivers elsewhere in the network are not read: run refclock there, or leave that one to gpsd")
    for index, (line, device) in enumerate(pulses):
        if index < len(receivers):
            receivers[index].keys["pps"] = device
        else:
            draft.source("pps", line, pps=device)
    if not draft.sources:
        draft.source("receiver", last, device="auto")
        draft.tell(last, Fate.TAKEN, "no device is named, so the receiver is looked for, as gpsd's udev rule does")
    for source in receivers:
        if baud:
            source.keys["baud"] = baud
        if only_read:
            source.keys["configure"] = False
    draft.tell(last, Fate.TAKEN, _STOP_GPSD)
    return draft


# ---- satpulse -------------------------------------------------------------------------------------------------------------------------

_LIGHT_M_PER_NS: Final = 0.299792458
"""m/ns; the speed of light."""
_VELOCITY_FACTOR: Final = 0.66
"""Of light's speed in an antenna's cable, when it is not stated (satpulse.toml(5))."""
_SURVEY_S: Final = 2000
"""s; satpulse's survey when it is not stated."""


def _flat(table: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every value of a TOML table; the elements of an array of tables have one name."""
    for name, value in table.items():
        dotted = f"{at}.{name}" if at else name
        if isinstance(value, dict):
            yield from _flat(value, dotted)
        elif isinstance(value, list) and value and all(isinstance(element, dict) for element in value):
            for element in value:
                yield from _flat(element, dotted)
        else:
            yield dotted, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _place(value: Any, lead: str) -> str:
    """An array of three numbers as fixed_position has it."""
    if isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)):
        return lead + " ".join(f"{float(number):.10g}" for number in value)
    return "?"


_PHC: Final = "pulses on a network card (PTP hardware clocks) are no source so far: wire the pulse to a GPIO pin or a serial line as well"
_PTP: Final = "PTP is not served"
_SATPULSE: Final = {
    "gps.vendor": (Fate.NOT_NEEDED, "what a receiver speaks is found by listening"),
    "gps.surveyAcc": (Fate.NOT_NEEDED, "the survey ends after its time, with position_accuracy_m as its aim"),
    "gps.resurvey": (Fate.NOT_NEEDED, "a survey begins anew when the receiver has lost its position"),
    "gps.minElevation": (Fate.MISSING, "the lowest elevation stays as the receiver has it"),
    "gps.timeGNSS": (Fate.MISSING, "the pulse follows UTC (time_base); by which system it does is left to the receiver"),
    "gps.rtcm": (Fate.MISSING, "corrections for other receivers are not sent"),
    "gps.satellitesOutput": (Fate.NOT_NEEDED, "the sky is asked for as the line's speed allows"),
    "leapSecond": (Fate.NOT_NEEDED, "the table of leap seconds is leap.file; tzdata ships it"),
    "ntp.shm.precision": (Fate.NOT_NEEDED, "each sample says how precise it is"),
    "log.interval": (Fate.NOT_NEEDED, "the log tells what changes"),
    "log": (Fate.MISSING, "logs of measurements; refclock nmea and refclock status --json show them"),
    "phc": (Fate.MISSING, _PHC),
    "ptp": (Fate.MISSING, _PTP),
    "sync": (Fate.NOT_NEEDED, "how the clock follows is learned, without tuning"),
    "http": (Fate.MISSING, "there is no page of its own so far: refclock status, refclock sats"),
    "proxy": (Fate.MISSING, "the line is not offered to the network; refclock nmea shows it"),
    "ntrip": (Fate.MISSING, "corrections for other receivers are not sent"),
    "stream": (Fate.MISSING, "corrections are neither fetched nor sent"),
    "user": (Fate.MISSING, "there is nothing that users could log in to"),
}
"""What is no setting here, by the beginning of its name; the longest counts."""


def import_satpulse(text: str, origin: str) -> Draft:
    """A satpulse.toml: its receiver becomes a source, and its NTP samples a feed."""
    draft = Draft(origin)
    try:
        told = dict(_flat(tomllib.loads(text)))
    except (ValueError, RecursionError) as error:  # no TOML, or a number of thousands of digits
        draft.tell(Line(0, ("satpulse.toml",)), Fate.WRONG, f"it is no TOML: {str(error)[:200]}")
        told = {}
    where = {match[1]: at for at, raw in enumerate(text.splitlines(), 1) if (match := re.match(r"\s*(?:\w+\.)*(\w+)\s*=", raw))}

    def line_of(name: str) -> Line:
        last = name.rpartition(".")[2]
        return Line(where.get(last, 0), (name, "=", repr(told.get(name, ""))))

    source = draft.source("receiver", line_of("serial.device") if "serial.device" in told else Line(0, ("satpulse",)))
    feed: Callable[[str, str, str], None] = lambda name, kind, key: draft.feeds.append(Settings(kind, line_of(name), {key: told[name]}))  # noqa: E731
    direct = {"serial.device": "device", "serial.speed": "baud", "gps.fixedPosAcc": "position_accuracy_m", "gps.surveyTime": "survey_in_s"}
    cable_ns = 0.0
    for name, value in told.items():
        line = line_of(name)
        if name in direct and isinstance(value, str | int | float):
            source.keys[direct[name]] = (
                round(value) if name == "gps.surveyTime" and isinstance(value, float) and _is_number(value) else value
            )
        elif name == "gps.config":
            source.keys["configure"] = value is True
        elif name == "gps.mobile" and isinstance(value, bool):
            source.keys["stationary"] = not value
        elif name in ("gps.fixedPosLLH", "gps.fixedPosECEF"):
            source.keys["fixed_position"] = _place(value, "ecef " if name.endswith("ECEF") else "")
        elif name == "gps.antennaCableDelay" and _is_number(value):
            cable_ns += value
        elif name == "gps.antennaCableLength" and _is_number(value):
            factor = told.get("gps.antennaCableVF", _VELOCITY_FACTOR)
            cable_ns += value / (_LIGHT_M_PER_NS * (factor if _is_number(factor) and factor > 0.1 else _VELOCITY_FACTOR))
        elif name == "gps.antennaCableVF":
            draft.tell(line, Fate.TAKEN, "as part of cable_delay_ns")
        elif name == "ntp.sock.path":
            feed(name, "sock", "path")
        elif name == "ntp.shm.segment":
            feed(name, "shm", "unit")
        elif name == "log.verbose":
            draft.put("log", "level", "debug" if value is True else "info", line)
        else:
            known = [
                begin
                for begin in _SATPULSE
                if name == begin or name.startswith(begin + ".") or (begin == "gps.rtcm" and name.startswith(begin))
            ]
            fate, what = _SATPULSE[max(known, key=len)] if known else (Fate.WRONG, "no such setting is known")
            draft.tell(line, fate, what)
    if cable_ns:
        source.keys["cable_delay_ns"] = round(cable_ns)
    if source.keys.get("configure") is not True:
        source.keys["configure"] = False
        draft.tell(
            Line(0, ("gps.config",)), Fate.TAKEN, "the receiver is left as it is, as satpulse does by default; configure = true sets it up"
        )
    elif "survey_in_s" not in source.keys:
        source.keys["survey_in_s"] = _SURVEY_S
    return draft
