"""What ``refclock top`` shows: a screen of styled text, from what the daemon said last and in the minutes before. Pure.

The first lines are the state, the last one the keys. Between them is the pane that was chosen. Every line fits the width, and there are
never more lines than the terminal has. A terminal without the characters that are drawn with gets others (``Look.plain``).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ppsd.faces import chronyc
from ppsd.faces.sky import by_signal, designation, sky
from ppsd.faces.text import plain_duration, plain_ns, server_line, sources_in_words, system_clock, top_line
from ppsd.snapshot import Client, ServerReport, Snapshot, SourceStatus, Verdict
from refclock.sample import Satellite


class Style(Enum):
    """How text looks; the terminal decides how it does that."""

    PLAIN = ""
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    CAUTION = "caution"
    BAD = "bad"
    NEWS = "news"
    TITLE = "title"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]


class Pane(Enum):
    """What is shown below the state, and its name."""

    OVERVIEW = "overview"
    SATELLITES = "satellites"
    CLIENTS = "clients"
    SOURCES = "sources"
    SERVER = "server"
    HELP = "help"


@dataclass(frozen=True, slots=True)
class Look:
    """How the screen is to look. ``plain``: what stands for characters that the terminal lacks; None: it has them all. ``first``: the row
    of a list that is shown first. ``zoom_s``: seconds in a column of the curves."""

    width: int
    height: int
    plain: Mapping[str, str] | None = None
    pane: Pane = Pane.OVERVIEW
    first: int = 0
    zoom_s: int = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """What the daemon said at one time. ``at_s``: of any clock that only grows. ``offset_ns``: the served time minus the selected source's
    last sample, the sign of chronyc."""

    at_s: float
    offset_ns: int | None
    bound_ns: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to show. ``clients``: the latest first, or why there are none; ``known``: how many the server knows. ``moments``: the
    oldest first. ``gone``: why the daemon does not answer now, "" while it does. ``news``: what happened to it lately, or "". ``failed``:
    why the time does not reach those whom it is for, or "". ``host``: this machine's name."""

    clock: Snapshot
    server: ServerReport | str
    clients: Sequence[Client] | str
    known: int
    moments: Sequence[Moment]
    now_s: float
    gone: str = ""
    news: str = ""
    failed: str = ""
    host: str = ""


def moment(clock: Snapshot, at_s: float) -> Moment:
    """What is kept of a snapshot for the curves."""
    selected = clock.selected or clock.followed
    known = selected is not None and selected.offset_ns is not None
    return Moment(at_s, round(chronyc.offset_s(selected) * 1e9) if known and selected is not None else None, clock.bound_ns)


ZOOMS: Final = (1, 5, 15, 60)
"""s in a column, from which ``+`` and ``-`` choose."""
NARROW, LOW = 40, 8
"""Columns and lines of a terminal that has room for the state alone."""
SIDE: Final = 9
"""Columns of the numbers beside a curve."""
VERDICTS: Final = {
    Verdict.LOCKED: Style.GOOD,
    Verdict.HOLDOVER: Style.CAUTION,
    Verdict.FALLBACK: Style.CAUTION,
    Verdict.ACQUIRING: Style.NEWS,
    Verdict.NO_TIME: Style.BAD,
}
TALLIES: Final = {"*": Style.GOOD, "+": Style.GOOD, "x": Style.BAD, "~": Style.CAUTION, "?": Style.CAUTION}
STRONG_SIGNAL, WEAK_SIGNAL = 35, 25
"""dB-Hz: what an antenna with a free sky brings, and what is hardly followed."""
KEYS: Final = (
    ("q", "quit"), ("h", "help"), ("s", "satellites"), ("c", "clients"), ("p", "sources"), ("v", "server"), ("o", "overview"),
    ("+-", "zoom"),
)  # fmt: skip
HELP: Final = (
    ("q, ^C", "end"),
    ("h, ?", "this text; once more: back to the overview"),
    ("o, Esc", "overview: offset and bound, sources, satellites, clients"),
    ("s", "satellites, as a table and as the sky"),
    ("c, m", "clients: who asks for the time, the latest first"),
    ("p, d", "sources in detail, and what is the matter with them"),
    ("v", "the server: requests by what became of them"),
    ("space", "the next of these"),
    ("j k, arrows", "down and up in a list; also PgDn, PgUp, Home, End"),
    ("+ -", "longer or shorter time on the curves: 1, 5, 15 or 60 s in a column"),
    ("r, ^L", "draw anew"),
)
MARKS: Final = (
    "Offset  the served time minus the selected source's last sample, the sign of chronyc",
    "Bound   how far the served time may be off: that is claimed, and it is served",
    "Sources as in chronyc sources: * selected, + agrees, - not used, x falseticker, ~ too variable, ? unusable",
    "Signal  of a satellite in dB-Hz; in brackets, or a hollow bar: seen, but not used",
)


