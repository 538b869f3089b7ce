"""One source of time: its bytes, labels and pulses on the way to an estimate.

A source has up to two channels, each with its own estimator: ``pulse`` (numbered pulses, or the finished samples of another program) and
``label`` (the labels themselves, less the message delay). The pulse channel speaks for the source while it is fresh; the label channel only
when there is no pulse, or none that could be numbered for ``PULSE_PATIENCE_NS``.

    bytes -> Receiver -> label -> dates -> SecondTrust -> Pairing -> Sample -> Estimator
                         pulse -> Rhythm ------- Health ----^
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ppsd.discipline.estimate import Learned, learned_from
from ppsd.discipline.estimator import Estimator
from ppsd.discipline.leap import LeapKeeper
from ppsd.discipline.runaway import Pull
from ppsd.discipline.selection import FRESH_NS, Candidate
from ppsd.discipline.tempcomp.compensation import CompensatedEstimator, Compensation
from ppsd.snapshot import SourceStatus
from refclock.config import AUTO, GpsdSource, Pulse, ReceiverSource, ShmSource, SockSource
from refclock.config import Source as SourceConfig
from refclock.protocols.stream import Receiver
from refclock.sample import (
    NS,
    Edge,
    EdgeKind,
    FixMode,
    HealthReport,
    Instant,
    Leap,
    LeapNotice,
    Sample,
    Sawtooth,
    SecondLabel,
    SkyView,
    SourceId,
)
from refclock.timescales import DAY_S
from refclock.timing.health import Health
from refclock.timing.pairing import DEFAULT_DELAY_UNCERTAINTY_NS, FIX_TIMEOUT_NS, Pairing, Present
from refclock.timing.pulses import Rhythm
from refclock.timing.receiver_time import Cable
from refclock.timing.trust import SecondTrust, Verdict, floor_s, impossible

COARSEST_GRAIN_NS, CUT_STAMPS = 1_000, 4
"""Programs with a struct timeval stamp whole microseconds: four stamps on such a grid are no chance (1e-9).
Half a grain of bias then: a crystal near a whole number of ppm has stamps that stand still for minutes."""


@dataclass(slots=True)
class Channel:
    """An estimator and what people want to see of it. ``claims``: makes of it what the source claims, with the temperature."""

    estimator: Estimator
    claims: Estimator | CompensatedEstimator
    last_mono_ns: int = -(1 << 62)
    last_offset_ns: int | None = None
    reach: int = 0
    reach_mono_ns: int = 0
    every_ns: int = NS
    _grain_ns: int = COARSEST_GRAIN_NS
    _first_real_ns: int | None = None
    _stamps: int = 0

    def add(self, sample: Sample, served_tai_ns: int | None) -> bool:
        """One sample; ``served_tai_ns``: what we served at that instant."""
        self.tick(sample.at.mono_ns)
        if served_tai_ns is not None:
            self.last_offset_ns = sample.tai_ns - served_tai_ns
        used = self.claims.add(sample.at.mono_ns, sample.tai_ns)
        if used:
            self.last_mono_ns = sample.at.mono_ns
            self.reach |= 1
        return used

    def tick(self, mono_ns: int) -> None:
        """Shift the reach register once a second, or as often as pulses come."""
        if mono_ns - self.reach_mono_ns >= self.every_ns * 3 // 4:
            missed = min(8, max(1, round((mono_ns - self.reach_mono_ns) / self.every_ns))) if self.reach_mono_ns else 1
            self.reach = (self.reach << missed) & 0xFF
            self.reach_mono_ns = mono_ns

    def grain(self, real_ns: int) -> int:
        """The grain of which the stamps of another program are whole multiples, this one included (ns); its estimator is told."""
        self._stamps += 1
        if self._first_real_ns is None:
            self._first_real_ns = real_ns
        while self._grain_ns > 1 and (real_ns - self._first_real_ns) % self._grain_ns:
            self._grain_ns //= 10
        grain_ns = self._grain_ns if self._stamps >= CUT_STAMPS else 1
        self.estimator.cut_to(grain_ns)
        return grain_ns


PULSE_FLOOR_NS = 50.0
"""No pulse through an interrupt is better known: one reading of the clocks (measured: ppsd/timescale.py PRECISION, halved)."""
LABEL_FLOOR_NS = 1e6
"""No serial message is better known: a byte at 9600 baud takes 1.04 ms."""
LABEL_FRESH_NS = 10 * NS
PULSE_PATIENCE_NS = 30 * NS
SAWTOOTH_NS = 1500 * 1_000_000
"""A quantisation error belongs to the next pulse only."""
SAWTOOTH_LIMIT_NS = 1000.0
"""Larger ones are receivers' nonsense (u-blox clocks tick every 21 ns; oscillatord drops absurd values too)."""
STATE_RATE_SIGMA = 5e-7
"""A crystal comes back within 0.5 ppm after a restart at another temperature (discipline.md b-ramp: 1 ppm over a warm-up)."""
PULSE_REFID, LABEL_REFID = "PPS", "GPS"
"""Served reference identifiers (RFC 5905 figure 12): numbered by its pulse, or by its messages alone."""
PULSE_BIAS_US = 15.0
"""Allowance while nothing tells how the pulse is stamped: interrupt latency of a Raspberry Pi is 5 to 12 µs (receivers.md section 0.4)."""
GPSD_PULSE_NS = 100_000.0
"""gpsd may stamp a pulse in user space, after TIOCMIWAIT woke it: 30 to 95 us late on a motherboard port (receivers.md section 0.4)."""
NO_DATE = "the receiver has a fix but sends no date: switch on RMC or ZDA (or NAV-PVT)"
FIX_WORDS = {FixMode.NONE: "none", FixMode.FIX_2D: "2D", FixMode.FIX_3D: "3D", FixMode.TIME_ONLY: "time-only"}


