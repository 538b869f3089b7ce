"""NTP shared memory, both ways: segments that chronyd and ntpd read, and segments that other programs write (ntpd's refclock_shm.c).

A segment has no lock and no way to wake its reader: the writer counts before and after it writes, and the reader polls (native/shm.h).
What is read is checked for form only; selection finds out whether it is right. Nothing that is read raises.

Flow: ``ShmIntake`` -> RawSample -> ``ppsd.clock.sources``; sample -> ``ShmFeedWriter`` -> chronyd, ntpd.
"""

from __future__ import annotations

import errno
import math
import sysconfig
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from refclock.errors import explain
from refclock.exchange.samples import EARLIEST_S, LATEST_S, FeedWriter, RawSample, SampleReject
from refclock.kernel._kernel import ffi, lib
from refclock.kernel.errors import checked, live
from refclock.kernel.files import user_number
from refclock.sample import NS, Instant, Leap

if TYPE_CHECKING:
    from refclock.kernel._kernel import Shm


SEGMENT_BYTES: Final = 80 if sysconfig.get_config_var("SIZEOF_TIME_T") == 4 else 96
"""Octets of a segment of ours: what programs of this system make. Debian's Python has the same time_t as they have; the C core need not."""
_SHM_HINTS: Final = {
    errno.ENOENT: "its writer has not created it yet",
    errno.EACCES: "units 0 and 1 are for root only; use unit 2 or higher, or run both programs as one user",
    errno.EPERM: "another user owns it, so it is not believed; name him (owner = ...) or remove it (ipcrm -M 0x4e5450NN)",
    errno.EPROTO: "neither the 96-byte nor the 80-byte layout, or nonsense in it: another program uses this key",
    errno.ENOSPC: "kernel.shmmni is used up",
}


@dataclass(frozen=True, slots=True)
class ShmSample:
    """At CLOCK_REALTIME ``receive_ns`` the reference said ``clock_ns`` (UTC). ``precision``: log2 s."""

    clock_ns: int
    receive_ns: int
    leap: Leap
    precision: int


class ShmSegment:
    """NTP shared memory unit ``unit`` (0..255): written (``create``) or read, in whichever layout it has.

    It must belong to root or this process's user. One that is read may also belong to the user number ``owner``.
    """

    def __init__(self, unit: int, create: bool = False, permissions: int | None = None, owner: int | None = None) -> None:
        self.unit = unit
        self._what = f"shared memory unit {unit} (key {0x4E545030 + unit:#x})"
        cell = ffi.new("struct shm **")
        perm, size = -1 if permissions is None else permissions, SEGMENT_BYTES if create else 0
        attached = lib.shm_attach(unit, size, perm, cell) if owner is None else lib.shm_attach_of(unit, owner, cell)
        checked(attached, f"attaching {self._what}", _SHM_HINTS)
        self._shm: Shm | None = cell[0]
        self._sample = ffi.new("struct shm_sample *")

    def write(self, clock_ns: int, receive_ns: int, leap: Leap = Leap.NORMAL, precision: int = -20) -> None:
        """Leave one sample: UTC of the reference and CLOCK_REALTIME at that instant. OSError ERANGE: a 32-bit layout ends in 2106."""
        self._sample.clock_ns, self._sample.receive_ns = clock_ns, receive_ns
        self._sample.leap, self._sample.precision = leap.value, precision
        checked(lib.shm_write(live(self._shm, self._what), self._sample), f"writing {self._what}", _SHM_HINTS)

    def read(self) -> ShmSample | Literal[SampleReject.CLASH] | None:
        """Take the sample; None: there is none. CLASH: it is lost, because the writer wrote at that moment. OSError EPROTO: it is
        nonsense."""
        return self._taken(lib.shm_read(live(self._shm, self._what), self._sample))

    def look(self) -> ShmSample | Literal[SampleReject.CLASH] | None:
        """Look at the latest sample and leave it there; its one reader may have taken it already. It may be half written: it is whole when
        the next look finds the same. CLASH and OSError as of ``read``."""
        return self._taken(lib.shm_look(live(self._shm, self._what), self._sample))

    def _taken(self, result: int) -> ShmSample | Literal[SampleReject.CLASH] | None:
        if result == -errno.EAGAIN:
            return SampleReject.CLASH
        if checked(result, f"reading {self._what}", _SHM_HINTS) == 0:
            return None
        s = self._sample
        return ShmSample(s.clock_ns, s.receive_ns, Leap(s.leap), s.precision)

    def close(self) -> None:
        """Detach; the segment stays, as its other users expect."""
        if self._shm is not None:
            lib.shm_detach(self._shm)
            self._shm = None


# ---- samples for other programs ------------------------------------------------------------------------------------------------------

PRECISIONS: Final = (-30, 0)
"""log2 s; the least and the greatest that is written: 1 ns, the unit of the stamps, and 1 s."""
PRECISION_UNKNOWN: Final = -20
"""log2 s; 1 us, what gpsd writes for a pulse (gpsd, timehint.c)."""