def screen(seen: Seen, look: Look) -> tuple[list[Line], int]:
    """The lines of the screen, at most as many as the terminal has; and the row of the list that is the first one shown."""
    head, first = _head(seen, look), 0
    if look.width < NARROW or look.height < LOW:
        return [_fit(line, look) for line in head[: look.height]], first
    room = look.height - len(head) - 1
    match look.pane:
        case Pane.OVERVIEW:
            body = _overview(seen, look, room)
        case Pane.SATELLITES:
            body, first = _scrolled("Satellites", _satellites(seen.clock, look), look, room)
        case Pane.CLIENTS:
            body, first = _clients_pane(seen, look, room)
        case Pane.SOURCES:
            body, first = _scrolled("Sources", _sources_in_words(seen.clock, look), look, room)
        case Pane.SERVER:
            body, first = _scrolled("Server", _server(seen, look), look, room)
        case Pane.HELP:
            body, first = _scrolled("Help", _help(look), look, room)
    body = body[:room]
    if seen.gone:
        body = [tuple(Span(span.text, Style.FAINT) for span in line) for line in body]
    body += [()] * (room - len(body))
    return [_fit(line, look) for line in (*head, *body, _keys(look))], first


# ---- lines ------------------------------------------------------------------------------------------------------------------------------


def _fit(line: Line, look: Look) -> Line:
    """The line in the characters of the terminal, cut at its width. What would take no column, or two, is shown as a question mark."""
    spans, left = list[Span](), look.width
    for span in line:
        text = _in_characters(span.text, look)
        if not (text.isascii() and text.isprintable()):
            text = "".join(c if _is_narrow(c) else "?" for c in text)
        text = text[:left]
        left -= len(text)
        if text:
            spans.append(Span(text, span.style))
    return tuple(spans)


def _is_narrow(c: str) -> bool:
    return c.isprintable() and not unicodedata.combining(c) and unicodedata.east_asian_width(c) not in ("W", "F")


def _length(line: Line) -> int:
    return sum(len(span.text) for span in line)


def _in_characters(text: str, look: Look) -> str:
    """The text in the characters that the terminal has."""
    return text if look.plain is None or text.isascii() else "".join(c if c.isascii() else look.plain.get(c, "?") for c in text)


def _wrapped(text: str, look: Look, indent: str = "  ") -> list[str]:
    """A sentence on as many lines as it needs."""
    text, width, lines, line = _in_characters(text, look), look.width, list[str](), ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line.strip() else f"{line}{word}"
        if len(longer) <= width or not line.strip():
            line = longer
        else:
            lines.append(line)
            line = indent + word
    return [*lines, line]


def _heading(name: str, words: str, width: int, right: str = "") -> Line:
    """A heading with a rule behind it, and ``right`` near its end."""
    end = f" {right} ─" if right else ""
    told = f" {words} " if words else " "
    rule = "─" * max(0, width - len(name) - len(told) - 2 - len(end))
    return (Span("─ ", Style.FAINT), Span(name, Style.STRONG), Span(told), Span(rule + end, Style.FAINT))


def _beside(left: Sequence[Line], width: int, right: Sequence[Line]) -> list[Line]:
    """Two columns, the first one ``width`` wide."""
    rows = []
    for i in range(max(len(left), len(right))):
        line = left[i] if i < len(left) else ()
        rows.append((*line, Span(" " * max(0, width - _length(line))), *(right[i] if i < len(right) else ())))
    return rows


def _scrolled(name: str, rows: Sequence[Line], look: Look, room: int, above: Sequence[Line] = ()) -> tuple[list[Line], int]:
    """A list below its heading and the lines ``above``, from the row that is to be the first; and which that is."""
    space = room - 1 - len(above)
    first = max(0, min(look.first, len(rows) - space))
    last = min(len(rows), first + space)
    where = f"{first + 1} to {last} of {len(rows)}" if len(rows) > space else ""
    return [_heading(name, where, look.width), *above, *rows[first:last]], first


