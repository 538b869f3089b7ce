"""What a receiver is really set to, beside what is wanted: questions, and their answers in plain words.

Flow: identity + TimingProfile -> ``questions`` -> commands -> what was told -> ``findings`` -> ``refclock receiver show``. It changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refclock.protocols.ubx import survey
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
from refclock.receiver.ubx_settings import (
    CFG_MSG,
    CFG_VALGET,
    DYNMODEL,
    FIXED,
    FREE,
    ITFM,
    ITFM_ENABLE,
    MESSAGES,
    NAV5,
    NAV_SVIN,
    OUTPUT_KEYS,
    RATE,
    RATE_MEAS,
    RATE_NAV,
    RATE_TIMEREF,
    SURVEY,
    TIM_SVIN,
    TMODE,
    TMODE2,
    TMODE3,
    TMODE_ACCURACY,
    TMODE_HEIGHT,
    TMODE_LAT,
    TMODE_LIMIT,
    TMODE_LON,
    TMODE_SURVEY_S,
    TMODE_TYPE,
    TMODE_X,
    TMODE_Y,
    TMODE_Z,
    TP5,
    TP_CABLE,
    TP_ENA,
    TP_GRID,
    TP_LEN,
    TP_LEN_LOCK,
    TP_PERIOD_LOCK,
    TP_POLARITY,
    UART1,
    USB,
    Values,
    value_get,
    values_told,
)
from refclock.sample import Survey

SURVEY_NAME = "survey"
_LAYOUTS = {RATE_NAME: (RATE,), PULSE_NAME: (TP5,), STILL_NAME: (NAV5,), JAMMING_NAME: (ITFM,), TIMING_NAME: (TMODE2, TMODE3)}
_KEYS = {
    RATE_NAME: (RATE_MEAS, RATE_NAV, RATE_TIMEREF),
    PULSE_NAME: (TP_CABLE, TP_ENA, TP_GRID, TP_LEN, TP_LEN_LOCK, TP_PERIOD_LOCK, TP_POLARITY),
    STILL_NAME: (DYNMODEL,),
    JAMMING_NAME: (ITFM_ENABLE,),
    TIMING_NAME: (
        *(TMODE, TMODE_TYPE, TMODE_X, TMODE_Y, TMODE_Z, TMODE_LAT, TMODE_LON, TMODE_HEIGHT),
        *(TMODE_ACCURACY, TMODE_SURVEY_S, TMODE_LIMIT),
    ),
}
_MODELS = {
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
    """One setting. ``wanted`` "": nothing is; ``agrees`` None: it did not tell, and ``found`` says what that means."""

    name: str
    wanted: str
    found: str
    agrees: bool | None


def questions(identity: str, profile: TimingProfile) -> list[Item]:
    """What to ask; none of a receiver that is not known."""
    kind = family(identity)
    if kind is None:
        return []
    if kind is Family.MTK:
        asked = (("sentences", 414, MTK_ANSWER), ("fix interval", 400, 500), ("position not frozen", 447, 527))
        return [Item(name, pmtk(f"PMTK{number}"), number, lambda _: b"", reply) for name, number, reply in asked]
    messages = _messages(identity, profile)
    if kind is Family.UBLOX_9:
        port = UART1 if profile.baud else USB
        items = [question(name, CFG_VALGET, value_get([OUTPUT_KEYS[name] + port]), b"\1\0", 9) for name in messages]
        items += [question(name, CFG_VALGET, value_get(keys), b"\1\0", 9) for name, keys in _KEYS.items()]
        return [*items, question(SURVEY_NAME, NAV_SVIN, least=40)]
    items = [question(name, CFG_MSG, bytes(MESSAGES[name]), bytes(MESSAGES[name]), 8) for name in messages]
    for name, layouts in _LAYOUTS.items():
        items += [question(name, layouts[0].command, layouts[0].ask, least=layouts[0].length)]
    return [*items, question(SURVEY_NAME, TIM_SVIN, least=28)]


def _messages(identity: str, profile: TimingProfile) -> dict[str, int]:
    """Message -> every so many seconds, 0: not at all; as wanted."""
    wanted = output(identity, profile)
    sent = {w.name: w.every for w in (*wanted.first, *wanted.more)}
    return sent | {w.name: 0 for w in wanted.out} | dict.fromkeys(wanted.silent, 0)


def findings(identity: str, profile: TimingProfile, told: Mapping[str, bytes]) -> list[Setting]:
    """Answers, by the question's name, beside what is wanted. Nothing that was not asked."""
    kind = family(identity)
    if kind is None:
        return []
    if kind is Family.MTK:
        return _mtk(profile, told)
    keyed = kind is Family.UBLOX_9
    port = UART1 if profile.baud else USB
    out = []
    for name, every in _messages(identity, profile).items():
        payload = told.get(name)
        if payload is None:
            out.append(Setting(name, _every(every), MEANINGS.get(name, "it does not tell, or has it not"), None))
            continue
        found = next(iter(values_told(payload).values()), 0) if keyed else payload[2 + port]
        if name in ("NAV-SVIN", "TIM-SVIN") and TIMING_NAME not in told and not found:
            continue
        out.append(Setting(name, _every(every), _every(found), found == every))
    wanted = settings(identity, profile)
    for name, layouts in _LAYOUTS.items():
        want, payload = wanted.get(name), told.get(name)
        if payload is None:
            out += [Setting(name, _words(name, want), MEANINGS.get(name, "it does not tell"), None)] if want else []
            continue
        found_values = values_told(payload) if keyed else layouts[0].read(payload)
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


