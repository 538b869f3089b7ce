"""The root file system of an image: packages unpacked, and made ready without running anything of the other architecture.

No script of a package runs. What it would do for a running system is done here, or not at all, since nothing is installed later: users with
fixed numbers, services switched on or off, Python compiled, the list of modules.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import packages
from packages import CONTENTS, Failed

ROOT = Path(__file__).parents[2]
APPLIANCE = ROOT / "image" / "appliance"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class Tools:
    """The programs of the lock ``tools``, unpacked in a directory; they run by a loader and libraries of their own."""

    def __init__(self, work: Path, locks: Path) -> None:
        self._tree = work / "tools"
        self.path = work / "tools.bin"
        if unpacked("tools", self._tree, work / "debs", locks):
            shutil.rmtree(self.path, ignore_errors=True)
        if not self.path.exists():
            self.path.mkdir()
            for place in ("usr/bin", "usr/sbin", "usr/lib/systemd"):
                for program in sorted((self._tree / place).iterdir()):
                    if program.is_file() and program.open("rb").read(4) == b"\x7fELF":
                        self._wrap(program)

    def _wrap(self, program: Path) -> None:
        wrapper = self.path / program.name
        libraries = f"{self._tree / LIBRARIES}:{self._tree / LIBRARIES}/systemd"
        loader = self._tree / LIBRARIES / "ld-linux-x86-64.so.2"
        wrapper.write_text(f'#!/bin/sh\nexec {loader} --argv0 "$0" --library-path {libraries} {program.resolve()} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)

    def tree(self, path: str) -> Path:
        """A file of the tools' packages."""
        return self._tree / path

    def run(self, *command: str | Path, cwd: Path | None = None, more: dict[str, str] | None = None) -> str:
        """Run a program; returns what it printed. Failed: with what it said."""
        env = {
            **os.environ,
            "PATH": f"{self.path}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "MTOOLS_SKIP_CHECK": "1",
            **(more or {}),
        }
        done = subprocess.run([self.path / command[0], *command[1:]], env=env, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout


def unpacked(lock: str, tree: Path, debs: Path, locks: Path) -> bool:
    """Unpack the packages of a lock into ``tree``, unless they are there; returns whether it did. ``locks``: where the lock is."""
    mark = tree.with_suffix(".stamp")
    kept = CONTENTS["kernel"]["modules"]
    chosen = [*CONTENTS["files"]["left_out"], *([*kept["common"], *kept[lock]] if lock in kept else [])]
    stamp = sha256((packages.lock_file(lock, locks).read_text(encoding="utf-8") + " ".join(chosen)).encode()).hexdigest()
    if mark.exists() and mark.read_text(encoding="utf-8") == stamp:
        return False
    mark.unlink(missing_ok=True)
    if tree.exists():
        remove(tree)
    tree.mkdir(parents=True)
    wanted = packages.locked(lock, locks)
    files = dict(zip((p.name for p in wanted), packages.fetch(wanted, debs), strict=True))
    if "base-files" in files:  # it has the links /bin -> usr/bin ..., through which others are unpacked
        unpack(files.pop("base-files"), tree)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda file: unpack(file, tree), files.values()))
    mark.write_text(stamp, encoding="utf-8")
    return True


def unpack(file: Path, tree: Path) -> None:
    """Unpack one package. All files belong to whoever builds; the image makes them root's."""
    left_out = [f"--exclude={pattern}" for pattern in CONTENTS["files"]["left_out"]]
    tar: list[str | Path] = ["tar", "-x", "--no-same-owner", "--keep-directory-symlink", "--wildcards", *left_out, "-C", tree]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as read:
        done = subprocess.run(tar, stdin=read.stdout, capture_output=True, text=True, check=False)
    if done.returncode or read.returncode:
        raise Failed(f"{file.name} cannot be unpacked: {done.stderr.strip()}")


def remove(tree: Path) -> None:
    """Remove a tree, directories without permission included."""
    subprocess.run(["chmod", "-R", "u+rwX", tree], check=True)
    shutil.rmtree(tree)


