"""``refclock replay FILE``: decodes a receiver's recording with the daemon's own code and prints each second.

It reads two kinds of recording:

* ``.log``: raw bytes of the line; comment lines (``#``) at the head come from the recorder. The file has no arrival times, so synthetic
  ones are made. The most frequent timed sentence marks the cycles. From one cycle to the next, time advances by the receiver's own time
  when that is at most ``PACE_MAX_S``, else by one second. Such times confirm no second, so an NMEA receiver seldom becomes trusted.
* ``.jsonl``: one JSON object a line, ``{"t": arrival, "tag": protocol, "ascii": text}`` (satpulse's packet log) or ``"bin"`` with hex or
  base64. Packets that the host sent (``"out": true``) are skipped. Arrival times are taken as those of a synchronised host, so they may
  confirm the second.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TextIO

from ppsd.process.exit_codes import BAD_DATA, GOOD, IO_ERROR, USAGE, Refused
from ppsd.snapshot import HEALTH
from refclock import BUILD_DATE
from refclock.errors import explain
from refclock.protocols.framing import Frame, FrameKind, Framer
from refclock.protocols.labels import Reject, second_of
from refclock.protocols.nmea import time_ns
from refclock.protocols.reasons import REASONS
from refclock.protocols.stream import ReceiverStream
from refclock.sample import NS, HealthReport, Instant, LeapNotice, SecondLabel, SkyView
from refclock.timescales import DAY_S, LeapTable
from refclock.timing.evidence import Belief, Evidence
from refclock.timing.health import Health

PACE_MAX_S = 5
"""s; the longest step between two cycles that is taken from the receiver's time."""
START = Instant(0, 0)
_TIMED = {b"RMC": 0, b"ZDA": 0, b"GGA": 0, b"GNS": 0}
"""Sentences with the cycle's time -> index of its field after the address."""
_NAV_TIMED = frozenset(b"\x06\x07\x20\x21")
"""Message numbers of NAV-SOL, NAV-PVT, NAV-TIMEGPS and NAV-TIMEUTC, which begin with iTOW in ms."""

Chunk = tuple[bytes, Instant]


def run(args: argparse.Namespace) -> int:
    """Replay one recording."""
    try:
        not_before = date.fromisoformat(args.not_before) if args.not_before else None
    except ValueError:
        raise Refused(USAGE, f"refclock replay: --not-before {args.not_before}: must be a date like 2026-11-21") from None
    return replay(args.file, not_before, args.json, sys.stdout)


