"""Pulses of /dev/ppsN (RFC 2783): a thread for each device waits in the kernel for edges and converts their stamps to both clocks.

The wait blocks outside the GIL. A stamp is converted at once, while the readings of the clocks around it are fresh. All threads and the
main loop share one LocalClock, so that eras agree.

Flow: kernel stamp (CLOCK_REALTIME) -> **pps** -> Edge (Instant) -> ``ppsd.clock.pulses``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from refclock.errors import explain
from refclock.kernel.clocks import LocalClock
from refclock.kernel.pps import PpsDevice, PpsEvent
from refclock.sample import Edge, EdgeKind

FETCH_S: Final = 1.2
"""s to wait for an edge: longer than the second between two. ``stop`` and the loss of a device are noticed after it at the latest."""
POLL_S: Final = 0.05
"""s between two looks at a device that cannot wait. The stamps are the kernel's, so they come later but are as good."""
QUEUED_EDGES: Final = 64
"""Edges kept until the main loop takes them; the oldest go first. Half a minute of both kinds."""
JOIN_S: Final = 5.0
"""s that ``stop`` waits for the thread, several FETCH_S. A driver that hangs longer ends with the process."""
SYSFS: Final = Path("/sys/class/pps")

_HINTS: Final = {
    errno.ENOENT: (
        "on a Raspberry Pi put dtoverlay=pps-gpio,gpiopin=18,capture_clear=on (the pulse's pin) into /boot/firmware/config.txt and reboot;"
        " for a pulse on a serial port's DCD line run: ldattach PPS <tty>"
    ),
    errno.EACCES: 'give this user access by the udev line: SUBSYSTEM=="pps", GROUP="dialout", MODE="0660"',
    errno.EPERM: "switching on the capture needs CAP_SYS_TIME once (AmbientCapabilities=CAP_SYS_TIME in the unit)",
    errno.ENOTTY: "this is no PPS device; correct pps in the configuration",
    errno.ENODEV: "the device is gone; plug the receiver in, or load the driver again",
}


def failure(path: str, error: OSError) -> OSError:
    """``error`` with the sentence for people: what failed with this PPS device, why, and what to do about it."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ENOENT:
        others = sorted(p.name for p in SYSFS.iterdir()) if SYSFS.is_dir() else []
        why = f"there is no such device (there {'are ' + ', '.join(others) if others else 'is no PPS device at all'})"
    return OSError(error.errno, explain(OSError(error.errno, why), path, _HINTS))


def refusal(path: str, sysfs: Path = SYSFS) -> str:
    """Why this kernel source must not be used, by its driver's name; empty when it may be, or when the kernel tells no name."""
    try:
        name = (sysfs / Path(path).resolve().name / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    if name.startswith("ktimer"):
        return f"{path} is the kernel's own timer ({name}), which ticks with the system clock and knows nothing of time; choose another"
    if name.startswith("ptp"):
        return f"{path} is the clock of a network card ({name}), not a receiver's pulse; choose another"
    return ""


class Stamping(NamedTuple):
    """How a pulse gets its stamps, in words, and by how much (us) they may be late when nobody measured it; that goes into the bound."""

    how: str
    bias_us: float


class EdgeQueue:
    """The last QUEUED_EDGES edges of a device, between the thread that stamps them and the loop that takes them."""

    def __init__(self) -> None:
        self._edges: deque[Edge] = deque(maxlen=QUEUED_EDGES)

    def put(self, edge: Edge) -> None:
        """Keep an edge."""
        self._edges.append(edge)

    def take(self) -> list[Edge]:
        """The edges since the last call, in order."""
        edges = []
        while self._edges:
            edges.append(self._edges.popleft())
        return edges


BY_KERNEL: Final = Stamping("by the kernel", 15.0)
"""The interrupt latency of a Raspberry Pi's pin is 5 to 12 us, a motherboard's is like it (published satpulse measurements)."""


class PpsThread(EdgeQueue):
    """Edges of ``path`` from now on. ``wake`` is called in the thread after each edge and after a failure; it must not block.

    OSError from the constructor: the device cannot be opened or must not be used; ``strerror`` is the sentence for people. ``error``: that
    sentence when the device failed later; then the thread has ended. ``unplaced``: edges that were stamped before a step of the clock, and
    so could not be converted.
    """

    def __init__(self, path: str, clock: LocalClock, wake: Callable[[], None], stamping: Stamping = BY_KERNEL) -> None:
        super().__init__()
        self.stamping = stamping
        self.path = path
        self.error = ""
        self.unplaced = 0
        self._clock = clock
        self._wake = wake
        self._stopping = threading.Event()
        refused = refusal(path)
        if refused:
            raise OSError(errno.EINVAL, refused)
        try:
            self._device = PpsDevice(path)
            try:
                self._last = self._device.fetch(0) or PpsEvent(0, 0, 0, 0)  # earlier edges are dropped
            except OSError:
                self._device.close()
                raise
        except OSError as e:
            raise failure(path, e) from e
        self._node = _node(path)
        self._thread = threading.Thread(target=self._run, name=f"pps {path}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the device; returns within JOIN_S."""
        self._stopping.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            self._watch()
        except OSError as e:
            self.error = explain(failure(self.path, e))
        finally:
            self._device.close()
        if self.error:
            self._wake()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            if self._device.can_wait:
                event = self._device.fetch(FETCH_S)
            else:
                self._stopping.wait(POLL_S)
                event = self._device.fetch(0)
            if event is None or event == self._last:
                # A source whose driver went away does not fail, it only falls silent, and its node is removed.
                if self._node is not None and _node(self.path) != self._node:
                    raise OSError(errno.ENODEV, "the device vanished")
                continue
            self._keep(self._last, event)
            self._last = event
            self._wake()

    def _keep(self, last: PpsEvent, event: PpsEvent) -> None:
        new = []
        if event.assert_sequence != last.assert_sequence:
            new.append((event.assert_real_ns, EdgeKind.ASSERT, event.assert_sequence))
        if event.clear_sequence != last.clear_sequence:
            new.append((event.clear_real_ns, EdgeKind.CLEAR, event.clear_sequence))
        for real_ns, kind, sequence in sorted(new, key=lambda edge: edge[0]):
            at = self._clock.instant_of(real_ns)
            if at is None:
                self.unplaced += 1
            else:
                self.put(Edge(at, kind, sequence, self._clock.uncertainty_ns))


def _node(path: str) -> tuple[int, int] | None:
    """Which device node ``path`` is now; None when there is none (a simulated device has none)."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_rdev, found.st_ino
