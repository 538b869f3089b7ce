"""``python -m refclock_sim``: a simulated receiver with a pulse, in real time for any program; with ``world``, a scenario.

It makes DIR/ttySIM0 and DIR/pps0.shm, says so in one line, and runs until SIGTERM or SIGINT. A program sees both in the environment of
``refclock_sim.ports.device.preload_environment(DIR)``, which ``--environment`` prints.

``python -m refclock_sim world FILE`` runs a scenario in simulated time and reports the result.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path and __file__ != f"{sys.path[0]}/{__package__}/__main__.py":
    del sys.path[0]  # python -m puts the working directory first, where another user may have left a json.py

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from ppsd.process.encoding import print_anywhere
from ppsd.process.exit_codes import GOOD, INTERRUPTED, IO_ERROR
from ppsd.process.lifecycle import die_with_parent
from refclock.sample import NS
from refclock.timescales import DAY_S, LeapTable
from refclock_sim.models import pulse
from refclock_sim.ports.device import PPS_DEVICE, PULSE, TTY, Device, DeviceSettings, preload_environment, tai_minus_real_ns
from refclock_sim.ports.uart import FORMATS
from refclock_sim.receiver.gnss import Gnss
from refclock_sim.receiver.output import MODELS, Receiver


def leap_table(at: str | None, step_s: int) -> LeapTable:
    """Today's table with a leap second at the end of the day ``at`` (ISO 8601, UTC). ValueError."""
    table = LeapTable()
    if at is None:
        return table
    day = datetime.fromisoformat(at.replace(":60", ":59").replace("Z", "")).replace(tzinfo=UTC)
    return table.with_leap((int(day.timestamp()) // DAY_S + 1) * DAY_S, step_s)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m refclock_sim", description="A simulated GPS receiver with a pulse, in real time.")
    parser.add_argument("--directory", type=Path, required=True, help=f"where {TTY} and {PULSE} are made")
    parser.add_argument("--receiver", choices=sorted(MODELS), default="ublox8", help="kind of receiver (default ublox8)")
    parser.add_argument("--baud", type=int, help="bit rate of the line (default: the kind's own); 0 = native USB")
    parser.add_argument("--bits", choices=sorted(FORMATS), default="8N1", help="the line's format (default 8N1), for --strict-baud")
    parser.add_argument("--strict-baud", action="store_true", help="a program that sets another bit rate reads what a UART would")
    parser.add_argument("--offset-s", "--offset", type=float, default=0.0, help="true time minus this machine's clock")
    parser.add_argument("--pulse", choices=sorted(pulse.PRESETS), default="pi", help="error of the pulse's stamps (default pi)")
    parser.add_argument("--no-pulse", action="store_true", help="a receiver without a pulse")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random")
    parser.add_argument("--cold", type=int, default=2, metavar="S", help="seconds from power-on to the fix (default 2)")
    parser.add_argument("--leap-known", type=int, default=0, metavar="S", help="seconds until the leap count has come from the sky")
    parser.add_argument("--firmware-tai-offset", type=int, metavar="S", help="TAI-UTC that the receiver uses before that (default: right)")
    parser.add_argument("--leap-at", metavar="ISO", help="a leap second ends this day of true time")
    parser.add_argument("--leap-step", type=int, choices=(1, -1), default=1, help="inserted (default) or deleted")
    parser.add_argument("--rollovers", type=int, default=0, help="dates are so many times 1024 weeks behind")
    parser.add_argument("--environment", action="store_true", help="print the variables for a program under test, and end")
    return parser


def main(words: list[str]) -> int:
    """Run; exit code 0, 2 for a bad command line, 74 when the devices cannot be made. Of ``world``: ``world.run_scenario_file``."""
    print_anywhere((sys.stdout, sys.stderr))
    try:
        return _world(words[1:]) if words[:1] == ["world"] else _device(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except OSError as failure:
        print(f"refclock_sim: {failure}", file=sys.stderr)
        return IO_ERROR


def _world(words: list[str]) -> int:
    """A scenario, a line for each seed."""
    from refclock_sim.worlds.world import run_scenario_file  # noqa: PLC0415 (a device needs no engine)

    parser = argparse.ArgumentParser(prog="python -m refclock_sim world", description="Run a scenario in simulated time.")
    parser.add_argument("scenario", type=Path, help="a scenario file (TOML)")
    parser.add_argument("--seeds", metavar="N", type=int, default=1, help="with N different random seeds (default 1)")
    args = parser.parse_args(words)
    code = run_scenario_file(args.scenario, range(1, args.seeds + 1), sys.stdout)
    sys.stdout.flush()
    return code


def _device(words: list[str]) -> int:
    """A receiver and its pulse, until a signal; or what a program needs to see them."""
    die_with_parent()
    parser = options()
    args = parser.parse_args(words)
    try:
        table = leap_table(args.leap_at, args.leap_step)
    except ValueError as error:
        parser.error(f"--leap-at: {error}")
    if args.baud is not None and args.baud < 0:
        parser.error("--baud: must not be negative")
    if args.environment:
        try:
            variables = preload_environment(args.directory)
        except ValueError as error:
            parser.error(f"--directory: {error}")
        print("\n".join(f"{name}={value}" for name, value in variables.items()))
        return GOOD
    model = MODELS[args.receiver]
    sawtooth = pulse.Sawtooth(args.seed) if model.ubx and not args.no_pulse else None
    late = None if args.no_pulse else pulse.PRESETS[args.pulse](args.seed)
    settings = DeviceSettings(args.directory, round(args.offset_s * NS), pulse=late, strict_baud=args.strict_baud)
    truth = tai_minus_real_ns(settings.offset_ns, table)
    gnss = Gnss(
        args.seed,
        _now_tai_s(truth) + 1,
        table,
        fix_s=args.cold,
        leap_known_s=args.leap_known,
        firmware_tai_offset_s=args.firmware_tai_offset,
        rollovers=args.rollovers,
    )
    receiver = Receiver(model, gnss, args.seed, args.baud, sawtooth)
    receiver.bits = args.bits
    with Device(settings, receiver, sawtooth, truth) as device:
        shown = "no pulse" if late is None else f"pulse {settings.directory / PULSE} as {PPS_DEVICE}"
        print(f"SIMULATED receiver ({model.what}, {device.receiver.baud} baud) on {device.pty.link}; {shown}", flush=True)
        device.run()
    return GOOD


def _now_tai_s(truth_ns: int) -> int:
    return (int(datetime.now(UTC).timestamp() * 1000) * 1_000_000 + truth_ns) // NS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