def replay(path: Path, not_before: date | None, as_json: bool, out: TextIO) -> int:
    """Decode the recording, print the result, and return the exit code.

    ``not_before``: start of the date window. None: the release's date; with arrival times the day before the first one, if earlier.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        print(f"refclock replay: {explain(error, str(path))}", file=sys.stderr)
        return IO_ERROR
    timed = path.suffix == ".jsonl" or raw.lstrip()[:5] in (b'{"t":', b'{"t" ')
    if timed:
        try:
            chunks = _json_chunks(raw)
        except ValueError as error:
            print(f"refclock replay: {path}: {error}", file=sys.stderr)
            return BAD_DATA
    else:
        chunks = list(_paced(_without_head(raw)))
    if not_before is None:
        not_before = date.fromisoformat(BUILD_DATE)
        if timed and chunks:
            not_before = min(not_before, datetime.fromtimestamp(chunks[0][1].real_ns / NS, UTC).date() - timedelta(days=1))
    recorded = _Run(not_before, timed, as_json, out)
    for data, at in chunks:
        recorded.feed(data, at)
    recorded.finish(path)
    return GOOD


class _Run:
    """The replayed receiver, what speaks for its labels, and the summary."""

    def __init__(self, not_before: date, timed: bool, as_json: bool, out: TextIO) -> None:
        self.not_before = not_before
        self.timed = timed
        self.as_json = as_json
        self.out = out
        self.receiver = ReceiverStream((not_before - date(1970, 1, 1)).days * DAY_S)
        self.evidence = Evidence(unkept_clock=timed)
        self.leaps = LeapTable()
        self.health = Health()
        self.complaints: dict[str, None] = {}  # of the receiver itself, in the order of their coming
        self.doubts: dict[str, None] = {}  # health conditions in words, in the order of their coming
        self.first = self.last = ""
        self.trusted = 0
        self.repaired: Counter[int] = Counter()

    def feed(self, data: bytes, at: Instant) -> None:
        for value in self.receiver.feed(data, at, 0):
            if isinstance(value, LeapNotice):
                self.evidence.notice(value)
            elif isinstance(value, HealthReport):
                self.health.report(value)
                self.doubts |= dict.fromkeys(c.words for c in self.health.conditions(at.mono_ns) if c.code in HEALTH)
            elif isinstance(value, SkyView):
                self.health.sky(value)
            elif isinstance(value, SecondLabel):
                if value.second_60:  # nobody else tells of it here
                    self.leaps = self.leaps.with_leap(value.utc_ns // NS + 1, 1)
                self._line(value, self.evidence.judge(value, self.leaps.utc_to_tai_ns(value.utc_ns, value.second_60)))
        self.complaints |= dict.fromkeys(self.receiver.status().complaints)

    def _line(self, label: SecondLabel, belief: Belief) -> None:
        utc = plain_utc(second_of(label), label.second_60)
        self.first, self.last = self.first or utc, utc
        self.trusted += belief.trusted
        self.repaired[label.weeks_repaired] += 1
        fraction_ms = round((label.utc_ns - second_of(label) * NS) / 1e6)
        if self.as_json:
            line: dict[str, str | bool | int] = {"utc": utc, "sentence": label.sentence, "trusted": belief.trusted, "why": belief.why}
            if fraction_ms:
                line["fraction_ms"] = fraction_ms
            print(json.dumps(line), file=self.out)
            return
        late = f"{(label.at.real_ns - label.utc_ns) / NS:+8.3f} s " if self.timed else ""
        fraction = f" {fraction_ms:+d} ms" if fraction_ms else ""
        print(f"{utc}  {late}{label.sentence:<11} {'yes' if belief.trusted else 'no ':<3} {belief.why}{fraction}", file=self.out)

    def finish(self, path: Path) -> None:
        receiver = self.receiver
        counts, habits = receiver.framer.counts, receiver.framer.habits
        junk = counts["junk-bytes"]
        rejected = {str(reason): n for reason, n in receiver.rejected.most_common()}
        unlabelled = receiver.status().unlabelled
        frames = {kind.value: counts[kind.value] for kind in FrameKind if counts[kind.value]}
        if self.as_json:
            summary = {
                "frames": frames,
                "broken": {name: n for name, n in counts.items() if name not in (*frames, "junk-bytes")},
                "others": dict(sorted(receiver.framer.foreign.items())),
                "junk_bytes": junk,
                "labels": receiver.labels,
                "trusted": self.trusted,
                "rejected": rejected,
                "without_checksum": receiver.nmea.without_checksum,
                "checksum_habit": habits.told,
                "taken_by_habit": habits.taken,
                "protocol": receiver.protocol,
                "receiver": receiver.identity,
                "first": self.first or None,
                "last": self.last or None,
                "not_before": self.not_before.isoformat(),
                "weeks_repaired": 1024 * max(self.repaired, default=0),
                "dates": self._date_verdict(),
                "health": list(self.doubts),
                "complaints": list(self.complaints),
                "unlabelled": unlabelled,
            }
            print(json.dumps({"summary": summary}), file=self.out)
            return
        named = f" ({receiver.identity})" if receiver.identity else ""
        say = [f"{path.name}: {receiver.protocol}{named}, {sum(frames.values())} frames, {junk} bytes of junk"]
        if receiver.labels:
            say.append(f"Seconds: {receiver.labels} offered for time, {self.trusted} of them trusted, {self.first} to {self.last}")
        else:
            say.append("Seconds: none; this recording gives no time")
        if unlabelled:
            say.append(f"Why it names no second by itself: {unlabelled}")
        say += [f"Complaint: {words}" for words in self.complaints]
        others = ", ".join(f"{n} {name}" for name, n in sorted(receiver.framer.foreign.items()))
        if others:
            say.append(f"Other protocols: {others} frames" + (f"; {receiver.advice}" if receiver.advice else ""))
        for reason, n in rejected.items():
            say.append(f"Not used: {n} x {reason_in_words(reason)}")
        if receiver.nmea.without_checksum:
            say.append(f"Warning: {receiver.nmea.without_checksum} sentences have no checksum; taken, for this receiver never sends one")
        elif habits.told is not None:
            say.append(f"Checksums: it {habits.told}; {habits.taken} sentences taken, for it always does")
        say += [f"Health: {words}" for words in self.doubts]
        say.append(f"Dates: {self._date_verdict()}")
        print("\n".join(say), file=self.out)

    def _date_verdict(self) -> str:
        moved = max(self.repaired, default=0)
        if not self.repaired:
            return "none valid"
        if not moved:
            return f"as the receiver states them (not before {self.not_before})"
        return (
            f"week rollover: {1024 * moved} weeks added, because the receiver's own date lies before {self.not_before};"
            " for an old recording give --not-before its date"
        )


def reason_in_words(reason: str) -> str:
    """A reason why a sentence gave no second, with what it means and what to do; the name alone where it speaks for itself."""
    if reason not in set(Reject):
        return reason
    what, remedy = REASONS[Reject(reason)]
    return f"{reason}: it {what}; {remedy}"


def plain_utc(second: int, second_60: bool) -> str:
    """A POSIX second in ISO 8601; with ``second_60`` as 23:59:60, which shares the number of 23:59:59."""
    text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text[:-3] + "60Z" if second_60 else text


def _without_head(raw: bytes) -> bytes:
    """The receiver's bytes: without the comment and blank lines at the head, which come from the recorder."""
    position = 0
    while raw[position : position + 1] == b"#" or (position < len(raw) and raw[position] in b"\r\n"):
        end = raw.find(b"\n", position)
        if end < 0:
            return b""
        position = end + 1
    return raw[position:]


