"""The clock process: one poll loop around the engine, which turns device input into events and effects into actions.

Receiver data enters the daemon here. The loop sleeps in poll(2) until a device, the control socket, a signal or the step watch is ready, or
until the engine's deadline. It reads the device, stamps the event with the instant of the reading, hands it to the engine and carries out
the effects. ``ppsd.clock.inputs`` opens the devices and pulses. The process has no thread, except one for each pulse device
(``refclock.devices.pps``) and one for a slow thermometer.

Two things pass from one run to the next. The record in ``run_dir/timescale`` is valid within one boot: the engine resumes from it, so a
restart keeps the synchronisation. The state file survives a reboot.

SIGTERM, SIGINT: the state is saved and the exit code is 0. Nothing is published, so the server goes on with the last record.
SIGHUP: the configuration is read again, and what it needs is tried. A bad one is refused and the old one stays. Of a good one only what
changed is touched. Another thermometer or another ``not_before`` mean a new run inside the process, from the record in force: the served
time goes on.
Suspend: CLOCK_MONOTONIC_RAW stops while the machine is suspended, which shows as CLOCK_BOOTTIME running ahead of CLOCK_MONOTONIC. The
timescale is then void: an unsynchronised record is published, and everything restarts without the old one. The server sees the same by
itself (native/record.h); so the record is published again once a second, and never after a suspend.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Final

import refclock.kernel.clocks
from ppsd import version
from ppsd.clock import onlookers, state
from ppsd.clock.cpu_latency import hold
from ppsd.clock.inputs import Inputs
from ppsd.clock.sources import open_feed
from ppsd.clock.system_clock import Clock, FreeRunningClock, KernelClock
from ppsd.clock.thermometer import Thermometer
from ppsd.clock.upstream import UpstreamDoor
from ppsd.config.contents import contents
from ppsd.config.file import load
from ppsd.config.tables import Config, changed, without_waiting
from ppsd.discipline import events
from ppsd.discipline.engine import Engine
from ppsd.discipline.events import Effect, Event, Publish
from ppsd.discipline.saved import Saved, from_json
from ppsd.faces.text import top_line
from ppsd.process.control import JUDGE, TELL, ControlServer, Reloaded, Reloads, judgement
from ppsd.process.exit_codes import GOOD
from ppsd.process.lifecycle import Alone, Signals, make_run_directory, notify
from ppsd.process.log import open_log
from ppsd.snapshot import KernelStatus, Snapshot
from refclock.condition import Code, Condition
from refclock.config import Feed, PulsedSource, ReceiverSource, ShmSource, SockFeed, SockSource, Source, promise_us
from refclock.devices.ports import control_line
from refclock.errors import explain
from refclock.exchange.sock import SockIntake
from refclock.exchange.upstream import FILE
from refclock.kernel.clocks import Adjtimex, LocalClock, StepWatch
from refclock.kernel.files import group_number
from refclock.kernel.host import Host, battery_witness_s
from refclock.kernel.sandbox import CLOCK, Capability, account, confine, refused, to_drop
from refclock.kernel.timescale import TimescaleWriter
from refclock.record import Record
from refclock.sample import NS, Instant
from refclock.schema import ConfigError
from refclock.timescales import DAY_S, KNOWN_UNTIL_S, day_of, parse_leap_seconds_list

SUSPENDED_NS: Final = 100_000_000
"""Nanoseconds; a larger growth of BOOTTIME - MONOTONIC means that the machine was suspended. The two are read microseconds apart, and every
suspend is longer."""
OWN_KEYS: Final = ("clock.", "leap.", "log.", "source ", "feed ", "upstream ")
"""How the names of the keys begin that concern this process (``ppsd.config.tables``)."""
LEAP_FILE_LIMIT: Final = 1 << 20
"""Octets read of leap-seconds.list; the real file has 5 kB (tzdata 2024b)."""
NO_SOCKETS: Final = frozenset({errno.EINVAL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""Errors of socket(2) where the address family does not exist."""
COUNTER: Final = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
"""The name of the counter of which the kernel makes its clocks (kernel/time/clocksource.c)."""
STATUS_NS: Final = 10 * NS
"""Nanoseconds between two updates of the line that ``systemctl status`` shows."""


