"""The C core as two Python extensions (cffi, API mode).

The public headers are the only description of the interface: what cffi parses is their text without preprocessor lines. setup.py names
``kernel`` and ``server`` in its ``cffi_modules``; both are built from the project root, so every path here is relative to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]


def declarations(header: str) -> str:
    """A public header as cffi reads it: without preprocessor lines and their continuations."""
    return re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", "", (NATIVE / header).read_text(encoding="utf-8"), flags=re.MULTILINE)


def extension(module: str, public: list[str], units: list[str], libraries: list[str]) -> FFI:
    """The extension ``module``: the interface of the headers ``public``, made of the translation units ``units``, with ``libraries``."""
    ffi = FFI()
    ffi.cdef("\n".join(declarations(f"{name}.h") for name in public))
    ffi.set_source(
        module,
        "\n".join(f'#include "{name}.h"' for name in public),
        sources=[f"native/{name}.c" for name in units],
        depends=[f"native/{path.name}" for path in sorted(NATIVE.glob("*.h"))],
        include_dirs=["native"],
        libraries=libraries,
        extra_compile_args=FLAGS,
    )
    return ffi


kernel = extension(
    "refclock.kernel._kernel", ["pps", "clock", "line", "shm", "record"], ["pps", "clock", "line", "shm", "record"], ["m"]
)
server = extension(
    "ppsd.serve._server",
    ["record", "access", "mac", "clients", "packet", "server"],
    ["record", "access", "mac", "clients", "packet", "flood", "socket", "server", "clock"],
    ["m", "pthread", "nettle"],
)