def kernel(tree: Path) -> str:
    """The version of the kernel whose modules are in a tree."""
    return next((tree / "usr/lib/modules").iterdir()).name


def prune_modules(tree: Path, architecture: str, tools: Tools) -> None:
    """Keep the modules that contents.toml names and what they need. They are stored as they are: the image is compressed as a whole."""
    version = kernel(tree)
    directory = tree / "usr/lib/modules" / version
    tools.run("depmod", "-b", tree, version)
    wanted = closure(tree, "modules", architecture)
    for path in (directory / "kernel").rglob("*.ko*"):
        if str(path.relative_to(directory)) not in wanted:
            path.unlink()
    packed = sorted(str(directory / name) for name in wanted if name.endswith(".xz"))
    if packed:
        subprocess.run(["xargs", "-0", "-n32", f"-P{os.cpu_count()}", "xz", "-d"], input="\0".join(packed), text=True, check=True)
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
    tools.run("depmod", "-b", tree, version)


def users(tree: Path) -> None:
    """Write the lists of users and groups from the sysusers.d files. Failed: one has no fixed number, for files outlive the versions."""
    names: dict[str, tuple[int, int, str, str, str]] = {}
    groups: dict[str, int] = {}
    members: dict[str, list[str]] = {}
    words = re.compile(r'"([^"]*)"|(\S+)')
    lines = [
        [quoted or plain for quoted, plain in words.findall(line)]
        for file in sorted((tree / "usr/lib/sysusers.d").glob("*.conf"), key=lambda file: file.name)
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    for _, name, number, *_ in (line for line in lines if line[0] == "g"):
        groups.setdefault(name, _fixed(name, number) if name not in groups else 0)
    for kind, name, *rest in lines:
        fields = [*rest, *["-"] * (4 - len(rest))]
        number, about, home, shell = fields
        if kind.startswith("u") and name not in names:
            uid, _, gid = number.partition(":")
            if not gid:
                groups.setdefault(name, _fixed(name, uid))
            group = groups[name] if not gid else int(gid) if gid.isdigit() else groups[gid]
            names[name] = (
                _fixed(name, uid),
                group,
                about.strip("-"),
                "/" if home == "-" else home,
                "/usr/sbin/nologin" if shell == "-" else shell,
            )
        elif kind == "m":
            members.setdefault(number, []).append(name)
    etc = tree / "etc"
    by_number = sorted(names.items(), key=lambda item: item[1])
    text = "".join(f"{n}:x:{uid}:{gid}:{about}:{home}:{shell}\n" for n, (uid, gid, about, home, shell) in by_number)
    (etc / "passwd").write_text(text, encoding="utf-8")
    (etc / "shadow").write_text("".join(f"{n}:*:1::::::\n" for n, _ in by_number), encoding="utf-8")
    ordered = sorted(groups.items(), key=lambda item: item[1])
    (etc / "group").write_text("".join(f"{n}:x:{gid}:{','.join(members.get(n, []))}\n" for n, gid in ordered), encoding="utf-8")
    (etc / "gshadow").write_text("".join(f"{n}:*::{','.join(members.get(n, []))}\n" for n, _ in ordered), encoding="utf-8")
    for name in ("shadow", "gshadow"):
        (etc / name).chmod(0o600)


def _fixed(name: str, number: str) -> int:
    if not number.isdigit():
        raise Failed(
            f"the user or group {name} has no fixed number: give it one in image/appliance/root/usr/lib/sysusers.d/00-appliance.conf"
        )
    return int(number)


def byte_code(tree: Path, tools: Tools) -> None:
    """Compile all modules of Python, by an interpreter of the image's version. A module's source is never looked at again."""
    here, there = (next((t / "usr/lib").glob("python3.*")).name for t in (tools.tree(""), tree))
    if here != there:
        raise Failed(f"the image has {there} and the tools have {here}: run make image-lock")
    where = [tree / "usr/lib" / there, tree / "usr/lib/python3/dist-packages", tree / "usr/lib/refclock/lib/python3/site-packages"]
    for old in [path for place in where for path in place.rglob("__pycache__")]:
        shutil.rmtree(old)
    command = ["-I", "-m", "compileall", "-q", "-f", "-r", "99", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"]
    tools.run(
        there, *command[1:], *where, more={"PYTHONHOME": str(tools.tree("usr")), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    )


def finish(tree: Path, architecture: str, tools: Tools, epoch: int) -> None:
    """Make an unpacked tree a system. ``epoch``: seconds, the date of all files and the earliest time of the clock."""
    shutil.copytree(APPLIANCE / "root", tree, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(APPLIANCE / "systemd", tree / "usr/lib/systemd/system", symlinks=True, dirs_exist_ok=True)
    users(tree)
    etc = tree / "etc"
    shutil.copyfile(tree / "usr/share/libc-bin/nsswitch.conf", etc / "nsswitch.conf")
    hosts = "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns"
    text = re.sub(r"(?m)^hosts:.*$", hosts, (etc / "nsswitch.conf").read_text(encoding="utf-8"))
    (etc / "nsswitch.conf").write_text(text, encoding="utf-8")
    certificates = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    (etc / "ssl/certs/ca-certificates.crt").write_bytes(b"".join(file.read_bytes() for file in certificates))
    shutil.rmtree(tree / "usr/share/ca-certificates")
    for name in ("regulatory.db", "regulatory.db.p7s"):
        link(tree / "usr/lib/firmware" / name, f"{name}-debian")
    for file in [path for path in (tree / "usr/lib/firmware").rglob("*") if path.parent.name in ("brcm", "cypress")]:
        if not file.name.startswith(tuple(CONTENTS["files"]["firmware"])):
            file.unlink()
    link(etc / "resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    link(etc / "localtime", "../usr/share/zoneinfo/UTC")
    link(etc / "mtab", "../proc/self/mounts")
    link(tree / "usr/bin/sh", "dash")
    for name, text in {"hostname": "refclock\n", "machine-id": "", "hosts": "127.0.0.1 localhost\n::1 localhost\n", "fstab": ""}.items():
        (etc / name).write_text(text, encoding="utf-8")
    for generator in (tree / "usr/lib/systemd/system-generators").iterdir():
        if generator.name not in CONTENTS["files"]["generators"]:
            generator.unlink()
    for rules in (tree / "usr/lib/udev/rules.d").iterdir():
        if rules.stem not in CONTENTS["files"]["rules"]:
            rules.unlink()
    link(tree / "usr/lib/systemd/system/default.target", "multi-user.target")
    for unit in CONTENTS["units"]["masked"]:
        link(etc / "systemd/system" / unit, "/dev/null")
    for directory in ("data", "boot/refclock", "var/lib/refclock", "etc/refclock", "proc", "sys", "dev", "run", "tmp"):
        (tree / directory).mkdir(parents=True, exist_ok=True)
    tools.run("systemctl", f"--root={tree}", "preset-all")
    shutil.rmtree(tree / "usr/lib/udev/hwdb.d")
    byte_code(tree, tools)
    clock = tree / "usr/lib/clock-epoch"
    clock.touch()
    for path in [tree, *tree.rglob("*")]:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & 0o1777 & ~0o022 if path.name != "tmp" else 0o1777)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def link(path: Path, target: str) -> None:
    """A symbolic link, instead of whatever is there."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def closure(tree: Path, which: str, architecture: str) -> set[str]:
    """The modules of a list of contents.toml with those that they need: paths below the directory of modules."""
    needs = {}
    for line in (tree / "usr/lib/modules" / kernel(tree) / "modules.dep").read_text(encoding="ascii").splitlines():
        name, _, others = line.partition(":")
        needs[name] = others.split()
    listed = CONTENTS["kernel"][which]
    begins = tuple(f"kernel/{begin}" for begin in (*listed["common"], *listed[architecture]))
    wanted = {name for name in needs if name.startswith(begins)}
    return wanted | {other for name in wanted for other in needs[name]}
