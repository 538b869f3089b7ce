"""ppsd.appliance.box: the owner's files on the card become the settings of the system, at every boot."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from appliance_tree import IMAGE, KEY, Appliance

from ppsd.appliance.box import DROP_IN
from ppsd.config.tables import Config

FIXED = '[system]\nhostname = "clock7"\n[network]\naddress = ["192.168.1.5/24"]\n'


@pytest.fixture
def appliance(tmp_path: Path) -> Appliance:
    return Appliance(tmp_path)


def test_the_files_that_the_image_carries_are_good_and_say_the_defaults(appliance: Appliance) -> None:
    """A first start with the card as it was flashed: no mistake, nothing to tell, and nothing is written to the card."""
    before = {p: p.stat().st_mtime_ns for p in (appliance.root / "boot/refclock").iterdir()}
    applied = appliance.boot()
    assert (applied.problems, applied.words, applied.reboot) == ((), (), False)
    assert applied.config.clock.steer == "kernel"
    assert appliance.text("etc/hostname") == "refclock\n"
    assert "DHCP=ipv4" in appliance.text("run/systemd/network/50-wired.network")
    assert "Port=123" in appliance.text("run/systemd/dnssd/refclock.dnssd")
    assert not (appliance.root / f"run/{DROP_IN}").exists()
    assert ["systemctl", "daemon-reload"] not in appliance.ran
    assert before == {p: p.stat().st_mtime_ns for p in (appliance.root / "boot/refclock").iterdir()}
    assert not (appliance.root / "root/.ssh").exists()


def test_settings_act_at_the_next_boot_and_at_every_one_after_it(appliance: Appliance) -> None:
    """Name, key, address, and what the daemon may do: changed on the card, seen in the system, twice."""
    appliance.card(f'{FIXED}gateway = ["192.168.1.1"]\n'.replace("[network]", f'ssh_keys = ["{KEY}"]\n[network]'))
    appliance.card("[server]\nenabled = false\n", "refclock.toml")
    for _ in range(2):
        applied = appliance.boot()
        assert not applied.problems
        assert ["hostname", "clock7"] in appliance.ran
        network = appliance.text("run/systemd/network/50-wired.network")
        assert "\nAddress=192.168.1.5/24\n" in network
        assert "\nGateway=192.168.1.1\n" in network
        assert "\nDHCP=no\n" in network
        assert appliance.text("root/.ssh/authorized_keys") == f"{KEY}\n"
        assert (appliance.root / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
        assert (appliance.root / "root/.ssh").stat().st_mode & 0o777 == 0o700
        assert "tcp dport 22 accept" in appliance.text("run/refclock-box/nftables.nft")
        assert "123" not in appliance.text("run/refclock-box/nftables.nft")
        assert not (appliance.root / "run/systemd/dnssd/refclock.dnssd").exists()
        assert appliance.text(f"run/{DROP_IN}") == ""
        assert ["systemctl", "daemon-reload"] in appliance.ran
        assert appliance.text("data/etc/refclock/refclock.toml") == "[server]\nenabled = false\n"


def test_a_mistake_leaves_the_last_good_settings_and_the_owners_file(appliance: Appliance) -> None:
    """The file with the mistake is told about and left as it is; the box stays where it was found before."""
    appliance.card(FIXED)
    appliance.boot()
    wrong = FIXED.replace("192.168.1.5/24", "192.168.1.5") + 'gatway = ["192.168.1.1"]\n'
    appliance.card(wrong)
    for _ in range(2):
        applied = appliance.boot()
        assert [str(p) for p in applied.problems] == [
            'box.toml:4: network.address[0]: "192.168.1.5" lacks the length of its network: 192.168.1.5/24',
            "box.toml:5: network.gatway: unknown key; did you mean gateway?",
        ]
        assert "the last good one stays in force" in applied.words[0]
        assert "Address=192.168.1.5/24" in appliance.text("run/systemd/network/50-wired.network")
        assert appliance.text("boot/refclock/box.toml") == wrong
    appliance.card(FIXED.replace("clock7", "clock8"))
    assert not appliance.boot().problems
    assert appliance.text("etc/hostname") == "clock8\n"


@pytest.mark.parametrize("name", ["box.toml", "refclock.toml"])
def test_a_first_boot_with_wrong_files_comes_up_with_defaults(tmp_path: Path, name: str) -> None:
    """Somebody edits the card before the first start, and errs: the box serves all the same, and says what is wrong."""
    appliance = Appliance(tmp_path)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").mkdir()
    appliance.card("hostname = refclock\n[serv]\n", name)
    applied = appliance.boot()
    assert applied.settings.system.hostname == "refclock"
    assert applied.config.clock.steer == "kernel"
    assert any("the defaults are in force" in words for words in applied.words)
    assert {p.file for p in applied.problems} == {name}
    assert appliance.text("data/etc/refclock/refclock.toml") == (IMAGE / "refclock.toml").read_text(encoding="utf-8")


def test_what_a_tool_changes_on_the_box_goes_back_to_the_card(appliance: Appliance) -> None:
    """`refclock calibrate --apply` on the box: the card has it after the next start, and a later edit of the card is taken."""
    own = "[clock]\nholdover_limit_s = 60\n"
    appliance.write("data/etc/refclock/refclock.toml", own)
    applied = appliance.boot()
    assert applied.config.clock.holdover_limit_s == 60
    assert appliance.text("boot/refclock/refclock.toml") == own
    assert not appliance.boot().words
    appliance.card("[clock]\nholdover_limit_s = 90\n", "refclock.toml")
    assert appliance.boot().config.clock.holdover_limit_s == 90
    assert appliance.text("data/etc/refclock/refclock.toml") == "[clock]\nholdover_limit_s = 90\n"


def test_when_both_were_changed_the_owners_edit_holds_and_the_other_is_kept(appliance: Appliance) -> None:
    """Nothing is lost without a word."""
    appliance.write("data/etc/refclock/refclock.toml", "[clock]\nholdover_limit_s = 60\n")
    appliance.card("[clock]\nholdover_limit_s = 90\n", "refclock.toml")
    applied = appliance.boot()
    assert applied.config.clock.holdover_limit_s == 90
    assert "replaced what this box had changed" in applied.words[0]
    assert appliance.text("data/box/refclock.toml.replaced") == "[clock]\nholdover_limit_s = 60\n"


def test_a_file_that_is_gone_is_put_back_and_an_empty_one_means_defaults(appliance: Appliance) -> None:
    """A damaged card does not lock the owner out; to begin anew, he empties the file."""
    appliance.card(FIXED)
    appliance.boot()
    (appliance.root / "boot/refclock/box.toml").unlink()
    assert appliance.boot().settings.system.hostname == "clock7"
    assert appliance.text("boot/refclock/box.toml") == FIXED
    appliance.card("")
    assert appliance.boot().settings.system.hostname == "refclock"


def test_a_box_whose_data_is_new_takes_the_card(appliance: Appliance) -> None:
    """The data partition was made anew: what the owner set is still on the card."""
    appliance.card(FIXED)
    appliance.boot()
    shutil.rmtree(appliance.root / "data")
    (appliance.root / "data").mkdir()
    assert appliance.boot().settings.system.hostname == "clock7"


def test_a_spoiled_copy_on_the_box_gives_way_to_the_card(appliance: Appliance) -> None:
    """The box's own file is damaged, the card's is as it was last seen: that holds."""
    appliance.card("[clock]\nholdover_limit_s = 90\n", "refclock.toml")
    appliance.boot()
    (appliance.root / "data/etc/refclock/refclock.toml").write_bytes(b"\0" * 4096)
    assert appliance.boot().config.clock.holdover_limit_s == 90
    assert appliance.text("data/etc/refclock/refclock.toml") == "[clock]\nholdover_limit_s = 90\n"


def test_changed_pins_restart_the_box_once(appliance: Appliance) -> None:
    """The firmware reads pins before Linux starts: one more start, not a loop of them."""
    assert "gpiopin=18" in appliance.text("firmware/user.txt")
    appliance.card("[pins]\npps = 4\nuart = false\n")
    assert appliance.boot().reboot
    text = appliance.text("firmware/user.txt")
    assert "dtoverlay=pps-gpio,gpiopin=4\n" in text
    assert "disable-bt" not in text
    assert not appliance.boot().reboot


def test_a_version_on_trial_is_not_left_for_new_pins(appliance: Appliance) -> None:
    """A restart would bring back the old version: the pins wait, and the box says so."""
    appliance.write("data/update/trial", "refclock.slot=a\n")
    appliance.card("[pins]\npps = 4\n")
    applied = appliance.boot()
    assert not applied.reboot
    assert any("they act at the next start" in words for words in applied.words)
    assert "gpiopin=4" in appliance.text("firmware/user.txt")


def test_a_card_that_forgets_does_not_restart_the_box_for_ever(appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worn-out card takes what is written, and has the old content afterwards."""
    run = appliance.run

    def forgetful(words: Sequence[str]) -> int:
        if words[0] == "umount":
            for file in Path(words[1]).iterdir():
                file.unlink()
            return 0
        return run(words)

    monkeypatch.setattr(appliance, "run", forgetful)
    appliance.card("[pins]\npps = 4\n")
    applied = appliance.boot()
    assert not applied.reboot
    assert any("use another card" in words for words in applied.words)


