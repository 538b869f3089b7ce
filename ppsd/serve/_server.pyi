# Made from native/{record,access,mac,nts,aead,clients,packet,server}.h by `python native/build.py --stubs`.
from collections.abc import Sequence
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

class RecReading:
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

class Rec: ...

class AclAddress:
    high: int
    low: int

class AclRange:
    first: AclAddress
    action: int

class AclClient:
    network: int
    kind: int

class AclPrefix:
    mask: int
    value: int

class MacKeys: ...
class MacKey: ...

class MacSpec:
    id: int
    type: int
    secret: Uint8Array
    length: int
    ranges: AclRangeArray
    range_count: int

class NtsKeys: ...
class NtsNonces: ...
class NtsCipher: ...

class NtsRequest:
    cipher: NtsCipher
    unique: Uint8Array
    unique_length: int
    cookie: Uint8Array
    cookie_length: int
    nonce: Uint8Array
    nonce_length: int
    sealed: Uint8Array
    sealed_length: int
    covered: int
    length: int
    wanted: int
    keys: Sequence[int]

class AedKey: ...

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

class CliLimits:
    interval_ns: int
    burst_ns: int
    leak: int

class Cli: ...

class PktContext:
    record: RecParams
    rx_raw_ns: int
    tx_raw_ns: int
    system_ahead_ns: int
    keys: MacKeys
    nts: NtsKeys
    nonces: NtsNonces
    source: AclAddress
    source_port: int
    access: int
    over_rate: int
    may_kod: int
    symmetric: int
    not_unicast: int
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
    ranges: AclRangeArray
    range_count: int
    keys: MacKeys
    nts: NtsKeys
    rate: float
    burst: int
    leak: int
    kod_rate: float
    cpu_limit: float
    tell_denied: int
    symmetric: int
    smear: int
    dscp: int

class SrvCounts:
    packets: Sequence[Sequence[int]]
    authenticated: int
    nts: int
    unstamped: int
    stepped: int
    receive_errors: int
    departures: int
    filters: int
    blocked: int
    let_through: int
    kernel_drops: int
    receive_buffer: int

class Srv: ...

class Uint8Array:
    def __getitem__(self, index: int) -> int: ...

class AclRangeArray:
    def __getitem__(self, index: int) -> AclRange: ...

class RecCell:
    def __getitem__(self, index: Literal[0]) -> Rec: ...

class SizeCell:
    def __getitem__(self, index: Literal[0]) -> int: ...

class MacKeysCell:
    def __getitem__(self, index: Literal[0]) -> MacKeys: ...

class NtsKeysCell:
    def __getitem__(self, index: Literal[0]) -> NtsKeys: ...

class NtsNoncesCell:
    def __getitem__(self, index: Literal[0]) -> NtsNonces: ...

class AedKeyCell:
    def __getitem__(self, index: Literal[0]) -> AedKey: ...

class CliCell:
    def __getitem__(self, index: Literal[0]) -> Cli: ...

class CharArray:
    def __getitem__(self, index: int) -> int: ...

class SrvCell:
    def __getitem__(self, index: Literal[0]) -> Srv: ...

class Uint16Cell:
    def __getitem__(self, index: Literal[0]) -> int: ...

class CliClientArray:
    def __getitem__(self, index: int) -> CliClient: ...

class Buffer:
    def __getitem__(self, index: slice) -> bytes: ...

class Ffi:
    @overload
    def new(self, cdecl: Literal["char[]"], init: int) -> CharArray: ...
    @overload
    def new(self, cdecl: Literal["size_t *"]) -> SizeCell: ...
    @overload
    def new(self, cdecl: Literal["struct acl_address *"]) -> AclAddress: ...
    @overload
    def new(self, cdecl: Literal["struct acl_client *"]) -> AclClient: ...
    @overload
    def new(self, cdecl: Literal["struct acl_prefix *"]) -> AclPrefix: ...
    @overload
    def new(self, cdecl: Literal["struct acl_range *"]) -> AclRange: ...
    @overload
    def new(self, cdecl: Literal["struct acl_range[]"], init: int) -> AclRangeArray: ...
    @overload
    def new(self, cdecl: Literal["struct aed_key **"]) -> AedKeyCell: ...
    @overload
    def new(self, cdecl: Literal["struct cli **"]) -> CliCell: ...
    @overload
    def new(self, cdecl: Literal["struct cli_client *"]) -> CliClient: ...
    @overload
    def new(self, cdecl: Literal["struct cli_client[]"], init: int) -> CliClientArray: ...
    @overload
    def new(self, cdecl: Literal["struct cli_limits *"]) -> CliLimits: ...
    @overload
    def new(self, cdecl: Literal["struct mac_keys **"]) -> MacKeysCell: ...
    @overload
    def new(self, cdecl: Literal["struct mac_spec *"]) -> MacSpec: ...
    @overload
    def new(self, cdecl: Literal["struct nts_keys **"]) -> NtsKeysCell: ...
    @overload
    def new(self, cdecl: Literal["struct nts_nonces **"]) -> NtsNoncesCell: ...
    @overload
    def new(self, cdecl: Literal["struct nts_request *"]) -> NtsRequest: ...
    @overload
    def new(self, cdecl: Literal["struct pkt_context *"]) -> PktContext: ...
    @overload
    def new(self, cdecl: Literal["struct pkt_outcome *"]) -> PktOutcome: ...
    @overload
    def new(self, cdecl: Literal["struct rec **"]) -> RecCell: ...
    @overload
    def new(self, cdecl: Literal["struct rec_params *"]) -> RecParams: ...
    @overload
    def new(self, cdecl: Literal["struct rec_reading *"]) -> RecReading: ...
    @overload
    def new(self, cdecl: Literal["struct srv **"]) -> SrvCell: ...
    @overload
    def new(self, cdecl: Literal["struct srv_counts *"]) -> SrvCounts: ...
    @overload
    def new(self, cdecl: Literal["struct srv_rules *"]) -> SrvRules: ...
    @overload
    def new(self, cdecl: Literal["uint16_t *"]) -> Uint16Cell: ...
    @overload
    def new(self, cdecl: Literal["uint8_t[]"], init: int) -> Uint8Array: ...
    def from_buffer(self, cdecl: Literal["uint8_t[]"], octets: bytes) -> Uint8Array: ...
    def buffer(self, cdata: Uint8Array) -> Buffer: ...
    def string(self, cdata: CharArray) -> bytes: ...