TOLD: Final[Mapping[str, Code]] = {
    "steering": Code.STEERING_REFUSED,
    "leap seconds": Code.LEAP_TABLE_UNREADABLE,
    "state": Code.STATE_NOT_SAVED,
    "receivers' state": Code.STATE_NOT_SAVED,
    "cpu_latency_us": Code.CPU_LATENCY_REFUSED,
}
"""Subjects of ``tell`` that become conditions of the snapshot."""


class End(Enum):
    """Why a run ended."""

    STOP = "stop"
    RELOAD = "reload"
    SUSPENDED = "suspended"


class ClockProcess:
    """One run under one configuration; owns every open device. ``resume``: a record of this boot to continue from. ``alone``: the lock
    on ``run_dir``. ``reloads``: what happened at those of the whole process.

    OSError from the constructor: another clock process runs in ``run_dir``, the record cannot be created, or the clock may not be steered.
    """

    def __init__(
        self, config: Config, run_dir: Path, simulated: bool, resume: Record | None, signals: Signals, *, alone: Alone, reloads: Reloads
    ) -> None:
        self.config, self._signals, self._alone, self._reloads = config, signals, alone, reloads
        self._log = open_log(config.log.format, config.log.level, "clock")
        self._feeds = {fed: open_feed(fed[0], config.sources) for fed in _fed(config)}
        self._told: dict[str, str] = {}
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._closers = contextlib.ExitStack()
        try:
            self._control = self._open_control(run_dir)
            self._writer = TimescaleWriter(run_dir / "timescale")
            self._closers.callback(self._writer.close)
            # With shared memory the loop runs five times a second and notices a step each time; it needs no watch to wake it.
            self._watch = None if any(isinstance(s, ShmSource) for s in config.sources) else self._open_watch()
            self._steering = _steering(config)
            self._closers.callback(self._leave_clock)
        except OSError:
            self._closers.close()
            raise
        self._thermometer = Thermometer(config.clock.temperature, Host())
        self._closers.callback(self._thermometer.close)
        file, complaint = state.load(Path(config.run.state))
        saved, useless = from_json(file)
        self.tell("state", complaint or (f"{Path(config.run.state) / state.FILE_NAME}: {useless}" if useless else None))
        self._latency = self._closers.enter_context(contextlib.ExitStack())
        self.tell("cpu_latency_us", hold(config.clock.cpu_latency_us, self._latency))
        self._clock = LocalClock()
        self._slept_ns = _slept_ns()
        self._host = Host()
        self._counter = self._host.text(COUNTER)
        now = self._clock.now()
        self._era = now.era
        self._chores_ns = self._leap_file_ns = self._status_ns = now.mono_ns
        config = replace(config, sources=config.heard)
        kernel = None if simulated else self._kernel_state()
        battery_s = None if kernel is None else battery_witness_s(Host(), kernel)
        self._engine = Engine(
            config, saved, now, simulated=simulated, version=version(), pid=os.getpid(), resume=resume, battery_s=battery_s
        )
        self.published = resume
        if self._engine.timescale.estimate is None:  # replace the record that an earlier run left
            self._carry_out(Publish(self._engine.timescale.record(*self._engine.leaps.schedule(0))))
        else:
            self._log.info("resumed", bound_ns=round(self._engine.timescale.bound_ns(now.mono_ns)))
        if self._control is not None:
            self.listen(self._control.fileno(), self._control.handle_ready)
        if self._watch is not None:
            self.listen(self._watch.fileno(), self._stepped)
        self.listen(signals.wake, self._woken)
        self.nudge = signals.nudge
        self._inputs = Inputs(config, self._clock, self._engine.not_before_s, self, Host())
        self._run_dir = run_dir
        self._door: UpstreamDoor | None = None
        self._mind_door()

    def _mind_door(self) -> None:
        """Have the socket for NTP servers while some are asked; make it anew when somebody has removed it."""
        door = self._door
        if door is not None and (not self.config.asked or door.missing):
            self.forget(door.fileno())
            door.close()
            self._door = None
        if self._door is None and self.config.asked:
            try:
                self._door = door = UpstreamDoor(self._run_dir / FILE, self._clock, servers_group(self.config))
            except OSError as error:
                self.tell("upstreams", explain(error))
                return
            self.listen(door.fileno(), self._hear)
        self.tell("upstreams", "" if self._door is None else self._door.complaint)

    def _hear(self) -> None:
        if self._door is not None:
            for event in self._door.read():
                self.handle(event)

    def _open_control(self, run_dir: Path) -> ControlServer | None:
        """The control socket; None where unix sockets do not exist, as under a clock simulator that replaces libc."""
        try:
            control = ControlServer(run_dir / "clock.sock", self._answer, group=asking_group(self.config))
        except OSError as error:
            if error.errno not in NO_SOCKETS:
                raise
            self.tell("control socket", explain(error))
            return None
        self._closers.callback(control.close)
        self.tell("control socket", control.complaint if self.config.run.group else "")
        return control

    def _leave_clock(self) -> None:
        """Leave the system clock running at its best known rate."""
        self._steering.close()

    def _open_watch(self) -> StepWatch | None:
        """The watch for steps of the system clock; None where the kernel refuses it. A step is then noticed within a second."""
        try:
            watch = StepWatch()
        except OSError as error:
            self.tell("step watch", f"{explain(error)}; steps of the system clock are noticed once a second")
            return None
        self._closers.callback(watch.close)
        return watch

    def _kernel_state(self) -> Adjtimex | None:
        """The state of the kernel's clock; None where it may not even be read (systemd's ProtectClock, some containers)."""
        try:
            state = refclock.kernel.clocks.read_adjtimex()
        except OSError as error:
            lost = "whether another program keeps the system clock is not known, so it is no witness"
            self.tell("kernel's clock", f"{explain(error)}; {lost}")
            return None
        self.tell("kernel's clock", None)
        return state

    def run(self, until_ns: int | None) -> End:
        """Run until a signal, a suspend, or the raw instant ``until_ns``; returns why it ended."""
        while True:
            now = self._clock.now()
            if self._signals.stop or (until_ns is not None and now.mono_ns >= until_ns):
                return End.STOP
            if self._signals.reload:
                return End.RELOAD
            if now.mono_ns >= self._chores_ns:
                self._chores_ns = now.mono_ns + NS
                if self._suspended():
                    suspended_s = (_slept_ns() - self._slept_ns) / NS
                    self._log.warning("the machine was suspended, synchronisation restarts", suspended_s=suspended_s)
                    return End.SUSPENDED
                self._chores(now)
            self._inputs.work(now)
            deadline = self._engine.deadline()
            if deadline is not None and now.mono_ns >= deadline:
                # Another program's claim about the system clock is no independent witness while we feed that program,
                # and it says nothing about simulated time.
                witness = not (self.config.feeds or self._engine.simulated)
                self.handle(events.Ticked(self._clock.now(), self._steering.kept_error_ns() if witness else None))
            for fd, _ in self._poll.poll(self._pause_ms(until_ns)):
                if fd in self._readers:  # an earlier reader of this turn may have closed it
                    self._readers[fd]()

    def save(self) -> None:
        """Save the state for the next start."""
        learned = self._engine.state()
        if learned != Saved():
            self.tell("state", state.save(Path(self.config.run.state), learned.to_json()))

    # ---- reloading -------------------------------------------------------------------------------------------------------------------

    def reload(self) -> Config | None:
        """Read the configuration again and take up what changed. Returns the configuration for a new run when this one cannot take it up;
        None: this run goes on."""
        found, problems = self._judge()
        old, new = self.config, without_waiting(self.config, found)
        if not problems and not _of_a_new_run(old, new):
            try:
                self._take_up(new)
            except OSError as error:
                problems = [explain(error)]
        if problems:
            self.refuse(problems)
            return None
        names = ", ".join(name for name in changed(old, new) if name.startswith(OWN_KEYS))
        if _of_a_new_run(old, new):
            self._log.answer("info", "configuration changed, sources are opened again", changed=names)
            self._reloads.happened(Reloaded(True, ("the clock process opens its sources again, and holds the time meanwhile",)))
            return new
        self._log.answer("info", "configuration taken up", changed=names or "nothing")
        untouched = "its sources were not touched" if old.sources == new.sources else "its other sources were not touched"
        told = f"the clock process has taken up: {names}; {untouched}" if names else f"the clock process: nothing has changed; {untouched}"
        absent = _absent(source for source in new.sources if source not in old.sources)
        self._reloads.happened(Reloaded(True, (told, *absent, *_given_up(old, new))))
        return None

    def refuse(self, problems: list[str]) -> None:
        """Tell why a configuration was not taken."""
        for problem in problems:
            self._log.answer("error", "configuration refused, the old one stays", problem=problem)
        self._reloads.happened(Reloaded(False, (*problems, "the clock process keeps its configuration")))

    def _judge(self) -> tuple[Config, list[str]]:
        """The configuration as it is now on disk, and what stands against it. What it needs is tried; nothing is changed."""
        try:
            found = load(Path(self.config.file) if self.config.file else None)
        except ConfigError as error:
            return self.config, [str(problem) for problem in error.problems]
        problems: list[str] = []
        if found.clock.steer == "kernel" != self.config.clock.steer:
            try:
                if self._engine.simulated:
                    raise OSError(errno.EPERM, 'clock.steer must be "none" in a simulation')
                _steering(found).close()
            except OSError as error:
                problems.append(explain(error))
        here = {source.path for source in self.config.sources if isinstance(source, SockSource)}
        for source in found.sources:
            if isinstance(source, SockSource) and source.path not in here:
                try:
                    SockIntake(source.path).close()
                except FileNotFoundError:  # its directory may come later, as a device may
                    pass
                except OSError as error:
                    problems.append(explain(error))
        return found, problems

    def _take_up(self, new: Config) -> None:
        """Put ``new`` in force in this run. OSError: the clock may not be steered, and nothing was changed."""
        old = self.config
        if new.clock.steer != old.clock.steer:
            steering = _steering(new)
            self._steering.close()
            self._steering = steering
        self.config = new
        self._log.speak(new.log.format, new.log.level)
        if new.leap != old.leap:
            self._leap_file_ns = 0
        if new.clock.cpu_latency_us != old.clock.cpu_latency_us:
            self._latency.close()
            self.tell("cpu_latency_us", hold(new.clock.cpu_latency_us, self._latency))
        fed = _fed(new)
        for one in [one for one in self._feeds if one not in fed]:
            self._feeds.pop(one).close()
        self._feeds = {one: self._feeds.get(one) or open_feed(one[0], new.sources) for one in fed}
        sources = new.heard
        self._engine.configure(replace(new, sources=sources))
        self._mind_door()
        self._inputs.configure(sources)

    def close(self, for_good: bool) -> None:
        """Close everything; the published record stays. ``for_good``: the process is about to end, and its end stops the pulse threads."""
        self._tell_refusals()
        self._inputs.close(for_good)
        if self._door is not None:
            self._door.close()
        for feed in self._feeds.values():
            feed.close()
        self._closers.close()

    # ---- the loop's parts ------------------------------------------------------------------------------------------------------------

    def listen(self, fd: int, reader: Callable[[], None]) -> None:
        """Call ``reader`` whenever ``fd`` is readable."""
        self._readers[fd] = reader
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Stop waiting for ``fd``, which is about to be closed."""
        self._poll.unregister(fd)
        del self._readers[fd]

    def _pause_ms(self, until_ns: int | None) -> int:
        """Milliseconds until the next deadline, rounded up: a wake-up before it would find nothing to do."""
        times = [self._chores_ns]
        times += [t for t in (until_ns, self._engine.deadline()) if t is not None]
        times += self._inputs.due_ns()
        return max(0, -((self._clock.now().mono_ns - min(times)) // 1_000_000))

    def _chores(self, now: Instant) -> None:
        """Do what is due once a second."""
        self._tell_refusals()
        self._keep_names()
        self._publish()
        self._log.settle()
        self._notice_counter(now)
        self._steering.expire(now)
        self._inputs.tick(now)
        self._mind_door()
        reading = self._thermometer.read(now)
        if reading is not None:
            self.handle(reading)
        if now.mono_ns >= self._leap_file_ns:
            self._leap_file_ns = now.mono_ns + DAY_S * NS
            self._read_leap_file()
        if "NOTIFY_SOCKET" in os.environ:
            notify("WATCHDOG=1")
            if now.mono_ns >= self._status_ns:
                self._status_ns = now.mono_ns + STATUS_NS
                notify(f"READY=1\nSTATUS={top_line(self._engine.snapshot(now))}")

    def _tell_refusals(self) -> None:
        for call in refused():
            self._log.error("system call refused: this process does not make it", call=call)

    def _woken(self) -> None:
        """A signal came, or a pulse thread has an edge."""
        if not self._signals.drain():  # under a clock simulator that replaces libc the pipe always polls readable
            self._poll.unregister(self._signals.wake)
            del self._readers[self._signals.wake]
            self._signals.let_go()

    def _stepped(self) -> None:
        """The clock was set, a leap second was applied, or the machine woke up: look at once."""
        if self._watch is not None and self._watch.stepped():
            self._chores_ns = 0
            self._notice_step(self._clock.now())

    def _notice_step(self, now: Instant) -> None:
        if now.era != self._era:
            self._era = now.era
            self._publish()
            self.handle(events.ClockStepped(self._clock.last_step_ns, now))

    def _notice_counter(self, now: Instant) -> None:
        """The kernel may have given up the counter of its clocks for another one, which runs at another rate."""
        was, self._counter = self._counter, self._host.text(COUNTER) or self._counter
        if was is not None and self._counter is not None and was != self._counter:
            self.handle(events.RawClockChanged(was, self._counter, now))

    def _suspended(self) -> bool:
        """Whether the machine has slept during this run."""
        return _slept_ns() - self._slept_ns > SUSPENDED_NS

    def _publish(self) -> None:
        """Put the present record in force, again if it is the same: the server sees that this process lives and has seen its clocks."""
        if self.published is not None and not self._suspended():
            self._writer.publish(self.published)

    def _keep_names(self) -> None:
        """Make anew what somebody has removed from the run directory, for the server and the commands to find."""
        removed = "was removed from the run directory by somebody, and is made anew"
        try:
            if self._writer.renew():
                self._log.warning(f"the timescale {removed}")
            if self._control is not None and self._control.renew():
                self._log.warning(f"the control socket {removed}")
            self._alone.renew()
            self.tell("run directory", None)
        except OSError as error:
            self.tell("run directory", explain(error))

    def _read_leap_file(self) -> None:
        path = self.config.leap.file
        try:
            table = parse_leap_seconds_list(contents(Path(path), LEAP_FILE_LIMIT).decode("ascii", "replace"))
        except OSError as error:
            known = f"known up to {day_of(KNOWN_UNTIL_S)} only"
            self.tell("leap seconds", f"{path} cannot be read ({error.strerror}): {known}; install tzdata or set leap.file")
            return
        self.tell("leap seconds", None)
        ours = self._engine.simulated or self.config.clock.steer == "kernel"  # then the kernel's count is our own
        kernel = None if ours else self._kernel_state()
        self.handle(events.LeapFileRead(table, path, self._clock.now(), 0 if kernel is None else kernel.tai_offset_s))

    # ---- events in, effects out ------------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Hand ``event`` to the engine and carry out its effects."""
        self._notice_step(event.at)
        for effect in self._engine.handle(event):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Publish():
                self.published = effect.record
                self._publish()
            case events.Feed():
                for feed in self._feeds.values():
                    feed.send(effect.at, effect.offset_ns, effect.bound_ns, effect.leap)
                    self.tell(f"feed {feed.name}", feed.why)
            case events.Steer():
                self._steer(effect)
            case events.Persist():
                self.tell("state", state.save(Path(self.config.run.state), effect.state.to_json()))
            case events.Note():
                self._log.tell(effect.level, effect.event, effect.fields)

    def _steer(self, steer: events.Steer) -> None:
        try:
            notes = self._steering.apply(steer, self._clock.now())
        except OSError as error:
            self.tell("steering", explain(error))
            return
        self.tell("steering", "")
        self._era = self._clock.now().era  # the engine ordered this step, so it is no event
        for note in notes:
            self._carry_out(note)

    def tell(self, what: str, why: str | None) -> None:
        """Log why ``what`` fails whenever the reason changes, and when it works again (``why`` empty)."""
        why = why or ""
        if why != self._told.get(what, ""):
            if why:
                self._log.warning(f"{what}: {why}")
            else:
                self._log.info(f"{what}: works again")
            self._told[what] = why

    def _answer(self, line: str) -> str:
        if line == "snapshot":
            return json.dumps(self.snapshot().to_json(), separators=(",", ":"))
        if line == JUDGE:
            return judgement(self._judge()[1])
        if line == TELL:
            return self._reloads.answer()
        told = onlookers.answer(line, self._inputs.lines, self._inputs.pulses)
        if told is None:
            told = {"error": f"unknown verb {line[:32]!r}; known: {', '.join(('snapshot', JUDGE, TELL, *onlookers.VERBS))}"}
        return json.dumps(told, separators=(",", ":"))

    def snapshot(self) -> Snapshot:
        """The engine's snapshot, with the feeds and the conditions of this process."""
        engine = self._engine.snapshot(self._clock.now())
        feeds, own = tuple(feed.status() for feed in self._feeds.values()), self.config.server
        conditions = (*engine.conditions, *self._conditions())
        k = self._kernel_state()
        kernel = KernelStatus(k.frequency_ppm, k.offset_ns, k.max_error_ns, k.est_error_ns, k.status) if k is not None else None
        return replace(engine, feeds=feeds, listen=own.listen if own.enabled else (), conditions=conditions, kernel=kernel)

    def _conditions(self) -> Iterator[Condition]:
        """Conditions of the machine around the engine: steering, files, pulse devices, feeds."""
        if self._steering.trouble is not None:
            yield self._steering.trouble
        for what, why in self._told.items():
            if why and what in TOLD:
                yield Condition(TOLD[what], f"{what}: {why}")
        for name in self._engine.sources:
            absent = self._told.get(f"pulse of {name}")
            if absent:
                yield Condition(Code.PULSE_DEVICE_ABSENT, f"pulse of {name}: {absent}", source=name)
        for feed in self._feeds.values():
            if feed.why and feed.lost:
                yield Condition(Code.FEED_NOT_TAKEN, f"feed {feed.name}: {feed.why}")


