# The interface of native/{pps,clock,shm,timescale}.h as mypy sees it; tests/unit/test_kernel.py holds it against the extension.
from typing import Literal, overload

class PpsEvent:
    assert_ns: int
    clear_ns: int
    assert_sequence: int
    clear_sequence: int

class ClkReading:
    real_ns: int
    mono_ns: int
    raw_ns: int
    uncertainty_ns: int

class ClkState:
    frequency_ppm: float
    offset_ns: int
    max_error_ns: int
    est_error_ns: int
    tai_offset_s: int
    status: int
    state: int
    leap: int

class ShmSample:
    clock_ns: int
    receive_ns: int
    leap: int
    precision: int

class TscParams:
    raw_ns: int
    tai_ns: int
    rate: float
    bound_ns: float
    bound_rate: float
    bound_wander_ns: float
    root_delay_ns: int
    reference_raw_ns: int
    valid_until_raw_ns: int
    leap_tai_ns: int
    leap_step_s: int
    tai_offset_s: int
    refid: int
    precision: int
    stratum: int
    simulated: int
    reserved: int

class TscReading:
    utc_ns: int
    tai_ns: int
    bound_ns: int
    root_delay_ns: int
    reference_utc_ns: int
    refid: int
    precision: int
    stratum: int
    leap: int
    simulated: int

class Shm: ...
class Tsc: ...

class IntCell:
    def __getitem__(self, index: Literal[0]) -> int: ...

class ShmCell:
    def __getitem__(self, index: Literal[0]) -> Shm: ...

class TscCell:
    def __getitem__(self, index: Literal[0]) -> Tsc: ...

class Ffi:
    @overload
    def new(self, cdecl: Literal["int *"]) -> IntCell: ...
    @overload
    def new(self, cdecl: Literal["struct pps_event *"]) -> PpsEvent: ...
    @overload
    def new(self, cdecl: Literal["struct clk_reading *"]) -> ClkReading: ...
    @overload
    def new(self, cdecl: Literal["struct clk_state *"]) -> ClkState: ...
    @overload
    def new(self, cdecl: Literal["struct shm_sample *"]) -> ShmSample: ...
    @overload
    def new(self, cdecl: Literal["struct shm **"]) -> ShmCell: ...
    @overload
    def new(self, cdecl: Literal["struct tsc **"]) -> TscCell: ...
    @overload
    def new(self, cdecl: Literal["struct tsc_params *"]) -> TscParams: ...
    @overload
    def new(self, cdecl: Literal["struct tsc_reading *"]) -> TscReading: ...

class Lib:
    PPS_MODE_ASSERT: int
    PPS_MODE_CLEAR: int
    PPS_MODE_CAN_WAIT: int
    def pps_open(self, path: bytes, fd: IntCell) -> int: ...
    def pps_close(self, fd: int) -> int: ...
    def pps_capabilities(self, fd: int, mode: IntCell) -> int: ...
    def pps_get_mode(self, fd: int, mode: IntCell) -> int: ...
    def pps_capture_all(self, fd: int) -> int: ...
    def pps_fetch(self, fd: int, timeout_ns: int, out: PpsEvent) -> int: ...
    def clk_read(self, good_ns: int, out: ClkReading) -> int: ...
    def clk_raw_ns(self) -> int: ...
    def clk_state(self, out: ClkState) -> int: ...
    def clk_set_frequency(self, ppm: float) -> int: ...
    def clk_step(self, offset_ns: int) -> int: ...
    def clk_report(self, leap: int, est_error_ns: int, max_error_ns: int, tai_offset_s: int) -> int: ...
    def clk_watch_open(self, fd: IntCell) -> int: ...
    def clk_watch_stepped(self, fd: int) -> int: ...
    def shm_attach(self, unit: int, create: int, perm: int, out: ShmCell) -> int: ...
    def shm_detach(self, s: Shm) -> None: ...
    def shm_write(self, s: Shm, sample: ShmSample) -> int: ...
    def shm_read(self, s: Shm, out: ShmSample) -> int: ...
    def tsc_open(self, path: bytes, writable: int, out: TscCell) -> int: ...
    def tsc_close(self, t: Tsc) -> None: ...
    def tsc_publish(self, t: Tsc, p: TscParams) -> None: ...
    def tsc_read(self, t: Tsc, out: TscParams) -> int: ...
    def tsc_at(self, p: TscParams, raw_ns: int, out: TscReading) -> None: ...

ffi: Ffi
lib: Lib
