"""``python -m ppsd clock|serve|web|nts-ke``: runs one of the daemon's processes; any other word is a command of ``refclock``.

Each process runs on its own: systemd starts them as units, ``refclock run`` as children, and a network simulator one at a time. Exit
codes: ``ppsd.process.exit_codes``.
"""
# ruff: noqa: PLC0415 (each process imports its own half only: the server's library never enters the clock process)

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path and __file__ != f"{sys.path[0]}/{__package__}/__main__.py":
    del sys.path[0]  # python -m puts the working directory first, where another user may have left a json.py

import argparse
from pathlib import Path

NTS_LIBRARY = "apt install python3-openssl; in a virtual environment: pip install pyOpenSSL"
"""What people are told to type."""


def _process(name: str, argv: list[str]) -> int:
    """Run the clock, the serve, the web or the NTS-KE process until a signal; returns the exit code."""
    from ppsd.config.file import load
    from ppsd.process.exit_codes import BAD_CONFIG, GOOD, USAGE, complain, io_failure
    from ppsd.process.lifecycle import die_with_parent, notify
    from ppsd.process.log import catch_crashes, open_log, speaker
    from refclock.schema import ConfigError

    die_with_parent()
    parser = argparse.ArgumentParser(prog=f"python -m ppsd {name}", exit_on_error=False)
    parser.add_argument("--config", metavar="FILE", type=Path)
    parser.add_argument("--run-dir", metavar="DIR", type=Path)
    parser.add_argument("--simulated", action="store_true", help="everything served is marked as simulated")
    parser.add_argument("--duration", metavar="SECONDS", type=float)
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        print(f"ppsd {name}: {error}", file=sys.stderr)
        return USAGE
    try:
        config = load(args.config)
    except ConfigError as error:
        return complain(error)
    if args.simulated and config.clock.steer != "none":
        print(f'ppsd {name}: clock.steer must be "none" with --simulated', file=sys.stderr)
        return BAD_CONFIG
    run_dir = args.run_dir or Path(config.run.directory)
    log = open_log(config.log.format, config.log.level, name)
    if config.log.format == "json":
        catch_crashes(log)
    try:
        if name == "clock":
            from ppsd.clock.main import main as clock

            return clock(config, run_dir, args.simulated, args.duration)
        if name == "web":
            from ppsd.web.main import main as web

            return web(config, run_dir, args.simulated, args.duration)
        if name == "nts-ke":
            if not config.establishes_keys:
                notify("READY=1")  # to systemd, a process that ends without it has failed, and is started again
                log.info("NTS is not enabled: [nts] enabled = false, and no [[upstream]] has nts = true")
                return GOOD
            from ppsd.serve.nts_ke import main as nts_ke

            return nts_ke(config, run_dir, args.simulated, args.duration)
        from ppsd.serve.main import main as serve

        return serve(config, run_dir, args.simulated, args.duration)
    except OSError as error:
        return io_failure(error, speaker(log, config.log.format))
    except ModuleNotFoundError as error:
        if error.name not in ("OpenSSL", "cryptography"):
            raise
        why = f"NTS (nts.enabled, or nts of an [[upstream]]) needs pyOpenSSL, which is not installed ({NTS_LIBRARY})"
        speaker(log, config.log.format)(why)
        return BAD_CONFIG


def main(argv: list[str]) -> int:
    """Run the process or command that the first word names; returns the exit code."""
    if argv[:1] in (["clock"], ["serve"], ["web"], ["nts-ke"]):
        return _process(argv[0], argv[1:])
    from ppsd.cli.main import main as command

    return command(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