def _fed(config: Config) -> tuple[tuple[Feed, float], ...]:
    """Each feed with what it promises of the sources that feed it."""
    return tuple((feed, promise_us(feed, config.sources)) for feed in config.feeds)


def _steering(config: Config) -> Clock:
    """The system clock as ``config`` wants it. OSError: it may not be steered."""
    control = refclock.kernel.clocks
    return KernelClock(control, Host()) if config.clock.steer == "kernel" else FreeRunningClock(control)


def _of_a_new_run(old: Config, new: Config) -> bool:
    """Whether the engine of ``old`` cannot go on under ``new``: what it has learned depends on these keys."""
    before, after = old.clock, new.clock
    return (before.temperature, before.not_before) != (after.temperature, after.not_before)


def _absent(sources: Iterable[Source]) -> Iterator[str]:
    """What is not there of the devices that ``sources`` name."""
    for source in sources:
        device = source.device if isinstance(source, ReceiverSource) else ""
        pulse = source.pps if isinstance(source, PulsedSource) else ""
        line = control_line(pulse)
        for path in (device, pulse if line is None else line[0]):
            if path.startswith("/") and not Path(path).exists():
                yield f"{source.name}: there is no {path} now; it will be taken when it comes"


def _slept_ns() -> int:
    """Nanoseconds for which the machine has been suspended since it booted."""
    try:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    except OSError:  # a clock simulator that replaces libc lacks this clock, and never suspends
        return 0