class Lib:
    def rec_open(self, path: bytes, writable: int, out: RecCell) -> int: ...
    def rec_close(self, page: Rec) -> None: ...
    def rec_publish(self, page: Rec, p: RecParams) -> None: ...
    def rec_read(self, page: Rec, out: RecParams) -> int: ...
    def rec_read_now(self, page: Rec, raw_ns: int, ahead_ns: int, out: RecParams) -> int: ...
    def rec_at(self, p: RecParams, raw_ns: int, out: RecReading) -> None: ...
    def rec_utc_at(self, p: RecParams, raw_ns: int) -> int: ...
    def rec_smear(self, p: RecParams, r: RecReading) -> None: ...
    ACL_ALLOW: int
    ACL_AUTHENTICATED: int
    ACL_DENY: int
    ACL_IGNORE: int
    ACL_ACTIONS: int
    ACL_IPV4: int
    ACL_IPV6: int
    ACL_LOCAL: int
    ACL_KINDS: int
    def acl_find(self, ranges: AclRangeArray, count: int, address: AclAddress) -> int: ...
    def acl_valid(self, ranges: AclRangeArray, count: int) -> int: ...
    def acl_client_of(self, address: AclAddress) -> AclClient: ...
    def acl_local_prefixes(self, count: SizeCell) -> AclPrefix: ...
    MAC_MD5: int
    MAC_SHA1: int
    MAC_SHA256: int
    MAC_AES128: int
    MAC_AES256: int
    MAC_TYPES: int
    MAC_ID: int
    MAC_CODE_MAX: int
    MAC_CODE_V4_MAX: int
    def mac_create(self, room: int, out: MacKeysCell) -> int: ...
    def mac_add(self, keys: MacKeys, spec: MacSpec) -> int: ...
    def mac_destroy(self, keys: MacKeys) -> None: ...
    def mac_find(self, keys: MacKeys, id: int) -> MacKey: ...
    def mac_from(self, key: MacKey, source: AclAddress) -> int: ...
    def mac_length(self, key: MacKey, version: int) -> int: ...
    def mac_make(self, key: MacKey, data: bytes, data_length: int, code: Uint8Array, length: int) -> None: ...
    def mac_check(self, key: MacKey, version: int, data: bytes, data_length: int, code: bytes, length: int) -> int: ...
    NTS_KEY: int
    NTS_COOKIE: int
    NTS_SHORT_KEY: int
    NTS_SHORT_COOKIE: int
    NTS_COOKIES_MAX: int
    NTS_UNIQUE_MAX: int
    NTS_KEYS_MAX: int
    NTS_SEED: int
    NTS_FIELD_AUTHENTICATOR: int
    def nts_create(self, first: int, count: int, keys: bytes, present: int, out: NtsKeysCell) -> int: ...
    def nts_destroy(self, keys: NtsKeys) -> None: ...
    def nts_nonces_create(self, seed: bytes, out: NtsNoncesCell) -> int: ...
    def nts_nonces_destroy(self, nonces: NtsNonces) -> None: ...
    NTS_VALID: int
    NTS_REFUSED: int
    NTS_MALFORMED: int
    def nts_find(self, packet: bytes, fields: int, authenticator: int, length: int, found: NtsRequest) -> int: ...
    def nts_verify(self, keys: NtsKeys, packet: bytes, found: NtsRequest) -> int: ...
    def nts_seal(self, keys: NtsKeys, nonces: NtsNonces, found: NtsRequest, reply: Uint8Array, header: int) -> int: ...
    def nts_refuse(self, found: NtsRequest, reply: Uint8Array, header: int) -> int: ...
    AED_SIV_CMAC_256: int
    AED_128_GCM_SIV: int
    AED_TAG: int
    def aed_create(self, cipher: int, secret: bytes, secret_length: int, out: AedKeyCell) -> int: ...
    def aed_destroy(self, key: AedKey) -> None: ...
    def aed_seal(self, key: AedKey, data: bytes, size: int, nonce: bytes, n: int, text: bytes, length: int, out: Uint8Array) -> None: ...
    def aed_open(self, key: AedKey, data: bytes, size: int, nonce: bytes, n: int, sealed: bytes, length: int, text: Uint8Array) -> int: ...
    CLI_KEY_BYTES: int
    CLI_BYTES: int
    CLI_AUTHENTICATED: int
    CLI_INTERLEAVED: int
    CLI_NTS: int
    def cli_create(self, bytes: int, key: bytes, out: CliCell) -> int: ...
    def cli_destroy(self, t: Cli) -> None: ...
    def cli_room(self, t: Cli) -> int: ...
    def cli_hash(self, t: Cli, who: AclClient) -> int: ...
    def cli_meet(self, t: Cli, who: AclClient, hash: int, raw_ns: int, client: CliClient) -> int: ...
    def cli_pay(self, t: Cli, limits: CliLimits, raw_ns: int, client: CliClient) -> int: ...
    def cli_keep(self, t: Cli, place: int, client: CliClient) -> None: ...
    def cli_copy(self, t: Cli, place: int, out: CliClient) -> int: ...
    PKT_HEADER: int
    PKT_REPLY_MAX: int
    PKT_REQUEST_MAX: int
    PKT_DROP: int
    PKT_REPLY: int
    PKT_KOD: int
    PKT_ACTIONS: int
    PKT_BASIC: int
    PKT_INTERLEAVED: int
    PKT_SYMMETRIC_PASSIVE: int
    PKT_UNSYNCHRONISED: int
    PKT_RATE: int
    PKT_DENIED: int
    PKT_UNAUTHENTICATED: int
    PKT_NTS_NAK: int
    PKT_IGNORED: int
    PKT_UNKNOWN_KEY: int
    PKT_WRONG_MAC: int
    PKT_KEY_ELSEWHERE: int
    PKT_SHORT: int
    PKT_LONG: int
    PKT_VERSION: int
    PKT_PORT_ZERO: int
    PKT_NOT_UNICAST: int
    PKT_MODE_RESERVED: int
    PKT_MODE_SYMMETRIC: int
    PKT_MODE_SERVER: int
    PKT_MODE_BROADCAST: int
    PKT_MODE_CONTROL: int
    PKT_MODE_PRIVATE: int
    PKT_EXTENSION_MALFORMED: int
    PKT_MAC_MALFORMED: int
    PKT_NTS_MALFORMED: int
    PKT_SEND_FAILED: int
    PKT_REASONS: int
    PKT_NOTHING: int
    PKT_MAC: int
    PKT_NTS: int
    def pkt_respond(self, context: PktContext, request: bytes, length: int, reply: Uint8Array, outcome: PktOutcome) -> int: ...
    def pkt_broadcast(self, context: PktContext, id: int, poll: int, packet: Uint8Array) -> int: ...
    def pkt_timestamp(self, record: RecParams, raw_ns: int, smear: int) -> int: ...
    def pkt_action_name(self, action: int) -> CharArray: ...
    def pkt_reason_name(self, reason: int) -> CharArray: ...
    SRV_THREADS_MAX: int
    SRV_SOCKETS_MAX: int
    SRV_HOST_MAX: int
    SRV_RETURN: int
    def srv_create(self, record_path: bytes, threads: int, table_bytes: int, out: SrvCell) -> int: ...
    def srv_configure(self, s: Srv, rules: SrvRules) -> int: ...
    def srv_listen(self, s: Srv, host: bytes, port: int, interface: bytes) -> int: ...
    def srv_adopt(self, s: Srv, fd: int) -> int: ...
    def srv_leave(self, s: Srv, place: int) -> int: ...
    def srv_bound(self, s: Srv, place: int, host: CharArray, port: Uint16Cell) -> int: ...
    def srv_start(self, s: Srv) -> int: ...
    def srv_stop(self, s: Srv) -> None: ...
    def srv_destroy(self, s: Srv) -> None: ...
    def srv_count(self, s: Srv, out: SrvCounts) -> None: ...
    def srv_now(self) -> int: ...
    def srv_clients(self, s: Srv, place: SizeCell, out: CliClientArray, room: int) -> int: ...
    def srv_hand_over(self, s: Srv, fd: int) -> None: ...
    def srv_control_reply(self, s: Srv, where: bytes, packet: bytes, length: int) -> int: ...
    def srv_broadcast(self, s: Srv, host: bytes, port: int, key: int, poll: int) -> int: ...

ffi: Ffi
lib: Lib
