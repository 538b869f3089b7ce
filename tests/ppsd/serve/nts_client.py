"""A client of NTS key establishment for tests: pyOpenSSL over a plain socket."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from OpenSSL import SSL

from ppsd.ntp import nts
from ppsd.ntp.nts import KeRecord, Kind

USUAL = (KeRecord(Kind.PROTOCOLS, b"\0\0", critical=True), KeRecord(Kind.AEADS, b"\0\x0f", critical=True))


@dataclass(frozen=True)
class Established:
    """What a client got: the records of the reply, and its two keys."""

    records: tuple[KeRecord, ...]
    keys: bytes
    certificate: bytes

    def bodies(self, kind: Kind) -> list[bytes]:
        """The bodies of the records of a kind."""
        return [record.body for record in self.records if record.kind == kind]


def establish(
    port: int,
    asked: bytes | None = None,
    *,
    alpn: bytes = nts.ALPN,
    host: str = "127.0.0.1",
    aead: int = nts.AES_SIV_CMAC_256,
    exported_as: int = nts.AES_SIV_CMAC_256,
) -> Established:
    """Ask once. ``aead``, ``exported_as``: how keys are exported. SSL.Error: the server refuses the session."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if alpn:
        context.set_alpn_protos([alpn])
    with socket.create_connection((host, port), 10) as sock:
        sock.setblocking(True)
        tls = SSL.Connection(context, sock)
        tls.set_connect_state()
        tls.do_handshake()
        tls.sendall(nts.message(USUAL) if asked is None else asked)
        data = b""
        while not isinstance(found := nts.records(data), tuple):
            data += tls.recv(4096)
        contexts = (nts.exporter_context(exported_as, way) for way in (True, False))
        keys = b"".join(tls.export_keying_material(nts.EXPORTER, nts.AEAD_KEYS[aead], context) for context in contexts)
        shown = tls.get_peer_certificate()
        assert shown is not None
        return Established(found, keys, shown.digest("sha256"))