def asking_group(config: Config) -> str:
    """The group that may ask besides this process's user: ``run.group``, in which the server's process is too; else ``servers_group``."""
    return config.run.group or servers_group(config)


def servers_group(config: Config) -> str:
    """The group of the server's process alone, when that is another user's than root, who runs this one; "": this process's own."""
    to = account(config.run.user)
    return str(to.group) if to_drop(to) else ""


def join(group: str) -> None:
    """Be in the group, as root: who is may give it files without a right to give files away."""
    number = group_number(group)
    if number is not None and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # in a user namespace that has no such group: the socket stays this user's alone
            os.setgroups([*os.getgroups(), number])


def rights(config: Config) -> set[Capability]:
    """What this process needs of root's rights: to set the system clock and a pulse device's mode, to wake a pulse's thread in time, to see
    who has a serial port open and to read any file that its owner configured. With SOCK it also crosses chronyd's directory, and with a
    named owner's shared memory it reads that. It gives its socket to a group that it is not in."""
    found = {Capability.SYS_TIME, Capability.SYS_NICE, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH}
    if config.run.group:
        found.add(Capability.CHOWN)
    if any(isinstance(feed, SockFeed) for feed in config.feeds):
        found.add(Capability.DAC_OVERRIDE)
    if any(isinstance(source, ShmSource) and source.owner for source in config.sources):
        found.add(Capability.IPC_OWNER)
    return found