def _head(seen: Seen, look: Look) -> list[Line]:
    """Title, state, stages and news."""
    clock, width = seen.clock, look.width
    name, utc = f" refclock {clock.version}{f' on {seen.host}' if seen.host else ''} ", f"{clock.utc[:19].replace('T', ' ')} UTC "
    title = f"{name}{utc.rjust(width - len(name))}" if len(name) + len(utc) <= width else utc
    lines: list[Line] = [(Span(title[:width].ljust(width), Style.TITLE),)]
    if seen.gone:
        lines += [(Span(text, Style.BAD),) for text in _wrapped(seen.gone, look)]
        return [*lines, (Span(f"What follows is as of {clock.utc[11:19]} UTC.", Style.FAINT),)]
    first, *rest = _wrapped(top_line(clock, seen.failed), look)
    word = f"SIMULATED {clock.verdict}" if clock.simulated else str(clock.verdict)
    end = 0 if seen.failed or not first.startswith(word) else len(word)
    lines.append((Span(first[:end], VERDICTS[clock.verdict]), Span(first[end:], Style.BAD if seen.failed else Style.PLAIN)))
    lines += [(Span(text),) for text in rest]
    if not all(done for _, done in clock.stages):
        stages = (Span(f"[{'x' if done else ' '}] {stage}  ", Style.GOOD if done else Style.PLAIN) for stage, done in clock.stages)
        lines.append(tuple(stages))
    if seen.news:
        lines.append((Span(seen.news, Style.NEWS),))
    return lines


def _keys(look: Look) -> Line:
    """The keys, as many as have room; the present pane's is marked."""
    spans: list[Span] = []
    for key, what in KEYS:
        here = what == look.pane.value
        more = [Span(f" {key}", Style.STRONG), Span(f" {what} ", Style.TITLE if here else Style.FAINT)]
        if _length((*spans, *more)) > look.width:
            break
        spans += more
    return tuple(spans)


# ---- the overview -----------------------------------------------------------------------------------------------------------------------


