# The interface of native/{record,access,mac,clients,packet,server}.h as mypy sees it; tests/ppsd/serve/test_ntp_server.py holds them together.
from typing import Literal, overload

class RecParams:
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

class AclAddress:
    high: int
    low: int

class AclRange:
    first: AclAddress
    action: int

class MacKeys: ...

class CliClient:
    network: int
    last_ns: int
    full_ns: int
    receive: int
    transmit: int
    packets: int
    drops: int
    first_s: int
    interval_ms: int
    sequence: int
    flags: int
    version: int
    kind: int
    spare: int

class PktContext:
    record: RecParams
    rx_raw_ns: int
    tx_raw_ns: int
    keys: MacKeys
    source: AclAddress
    source_port: int
    access: int
    over_rate: int
    may_kod: int
    symmetric: int
    smear: int
    receive: int
    transmit: int

class PktOutcome:
    action: int
    reason: int
    authenticated: int
    receive: int
    transmit: int

class SrvRules:
    ranges: Ranges
    range_count: int
    keys: MacKeys
    rate: float
    burst: int
    leak: int
    kod_rate: float
    cpu_limit: float
    tell_denied: int
    symmetric: int
    smear: int

class SrvCounts:
    packets: list[list[int]]
    unstamped: int
    stepped: int
    receive_errors: int
    departures: int
    filters: int
    blocked: int
    let_through: int
    kernel_drops: int
    receive_buffer: int

class Ranges:
    def __getitem__(self, index: int) -> AclRange: ...

class Clients:
    def __getitem__(self, index: int) -> CliClient: ...

class KeysCell:
    def __getitem__(self, index: Literal[0]) -> MacKeys: ...

class PlaceCell:
    def __getitem__(self, index: Literal[0]) -> int: ...

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
    def new(self, cdecl: Literal["struct srv_rules *"]) -> SrvRules: ...
    @overload
    def new(self, cdecl: Literal["struct mac_keys **"]) -> KeysCell: ...
    @overload
    def new(self, cdecl: Literal["struct acl_range[]"], init: int) -> Ranges: ...
    @overload
    def new(self, cdecl: Literal["struct cli_client[]"], init: int) -> Clients: ...
    @overload
    def new(self, cdecl: Literal["size_t *"]) -> PlaceCell: ...
    @overload
    def new(self, cdecl: Literal["uint16_t *"]) -> PortCell: ...
    @overload
    def new(self, cdecl: Literal["uint8_t[]", "char[]"], init: int) -> Chars: ...
    def buffer(self, cdata: Chars) -> Buffer: ...
    def string(self, cdata: Chars) -> bytes: ...

class Lib:
    ACL_IPV4: int
    ACL_LOCAL: int
    CLI_MAC: int
    CLI_INTERLEAVED: int
    CLI_BYTES: int
    def mac_create(self, room: int, out: KeysCell) -> int: ...
    def mac_add(self, keys: MacKeys, key_id: int, kind: int, secret: bytes, length: int, ranges: Ranges, count: int) -> int: ...
    def mac_destroy(self, keys: MacKeys) -> None: ...
    def srv_configure(self, s: Srv, rules: SrvRules) -> int: ...
    def srv_now(self) -> int: ...
    def srv_clients(self, s: Srv, place: PlaceCell, out: Clients, room: int) -> int: ...
    def srv_broadcast(self, s: Srv, host: bytes, port: int, key: int, poll: int) -> int: ...
    PKT_REPLY_MAX: int
    PKT_ACTIONS: int
    PKT_REASONS: int
    SRV_HOST_MAX: int
    def pkt_respond(self, context: PktContext, request: bytes, length: int, reply: Chars, outcome: PktOutcome) -> int: ...
    def pkt_action_name(self, action: int) -> Chars: ...
    def pkt_reason_name(self, reason: int) -> Chars: ...
    def srv_create(self, record_path: bytes, threads: int, table_bytes: int, interface: bytes, out: SrvCell) -> int: ...
    def srv_listen(self, s: Srv, host: bytes, port: int) -> int: ...
    def srv_adopt(self, s: Srv, fd: int) -> int: ...
    def srv_bound(self, s: Srv, i: int, host: Chars, port: PortCell) -> int: ...
    def srv_start(self, s: Srv) -> int: ...
    def srv_stop(self, s: Srv) -> None: ...
    def srv_destroy(self, s: Srv) -> None: ...
    def srv_count(self, s: Srv, out: SrvCounts) -> None: ...

ffi: Ffi
lib: Lib
