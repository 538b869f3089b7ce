"""Certificates for NTS: those that a person names, and those that this machine makes by itself.

A machine has an authority of its own, and the server's certificate by that, which it renews. Clients are given the authority's certificate
once (``refclock nts ca``). It lasts ten years; the server's is made anew well before its end, and when the machine has got another name or
address. Each file holds a key and its certificate, so that no power cut separates them.

Both begin at the date on which this program was built: a machine without a battery for its clock may well make them before it knows the
day, and no client has an earlier one.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from refclock.kernel.files import open_trusted, replace_file

AUTHORITY: Final = "nts-ca.pem"
OWN: Final = "nts-server.pem"
"""Files in the directory of NTS: key and certificate of the authority, and of the server."""
AUTHORITY_DAYS: Final = 3653
"""Days for which the authority's certificate lasts: ten years. Clients need a new one afterwards."""
OWN_DAYS: Final = 397
"""Days for which the server's lasts: as long as one of a public authority may (CA/Browser Forum, until 2026)."""
RENEW_DAYS: Final = 120
"""Days before its end at which the server's is made anew: a box that is off for a season still has a good one."""
NAMES: Final = 64
"""Names in a certificate at most; one with hundreds would not fit into a client's buffer."""
LIMIT_BYTES: Final = 1 << 16
"""Octets of such a file at most; it has about 1 kB."""
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
ServerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server shows: its certificate, those between it and an authority that clients know, and the key. ``names``: whom it is for.
    ``until_s``: POSIX second of the certificate's end."""

    chain: tuple[x509.Certificate, ...]
    key: ServerKey
    names: tuple[str, ...]
    until_s: int

    def same(self, other: Credentials) -> bool:
        """Whether clients would see no difference."""
        return self.chain == other.chain

    @classmethod
    def of(cls, chain: bytes, key: bytes) -> Credentials:
        """From PEM. ValueError says what is wrong."""
        try:
            found = tuple(x509.load_pem_x509_certificate(text) for text in _CERTIFICATE.findall(chain))
        except ValueError:
            raise ValueError("a certificate in it cannot be read") from None
        if not found:
            raise ValueError("has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        try:
            secret = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("its key cannot be read: one in PEM form and without a passphrase is needed") from None
        if not isinstance(secret, ServerKey):
            raise ValueError("its key is of a kind that no TLS 1.3 server has: one for ECDSA, Ed25519 or RSA is needed")
        shown = found[0].public_key()
        if not isinstance(shown, PublicKey) or _public(secret.public_key()) != _public(shown):
            raise ValueError("certificate and key do not belong together")
        return cls(found, secret, _names(found[0]), round(_end_of(found[0]).timestamp()))


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def until_s(self) -> int:
        """POSIX second of the certificate's end."""
        return round(_end_of(self.certificate).timestamp())

    def pem(self) -> bytes:
        """The certificate for others."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def secret_pem(self) -> bytes:
        """The key, and the certificate after it."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain) + self.pem()

    def credentials(self) -> Credentials:
        """As a server shows them."""
        return Credentials.of(self.pem(), self.secret_pem())


@dataclass(frozen=True, slots=True)
class OwnCertificates:
    """The certificates that this machine makes, in ``directory``. ``built``: where they begin. ``trusted``: whose files are believed."""

    directory: Path
    built: datetime.date
    trusted: Collection[int]

    def authority(self, host: str, now_s: float) -> Pair:
        """The authority of this machine, which is called ``host``; made when there is none. OSError: it can be neither read nor written."""
        path = self.directory / AUTHORITY
        found = _read(path, self.trusted)
        if found is None:
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"refclock of {host}"[:64])])
            found = _made(name, None, self.built, _end(self.built, now_s, AUTHORITY_DAYS))
            replace_file(path, found.secret_pem(), 0o600, self.trusted)
        return found

    def server(self, issuer: Pair, names: Sequence[str], now_s: float) -> Pair:
        """The server's certificate by ``issuer`` for ``names``, made when there is none that is good for a while. OSError: as above."""
        path, wanted = self.directory / OWN, tuple(dict.fromkeys(names))[:NAMES]
        found = _read(path, self.trusted)
        if found is not None and _serves(found, issuer, wanted, now_s):
            return found
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0][:64])])
        until = min(_end(self.built, now_s, OWN_DAYS), _end_of(issuer.certificate))
        made = _made(subject, issuer, self.built, until, wanted)
        replace_file(path, made.secret_pem(), 0o600, self.trusted)
        return made


def _serves(found: Pair, issuer: Pair, names: Sequence[str], now_s: float) -> bool:
    until = _end_of(found.certificate)
    lasting = until - _moment(now_s) > datetime.timedelta(days=RENEW_DAYS) or until == _end_of(issuer.certificate)
    try:
        issuer.key.public_key().verify(found.certificate.signature, found.certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return lasting and set(map(_plain, names)) <= set(_names(found.certificate))


def _made(subject: x509.Name, issuer: Pair | None, built: datetime.date, until: datetime.datetime, names: Sequence[str] = ()) -> Pair:
    """A new key and its certificate by ``issuer``; None: by itself, as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer, by = (key, subject) if issuer is None else (issuer.key, issuer.certificate.subject)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    usage |= {"encipher_only": False, "decipher_only": False, "digital_signature": issuer is not None}
    usage |= {"key_cert_sign": issuer is None, "crl_sign": issuer is None}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_begin(built))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return Pair(key, builder.sign(signer, hashes.SHA256()))


def _read(path: Path, trusted: Collection[int]) -> Pair | None:
    """The key and certificate in a file of ours; None when it is missing or not whole."""
    try:
        fd = open_trusted(path, trusted)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as stream:
        data = stream.read(LIMIT_BYTES)
    try:
        key = serialization.load_pem_private_key(data, None)
        certificate = x509.load_pem_x509_certificate(data)
    except ValueError:
        return None
    return Pair(key, certificate) if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _plain(name: str) -> str:
    """A name as a certificate has it."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name.rstrip(".")


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(_plain(name))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress))


def _public(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _moment(s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(s, datetime.UTC).replace(microsecond=0)


def _begin(built: datetime.date) -> datetime.datetime:
    return datetime.datetime.combine(built, datetime.time(), datetime.UTC)


def _end(built: datetime.date, now_s: float, days: int) -> datetime.datetime:
    """Days after now; of a clock that is behind the day of building, after that."""
    return max(_moment(now_s), _begin(built)) + datetime.timedelta(days=days)


def _end_of(certificate: x509.Certificate) -> datetime.datetime:
    """When a certificate ends. pyOpenSSL says it in all versions alike; cryptography before 42 knows no time zones."""
    told = (crypto.X509.from_cryptography(certificate).get_notAfter() or b"").decode("ascii")
    # Not strptime, which imports a module: this user may not be able to read the interpreter's files.
    year, month, day, hour, minute, second = (int(told[at : at + size]) for at, size in ((0, 4), (4, 2), (6, 2), (8, 2), (10, 2), (12, 2)))
    return datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
