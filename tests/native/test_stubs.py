"""The stubs of the C extensions: what mypy believes is what the headers declare."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("native_build", ROOT / "native" / "build.py")
assert SPEC is not None and SPEC.loader is not None
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)


@pytest.mark.parametrize("file", build.STUBS)
def test_the_stub_is_made_from_the_headers_as_they_are(file: str) -> None:
    """`python native/build.py --stubs` would not change the file: run it after a change of a header."""
    assert (ROOT / file).read_text() == build.stub(build.STUBS[file])


def test_a_stub_tells_numbers_structs_cells_and_arrays_apart() -> None:
    """A const string is bytes, an out-parameter a cell, a struct with a length behind it an array, an opaque struct a class of its own."""
    lines = build.stub(build.STUBS["ppsd/serve/_server.pyi"]).splitlines()
    assert "class MacKeys: ..." in lines
    assert "    ranges: AclRangeArray" in lines
    assert "    packets: Sequence[Sequence[int]]" in lines
    assert "    def srv_bound(self, s: Srv, place: int, host: CharArray, port: Uint16Cell) -> int: ..." in lines
    assert "    def srv_clients(self, s: Srv, place: SizeCell, out: CliClientArray, room: int) -> int: ..." in lines
    assert "    def srv_listen(self, s: Srv, host: bytes, port: int, interface: bytes) -> int: ..." in lines
    assert '    def new(self, cdecl: Literal["struct acl_range[]"], init: int) -> AclRangeArray: ...' in lines
