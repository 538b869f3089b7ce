"""Keeps a receiver set up: asks what it is, configures it, and configures it again after it has lost its settings.

ASK (up to ASKED questions) -> CONFIGURE (``commands.CommandQueue``) -> WATCH (does it still send what it was told to send?) -> ASK again
when it says that it has started, when what it was told to send is missing, or when sentences come that it had switched off. IDLE: a
receiver for which no settings are known, until the line was silent. Nothing is written to a line that has said nothing intelligible; a
receiver that does not say what it is gets nothing but the question.

Flow: ReceiverStream + raw time -> **configurator** -> bytes for the line, News for the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from refclock.protocols.framing import Frame, FrameKind
from refclock.protocols.stream import ReceiverStream
from refclock.protocols.ubx import MON_VER, encode
from refclock.receiver.commands import CommandQueue, Result, pmtk
from refclock.receiver.configure import MTK_ANSWER, MTK_QUESTION, PULSE_NAME, SAVE_NAME, UNKEPT, Family, family, mtk_sentences, output, plan
from refclock.receiver.profile import TimingProfile
from refclock.receiver.readback import questions
from refclock.receiver.ubx_settings import MESSAGES
from refclock.sample import NS

QUESTION: Final = encode(*MON_VER) + pmtk("PMTK605")
ASK_NS: Final = 23 * NS // 10
"""ns between two questions. A receiver that was just powered needs a second before it listens. Not a whole number of seconds, or every
question would come at the same place in the receiver's burst."""
ASKED: Final = 3
"""Questions without an answer before the receiver is left as it is."""
FORGOT_NS: Final = 10 * NS
"""ns without the wanted messages, while the line speaks, after which the receiver is configured again: it has lost its power briefly."""
FORGOT_MAX_NS: Final = 640 * NS
"""ns; the longest such wait. It doubles for a receiver that does not answer, or does not do what it acknowledges."""
CHECK_NS: Final = 60 * NS
"""ns between two questions to a MediaTek receiver which sentences it sends: after a reset they may be the same, at another rate."""
ANSWERS_NS: Final = 10 * NS
"""ns for which the receiver's answers about its settings are told again; then it is asked anew."""
BREAK_NS: Final = 5 * NS
"""ns of silence after which a line may have another receiver."""


@dataclass(frozen=True, slots=True)
class News:
    """How a set-up went. ``what``: in words, for the log; ``identity``: what the receiver calls itself; ``results``: of each item."""

    what: str
    identity: str
    results: Mapping[str, Result]

    @property
    def complete(self) -> bool:
        """Whether the receiver answered to everything."""
        return Result.NO_ANSWER not in self.results.values()

    @property
    def pulse_set(self) -> bool:
        """Whether the receiver's pulse is as wanted, the cable's delay included where one was stated."""
        return self.results.get(PULSE_NAME) is Result.DONE and not self.identity.startswith("PMTK")

    def by_result(self) -> dict[str, tuple[str, ...]]:
        """Names of the items by result: "done", "refused", "no_answer", "left_out"."""
        found: dict[str, tuple[str, ...]] = {}
        for name, result in self.results.items():
            key = result.name.lower()
            found[key] = (*found.get(key, ()), name)
        return found


class _Step(Enum):
    ASK = "ask"
    CONFIGURE = "configure"
    WATCH = "watch"
    IDLE = "idle"