def test_a_pc_has_no_pins(appliance: Appliance) -> None:
    """Without the Raspberry Pi's firmware nothing is written for it."""
    (appliance.root / "firmware/config.txt").unlink()
    (appliance.root / "firmware/user.txt").unlink()
    appliance.card("[pins]\npps = 4\n")
    assert not appliance.boot().reboot
    assert not (appliance.root / "firmware/user.txt").exists()


def test_the_host_key_is_made_once_and_only_when_somebody_may_log_in(appliance: Appliance) -> None:
    """A client that has seen the box once is never warned of another key; a power cut while it is made leaves none at all."""
    assert not (appliance.root / "data/ssh").exists()
    appliance.card(f'[system]\nssh_keys = ["{KEY}"]\n')
    appliance.boot()
    assert sorted(p.name for p in (appliance.root / "data/ssh").iterdir()) == ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]
    appliance.ran.clear()
    appliance.boot()
    assert not [words for words in appliance.ran if words[0] == "ssh-keygen"]


def test_what_cannot_be_written_is_told_and_the_rest_is_done(appliance: Appliance) -> None:
    """A data partition that takes nothing: the settings of the card act all the same."""
    shutil.rmtree(appliance.root / "data")
    (appliance.root / "data").write_text("no directory", encoding="utf-8")
    appliance.card(FIXED)
    applied = appliance.boot()
    assert appliance.text("etc/hostname") == "clock7\n"
    assert any("data" in words for words in applied.words)