def _given_up(old: Config, new: Config) -> Iterator[str]:
    """What of ``new`` needs a right that a process of root's, started under ``old``, no longer has."""
    missing = rights(new) - rights(old) if os.geteuid() == 0 else set()
    if Capability.DAC_OVERRIDE in missing:
        yield "a sock feed into another user's directory works from the next start of refclock on: it has given up the right to enter it"
    if Capability.IPC_OWNER in missing:
        yield "another user's shared memory is read from the next start of refclock on: it has given up the right to"


def main(config: Config, run_dir: Path, simulated: bool, duration_s: float | None) -> int:
    """Run until a signal, or for ``duration_s``; returns 0. ``simulated``: marks the served time as simulated.

    OSError: see ClockProcess. ``run_dir`` stays the same through a reload.
    """
    signals, reloads = Signals(), Reloads()
    make_run_directory(run_dir, user=config.run.user)
    alone = Alone(run_dir)
    join(asking_group(config))
    kept = confine(CLOCK, rights(config))
    until_ns = None if duration_s is None else refclock.kernel.clocks.read_clocks().raw_ns + round(duration_s * NS)
    resume = state.left_record(run_dir / "timescale")
    process = ClockProcess(config, run_dir, simulated, resume, signals, alone=alone, reloads=reloads)
    while True:
        process.tell("sandbox", "; ".join(kept))
        end, renewed = End.STOP, None
        try:
            end = process.run(until_ns)
            while end is End.RELOAD:
                signals.reload = False
                renewed = process.reload()
                if renewed is not None:
                    break
                end = process.run(until_ns)
            if end is not End.SUSPENDED:
                process.save()
        finally:
            if end is End.STOP:
                notify("STOPPING=1")
            process.close(for_good=end is End.STOP)
        if end is End.STOP:
            alone.close()
            return GOOD
        # As the server reads it: a suspend that nobody has noticed yet makes it void.
        resume = state.left_record(run_dir / "timescale") if end is End.RELOAD else None
        config = process.config
        try:
            process = ClockProcess(renewed or config, run_dir, simulated, resume, signals, alone=alone, reloads=reloads)
        except OSError as error:
            if renewed is None:
                raise
            process = ClockProcess(config, run_dir, simulated, resume, signals, alone=alone, reloads=reloads)
            process.refuse([explain(error)])
