"""The C core as two Python extensions (cffi, API mode), and their stubs for type checkers.

The public headers are the only description of the interface. cffi parses their text without preprocessor lines, and so do the stubs:
``python native/build.py --stubs`` writes them. setup.py names ``kernel`` and ``server`` in its ``cffi_modules``; both are built from the
project root, so every path here is relative to it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cffi import FFI

if TYPE_CHECKING:
    from pycparser import c_ast

NATIVE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
KERNEL = ["pps", "clock", "line", "shm", "record", "sandbox"]
"""Units of refclock.kernel._kernel; all of their headers are public."""
SERVER = ["record", "access", "mac", "nts", "aead", "clients", "packet", "server"]
"""Units of ppsd.serve._server whose headers are public."""
STUBS = {"refclock/kernel/_kernel.pyi": KERNEL, "ppsd/serve/_server.pyi": SERVER}
"""Stub file: public headers."""


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


# ---- stubs -----------------------------------------------------------------------------------------------------------------------

_STANDARD = "typedef int " + ", ".join(f"int{bits}_t, uint{bits}_t" for bits in (8, 16, 32, 64)) + ", size_t;"
"""What the headers take from the standard library. A stub needs the names only."""


def _class_name(ctype: str) -> str:
    """The class of a C type: RecParams (``struct rec_params`` or a pointer to it), RecCell (``struct rec **``), CharArray (``char[]``)."""
    kind = "Array" if ctype.endswith("[]") else "Cell" if ctype.endswith("**") or ("*" in ctype and "struct" not in ctype) else ""
    words = re.sub(r"\bstruct |_t\b|[ *\[\]]", "", ctype).split("_")
    return "".join(word.capitalize() for word in words) + kind


class _Types:
    """The Python types of C types.

    A pointer to a number or to a pointer is a cell, which holds one value at index 0. A pointer to a complete struct is an array when a
    ``size_t`` comes next: its length. cffi takes ``bytes`` for a ``const`` parameter of characters or octets.
    """

    def __init__(self, complete: set[str]) -> None:
        self.complete = complete
        """Structs with members; the others are opaque."""
        self.items: dict[str, str] = {}
        """Cells and arrays that were met, by C type: what they hold."""

    def _collection(self, ctype: str, item: str) -> str:
        self.items[ctype] = item
        return _class_name(ctype)

    def name(self, node: c_ast.Node, sized: bool = False, parameter: bool = False) -> str:
        """The type of a member, a parameter or a result. ``sized``: a ``size_t`` comes next."""
        kind, to = type(node).__name__, node.type
        if kind == "ArrayDecl":
            return "bytes" if parameter else f"Sequence[{self.name(to)}]"
        if kind == "PtrDecl":
            return self._pointer(to, sized, parameter)
        if type(to).__name__ == "Struct":
            return _class_name(to.name)
        return {"void": "None", "double": "float"}.get(to.names[-1], "int") if type(to).__name__ == "IdentifierType" else "int"

    def _pointer(self, to: c_ast.Node, sized: bool, parameter: bool) -> str:
        if type(to).__name__ == "PtrDecl":
            return self._collection(f"struct {to.type.type.name} **", _class_name(to.type.type.name))
        if type(to.type).__name__ == "Struct":
            name = to.type.name
            return self._collection(f"struct {name}[]", _class_name(name)) if sized and name in self.complete else _class_name(name)
        name = to.type.names[-1]
        if name not in ("char", "uint8_t"):
            return self._collection(f"{name} *", "int")
        return "bytes" if parameter and "const" in to.quals else self._collection(f"{name}[]", "int")

    def declare(self, nodes: Sequence[c_ast.Node], parameter: bool) -> list[str]:
        """``name: type`` of the members of a struct or the parameters of a function."""
        sized = [getattr(getattr(node.type, "type", None), "names", None) == ["size_t"] for node in nodes]
        pairs = zip(nodes, [*sized[1:], False], strict=False)
        return [f"{node.name}: {self.name(node.type, next_sized, parameter)}" for node, next_sized in pairs]


def _class(name: str, body: Sequence[str]) -> str:
    return "\n    ".join([f"class {name}:", *body]) if body else f"class {name}: ..."


def stub(public: list[str]) -> str:
    """The stub of an extension with the interface of the headers ``public``."""
    from pycparser import CParser  # noqa: PLC0415  # comes with cffi, and only stubs need it here

    text = re.sub(r"/\*.*?\*/", "", "\n".join(declarations(f"{name}.h") for name in public), flags=re.DOTALL)
    nodes = [node for node in CParser().parse(_STANDARD + text).ext if type(node).__name__ == "Decl"]
    structs = [node.type for node in nodes if type(node.type).__name__ == "Struct"]
    types = _Types({struct.name for struct in structs if struct.decls})
    classes = [_class(_class_name(struct.name), types.declare(struct.decls or (), parameter=False)) for struct in structs]
    functions: list[str] = []
    for node in nodes:
        if type(node.type).__name__ == "Enum":
            functions += [f"{constant.name}: int" for constant in node.type.values.enumerators]
        elif type(node.type).__name__ == "FuncDecl":
            taken = types.declare([taken for taken in node.type.args.params if taken.name], parameter=True)
            functions.append(f"def {node.name}({', '.join(['self', *taken])}) -> {types.name(node.type.type)}: ...")
    for ctype, item in types.items.items():
        index = "int" if ctype.endswith("[]") else "Literal[0]"
        classes.append(_class(_class_name(ctype), [f"def __getitem__(self, index: {index}) -> {item}: ..."]))
    made = {f"struct {name} *" for name in types.complete} | set(types.items)
    new: list[str] = []
    for ctype in sorted(made):
        init = ", init: int" if ctype.endswith("[]") else ""
        new += ["@overload", f'def new(self, cdecl: Literal["{ctype}"]{init}) -> {_class_name(ctype)}: ...']
    if "uint8_t[]" in made:
        new += ['def from_buffer(self, cdecl: Literal["uint8_t[]"], octets: bytes) -> Uint8Array: ...']
        new += ["def buffer(self, cdata: Uint8Array) -> Buffer: ..."]
        classes.append(_class("Buffer", ["def __getitem__(self, index: slice) -> bytes: ..."]))
    if "char[]" in made:
        new += ["def string(self, cdata: CharArray) -> bytes: ..."]
    head = f"# Made from native/{{{','.join(public)}}}.h by `python native/build.py --stubs`.\n"
    sequences = "from collections.abc import Sequence\n" if any("Sequence[" in text for text in classes) else ""
    body = "\n\n".join([*classes, _class("Ffi", new), _class("Lib", functions)])
    body = re.sub(r"(: \.\.\.\n)\n(?=class \w+: \.\.\.\n)", r"\1", body)  # as ruff formats stubs
    return f"{head}{sequences}from typing import Literal, overload\n\n{body}\n\nffi: Ffi\nlib: Lib\n"


kernel = extension("refclock.kernel._kernel", KERNEL, KERNEL, ["m"])
server = extension(
    "ppsd.serve._server", SERVER, [*SERVER, "siv", "gcmsiv", "flood", "socket", "departure", "worker", "clock"], ["m", "pthread", "nettle"]
)

if __name__ == "__main__":
    if sys.argv[1:] != ["--stubs"]:
        raise SystemExit("usage: python native/build.py --stubs")
    for file, public in STUBS.items():
        (NATIVE.parent / file).write_text(stub(public), encoding="utf-8")
