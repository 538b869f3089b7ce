"""The key that signs updates, and the certificate that the image believes: ``python image/build/signing.py`` prints the certificate's path.

UPDATE_KEY and UPDATE_CERT name them. Without them a key for development is made in build/keys, once: whoever has that directory can make
updates for the images that were built beside it, and nobody else can.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
KEYS: Final = ROOT / "build" / "keys"
YEARS: Final = 100
"""An image in the field has no other certificate, so it must not expire while the box lives."""


def signing() -> tuple[Path, Path]:
    """The key and its certificate. SystemExit: only one of the two was named, or a file is missing."""
    named = [os.environ.get(name, "") for name in ("UPDATE_KEY", "UPDATE_CERT")]
    if any(named):
        if not all(named):
            raise SystemExit("update: name both, the key and its certificate: UPDATE_KEY=FILE UPDATE_CERT=FILE")
        for name in named:
            if not Path(name).is_file() and not name.startswith("pkcs11:"):
                raise SystemExit(f"update: there is no file {name}; UPDATE_KEY and UPDATE_CERT name the key and its certificate (PEM)")
        return Path(named[0]), Path(named[1])
    key, certificate = KEYS / "development.key", KEYS / "development.pem"
    if not certificate.exists():
        make(key, certificate, "refclock development")
    return key, certificate


def make(key: Path, certificate: Path, name: str) -> None:
    """Make a key and a certificate that it signs itself."""
    key.parent.mkdir(parents=True, exist_ok=True)
    new = certificate.with_suffix(".new")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", str(365 * YEARS), "-subj", f"/O=refclock/CN={name}"]
    old_mask = os.umask(0o077)
    try:
        subprocess.run([*command, "-keyout", key, "-out", new], check=True, stderr=subprocess.DEVNULL)
    finally:
        os.umask(old_mask)
    new.chmod(0o644)
    new.rename(certificate)


if __name__ == "__main__":
    if len(sys.argv) != 1:
        raise SystemExit("usage: python image/build/signing.py")
    print(signing()[1])
