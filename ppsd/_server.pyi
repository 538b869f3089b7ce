# The interface of native/{timescale,packet,server}.h as mypy sees it; tests/unit/test_server.py holds it against the extension.
from typing import Literal, overload

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

class PktContext:
    record: TscParams
    rx_raw_ns: int
    tx_raw_ns: int
    source_port: int

class PktOutcome:
    action: int
    reason: int

class SrvCounts:
    packets: list[list[int]]
    unstamped: int
    stepped: int
    receive_errors: int

class Srv: ...

class SrvCell:
    def __getitem__(self, index: Literal[0]) -> Srv: ...

class PortCell:
    def __getitem__(self, index: Literal[0]) -> int: ...

class Chars: ...

class Buffer:
    def __getitem__(self, index: slice) -> bytes: ...

class Ffi:
    @overload
    def new(self, cdecl: Literal["struct pkt_context *"]) -> PktContext: ...
    @overload
    def new(self, cdecl: Literal["struct pkt_outcome *"]) -> PktOutcome: ...
    @overload
    def new(self, cdecl: Literal["struct srv_counts *"]) -> SrvCounts: ...
    @overload
    def new(self, cdecl: Literal["struct srv **"]) -> SrvCell: ...
    @overload
    def new(self, cdecl: Literal["uint16_t *"]) -> PortCell: ...
    @overload
    def new(self, cdecl: Literal["uint8_t[]", "char[]"], init: int) -> Chars: ...
    def buffer(self, cdata: Chars) -> Buffer: ...
    def string(self, cdata: Chars) -> bytes: ...

class Lib:
    PKT_REPLY_MAX: int
    PKT_ACTIONS: int
    PKT_REASONS: int
    SRV_HOST_MAX: int
    def pkt_respond(self, context: PktContext, request: bytes, length: int, reply: Chars, outcome: PktOutcome) -> int: ...
    def pkt_action_name(self, action: int) -> Chars: ...
    def pkt_reason_name(self, reason: int) -> Chars: ...
    def srv_create(self, record_path: bytes, threads: int, out: SrvCell) -> int: ...
    def srv_listen(self, s: Srv, host: bytes, port: int) -> int: ...
    def srv_adopt(self, s: Srv, fd: int) -> int: ...
    def srv_bound(self, s: Srv, i: int, host: Chars, port: PortCell) -> int: ...
    def srv_start(self, s: Srv) -> int: ...
    def srv_stop(self, s: Srv) -> None: ...
    def srv_destroy(self, s: Srv) -> None: ...
    def srv_count(self, s: Srv, out: SrvCounts) -> None: ...

ffi: Ffi
lib: Lib