class Configurator:
    """Keeps one receiver set up as ``profile`` wants. Call ``step`` when something has arrived, and once a second."""

    def __init__(self, profile: TimingProfile) -> None:
        self.profile = profile
        self._step = _Step.ASK
        self._asked, self._due_ns = 0, 0
        self._frames = -1  # recognised when last looked
        self._spoke_ns: int | None = None
        self._talk = CommandQueue(())
        self._questions: CommandQueue | None = None
        self._answered_ns = 0
        self._identity = ""
        self._patience_ns = FORGOT_NS
        self._since_ns = 0
        self._begun_ns = 0
        self._calm_ns, self._calm_for_ns = 0, FORGOT_NS
        self._ended_ns = 0
        self._check_ns = 0
        self._news: list[News] = []
        self._last: News | None = None

    def news(self) -> list[News]:
        """What is new since the last call; the same outcome twice in a row is not."""
        told, self._news = self._news, []
        return told

    def settings(self) -> CommandQueue | None:
        """Ask for the receiver's settings once the set-up has ended; the queue that gets the answers. None: it is still being asked what it
        is. The answers stay for ANSWERS_NS, so that nobody who asks again and again fills the line."""
        if self._step is _Step.ASK:
            return None
        if self._questions is None:
            self._questions = CommandQueue(questions(self._identity, self.profile), self.profile.baud)
        return self._questions

    def step(self, receiver: ReceiverStream, now_ns: int) -> bytes:
        """What to write to the line now."""
        frames = receiver.framer.counts["NMEA"] + receiver.framer.counts["UBX"]
        answers = receiver.take_answers()
        if self._frames < frames or self._spoke_ns is None:
            if self._step is _Step.IDLE and self._spoke_ns is not None and now_ns - self._spoke_ns > BREAK_NS:
                self._ask_anew(now_ns)
            self._spoke_ns = now_ns if frames else None
            self._frames = frames
        if self._spoke_ns is None:
            return b""
        for frame in answers:
            if self._step is _Step.ASK and (identity := _named(frame, receiver)):
                self._begin(identity, receiver, now_ns)
            elif self._step is _Step.WATCH:
                self._compare(frame, now_ns)
            self._talk.hear(frame, now_ns)
            if self._questions is not None:
                self._questions.hear(frame, now_ns)
        if self._step in (_Step.CONFIGURE, _Step.WATCH) and receiver.restarted_ns > self._begun_ns:
            self._forgotten(now_ns)
        match self._step:
            case _Step.ASK:
                return self._ask(receiver, now_ns)
            case _Step.CONFIGURE:
                return self._configure(receiver, now_ns)
            case _Step.WATCH:
                data = self._watch(receiver, now_ns)
                if data:
                    return data
        return self._ask_for_settings(now_ns)

    def _ask_for_settings(self, now_ns: int) -> bytes:
        """The next question for settings. Old answers are forgotten."""
        if self._questions is None:
            return b""
        if not self._questions.finished:
            self._answered_ns = now_ns
        elif now_ns - self._answered_ns > ANSWERS_NS:
            self._questions = None
            return b""
        return self._questions.send(now_ns)

    def _ask_anew(self, now_ns: int) -> None:
        self._step, self._asked, self._due_ns = _Step.ASK, 0, now_ns

    def _ask(self, receiver: ReceiverStream, now_ns: int) -> bytes:
        if now_ns < self._due_ns:
            return b""
        if self._asked == ASKED:
            if not receiver.watch:
                self._tell(News("receiver left as it is: it does not say what it is", "", {}))
                self._step = _Step.IDLE
            else:  # it answered earlier, so it will be asked again when its messages are missing
                self._step, self._since_ns = _Step.WATCH, now_ns
            return b""
        self._asked += 1
        self._due_ns = now_ns + ASK_NS
        return QUESTION

    def _begin(self, identity: str, receiver: ReceiverStream, now_ns: int) -> None:
        kind = family(identity)
        self._identity = identity
        if kind is None:
            self._tell(News("receiver left as it is: no settings are known for it", identity, {}))
            self._step = _Step.IDLE
            return
        self._talk = CommandQueue(plan(identity, self.profile), self.profile.baud)
        self._step, self._begun_ns = _Step.CONFIGURE, now_ns
        if kind is Family.MTK:
            receiver.watch = b"ZDA"  # off after a reset
        else:
            receiver.watch = bytes(MESSAGES[output(identity, self.profile).first[0].name])

    def _configure(self, receiver: ReceiverStream, now_ns: int) -> bytes:
        data = self._talk.send(now_ns)
        if self._talk.finished:
            results = dict(self._talk.results)
            if self.profile.save and family(self._identity) is Family.MTK:
                results[f"{SAVE_NAME} ({UNKEPT})"] = Result.LEFT_OUT
            self._tell(News("receiver configured", self._identity, results))
            first = output(self._identity, self.profile).first
            if first and self._talk.results.get(first[0].name) is Result.REFUSED:
                receiver.watch = b""  # refused, so it never comes
            self._step, self._since_ns = _Step.WATCH if receiver.watch else _Step.IDLE, now_ns
            self._check_ns, self._ended_ns = now_ns + CHECK_NS, now_ns
        return data

    def _watch(self, receiver: ReceiverStream, now_ns: int) -> bytes:
        complete = self._last is None or self._last.complete
        if complete and receiver.watched_ns > self._since_ns:
            self._since_ns, self._patience_ns = receiver.watched_ns, FORGOT_NS
        speaks = self._spoke_ns is not None and self._spoke_ns > self._since_ns and now_ns - self._spoke_ns < BREAK_NS
        if speaks and now_ns - self._since_ns > self._patience_ns:
            self._patience_ns = min(2 * self._patience_ns, FORGOT_MAX_NS)
            self._ask_anew(now_ns)
        elif self._speaks_again(receiver):
            self._forgotten(now_ns)
        elif speaks and family(self._identity) is Family.MTK and now_ns >= self._check_ns:
            self._check_ns = now_ns + CHECK_NS
            return MTK_QUESTION
        return b""

    def _compare(self, frame: Frame, now_ns: int) -> None:
        """Whether a MediaTek receiver still sends what it was told to send."""
        found = frame.data.decode("ascii", "replace") if frame.kind is FrameKind.NMEA and frame.checksum else ""
        wanted = f"PMTK{MTK_ANSWER},{mtk_sentences(self.profile)}"
        if found.startswith(f"PMTK{MTK_ANSWER},") and not found.startswith(wanted) and "sentences" in self._done():
            self._forgotten(now_ns)

    def _speaks_again(self, receiver: ReceiverStream) -> bool:
        """Whether sentences come that it acknowledged to have switched off: it lost its power during the set-up, or somebody else set
        it."""
        done = self._done()
        silent = output(self._identity, self.profile).silent if "sentences" in done else [n[3:] for n in done if n.startswith("no ")]
        return any(receiver.sentences.get(name.encode("ascii"), 0) > self._ended_ns + BREAK_NS for name in silent)

    def _done(self) -> list[str]:
        return [name for name, result in self._talk.results.items() if result is Result.DONE]

    def _forgotten(self, now_ns: int) -> None:
        """The receiver says that it has started, or sends what it was told not to send: configure it again. Each such event doubles the
        time during which further ones are ignored; FORGOT_MAX_NS without any resets it."""
        if now_ns < self._calm_ns:
            return
        quiet = now_ns - self._calm_ns > FORGOT_MAX_NS
        self._calm_for_ns = FORGOT_NS if quiet else min(2 * self._calm_for_ns, FORGOT_MAX_NS)
        self._calm_ns = now_ns + self._calm_for_ns
        self._ask_anew(now_ns)

    def _tell(self, news: News) -> None:
        if news != self._last:
            self._news.append(news)
        self._last = news


def _named(frame: Frame, receiver: ReceiverStream) -> str:
    """What the receiver calls itself in this answer to QUESTION; "" when it is another answer."""
    if frame.kind is FrameKind.NMEA:
        text = frame.data.decode("ascii", "replace")
        return text if text.startswith("PMTK705") and frame.checksum else ""
    return receiver.ubx.identity if tuple(frame.data[:2]) == MON_VER and len(frame.data) >= 42 else ""