@pytest.mark.parametrize("name", ["box.toml.txt", "Box (1).toml", "refclock.toml.bak"])
def test_a_file_of_another_name_is_told_about(appliance: Appliance, name: str) -> None:
    """Windows hides .txt, and the owner wonders why nothing changes."""
    appliance.card(FIXED, name)
    (problem,) = appliance.boot().problems
    assert "is not read; did you mean" in str(problem)


def test_a_look_changes_nothing(appliance: Appliance) -> None:
    """`refclock box status` tells what is on the card now, and leaves everything as it is."""
    appliance.boot()
    appliance.card("[system]\nhostnam = 1\n")
    before = {p: p.stat().st_mtime_ns for p in appliance.root.rglob("*")}
    assert [p.key for p in appliance.box().look().problems] == ["system.hostnam"]
    assert before == {p: p.stat().st_mtime_ns for p in appliance.root.rglob("*")}


def test_a_file_that_cannot_be_read_is_no_end(appliance: Appliance) -> None:
    """A directory in the file's place, a file of megabytes: told, and the last good settings hold."""
    appliance.card(FIXED)
    appliance.boot()
    path = appliance.root / "boot/refclock/box.toml"
    path.write_bytes(b"#" * (1 << 21))
    applied = appliance.boot()
    assert "is larger than" in str(applied.problems[0])
    assert applied.settings.system.hostname == "clock7"
    path.unlink()
    path.mkdir()
    assert "Is a directory" in str(appliance.boot().problems[0])


def test_no_key_opens_no_door(appliance: Appliance) -> None:
    """Keys refused one by one: nobody logs in, and ssh stays closed."""
    appliance.card('[system]\nssh_keys = ["ssh-ed25519 AAAA"]\n')
    appliance.boot()
    assert not (appliance.root / "root/.ssh/authorized_keys").exists()
    assert "dport 22" not in appliance.text("run/refclock-box/nftables.nft")
    assert Config().server.enabled
