"""What a receiver is really set to, beside what is wanted: questions, and their answers in plain words.

It changes nothing.

Flow: identity + TimingProfile -> ``questions`` -> ``commands.CommandQueue`` -> what was told -> ``findings`` -> ``refclock receiver show``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from refclock.protocols.ubx import NAV_SVIN, TIM_SVIN, survey
from refclock.receiver import ubx_settings as ubx
from refclock.receiver.commands import Item, pmtk, question
from refclock.receiver.configure import (
    JAMMING_NAME,
    MEANINGS,
    MTK_ANSWER,
    MTK_FIELDS,
    PULSE_NAME,
    RATE_NAME,
    STILL_NAME,
    TIMING_NAME,
    Family,
    family,
    mtk_sentences,
    output,
    satisfied,
    settings,
)
from refclock.receiver.profile import TimingProfile
from refclock.sample import Survey

SURVEY_NAME: Final = "survey"
_LAYOUTS: Final = {
    RATE_NAME: (ubx.RATE,),
    PULSE_NAME: (ubx.TP5,),
    STILL_NAME: (ubx.NAV5,),
    JAMMING_NAME: (ubx.ITFM,),
    TIMING_NAME: (ubx.TMODE2, ubx.TMODE3),
}
_KEYS: Final = {
    RATE_NAME: (ubx.RATE_MEAS, ubx.RATE_NAV, ubx.RATE_TIMEREF),
    PULSE_NAME: (ubx.TP_CABLE, ubx.TP_ENA, ubx.TP_GRID, ubx.TP_LEN, ubx.TP_LEN_LOCK, ubx.TP_PERIOD_LOCK, ubx.TP_POLARITY),
    STILL_NAME: (ubx.DYNMODEL,),
    JAMMING_NAME: (ubx.ITFM_ENABLE,),
    TIMING_NAME: (
        *(ubx.TMODE, ubx.TMODE_TYPE, ubx.TMODE_X, ubx.TMODE_Y, ubx.TMODE_Z, ubx.TMODE_LAT, ubx.TMODE_LON, ubx.TMODE_HEIGHT),
        *(ubx.TMODE_ACCURACY, ubx.TMODE_SURVEY_S, ubx.TMODE_LIMIT),
    ),
}
_MODELS: Final = {
    0: "portable",
    2: "stationary",
    3: "pedestrian",
    4: "automotive",
    5: "at sea",
    6: "airborne <1g",
    7: "airborne <2g",
    8: "airborne <4g",
    9: "wrist",
    10: "motorbike",
    11: "lawn mower",
    12: "kick scooter",
}
"""Dynamic platform models (CFG-NAV5, CFG-NAVSPG-DYNMODEL)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``wanted``: "" when nothing is. ``agrees``: None when the receiver did not tell; ``found`` then says what that means."""

    name: str
    wanted: str
    found: str
    agrees: bool | None


def questions(identity: str, profile: TimingProfile) -> list[Item]:
    """What to ask; nothing of a receiver that is not known."""
    kind = family(identity)
    if kind is None:
        return []
    if kind is Family.MTK:
        asked = (("sentences", 414, MTK_ANSWER), ("fix interval", 400, 500), ("position not frozen", 447, 527))
        return [Item(name, pmtk(f"PMTK{number}"), number, lambda _: b"", reply) for name, number, reply in asked]
    messages = _messages(identity, profile)
    if kind is Family.UBLOX_9:
        port = ubx.UART1 if profile.baud else ubx.USB
        items = [question(name, ubx.CFG_VALGET, ubx.value_get([ubx.OUTPUT_KEYS[name] + port]), b"\1\0", 9) for name in messages]
        items += [question(name, ubx.CFG_VALGET, ubx.value_get(keys), b"\1\0", 9) for name, keys in _KEYS.items()]
        return [*items, question(SURVEY_NAME, NAV_SVIN, least=40)]
    items = [question(name, ubx.CFG_MSG, bytes(ubx.MESSAGES[name]), bytes(ubx.MESSAGES[name]), 8) for name in messages]
    for name, layouts in _LAYOUTS.items():
        items += [question(name, layouts[0].command, layouts[0].ask, least=layouts[0].length)]
    return [*items, question(SURVEY_NAME, TIM_SVIN, least=28)]


def _messages(identity: str, profile: TimingProfile) -> dict[str, int]:
    """Wanted messages and their period in s; 0: switched off."""
    wanted = output(identity, profile)
    sent = {w.name: w.every for w in (*wanted.first, *wanted.more)}
    return sent | {w.name: 0 for w in wanted.out} | dict.fromkeys(wanted.silent, 0)


def findings(identity: str, profile: TimingProfile, told: Mapping[str, bytes]) -> list[Setting]:
    """Answers (``told``: by the question's name) beside what is wanted."""
    kind = family(identity)
    if kind is None:
        return []
    if kind is Family.MTK:
        return _mtk(profile, told)
    keyed = kind is Family.UBLOX_9
    port = ubx.UART1 if profile.baud else ubx.USB
    out = []
    for name, every in _messages(identity, profile).items():
        payload = told.get(name)
        if payload is None:
            out.append(Setting(name, _every(every), MEANINGS.get(name, "it does not tell, or has it not"), None))
            continue
        found = next(iter(ubx.values_told(payload).values()), 0) if keyed else payload[2 + port]
        if name in ("NAV-SVIN", "TIM-SVIN") and TIMING_NAME not in told and not found:
            continue
        out.append(Setting(name, _every(every), _every(found), found == every))
    wanted = settings(identity, profile)
    for name, layouts in _LAYOUTS.items():
        want, payload = wanted.get(name), told.get(name)
        if payload is None:
            out += [Setting(name, _words(name, want), MEANINGS.get(name, "it does not tell"), None)] if want else []
            continue
        found_values = ubx.values_told(payload) if keyed else layouts[0].read(payload)
        whole = found_values | want if want else {}
        agrees = want is None or satisfied(name, {k: v for k, v in want.items() if k in found_values}, found_values)
        out.append(Setting(name, _words(name, whole) if want else "", _words(name, found_values), agrees))
    state = survey(told[SURVEY_NAME], keyed) if SURVEY_NAME in told else None
    return [*out, *([Setting(SURVEY_NAME, "", _survey(state), True)] if state is not None and state.duration_s else [])]


def _mtk(profile: TimingProfile, told: Mapping[str, bytes]) -> list[Setting]:
    wanted = {"sentences": mtk_sentences(profile), "fix interval": "1000,0,0,0,0", "position not frozen": "0"}
    shown = {"sentences": _sentences, "fix interval": _interval, "position not frozen": _threshold}
    out = []
    for name, want in wanted.items():
        show = shown[name]
        if name in told:
            found = told[name].decode("ascii", "replace")
            out.append(Setting(name, show(want), show(found), show(found) == show(want)))
        else:
            out.append(Setting(name, show(want), "it does not tell", None))
    return [*out, Setting(PULSE_NAME, "once a second, with a fix only", "it has no way to tell", None)] if profile.pulse else out


def _sentences(fields: str) -> str:
    numbers = fields.split(",")
    every = {name: numbers[i] for name, i in MTK_FIELDS.items() if i < len(numbers) and numbers[i] not in ("0", "")}
    return ", ".join(name if n == "1" else f"{name} every {n} s" for name, n in every.items()) or "none"


def _interval(fields: str) -> str:
    return f"{fields.split(',', maxsplit=1)[0]} ms"


def _threshold(fields: str) -> str:
    try:
        speed = float(fields.split(",", maxsplit=1)[0])
    except ValueError:
        return f"unknown ({fields})"
    return f"frozen below {speed:g} m/s" if speed else "never frozen"


def _every(seconds: int) -> str:
    return "off" if not seconds else "every second" if seconds == 1 else f"every {seconds} s"


def _words(name: str, values: ubx.Values) -> str:
    """The values of a setting for people."""
    return _WORDS[name](values)


def _rate(values: ubx.Values) -> str:
    base = "GPS time" if values.get(ubx.RATE_TIMEREF) else "UTC"
    return f"a fix every {values.get(ubx.RATE_MEAS, 0) * values.get(ubx.RATE_NAV, 1)} ms, measured on the second of {base}"


def _model(values: ubx.Values) -> str:
    model = values.get(ubx.DYNMODEL, -1)
    return _MODELS.get(model, f"model {model}")


def _monitor(values: ubx.Values) -> str:
    return "on" if values.get(ubx.ITFM_ENABLE) else "off"


def _pulse(values: ubx.Values) -> str:
    if not values.get(ubx.TP_ENA):
        return "off"
    period_us, width_us = values.get(ubx.TP_PERIOD_LOCK, 0), values.get(ubx.TP_LEN_LOCK, 0)
    without = "with a fix only" if not values.get(ubx.TP_LEN) else f"without a fix too ({values[ubx.TP_LEN] / 1000:g} ms)"
    words = ["once a second" if period_us == 1_000_000 else f"every {period_us} µs", f"{width_us / 1000:g} ms", without]
    if ubx.TP_POLARITY in values:
        base = "GNSS time" if values.get(ubx.TP_GRID) else "UTC"
        words.append(f"{'rising' if values[ubx.TP_POLARITY] else 'falling'} edge on the second of {base}")
    if ubx.TP_CABLE in values:
        words.append(f"{values[ubx.TP_CABLE]} ns of cable taken off")
    return ", ".join(words)


def _place(values: ubx.Values) -> str:
    accuracy = f"±{values.get(ubx.TMODE_ACCURACY, 0) / 10_000:g} m"
    match values.get(ubx.TMODE):
        case ubx.SURVEY:
            return f"survey of {values.get(ubx.TMODE_SURVEY_S, 0)} s at least, to ±{values.get(ubx.TMODE_LIMIT, 0) / 10_000:g} m"
        case ubx.FIXED if values.get(ubx.TMODE_TYPE):
            degrees = f"{values.get(ubx.TMODE_LAT, 0) / 1e7:.7f} {values.get(ubx.TMODE_LON, 0) / 1e7:.7f}"
            return f"fixed at {degrees} {values.get(ubx.TMODE_HEIGHT, 0) / 100:.2f}, {accuracy}"
        case ubx.FIXED:
            place = " ".join(f"{values.get(key, 0) / 100:.2f}" for key in (ubx.TMODE_X, ubx.TMODE_Y, ubx.TMODE_Z))
            return f"fixed at ecef {place}, {accuracy}"
        case ubx.FREE:
            return "off: position and time from four satellites"
    return "unknown"


_WORDS: Final = {RATE_NAME: _rate, PULSE_NAME: _pulse, STILL_NAME: _model, JAMMING_NAME: _monitor, TIMING_NAME: _place}


def _survey(state: Survey) -> str:
    how = "goes on" if state.active else "done" if state.valid else "not begun"
    place = " ".join(f"{c:.2f}" for c in state.ecef_m)
    return f'{how}: {state.duration_s} s, position known to ±{state.accuracy_m:.1f} m (fixed_position = "ecef {place}")'
