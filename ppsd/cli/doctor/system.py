"""The doctor's examinations of the system around the daemon: rights, configuration, disk, memory, versions: RC40 to RC47."""

from __future__ import annotations

import re
from typing import Final

from ppsd import version
from ppsd.cli.config import remarks
from ppsd.cli.doctor.clock import container
from ppsd.cli.doctor.finding import FAIL, NO_DAEMON, OK, SKIP, WARN, Finding, Patient
from ppsd.config.file import doubts
from ppsd.config.tables import parse_endpoint
from ppsd.snapshot import NtsReport
from refclock import BUILD_DATE
from refclock.kernel.host import Host
from refclock.timescales import day_of

CAPABILITIES: Final = {"CAP_NET_BIND_SERVICE": 10, "CAP_SYS_TIME": 25}
"""Bits of capability masks (linux/capability.h)."""
DANGEROUS: Final = {"CAP_SYS_TIME": 25, "CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_DAC_OVERRIDE": 1, "CAP_SYS_PTRACE": 19}
"""Rights by which a process that faces the network could take over the machine."""
MIB: Final = 1 << 20
SPACE_MIN: Final = 10 * MIB
"""bytes; below it the state of a year's running is no longer safely written."""
SHARE_MIN: Final = 0.05
"""Share of a file system, or of the memory, below which that is a warning."""
MEMORY_MIN: Final = 16 * MIB
"""bytes of available memory; both processes together use 45 MB, and a start needs as much again."""
DAY_S: Final = 86400
CERTIFICATE_DAYS: Final = 14
"""Days left of a certificate below which that is told: those who renew one by itself do it a month before."""
AUTHORITY_PATH: Final = "{}/nts/nts-ca.pem"
"""Below run.state: key and certificate of the own authority (``ppsd.serve.certificates``)."""
WORN: Final = 9
"""Of eMMC's life time estimate: tenths that are used up; 11: beyond its life (JEDEC 84-B51, EXT_CSD 268 and 269)."""


def _mask(host: Host, pid: int | str, kind: str) -> int | None:
    """A set of capabilities of a process (proc(5)): CapEff, CapBnd; None when it cannot be seen."""
    found = re.search(rf"^{kind}:\s*([0-9a-fA-F]+)$", host.text(f"/proc/{pid}/status") or "", re.MULTILINE)
    return int(found[1], 16) if found else None


def _grant(host: Host, right: str) -> str:
    """How this process is given a right that is withheld from it."""
    inside = container(host)
    if inside in ("docker", "podman"):
        return f"{inside} run --cap-add {right.removeprefix('CAP_')}"
    if inside:
        return f"let the container have {right}, in its configuration on the host"
    return f"run it by its service (sudo refclock setup), as root, or under a unit with AmbientCapabilities={right}"


def rights(p: Patient) -> Finding:
    """RC40: have the processes the rights that they need, and the one that faces the network no others?"""
    bounds = _mask(p.host, "self", "CapBnd")
    if p.clock is None:
        lacks = [] if bounds is None else [right for right in _needed(p) if not bounds >> CAPABILITIES[right] & 1]
        if lacks:
            return Finding("RC40", FAIL, f"what runs here may not have {lacks[0]}: {_needed(p)[lacks[0]]}", _grant(p.host, lacks[0]))
        return Finding("RC40", SKIP, "no daemon is running, so its rights cannot be seen")
    has = _mask(p.host, p.clock.pid, "CapEff")
    if p.steers and has is not None and not has >> CAPABILITIES["CAP_SYS_TIME"] & 1:
        what = f'the clock process (pid {p.clock.pid}) may not set the clock: it lacks CAP_SYS_TIME, and [clock] steer = "kernel"'
        return Finding("RC40", FAIL, what, _grant(p.host, "CAP_SYS_TIME"))
    if isinstance(p.server, str):
        return Finding("RC40", SKIP if has is None else OK, "the clock process has the rights that it needs")
    facing = _mask(p.host, p.server.pid, "CapEff")
    if facing is None or has is None:
        return Finding("RC40", SKIP, "the processes' rights cannot be seen by this user")
    if more := [right for right, bit in DANGEROUS.items() if facing >> bit & 1]:
        what = f"the server process (pid {p.server.pid}), which faces the network, has {', '.join(more)} and needs none of them"
        return Finding("RC40", WARN, what, "start it by its service (sudo refclock setup), or by sudo refclock run, which gives them up")
    waits = [one.address for one in p.server.unserved if not one.harmless and not one.taken]
    low = [address for address in waits if (end := parse_endpoint(address)) is not None and end[1] < 1024]
    if low and not facing >> CAPABILITIES["CAP_NET_BIND_SERVICE"] & 1 and not p.server.socket_activated:
        what = f"the server process may not take up {low[0]} when that address comes: ports below 1024 need CAP_NET_BIND_SERVICE"
        return Finding("RC40", WARN, what, _grant(p.host, "CAP_NET_BIND_SERVICE"))
    return Finding("RC40", OK, "the processes have the rights that they need, and the server no others")