class Source:
    """See the module's text."""

    def __init__(
        self,
        config: SourceConfig,
        not_before_s: int,
        state: Mapping[str, float | int | str],
        battery_ns: int | None = None,
        compensation: Compensation | None = None,
    ) -> None:
        """``battery_ns``: the battery clock (POSIX ns) minus raw time; None without one, or when the system clock is kept."""
        self._battery_ns = battery_ns
        self.config = config
        self._compensation = compensation
        self.id = SourceId(config.name)
        self.present = False
        self.lost_why = "not opened yet"
        self.what = config.kind
        self.pulses = 0
        self.labels = 0
        self.verdict = Verdict(False, "waiting for the receiver's first valid second", 0.0)
        self.leap = Leap.NORMAL
        self.sky: SkyView | None = None
        self.health = Health()
        self.cable = Cable(config)
        self.own_labels = False
        """Whether the served time is made from these very labels: then it cannot measure their delay."""
        self.rivalled = False
        """Whether the served time is another source's: then pulses off its seconds are for selection to judge."""
        self.kept_error_ns: int | None = None
        """Within what another program keeps the system clock; None when nobody does."""
        self._state = state
        saved_s = self._number("utc_s")
        self._saved_s = None if saved_s is None else round(saved_s)
        self._earliest_s = floor_s(not_before_s, self._saved_s)
        self.receiver = Receiver(self._earliest_s)
        self.trust = SecondTrust(system_clock=True)
        self._not_before_s = not_before_s
        self._byte_ns = 0
        self._reported_ns = 0.0
        self._spoke = "NMEA"
        self._named_s = not_before_s
        self.place_ns = self.label_mono_ns = self._pulse_mono_ns = 0
        self._sawtooth: Sawtooth | None = None
        self._waiting_since: int | None = None
        self.has_label = isinstance(config, ReceiverSource | GpsdSource)
        self.has_pulse = isinstance(config, ReceiverSource | GpsdSource) and config.pps not in ("", AUTO)
        self.pulse_path = ""
        stated = config.edge if isinstance(config, Pulse) else "auto"
        self.rhythm = Rhythm(None if stated == "auto" else EdgeKind(stated))
        self._stamped(PULSE_BIAS_US, "")
        self._pulse_told = ("", False, 0)
        self.forget()

    def forget(self) -> None:
        """Start from nothing: estimators and numbering (the second was wrong)."""
        rate = self._number("rate")
        config = self.config
        if isinstance(config, ReceiverSource | GpsdSource):
            delay = config.message_delay_ms if config.message_delay_ms is not None else self._number(f"{self.id}.delay_ms")
            uncertainty = config.message_delay_uncertainty_ms
            if uncertainty is None and config.message_delay_ms is None:
                uncertainty = self._number(f"{self.id}.delay_spread_ms")
            self.pairing = Pairing(
                None if delay is None else round(delay * 1e6),
                DEFAULT_DELAY_UNCERTAINTY_NS if uncertainty is None else round(uncertainty * 1e6),
                round(config.pulse_without_fix_s * NS),
            )
            self._delay_unchecked = config.message_delay_ms is None and delay is not None
            if self.rhythm.period_ns:
                self.pairing.rhythm(self.rhythm.period_ns, self.rhythm.alone)
            bias = self._bias_ns
        else:
            bias = config.bias_us * 1e3
        self.pulse = self._pulse_channel(bias)
        self.label = self._channel(Estimator(LABEL_FLOOR_NS, 0.0, rate, STATE_RATE_SIGMA, learned=self._learned("label")))
        self._waiting_since = None
        self.pull = Pull()

    def _pulse_channel(self, bias_ns: float) -> Channel:
        polled = not isinstance(self.config, Pulse) or self.config.pps_over_usb is not False
        rate, centred, learned = self._number("rate"), not self.has_label, self._learned("pulse")
        return self._channel(Estimator(PULSE_FLOOR_NS, bias_ns, rate, STATE_RATE_SIGMA, centred=centred, polled=polled, learned=learned))

    def _channel(self, estimator: Estimator) -> Channel:
        return Channel(estimator, estimator if self._compensation is None else self._compensation.around(estimator))

    def _learned(self, channel: str) -> Learned | None:
        return learned_from(self._state.get(f"{self.id}.{channel}.learned"))

    def _number(self, key: str) -> float | None:
        value = self._state.get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    # ---- what arrives ------------------------------------------------------------------------------------------------------------

    def received(self, data: bytes, at: Instant, byte_ns: int, leaps: LeapKeeper, present: Present | None) -> list[Sample]:
        """Bytes of the line. Returns the pulse samples that became known, oldest first (label samples: see ``label``)."""
        out: list[Sample] = []
        self._byte_ns = byte_ns
        for value in self.receiver.feed(data, at, byte_ns):
            if isinstance(value, SecondLabel):
                out += self.labelled(value, leaps, present)
            elif isinstance(value, SkyView):
                self.seen(value)
            elif isinstance(value, Sawtooth):
                self._sawtooth = value
                if value.utc_ns is not None and self.verdict.trusted:
                    self.pairing.announced(leaps.table.utc_to_tai_ns(value.utc_ns), value.at)
            elif isinstance(value, HealthReport):
                self.health.report(value)
            else:
                self.noticed(value, leaps)
        return out

    def seen(self, sky: SkyView) -> None:
        """Fix and satellites."""
        self.sky = sky
        self.health.sky(sky)

    def noticed(self, notice: LeapNotice, leaps: LeapKeeper) -> None:
        """Leap second information of the receiver."""
        self.trust.notice(notice)
        if self.verdict.trusted:
            leaps.notice(self.id, notice, self._named_s)

    def labelled(self, label: SecondLabel, leaps: LeapKeeper, present: Present | None) -> list[Sample]:
        """A valid label. Labels that are not trusted yet go no further."""
        self.labels += 1
        self.place_ns, self.label_mono_ns = label.utc_ns - label.at.mono_ns, label.at.mono_ns
        self._spoke = "UBX" if label.sentence.startswith("NAV") else "gpsd" if label.sentence == "TPV" else "NMEA"
        self._named_s = label.utc_ns // NS
        battery_s = None if self._battery_ns is None else (self._battery_ns + label.at.mono_ns) // NS
        wrong = impossible(label, self._not_before_s, self._saved_s, battery_s)
        if wrong:
            self.verdict = Verdict(False, wrong, 0.0)
            return []
        self.verdict = self.trust.judge(label)
        if label.second_60 and self.verdict.trusted:  # an NMEA receiver's only way to announce it
            leaps.notice(self.id, LeapNotice(None, 1, (self._named_s // DAY_S + 1) * DAY_S, label.at), self._named_s)
        tai_ns = leaps.table.utc_to_tai_ns(label.utc_ns, label.second_60)
        if self.health.blocked(label.at.mono_ns):
            self.pairing.refused["doubtful-receiver"] += 1
            return []
        if self._delay_unchecked:  # learned in an earlier run: for this line?
            self._delay_unchecked = False
            if self._number(f"{self.id}.delay_byte_ns") != self._byte_ns:
                self.pairing.assume_nothing()
        if not self.verdict.trusted:
            if present is not None and self.pairing.confirms(tai_ns, label.at, present):
                self.trust.confirm("the served time names the same second")
            return []
        if self._waiting_since is None:
            self._waiting_since = label.at.mono_ns
        clock_ns = leaps.table.utc_to_tai_ns(label.at.real_ns) - label.at.mono_ns
        numbered, coarse = self.pairing.label(tai_ns, label.at, present, clock_ns, not self.own_labels, kept_ns=self.kept_error_ns)
        if coarse is not None:
            served = present.tai_at(coarse.at.mono_ns) if present is not None else None
            self.label.estimator.bias_ns = float(coarse.uncertainty_ns)
            self.label.add(coarse, served)
            if not self.has_pulse:
                return [coarse]
        for sample in numbered:
            self.pulse.add(sample, present.tai_at(sample.at.mono_ns) if present is not None else None)
        return numbered

    def pulsed(self, edge: Edge, present: Present | None) -> Sample | None:
        """An edge of the pulse; its sample when it could be numbered and was used."""
        if not self.has_pulse:  # gpsd reports pulses although none was configured
            self.has_pulse, self._reported_ns = True, GPSD_PULSE_NS + edge.uncertainty_ns
        pulses = self.rhythm.accept(edge)
        if not pulses:
            return None
        self.pairing.rhythm(self.rhythm.period_ns, self.rhythm.alone)
        self.pulse.every_ns = max(NS, self.rhythm.period_ns)
        samples = [self._pulse(pulse, present) for pulse in pulses]
        return next((sample for sample in reversed(samples) if sample is not None), None)

    def _pulse(self, edge: Edge, present: Present | None) -> Sample | None:
        """A pulse of the rhythm."""
        self.pulses += 1
        at = edge.at
        self._pulse_mono_ns = at.mono_ns
        saw = self._sawtooth
        if saw is not None and abs(saw.error_ns) < SAWTOOTH_LIMIT_NS and at.mono_ns - saw.at.mono_ns < SAWTOOTH_NS:
            at = at.shifted(-round(saw.error_ns) if self.rhythm.period_ns == NS else 0)
        self._sawtooth = None
        at = self.cable.taken_off(at)
        if self.health.blocked(edge.at.mono_ns):
            self.pairing.refused["doubtful-receiver"] += 1
            self.pairing.why = "the receiver is well again: waiting for its next second"
            return None
        if self.rhythm.contradiction() and not self.rivalled:
            self.pairing.refused["wrong-edge"] += 1
            self.pairing.why = self.rhythm.contradiction()
            return None
        self.pulse.estimator.bias_ns = self._bias_ns + self._reported_ns + self.health.extra_ns
        sample = self.pairing.edge(Edge(at, edge.kind, edge.sequence, edge.uncertainty_ns), present, self.rivalled)
        self.rhythm.off_by(self.pairing.off_ns)
        if sample is None or present is None or not self.pulse.add(sample, present.tai_at(at.mono_ns)):
            return None
        return sample

    def pulse_news(self) -> str:
        """What the log should say of the pulses, once: another rate, another doubt about which edge or second they are; "" for nothing."""
        if not self.has_label:
            return ""
        off = (self.pairing.off_ns > 0) - (self.pairing.off_ns < 0)
        now = (self.rhythm.changed, bool(self.rhythm.contradiction()), off)
        if now == self._pulse_told:
            return ""
        news = self.rhythm.contradiction() or self.pairing.off_words() or self.rhythm.changed or "its pulses are in phase again"
        self._pulse_told = now
        return news

    def sampled(self, sample: Sample, present: Present | None) -> bool:
        """A finished sample from another program."""
        self.pulses += 1
        self.leap = sample.leap
        assert isinstance(self.config, ShmSource | SockSource)
        grain_ns = self.pulse.grain(sample.at.real_ns)
        self.pulse.estimator.bias_ns = max(self.config.bias_us * 1e3, float(sample.uncertainty_ns), grain_ns / 2)
        return self.pulse.add(sample, present.tai_at(sample.at.mono_ns) if present is not None else None)

    def found(self, what: str) -> None:
        """The device is there."""
        self.present, self.what, self.lost_why = True, what, ""

    def pulse_found(self, path: str, over_usb: bool | None, bias_us: float, how: str) -> None:
        """Its pulse is there, is stamped so, and may be that late. What was learned of another kind of line is worth nothing."""
        assert isinstance(self.config, Pulse)
        self.has_pulse, self.pulse_path = True, path
        self._stamped(bias_us, how)
        if over_usb != self.config.pps_over_usb:
            self.config = replace(self.config, pps_over_usb=over_usb)
            self.pulse = self._pulse_channel(self._bias_ns)

    def _stamped(self, bias_us: float, how: str) -> None:
        stated = self.config.pps_bias_us if isinstance(self.config, Pulse) else None
        self._bias_ns = (bias_us if stated is None else stated) * 1e3
        self._bias_how = how if stated is None else "as configured"

    def lost(self, why: str) -> None:
        """The device is gone: half a sentence and half a numbering go with it, what was learned stays."""
        self.present, self.lost_why = False, why
        self.cable.told = False
        self.receiver = Receiver(self._earliest_s)
        self.health = Health()
        self.sky = None
        if self.has_label:
            self.pairing.lost()

    # ---- what is claimed ---------------------------------------------------------------------------------------------------------

    def candidate(self, now_mono_ns: int) -> Candidate | None:
        """This source's claim now; None while it has none that is fresh."""
        refid = PULSE_REFID if self.has_label else "SHM" if isinstance(self.config, ShmSource) else "SOCK"
        channel = self.pulse
        if not self._fresh(channel, now_mono_ns, self._pulse_fresh_ns if self.has_label else LABEL_FRESH_NS):
            patience = max(self._waiting_since or 0, self.pulse.last_mono_ns) + PULSE_PATIENCE_NS
            if not self.has_label or (self.has_pulse and now_mono_ns < patience):
                return None
            channel, refid = self.label, LABEL_REFID
            if not self._fresh(channel, now_mono_ns, LABEL_FRESH_NS):
                return None
        claim = channel.claims.estimate(now_mono_ns)
        return Candidate(self.id, claim, channel.last_mono_ns, refid, self.config.prefer, self.config.trust)

    @property
    def allowance_ns(self) -> float:
        """What its bound allows for another program's samples; 0 for a receiver of ours."""
        return 0.0 if self.has_label else self.pulse.estimator.bias_ns

    @property
    def _pulse_fresh_ns(self) -> int:
        """How long a pulse counts: three seconds, or half a period beyond the next but one."""
        return max(FRESH_NS, 5 * self.rhythm.period_ns // 2)

    def _fresh(self, channel: Channel, now: int, limit: int) -> bool:
        return channel.estimator.ready and now - channel.last_mono_ns < limit

    @property
    def contradicts(self) -> bool:
        """Its labels have said for long that the numbering is wrong."""
        return self.has_label and self.pairing.contradicts

    def why(self, now_mono_ns: int) -> str:
        """Why it gives no time, in plain words."""
        if not self.present:
            return self.lost_why
        if self.pull.words:
            return self.pull.words
        if self.config.noselect:
            return "watched, not used (noselect)"
        if not self.has_label:
            return "waiting for samples" if not self.pulses else "gathering samples"
        if not self.labels and self.receiver.advice:
            return self.receiver.advice
        if not self.labels and self.sky is not None and self.sky.mode is not FixMode.NONE and not self.verdict.held_s:
            return NO_DATE
        if self.sky is not None and self.sky.mode is FixMode.NONE and not self.verdict.trusted:
            seen = len(self.sky.satellites)
            return f"no fix yet, {self.sky.used} of {seen} satellites used" if seen else "no fix yet, no satellites seen"
        doubt = self.health.blocked(now_mono_ns)
        if doubt:
            return doubt
        silent_s = (now_mono_ns - self.label_mono_ns) / NS
        if self.labels and silent_s * NS > FIX_TIMEOUT_NS:
            return f"no valid second from the receiver for {silent_s:.0f} s: is the antenna covered or off?"
        if not self.verdict.trusted:
            return self.verdict.why
        if not self.has_pulse:
            return "timing its messages"
        if self.rhythm.why() or not self.pulses:
            return self.rhythm.why() or "waiting for pulses"
        if now_mono_ns - self._pulse_mono_ns > self._pulse_fresh_ns:
            return f"no pulse for {(now_mono_ns - self._pulse_mono_ns) / NS:.0f} s: check the wire and the receiver's pulse setting"
        return self.pairing.why

    def state(self) -> dict[str, float | int | str]:
        """What the next start wants to know."""
        out: dict[str, float | int | str] = {}
        for name, channel in (("pulse", self.pulse), ("label", self.label)):
            if (learned := channel.estimator.learned()) is not None:
                out[f"{self.id}.{name}.learned"] = learned.text()
        if not self.has_label or not self.pairing.delay_learned:
            return out
        delay, spread = self.pairing.delay_ns()
        return out | {
            f"{self.id}.delay_ms": delay / 1e6,
            f"{self.id}.delay_spread_ms": max(spread / 1e6, 5.0),
            f"{self.id}.delay_byte_ns": self._byte_ns,
        }

    def status(self, now: Instant, tally: str, why: str, served_tai_ns: int | None) -> SourceStatus:
        """For people."""
        channel = self.pulse if self.pulse.estimator.ready or not self.has_label or self.has_pulse else self.label
        channel.tick(now.mono_ns)
        estimate = channel.estimator.estimate(now.mono_ns) if channel.estimator.ready else None
        delay = self.pairing.delay_ns() if self.has_label and self.pairing.delay_learned else None
        rejected = dict(self.receiver.rejected) if self.has_label else {}
        if self.has_label:
            rejected |= self.pairing.refused
        if channel.estimator.refused:
            rejected["outlier"] = channel.estimator.refused
        used = channel.last_mono_ns > -(1 << 61)
        return SourceStatus(
            name=str(self.id),
            kind=self.config.kind,
            what=f"{self.what}, pulse {self.pulse_path}" if self.pulse_path and self.pulse_path not in self.what else self.what,
            present=self.present,
            tally=tally,
            why=why,
            reach=channel.reach,
            last_sample_s=(now.mono_ns - channel.last_mono_ns) / NS if used else None,
            offset_ns=channel.last_offset_ns,
            jitter_ns=round(estimate.jitter_ns) if estimate else None,
            bound_ns=round(estimate.bound_ns) if estimate else None,
            frequency_ppm=-estimate.rate * 1e6 if estimate else None,
            skew_ppm=estimate.skew * 1e6 if estimate else None,
            samples=channel.estimator.accepted,
            pulses=self.pulses,
            labels=self.labels,
            fix=FIX_WORDS[self.sky.mode] if self.sky is not None else "unknown",
            satellites_used=self.sky.used if self.sky is not None else None,
            satellites_seen=len(self.sky.satellites) if self.sky is not None else None,
            satellites=self.sky.satellites if self.sky is not None else (),
            message=self.pairing.delay_words(self._spoke) if self.has_label else "",
            health=(*filter(None, [self.pull.words]), *(d.words for d in self.health.doubts(now.mono_ns))),
            timing=self.health.timing,
            cable=self.cable.words,
            message_delay_ms=delay[0] / 1e6 if delay else None,
            message_spread_ms=delay[1] / 2e6 if delay else None,
            rejected=rejected,
            bias_us=(self._bias_ns + self._reported_ns) / 1e3 if self.has_pulse else None,
            bias_how=self._bias_how,
            pulse=self.rhythm.report(self.pairing.doubt()) if self.has_label else None,
        )
