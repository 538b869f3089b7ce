"""Makes the Debian package of one architecture: ``python image/deb/package.py ARCHITECTURE DIRECTORY``. image/cross.sh gets what it needs.

The package has a Python environment of its own in /usr/lib/refclock, whose interpreter is Debian's: our modules and those that Debian has
not (``CARRIED``) are found there first, then Debian's own. Nothing else on the machine sees them. The C core is compiled for the
architecture and needs no particular version of Python (its stable interface). SOURCE_DATE_EPOCH dates every file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from email.utils import formatdate
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
DEB = ROOT / "image" / "deb"
sys.path[:0] = [str(ROOT / "native"), str(ROOT / "image")]

import manual  # noqa: E402

import build as core  # noqa: E402
from ppsd import version  # noqa: E402

COMPILERS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "armhf": "arm-linux-gnueabihf"}
"""The compiler's name of each architecture, which is that of its libraries as well."""
WIDE_TIME = {"armhf": ["-D_TIME_BITS=64", "-D_FILE_OFFSET_BITS=64"]}
"""Flags of the C core where time_t has 32 bits unless asked for more: it keeps time after 2038 on bookworm as on trixie."""
CARRIED = ("gpsd-py3", "pynmea2")
"""Debian has no gpsd-py3, and bookworm's pynmea2 (1.15) reads no mode of RMC sentences."""
PYTHONS = range(11, 16)
"""Minor versions of Python 3 by which the interpreter may be called: bookworm has 11, trixie 13."""
HOME = "usr/lib/refclock"
COMMAND = f"""#!/{HOME}/bin/python3 -I
import sys

from ppsd.cli.main import main

sys.exit(main())
"""
DEPENDS = (
    "libc6 (>= 2.36)",
    "libnettle8 (>= 3.8) | libnettle8t64",
    "python3 (>= 3.11)",
    "python3-cffi-backend (>= 1.15.1)",
    "python3-serial (>= 3.5)",
    "python3-structlog (>= 22.3)",
    "systemd (>= 252) | systemd-standalone-sysusers",
    "tzdata",
)
"""What bookworm and trixie have."""
RECOMMENDS = ("python3-openssl (>= 23.0)",)
"""What NTS needs besides."""
CONTROL = """Package: refclock
Version: {version}
Architecture: {architecture}
Section: net
Priority: optional
Maintainer: the refclock authors <refclock@localhost>
Installed-Size: {size}
Depends: {depends}
Recommends: {recommends}
Suggests: gpsd, pps-tools
Description: honest stratum-1 time server of a GPS receiver and its pulse
 refclock makes time of the messages and the pulse of a GPS receiver, and
 serves it by NTP with a bound of its error. It may set this machine's clock,
 or feed chronyd or ntpd.
 .
 Installing it starts nothing and changes nothing that serves time.
"""
SYSTEM = {
    "systemd/refclock*": "systemd/system",
    "systemd/*.rules": "udev/rules.d",
    "systemd/sysusers.d/*.conf": "sysusers.d",
    "systemd/tmpfiles.d/*.conf": "tmpfiles.d",
}
"""Files below image/, and their directories below /usr/lib."""
CHANGELOG = """refclock ({version}) unstable; urgency=medium

  * What is new is told in CHANGELOG.md.gz.

 -- the refclock authors <refclock@localhost>  {date}
"""


def compile_core(architecture: str, site: Path) -> None:
    """The two extensions and the two libraries of the simulator."""
    there, name = ROOT / "build" / "cross" / architecture, COMPILERS[architecture]
    gcc = [f"{name}-gcc", *core.FLAGS, "-fPIC", "-shared", "-s", "-Wl,-z,relro,-z,now", f"-ffile-prefix-map={ROOT}=."]
    python = next(there.glob("usr/include/python3.*"))
    where = [f"-I{ROOT / 'native'}", f"-I{there / 'usr/include'}", f"-I{python}", f"-L{there / 'usr/lib' / name}"]
    where += WIDE_TIME.get(architecture, [])
    for ffi in (core.kernel, core.server):
        with TemporaryDirectory() as directory:
            extension = ffi.distutils_extension(directory, verbose=False)
            made = site / f"{extension.name.replace('.', '/')}.abi3.so"
            libraries = [f"-l{library}" for library in extension.libraries]
            prefix = f"-ffile-prefix-map={directory}=."
            subprocess.run([*gcc, *where, prefix, *extension.sources, "-o", made, *libraries], check=True, cwd=ROOT)
    for source in sorted((ROOT / "hw-sim").glob("*.c")):
        made = site / "refclock_sim" / f"{source.stem}.abi3.so"
        subprocess.run([*gcc, source, "-o", made, "-ldl", "-lm", "-pthread"], check=True)