def _needed(p: Patient) -> dict[str, str]:
    """The rights that the configuration needs -> what for."""
    needed: dict[str, str] = {}
    if p.steers:
        needed["CAP_SYS_TIME"] = '[clock] steer = "kernel" sets the clock'
    if any(end[1] < 1024 for text in p.listen if (end := parse_endpoint(text)) is not None):
        needed["CAP_NET_BIND_SERVICE"] = "[server] listen has a port below 1024"
    return needed


def _is_there(_: str) -> bool:
    return True  # a server that runs tells itself which addresses it lacks: RC30


def configuration(p: Patient) -> Finding:
    """RC41: is the configuration valid, and does it fit this machine?"""
    file = p.config.file or "no file, the defaults"
    if p.problems:
        more = f" (and {len(p.problems) - 1} more)" if len(p.problems) > 1 else ""
        return Finding("RC41", FAIL, f"{p.problems[0]}{more}", "refclock config check shows all of it")
    try:
        doubtful = [str(problem) for problem in doubts(p.config)]
    except OSError:  # it was removed meanwhile
        doubtful = []
    doubtful += [*remarks(p.config, p.host, p.has if p.clock is None else _is_there)]
    if doubtful:
        return Finding("RC41", WARN, doubtful[0], "refclock config check")
    return Finding("RC41", OK, f"the configuration is valid: {file}")


def disk(p: Patient) -> Finding:
    """RC42: can state be written, is there room, and does the card wear out?"""
    where = p.config.run.state
    space = p.space(where)
    if space is not None and space.read_only:
        do = "sudo mount -o remount,rw on it; when that fails the card is worn out or damaged: dmesg, then replace it"
        return Finding("RC42", FAIL, f"{where} is on a read-only file system: what the clock has learned is lost at each restart", do)
    for file in p.host.names("/sys/fs/ext4/*/errors_count"):
        if count := p.host.number(file):
            do = "refclock backup; then put fsck.mode=force on the kernel's command line and restart; replace the card if it recurs"
            return Finding("RC42", WARN, f"the file system on {file.split('/')[4]} has recorded {count} errors", do)
    for file in p.host.names("/sys/block/mmcblk*/device/life_time"):
        used = [int(word, 16) for word in (p.host.text(file) or "").split() if re.fullmatch(r"0x[0-9a-fA-F]+", word)]
        if used and max(used) >= WORN:
            what = f"{file.split('/')[3]} has used up {10 * max(used) - 10} to {10 * max(used)} % of its life (eMMC life time estimate)"
            return Finding("RC42", WARN, what, "replace it soon; refclock backup keeps settings and what was learned")
    if space is None:
        return Finding("RC42", SKIP, f"the space at {where} cannot be told")
    if space.free_bytes < SPACE_MIN or space.files_share < 0.01:
        what = f"{where} has {space.free_bytes // MIB} MiB and {space.files_share * 100:.0f} % of its files left"
        return Finding("RC42", FAIL, what, "make room: sudo journalctl --vacuum-size=50M; sudo apt clean; du -x / | sort -n | tail")
    if space.free_share < SHARE_MIN:
        what = f"{where} has {space.free_share * 100:.0f} % of its space left, {space.free_bytes // MIB} MiB"
        return Finding("RC42", WARN, what, "make room: sudo journalctl --vacuum-size=50M; sudo apt clean")
    return Finding("RC42", OK, f"{where} can be written, {space.free_bytes // MIB} MiB are free")


def certificate(p: Patient) -> Finding:
    """RC44: do clients of NTS get keys, by a certificate that is good for a while?"""
    if not p.config.nts.enabled:
        return Finding("RC44", SKIP, "NTS is off ([nts] enabled = false)")
    if p.nts is None:
        if p.clock is None:
            return Finding("RC44", SKIP, NO_DAEMON)
        what = "NTS is enabled, and the process that establishes its keys does not answer"
        return Finding("RC44", FAIL, what, "sudo systemctl restart refclock-nts-ke; its log says why it ended")
    if p.nts.until_s is None:
        return Finding("RC44", FAIL, f"NTS has no certificate: {p.nts.problem}", "put that right; it is looked at again every 10 s")
    if not p.nts.addresses:
        why = "; ".join(f"{one.address}: {one.why}" for one in p.nts.unserved)
        return Finding("RC44", FAIL, f"NTS keys are established nowhere: {why}", "free it, or name another: [nts] listen")
    own, end = p.nts.authority_until_s, p.nts.until_s
    left = (end - p.now_s()) / DAY_S
    if left < 0:
        return Finding("RC44", FAIL, f"the NTS certificate ended on {day_of(end)}: no new client believes it", _renewal(p.nts))
    if p.nts.problem:
        return Finding("RC44", WARN, f"the NTS certificate was not read again: {p.nts.problem}", "put that right; refclock nts shows it")
    if left < CERTIFICATE_DAYS:
        return Finding("RC44", WARN, f"the NTS certificate ends on {day_of(end)}, in {left:.0f} days", _renewal(p.nts))
    if own is not None and (years := (own - p.now_s()) / DAY_S / 365) < 1:
        do = f"remove {AUTHORITY_PATH.format(p.config.run.state)}, restart, and give clients the new one: refclock nts ca"
        return Finding("RC44", WARN, f"this machine's authority for NTS ends on {day_of(own)}, in {years * 365:.0f} days", do)
    return Finding("RC44", OK, f"the NTS certificate is good until {day_of(end)}")


