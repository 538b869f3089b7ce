"""`refclock import`: whose file it is, what is written, and which keys can be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppsd.cli.import_config import kind_of
from ppsd.cli.main import main
from ppsd.config.file import read

DATA = Path(__file__).parents[2] / "data" / "import"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ubuntu-gpsd-chrony.conf", "chrony"), ("pool-ntp.conf", "ntp"), ("gpsd", "gpsd"), ("satpulse.toml", "satpulse"),
        ("maas-chrony.conf", "chrony"), ("pi-chrony.conf", "chrony"),
    ],
)  # fmt: skip
def test_whose_file_it_is(name: str, kind: str) -> None:
    """A file is known by its name, and by its lines when it was renamed."""
    text = (DATA / name).read_text(encoding="utf-8")
    assert kind_of(name, text) == kind
    assert kind_of("old.bak", text) == kind


def test_ntpds_reference_clocks_are_known() -> None:
    """A piece of an ntp.conf with nothing but a reference clock is told from chronyd's."""
    assert kind_of("gps", "refclock shm unit 0 refid GPS\n") == "ntp"
    assert kind_of("gps", "server 127.127.28.0\n") == "ntp"
    assert kind_of("gps", "refclock SHM 0 refid GPS\n") == "chrony"


def test_a_file_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither name nor lines tell: the command says which words --from takes, and writes nothing."""
    path = tmp_path / "letter"
    path.write_text("Dear John,\n", encoding="utf-8")
    assert main(["import", str(path)]) == 64
    assert "--from" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "nothing.conf")]) == 74


def test_written_with_a_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--apply puts the result in place of the configuration, and the old one beside it; without it nothing is written."""
    ours = tmp_path / "refclock.toml"
    ours.write_text('[log]\nlevel = "debug"\n', encoding="utf-8")
    before = ours.read_bytes()
    assert main(["import", str(DATA / "maas-chrony.conf"), "--config", str(ours)]) == 0
    assert ours.read_bytes() == before
    assert 'step = "start"' in capsys.readouterr().out
    assert main(["import", str(DATA / "maas-chrony.conf"), "--apply", "--config", str(ours)]) == 0
    assert read(ours).access.allow == ("0.0.0.0/0", "::/0")
    assert (tmp_path / "refclock.toml.bak").read_bytes() == before
    assert str(ours) in capsys.readouterr().out


def test_keys_go_on_working(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key file with MD5 keys is taken over with keys.weak, so that its clients are let in; one that cannot be used is left out, and told.
    No secret is printed."""
    keys = tmp_path / "chrony.keys"
    keys.write_text("1 MD5 ASCII:topsecret\n", encoding="utf-8")
    keys.chmod(0o600)
    conf = tmp_path / "chrony.conf"
    conf.write_text(f"allow\nkeyfile {keys}\n", encoding="utf-8")
    assert main(["import", str(conf)]) == 0
    told = capsys.readouterr().out
    assert "weak = true" in told
    assert "topsecret" not in told
    keys.chmod(0o644)
    assert main(["import", str(conf)]) == 0
    assert "[keys]" not in (told := capsys.readouterr().out)
    assert "left out" in told


def test_files_that_are_included(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """confdir's files are read from where they are, relative to the file that names them too."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "lan.conf").write_text("allow 10.0.0.0/8\n", encoding="utf-8")
    conf = tmp_path / "chrony.conf"
    conf.write_text(f"confdir {tmp_path}/conf.d\n", encoding="utf-8")
    assert main(["import", str(conf)]) == 0
    assert '"10.0.0.0/8"' in capsys.readouterr().out