def modules(site: Path) -> None:
    """Our packages, those that are carried along, and what tells their versions."""
    for package in (ROOT / "refclock", ROOT / "ppsd", ROOT / "hw-sim" / "refclock_sim"):
        shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyi", "*.md", "*.svg"))
    about = site / f"refclock-{version()}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: refclock\nVersion: {version()}\n", encoding="utf-8")
    for name in CARRIED:
        for file in distribution(name).files or ():
            if "__pycache__" not in file.parts and file.name not in ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json"):
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), site / file)


def environment(home: Path) -> Path:
    """The Python environment, with the command; returns the directory of its modules."""
    site = home / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    for minor in PYTHONS:
        (home / "lib" / f"python3.{minor}").symlink_to("python3")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n", encoding="utf-8")
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to("../../../bin/python3")
    (home / "bin" / "refclock").write_text(COMMAND, encoding="utf-8")
    return site


def system(tree: Path) -> None:
    """Units, users and device rules; the services run the interpreter of the environment."""
    for pattern, directory in SYSTEM.items():
        for file in sorted((ROOT / "image").glob(pattern)):
            to = tree / "usr/lib" / directory / file.name
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(file.read_text(encoding="utf-8").replace("=/usr/bin/python3 ", f"=/{HOME}/bin/python3 "), encoding="utf-8")


def documents(tree: Path) -> None:
    """Manual pages, completions, examples, the licences."""
    manual.write(tree / "usr" / "share")
    for page in sorted((tree / "usr/share/man").glob("*/*")):
        subprocess.run(["gzip", "-9n", page], check=True)
    doc = tree / "usr/share/doc/refclock"
    shutil.copytree(ROOT / "image" / "examples", doc / "examples")
    shutil.copyfile(DEB / "copyright", doc / "copyright")
    shutil.copyfile(ROOT / "CHANGELOG.md", doc / "CHANGELOG.md")
    date = formatdate(float(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    (doc / "changelog").write_text(CHANGELOG.format(version=version(), date=date), encoding="utf-8")
    subprocess.run(["gzip", "-9n", doc / "CHANGELOG.md", doc / "changelog"], check=True)
    (tree / "usr/share/lintian/overrides").mkdir(parents=True)
    shutil.copyfile(DEB / "lintian-overrides", tree / "usr/share/lintian/overrides/refclock")


def package(architecture: str, directory: Path) -> Path:
    """Make the package in ``directory``; returns its file."""
    with TemporaryDirectory() as made:
        tree = Path(made) / "refclock"
        site = environment(tree / HOME)
        modules(site)
        compile_core(architecture, site)
        system(tree)
        documents(tree)
        (tree / "usr/bin").mkdir()
        (tree / "usr/bin/refclock").symlink_to("../lib/refclock/bin/refclock")
        (tree / "etc/refclock").mkdir(parents=True)
        shutil.copyfile(DEB / "refclock.toml", tree / "etc/refclock/refclock.toml")
        size = sum(file.stat().st_size for file in tree.rglob("*") if file.is_file() and not file.is_symlink()) // 1024
        (tree / "DEBIAN").mkdir()
        control = CONTROL.format(
            version=version(), architecture=architecture, size=size, depends=", ".join(DEPENDS), recommends=", ".join(RECOMMENDS)
        )
        (tree / "DEBIAN/control").write_text(control, encoding="utf-8")
        (tree / "DEBIAN/conffiles").write_text("/etc/refclock/refclock.toml\n", encoding="utf-8")
        scripts = [DEB / name for name in ("postinst", "prerm", "postrm")]
        for script in scripts:
            shutil.copyfile(script, tree / "DEBIAN" / script.name)
        runnable = {tree / HOME / "bin/refclock", *(tree / "DEBIAN" / script.name for script in scripts)}
        for path in [tree, *tree.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path in runnable else 0o644)
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"refclock_{version()}_{architecture}.deb"
        subprocess.run(["dpkg-deb", "-Zxz", "--root-owner-group", "--build", tree, file], check=True, stdout=subprocess.DEVNULL)
        return file


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in COMPILERS:
        raise SystemExit(f"usage: python image/deb/package.py {'|'.join(COMPILERS)} DIRECTORY")
    os.umask(0o022)
    print(package(sys.argv[1], Path(sys.argv[2])))