def _words(name: str, values: Values) -> str:
    match name:
        case "rate":
            base = "GPS time" if values.get(RATE_TIMEREF) else "UTC"
            return f"a fix every {values.get(RATE_MEAS, 0) * values.get(RATE_NAV, 1)} ms, measured on the second of {base}"
        case "pulse":
            return _pulse(values)
        case "stationary":
            model = values.get(DYNMODEL, -1)
            return _MODELS.get(model, f"model {model}")
        case "jamming monitor":
            return "on" if values.get(ITFM_ENABLE) else "off"
    return _place(values)


def _pulse(values: Values) -> str:
    if not values.get(TP_ENA):
        return "off"
    period_us, width_us = values.get(TP_PERIOD_LOCK, 0), values.get(TP_LEN_LOCK, 0)
    without = "with a fix only" if not values.get(TP_LEN) else f"without a fix too ({values[TP_LEN] / 1000:g} ms)"
    words = ["once a second" if period_us == 1_000_000 else f"every {period_us} µs", f"{width_us / 1000:g} ms", without]
    if TP_POLARITY in values:
        base = "GNSS time" if values.get(TP_GRID) else "UTC"
        words.append(f"{'rising' if values[TP_POLARITY] else 'falling'} edge on the second of {base}")
    if TP_CABLE in values:
        words.append(f"{values[TP_CABLE]} ns of cable taken off")
    return ", ".join(words)


def _place(values: Values) -> str:
    accuracy = f"±{values.get(TMODE_ACCURACY, 0) / 10_000:g} m"
    match values.get(TMODE):
        case int(mode) if mode == SURVEY:
            return f"survey of {values.get(TMODE_SURVEY_S, 0)} s at least, to ±{values.get(TMODE_LIMIT, 0) / 10_000:g} m"
        case int(mode) if mode == FIXED and values.get(TMODE_TYPE):
            degrees = f"{values.get(TMODE_LAT, 0) / 1e7:.7f} {values.get(TMODE_LON, 0) / 1e7:.7f}"
            return f"fixed at {degrees} {values.get(TMODE_HEIGHT, 0) / 100:.2f}, {accuracy}"
        case int(mode) if mode == FIXED:
            return "fixed at ecef " + " ".join(f"{values.get(key, 0) / 100:.2f}" for key in (TMODE_X, TMODE_Y, TMODE_Z)) + f", {accuracy}"
        case int(mode) if mode == FREE:
            return "off: position and time from four satellites"
    return "unknown"


def _survey(state: Survey) -> str:
    how = "goes on" if state.active else "done" if state.valid else "not begun"
    place = " ".join(f"{c:.2f}" for c in state.ecef_m)
    return f'{how}: {state.duration_s} s, position known to ±{state.accuracy_m:.1f} m (fixed_position = "ecef {place}")'