class ShmFeedWriter(FeedWriter):
    """NTP shared memory segment ``unit``, created when there is none, for chronyd (``refclock SHM unit``) or ntpd (127.127.28.unit)."""

    kind = "shm"

    def __init__(self, unit: int, name: str = "", limit_ns: float = math.inf) -> None:
        super().__init__(name, str(unit), limit_ns)
        self.unit = unit
        self._left = 0  # samples in a row that nobody had taken when the next one came

    def _write(self, at: Instant, offset_ns: int, bound_ns: int, leap: Leap) -> None:
        """As FeedWriter. The bound becomes the segment's precision, rounded up to a power of two s."""
        try:
            segment = ShmSegment(self.unit, create=True)
            try:
                self._left = self._left + 1 if _untaken(segment) else 0
                segment.write(at.real_ns + offset_ns, at.real_ns, leap, precision_of(bound_ns))
            finally:
                segment.close()
        except OSError as e:
            self._failed("refused" if e.errno in (errno.EACCES, errno.EPERM) else "failed", explain(e))
        else:
            if self._left >= LEFT:
                self._failed("absent", f"nobody reads shared memory unit {self.unit}: start chronyd or ntpd with the line of refclock feed")
            else:
                self._done()

    def close(self) -> None:
        """Nothing is held open; the segment stays for its reader."""


def _untaken(segment: ShmSegment) -> bool:
    """Whether the last sample is still there. It is taken out; another one follows at once."""
    try:
        return isinstance(segment.read(), ShmSample)
    except OSError:  # nonsense, which is about to be overwritten
        return False


LEFT: Final = 32
"""Samples in a row that nobody took, after which nobody reads: chronyd and ntpd look once a second, chronyd with dpoll 4 every 16 s."""


def precision_of(uncertainty_ns: int) -> int:
    """log2 s, rounded up, within PRECISIONS; PRECISION_UNKNOWN for 0."""
    if uncertainty_ns <= 0:
        return PRECISION_UNKNOWN
    return max(PRECISIONS[0], min(PRECISIONS[1], math.ceil(math.log2(uncertainty_ns / NS))))


# ---- samples of other programs -------------------------------------------------------------------------------------------------------

SILENT_READS: Final = 10
"""Reads without a sample after which the segment is looked for again, for it may have been replaced: 2 s at five reads a second."""
LEAST_LOG2_S, GREATEST_LOG2_S = -63, 10
"""log2 s; a precision beyond these is read as the nearer one."""


class ShmIntake:
    """NTP shared memory segment ``unit`` that another program writes; to be polled. ``owner``: the user (name or number) to whom it may
    belong besides root and this process's own. ``shared``: another program takes its samples; they are only looked at.

    It stays attached while samples come. After SILENT_READS without one it is looked for again, so it may be absent, and replaced.
    ``received`` and ``rejected`` count; ``why``: the reason when it cannot be read, else "".
    """

    def __init__(self, unit: int, owner: str = "", shared: bool = False) -> None:
        self.unit = unit
        self._owner = owner
        self._shared = shared
        self._seen: ShmSample | None = None  # by the last look
        self._whole: ShmSample | None = None  # the last that two looks have seen
        self.why = ""
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self._segment: ShmSegment | None = None
        self._silent = 0

    def read(self) -> list[RawSample]:
        """The sample there is, if it is new and whole; an absent segment gives none."""
        self._silent += 1
        if self._silent > SILENT_READS:
            self.close()
        try:
            sample = self._look() if self._shared else self.open().read()
        except OSError as e:
            self.close()
            self.why = explain(e)
            if e.errno == errno.EPROTO:
                self.rejected[SampleReject.NONSENSE] += 1
            return []
        self.why = ""
        if sample is SampleReject.CLASH:
            self.rejected[sample] += 1
            return []
        if sample is None:
            return []
        self._silent = 0
        if not EARLIEST_S * NS <= sample.clock_ns < LATEST_S * NS:
            self.rejected[SampleReject.RANGE] += 1
            return []
        self.received += 1
        uncertainty_ns = round(math.ldexp(NS, max(LEAST_LOG2_S, min(GREATEST_LOG2_S, sample.precision))))
        return [RawSample(sample.receive_ns, sample.clock_ns - sample.receive_ns, sample.leap, False, uncertainty_ns)]

    def _look(self) -> ShmSample | Literal[SampleReject.CLASH] | None:
        """The sample that two looks in a row have seen, once."""
        sample = self.open().look()
        if not isinstance(sample, ShmSample):
            return sample
        before, self._seen = self._seen, sample
        if sample != before or sample == self._whole:
            return None
        self._whole = sample
        return sample

    def open(self) -> ShmSegment:
        """Attach it, if it is not. OSError: absent, or no such segment."""
        if self._segment is None:
            owner = user_number(self._owner) if self._owner else None
            self._segment, self._silent = ShmSegment(self.unit, owner=owner), 0
        return self._segment

    def close(self) -> None:
        """Detach the segment; the next read looks for it again."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