def _overview(seen: Seen, look: Look, room: int) -> list[Line]:
    """Curves, sources, satellites beside clients, and the server; the curves get what the others leave, a lower and an upper limit."""
    width = look.width
    server = _server_lines(seen, look)
    sources = _sources(seen.clock, width, max(1, min(len(chronyc.every(seen.clock)), room // 6)))
    receiver = _receiver(seen.clock)
    satellites = -(-len(receiver.satellites if receiver else ()) // max(1, _satellite_columns(width)))
    people = len(seen.clients) if not isinstance(seen.clients, str) else 1
    lower = max(3, satellites, min(people, 12)) + 1
    curves = room - len(server) - len(sources) - lower
    offset_rows = max(3, min(15, (curves - 2) * 2 // 3))
    bound_rows = max(2, min(8, curves - 2 - offset_rows))
    body = [*_offset_curve(seen, look, offset_rows), *_bound_curve(seen, look, bound_rows), *sources]
    lower = max(2, room - len(body) - len(server))
    return [*body, *_lower(seen, look, lower), *server]


def _across(look: Look) -> str:
    """The time on the curves."""
    return f"{plain_duration((look.width - SIDE - 1) * look.zoom_s)} across"


def _columns(seen: Seen, look: Look, count: int) -> list[list[Moment]]:
    """The moments of each of ``count`` columns of the curves, the newest last."""
    found: list[list[Moment]] = [[] for _ in range(count)]
    newest = math.floor(seen.now_s / look.zoom_s)
    for one in seen.moments:
        # At a look a second each has a column of its own, although looks are not quite a second apart.
        back = round(seen.now_s - one.at_s) if look.zoom_s == 1 else newest - math.floor(one.at_s / look.zoom_s)
        if 0 <= back < count:
            found[count - 1 - back].append(one)
    return found


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if value <= step * power * (1 + 1e-9))


def _offset_curve(seen: Seen, look: Look, rows: int) -> list[Line]:
    """The offset as dots about zero: a column has those of one time, four dots a row where the terminal has them."""
    count = look.width - SIDE - 1
    columns = [[m.offset_ns for m in column if m.offset_ns is not None] for column in _columns(seen, look, count)]
    known = [value for column in columns for value in column]
    last = next((m.offset_ns for m in reversed(seen.moments)), None)
    words = "no source is selected" if last is None else f"{_signed(last)}"
    if known:
        rms = math.sqrt(sum(value * value for value in known) / len(known))
        words += f", rms {plain_ns(rms)}"
    scale = round_up(max((abs(value) for value in known), default=1.0))
    cells = _dots(columns, scale, rows, look.plain is not None)
    labels = {0: f"+{plain_ns(scale)}", rows // 2: "0", rows - 1: f"-{plain_ns(scale)}"} if known else {rows // 2: "0"}
    heading = _heading("Offset", words, look.width, _across(look))
    body = [(Span(f"{labels.get(i, ''):>{SIDE}} ", Style.FAINT), Span(row, Style.NEWS)) for i, row in enumerate(cells)]
    return [heading, *body]


BRAILLE: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bits of the left and of the right dots of a braille character, from above (Unicode, U+2800)."""


def _dots(columns: Sequence[Sequence[int]], scale: float, rows: int, plain: bool) -> list[str]:
    """Points between +scale and -scale. Zero is a line. With braille each character has 2 by 4 places: what belongs to one column is spread
    over both halves."""
    steps = rows if plain else 4 * rows
    grid = [[0] * len(columns) for _ in range(rows)]
    for x, values in enumerate(columns):
        for n, value in enumerate(values):
            y = max(0, min(steps - 1, math.floor((scale - value) / (2 * scale) * steps)))
            half = 2 * n // len(values)
            grid[y if plain else y // 4][x] |= 1 if plain else BRAILLE[half][y % 4] | (BRAILLE[1][y % 4] if len(values) == 1 else 0)
    lines = []
    for i, row in enumerate(grid):
        axis = ("-" if plain else "┄") if i == rows // 2 else " "
        lines.append("".join(axis if not cell else "*" if plain else chr(0x2800 + cell) for cell in row))
    return lines


def _signed(ns: float) -> str:
    return f"{'+' if ns >= 0 else '-'}{plain_ns(abs(ns))}"


def _bound_curve(seen: Seen, look: Look, rows: int) -> list[Line]:
    """The bound as columns above zero; each has the largest of its time."""
    count = look.width - SIDE - 1
    columns = [max((m.bound_ns for m in column if m.bound_ns is not None), default=None) for column in _columns(seen, look, count)]
    known = [value for value in columns if value is not None]
    last = seen.clock.bound_ns
    scale = round_up(max(known, default=1))
    words = "none: no time is served" if last is None else f"±{plain_ns(last)}"
    labels = {0: plain_ns(scale), rows - 1: "0"} if known else {rows - 1: "0"}
    levels = " .:|" if look.plain is not None else " ▁▂▃▄▅▆▇█"
    style = VERDICTS[seen.clock.verdict]
    body = [
        (Span(f"{labels.get(i, ''):>{SIDE}} ", Style.FAINT), Span(row, style)) for i, row in enumerate(_bars(columns, scale, rows, levels))
    ]
    return [_heading("Bound", words, look.width, _across(look)), *body]


def _bars(columns: Sequence[int | None], scale: float, rows: int, levels: str) -> list[str]:
    """Columns of ``rows`` characters, of which each has as many steps as there are ``levels`` besides the blank."""
    steps = len(levels) - 1
    heights = [0 if value is None else max(1, min(rows * steps, round(value / scale * rows * steps))) for value in columns]
    return ["".join(levels[max(0, min(steps, h - (rows - 1 - i) * steps))] for h in heights) for i in range(rows)]


def _sources(clock: Snapshot, width: int, most: int) -> list[Line]:
    """The sources as ``chronyc sources`` prints them, the selected one first."""
    lines = chronyc.sources(clock).text.splitlines()
    rows = sorted(zip(chronyc.every(clock), lines[2:], strict=True), key=lambda pair: "*+-~?x".find(pair[0].tally))
    shown = [(Span(line, TALLIES.get(s.tally, Style.PLAIN)),) for s, line in rows[:most]]
    words = f"{len(rows)}" + (f", {most} shown" if len(rows) > most else "")
    named: list[Line] = [_heading("Sources", words, width)]
    return [*named, (Span(lines[0], Style.FAINT),), *(shown or [(Span("no source", Style.CAUTION),)])]


def _receiver(clock: Snapshot) -> SourceStatus | None:
    """The receiver whose satellites are shown: the selected one, or the first that tells of any."""
    selected = clock.selected
    if selected is not None and selected.satellites:
        return selected
    return next((s for s in clock.sources if s.satellites), None)


CELL: Final = 19
"""Columns of a satellite with its bar."""


def _satellite_columns(width: int) -> int:
    """Satellites side by side in the left part of the overview."""
    return max(1, (width // 2 - 1) // CELL) if width < 120 else 3


def _lower(seen: Seen, look: Look, rows: int) -> list[Line]:
    """Satellites on the left, clients on the right."""
    beside = _satellite_columns(look.width)
    left_width = max(beside * CELL + 1, look.width // 2 if look.width < 120 else 0)
    receiver = _receiver(seen.clock)
    if receiver is None:
        left = [_heading("Satellites", "", left_width - 2), (Span("no receiver tells of any", Style.FAINT),)]
    else:
        fix = f"fix {receiver.fix}, {receiver.satellites_used} of {receiver.satellites_seen} used"
        left = [_heading("Satellites", fix, left_width - 2), *_bars_of(receiver.satellites, beside, rows - 1)]
    right_width = look.width - left_width
    right = [_heading("Clients", _clients_words(seen), right_width), *_clients(seen, rows - 1, right_width)]
    return _beside(left[:rows], left_width, right[:rows])


def _bars_of(satellites: Sequence[Satellite], beside: int, rows: int) -> list[Line]:
    """Satellites with their signals, the strongest first, column by column."""
    ordered = by_signal(satellites)
    deep = min(rows, -(-len(ordered) // beside))
    lines = []
    for i in range(deep):
        spans: list[Span] = []
        for s in ordered[i::deep][:beside] if deep else ():
            spans += _bar(s, CELL - 10)
        lines.append(tuple(spans))
    return lines


def _bar(s: Satellite, width: int) -> list[Span]:
    """A satellite's name, its signal as a bar of ``width``, and as a number."""
    signal = s.snr or 0
    filled = max(0, min(width, round((signal - 10) / 40 * width)))
    style = Style.FAINT if not s.used else Style.GOOD if signal >= STRONG_SIGNAL else Style.CAUTION if signal >= WEAK_SIGNAL else Style.BAD
    drawn = ("■" if s.used else "□") * filled
    return [
        Span(f"{designation(s):<4}", Style.PLAIN if s.used else Style.FAINT),
        Span(f"{drawn:<{width}} ", style),
        Span(f"{signal or '-':>2}   "),
    ]


def _clients_words(seen: Seen) -> str:
    return "" if isinstance(seen.clients, str) else str(seen.known)


def _clients(seen: Seen, rows: int, width: int) -> list[Line]:
    """The latest clients in short: address, requests, the mean interval, and how long ago the last one was."""
    if isinstance(seen.clients, str):
        return [(Span(seen.clients, Style.FAINT),)]
    if not seen.clients:
        return [(Span("nobody has asked yet", Style.FAINT),)]
    name = max(10, min(39, width - 22))
    lines: list[Line] = [(Span(f"{'Address':<{name}} {'Asked':>8} {'Every':>5} {'Last':>5}", Style.FAINT),)]
    for c in seen.clients[: rows - 1]:
        text = f"{_address(c, name)} {c.packets:>8} {_short(c.interval_s):>5} {_short(c.last_s):>5}"
        lines.append((Span(text, Style.CAUTION if c.drops else Style.PLAIN),))
    return lines


def _address(client: Client, width: int) -> str:
    """A client's address in its column; a longer one is cut, and marked as cut."""
    address = client.address
    return f"{address:<{width}}" if len(address) <= width else f"{address[: width - 1]}>"


def _short(s: float | None) -> str:
    """A duration in at most five columns; - when unknown."""
    if s is None:
        return "-"
    for limit, unit, scale in ((100, "s", 1), (6000, "m", 60), (172_800, "h", 3600)):
        if s < limit:
            return f"{s / scale:.{1 if s < 10 else 0}f}{unit}"
    return f"{s / 86_400:.0f}d"


def _server_lines(seen: Seen, look: Look) -> list[Line]:
    """The server and the system clock in a sentence."""
    words = f"{server_line(seen.server)}; system clock: {system_clock(seen.clock)}"
    wanting = isinstance(seen.server, str) and bool(seen.clock.listen)
    style = Style.BAD if wanting else Style.PLAIN
    return [_heading("Server", "", look.width), *((Span(text, style),) for text in _wrapped(words.removeprefix("server: "), look)[:2])]


# ---- the other panes --------------------------------------------------------------------------------------------------------------------


def _satellites(clock: Snapshot, look: Look) -> list[Line]:
    """Every receiver's satellites, and the sky beside them, or below them where there is no room."""
    lines: list[Line] = []
    for source in clock.sources:
        if not source.satellites:
            continue
        some = by_signal(source.satellites)
        table: list[Line] = [
            (Span(f"{source.name}: fix {source.fix}, {source.satellites_used} of {source.satellites_seen} used", Style.STRONG),),
            (Span("satellite  elev. azim. signal", Style.FAINT),),
        ]
        for s in some:
            angles = [("-" if value is None else f"{value}°") for value in (s.elevation, s.azimuth)]
            name = Span(f"{designation(s):<4} {'used' if s.used else '':<5} {angles[0]:>5} {angles[1]:>5}  ")
            table.append((name, *_bar(s, 10)[1:]))
        plot: list[Line] = [(Span(row),) for row in sky(some).splitlines()]
        lines += _beside(table, 43, plot) if look.width >= 92 else [*table, (), *plot]
        lines.append(())
    return lines or [(Span("no receiver tells of satellites (it sends no GSV or NAV-SAT, or there is none)", Style.FAINT),)]


def _clients_pane(seen: Seen, look: Look, room: int) -> tuple[list[Line], int]:
    """The clients in detail, as ``refclock clients -v``."""
    if isinstance(seen.clients, str):
        return _scrolled("Clients", [(Span(text, Style.CAUTION),) for text in _wrapped(seen.clients, look)], look, room)
    name = max(15, min(45, look.width - 51))
    head = f"{'Address':<{name}} {'Asked':>9} {'Drops':>7} {'Every':>6} {'Last':>6} {'Known':>6} V Mode"
    rows: list[Line] = []
    for c in seen.clients:
        mode = "+".join(word for word, on in (("nts" if c.nts else "key", c.authenticated), ("inter", c.interleaved)) if on) or "basic"
        ages = f"{_short(c.interval_s):>6} {_short(c.last_s):>6} {_short(c.first_s):>6}"
        text = f"{_address(c, name)} {c.packets:>9} {c.drops:>7} {ages} {c.version} {mode}"
        rows.append((Span(text, Style.CAUTION if c.drops else Style.PLAIN),))
    rest = seen.known - len(rows)
    if rest > 0:
        rows.append((Span(f"... and {rest} more: refclock clients -n {min(seen.known, 2000)}", Style.FAINT),))
    return _scrolled("Clients", rows or [(Span("nobody has asked yet", Style.FAINT),)], look, room, [(Span(head, Style.FAINT),)])


def _sources_in_words(clock: Snapshot, look: Look) -> list[Line]:
    """The sources as ``refclock status`` tells them, and what else is the matter."""
    lines: list[Line] = []
    for text in sources_in_words(clock) or ["no source"]:
        style = TALLIES.get(text[:1], Style.PLAIN)
        first, *rest = _wrapped(text, look, "    ")
        lines += [(Span(first, style),), *((Span(more),) for more in rest)]
    told = [clock.temperature.words] if clock.temperature else []
    for words in dict.fromkeys((*told, *(c.words for c in clock.conditions))):
        lines += [(Span(text, Style.CAUTION),) for text in _wrapped(words, look)]
    return lines


def _server(seen: Seen, look: Look) -> list[Line]:
    """The server's addresses, and every counter."""
    server = seen.server
    if isinstance(server, str):
        return [(Span(f"the server is {server}", Style.BAD if seen.clock.listen else Style.PLAIN),)]
    lines: list[Line] = [(Span(text),) for text in _wrapped(f"serves {', '.join(server.addresses) or 'nobody'}", look)]
    for one in server.unserved:
        if not one.harmless:
            lines += [(Span(text, Style.CAUTION),) for text in _wrapped(f"not on {one.address}: {one.why}", look)]
    lines += [(Span(f"up {plain_duration(server.uptime_s)}, {seen.known} clients known"),), ()]
    counted = [(f"{action}: {reason.replace('_', ' ')}", n) for action, reasons in server.counters.items() for reason, n in reasons.items()]
    beside = max(1, look.width // 40)
    deep = -(-len(counted) // beside)
    for i in range(deep):
        lines.append(tuple(Span(f"{what:<27} {n:>10}  ", Style.PLAIN if n else Style.FAINT) for what, n in counted[i::deep]))
    return lines


def _help(look: Look) -> list[Line]:
    lines: list[Line] = [(Span(f"  {key:<12}", Style.STRONG), Span(what)) for key, what in HELP]
    lines.append(())
    for words in MARKS:
        lines += [(Span(text),) for text in _wrapped(words, look, " " * 8)]
    return lines