def _renewal(nts: NtsReport) -> str:
    """How a certificate is renewed."""
    return "sudo systemctl restart refclock-nts-ke; its log says why it is not renewed" if nts.own else "renew it; it is noticed by itself"


def floor(p: Patient) -> Finding:
    """RC45: is the date from which on dates are believed as late as this program's, and before today?"""
    today, floor_date = day_of(round(p.now_s())), p.config.clock.not_before.isoformat()
    if today < BUILD_DATE:
        do = 'let the receiver set it ([clock] steer = "kernel"), or: sudo date -s; a battery clock keeps it (RC23)'
        return Finding("RC45", FAIL, f"the system clock says {today}, which is before this program was made ({BUILD_DATE})", do)
    if floor_date > today:
        what = f"[clock] not_before is {floor_date}, in the future: every date is refused until then"
        return Finding("RC45", FAIL, what, f"take not_before out of [clock]; it is {BUILD_DATE} by itself")
    if floor_date < BUILD_DATE:
        what = f"[clock] not_before is {floor_date}, earlier than this program ({BUILD_DATE}): an old receiver's rolled-over date may pass"
        return Finding("RC45", WARN, what, "take not_before out of [clock]")
    return Finding("RC45", OK, f"no date before {floor_date} is believed")


def update(p: Patient) -> Finding:
    """RC46: is a newer version installed than runs, or known to this machine's package lists? Nobody outside is asked."""
    ours = version()
    if p.clock is not None and p.clock.version != ours:
        do = "sudo systemctl restart refclock.target; or end refclock run and start it again"
        return Finding("RC46", WARN, f"the daemon that runs is version {p.clock.version}, this program {ours}", do)
    told = p.output(("apt-cache", "policy", "refclock")) or ""
    installed, candidate = (re.search(rf"^\s*{word}: (\S+)$", told, re.MULTILINE) for word in ("Installed", "Candidate"))
    if installed and candidate and installed[1] not in (candidate[1], "(none)"):
        do = "sudo apt install --only-upgrade refclock"
        return Finding("RC46", WARN, f"version {candidate[1]} is in this machine's package lists, {installed[1]} is installed", do)
    return Finding("RC46", OK, f"version {ours}; this machine's package lists know no newer one")


def memory(p: Patient) -> Finding:
    """RC47: is there memory, and are the daemon's pages in it?"""
    told = dict(re.findall(r"^(\w+):\s+(\d+) kB$", p.host.text("/proc/meminfo") or "", re.MULTILINE))
    if "MemTotal" not in told or "MemAvailable" not in told:
        return Finding("RC47", SKIP, "the kernel does not tell its memory (/proc is not there)")
    total, free = int(told["MemTotal"]) << 10, int(told["MemAvailable"]) << 10
    do = "see what uses it: ps aux --sort=-rss | head; end or move what is not needed"
    pids = [*([p.clock.pid] if p.clock else []), *([] if isinstance(p.server, str) else [p.server.pid])]
    for pid in pids:
        swapped = re.search(r"^VmSwap:\s+(\d+) kB$", p.host.text(f"/proc/{pid}/status") or "", re.MULTILINE)
        if swapped and int(swapped[1]) > 1024:
            what = f"{int(swapped[1]) >> 10} MiB of the daemon (pid {pid}) are swapped out: it stamps and answers late"
            return Finding("RC47", WARN, what, f"{do}; sudo swapoff -a brings them back")
    if free < MEMORY_MIN or free < SHARE_MIN * total:
        return Finding("RC47", WARN, f"{free // MIB} of {total // MIB} MiB of memory are available", do)
    killed = re.search(r"^oom_kill (\d+)$", p.host.text("/proc/vmstat") or "", re.MULTILINE)
    if killed and int(killed[1]):
        what = f"the kernel has ended {killed[1]} processes since the start for want of memory"
        return Finding("RC47", WARN, what, "journalctl -k | grep -i oom tells which; give the machine more memory, or less to do")
    return Finding("RC47", OK, f"{free // MIB} of {total // MIB} MiB of memory are available")


EXAMINATIONS: Final = (rights, configuration, disk, certificate, floor, update, memory)