# ---- raw recordings: pace ------------------------------------------------------------------------------------------------------------


def _paced(data: bytes) -> Iterator[Chunk]:
    """The recording cut into cycles, each with a synthetic arrival time."""
    beats = _beats(data)
    position, at = 0, START
    yield b"", at
    for start, advance_ns in beats:
        if start > position:
            yield data[position:start], at
        position, at = start, at.shifted(advance_ns)
    yield data[position:], at


def _beats(data: bytes) -> list[tuple[int, int]]:
    """(position, ns since the previous cycle) of each cycle's first byte."""
    timed = _timed_frames(data)
    tally = Counter(kind for _position, kind, _time in timed)
    if not tally:
        return []
    heart = tally.most_common(1)[0][0]
    beats: list[tuple[int, int]] = []
    last: int | None = None
    lead: list[tuple[int, int | None]] = []  # timed frames since the last beat
    for position, kind, time in timed:
        if kind != heart:
            lead.append((position, time))
            continue
        start = position
        while lead and time is not None and lead[-1][1] == time:  # the most frequent sentence is not always the first of its cycle
            start = lead.pop()[0]
        jump = not _soon(last, time)
        for earlier, its_time in lead:  # cycles without that sentence: between two with it, or beside a jump
            after, before = _soon(last, its_time), _soon(its_time, time)
            if (after and before) or (jump and (after or (before and its_time != last))):
                beats.append((earlier, _step(last, its_time)))
                last = its_time
        lead.clear()
        beats.append((start, _step(last, time)))
        last = time if time is not None else last
    return beats


def _soon(earlier: int | None, later: int | None) -> bool:
    """Whether ``later`` is at most PACE_MAX_S after ``earlier``, also across midnight."""
    return earlier is not None and later is not None and 0 < (later - earlier) % (DAY_S * NS) <= PACE_MAX_S * NS


def _step(last: int | None, time: int | None) -> int:
    return (time - last) % (DAY_S * NS) if time is not None and last is not None and _soon(last, time) else NS


def _timed_frames(data: bytes) -> list[tuple[int, bytes, int | None]]:
    """(position, kind, ns of the day or of the week, None when empty) of every frame that states the cycle's time."""
    found: list[tuple[int, bytes, int | None]] = []
    # Fed with one ns a byte, a frame's stamp is the position of its first byte.
    for frame in Framer().feed(data, Instant(len(data) - 1, len(data) - 1), 1):
        position = frame.at.mono_ns
        if frame.kind is FrameKind.UBX:
            if frame.data[0] == 1 and frame.data[1] in _NAV_TIMED and len(frame.data) >= 6:
                found.append((position, frame.data[:2], int.from_bytes(frame.data[2:6], "little") * 1_000_000 % (DAY_S * NS)))
        elif frame.checksum is not False and _sentence_kind(frame) in _TIMED:
            found.append((position, _sentence_kind(frame), time_ns(frame.data[6:].partition(b",")[0].decode("ascii"))))
    return found


def _sentence_kind(frame: Frame) -> bytes:
    return frame.data[2:5] if frame.data[5:6] == b"," and frame.data[:1] != b"P" else b""


# ---- recordings with arrival times ---------------------------------------------------------------------------------------------------


def _json_chunks(raw: bytes) -> list[Chunk]:
    """The bytes of each line with their arrival; ValueError names the first invalid line."""
    chunks: list[Chunk] = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            record = json.loads(line)
            at_ns = _arrival_ns(record["t"])
            if record.get("out"):
                continue
            data = record["ascii"].encode("latin-1") if "ascii" in record else _binary(record.get("bin", record.get("hex", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'line {number}: not a packet {{"t", "tag", "ascii" or "bin"}}: {error}') from error
        chunks.append((data, Instant(at_ns, at_ns)))
    return chunks


def _arrival_ns(text: str) -> int:
    """POSIX ns of an ISO 8601 time with at most nine decimals."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    second = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
    return int(second.timestamp()) * NS + (int(match[2].ljust(9, "0")) if match[2] else 0)


def _binary(text: str) -> bytes:
    """Decode hex, else base64."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"neither hex nor base64: {error}") from error
