"""`refclock box`: what people see of it, on the appliance and elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from appliance_tree import Appliance

from ppsd.cli import box
from ppsd.cli.arguments import is_appliance
from ppsd.cli.main import main


@pytest.fixture
def appliance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Appliance:
    """The command runs on a machine in a directory, as root."""
    made = Appliance(tmp_path)
    monkeypatch.setattr(box, "ROOT", tmp_path)
    monkeypatch.setattr(box, "_command", made.run)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("ppsd.config.keys.read_keys", lambda _: ())
    monkeypatch.setattr("refclock.kernel.interfaces.addresses", lambda: ())
    return made


def test_elsewhere_it_does_nothing_and_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PC with the Debian package: no settings of an appliance, no light, no line in the list of commands."""
    monkeypatch.setattr(box, "ROOT", tmp_path)
    assert main(["box", "status"]) == 1
    assert "does not run the refclock image" in capsys.readouterr().err
    assert main(["box", "led"]) == 0
    assert "no light shows the state" in capsys.readouterr().err
    if not is_appliance():
        with pytest.raises(SystemExit):
            main(["--help"])
        assert "  box " not in capsys.readouterr().out


def test_status_tells_the_mistakes_and_says_so_to_scripts(appliance: Appliance, capsys: pytest.CaptureFixture[str]) -> None:
    """0 while the owner's files are good, 1 when they are not."""
    assert main(["box", "status"]) == 0
    assert "No mistakes" in capsys.readouterr().out
    appliance.card("[wify]\n")
    assert main(["box", "status"]) == 1
    assert "box.toml:1: wify: unknown table or key; did you mean wifi?" in capsys.readouterr().out


def test_apply_comes_up_whatever_the_files_are(appliance: Appliance, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is told in the log and on the card, and is no failure: what starts after it must start."""
    appliance.card('[wify]\n["\\u001b[31m"]\n')
    assert main(["box", "apply"]) == 0
    said = capsys.readouterr().err
    assert "wify" in said
    assert "\x1b" not in said
    assert "wify" in appliance.text("boot/refclock/STATUS.txt")
    assert ["systemctl", "--no-block", "--force", "reboot"] not in appliance.ran


def test_apply_restarts_the_box_for_new_pins(appliance: Appliance) -> None:
    """Once, and by systemd, so that everything ends in order."""
    appliance.card("[pins]\npps = 4\n")
    assert main(["box", "apply"]) == 0
    assert appliance.ran.count(["systemctl", "--no-block", "--force", "reboot"]) == 1
    assert main(["box", "apply"]) == 0
    assert appliance.ran.count(["systemctl", "--no-block", "--force", "reboot"]) == 1


def test_a_usual_boot_leaves_the_card_alone(appliance: Appliance) -> None:
    """STATUS.txt is written by apply when there is a mistake; what tells the addresses writes it later, and only when it differs."""
    assert main(["box", "apply"]) == 0
    assert not (appliance.root / "boot/refclock/STATUS.txt").exists()
    for _ in range(2):
        assert main(["box", "status", "--write"]) == 0
    assert b"No mistakes in refclock.toml and box.toml.\r\n" in (appliance.root / "boot/refclock/STATUS.txt").read_bytes()
