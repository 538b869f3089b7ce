"""``refclock waitsync``: waits until the clock is synchronised, with the arguments and the lines of ``chronyc waitsync``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ppsd.cli.daemon import clock_snapshot, run_directory
from ppsd.faces.chronyc import refid_hex
from ppsd.process.exit_codes import FAILED, GOOD, NO_DAEMON, Refused
from ppsd.snapshot import Snapshot


def run(args: argparse.Namespace) -> int:
    """Look until the clock is good, or for ``tries`` looks."""
    directory, tries = run_directory(args.run_dir), 0
    while True:
        tries += 1
        clock = _look(directory)
        correction_s = abs(clock.system_offset_ns or 0) / 1e9 if clock else 0.0
        skew_ppm = clock.skew_ppm or 0.0 if clock else 0.0
        refid = refid_hex(clock) if clock else "00000000"
        if args.csv:
            print(f"{tries},{refid},{correction_s:.9f},{skew_ppm:.3f}", flush=True)
        else:
            print(f"try: {tries}, refid: {refid}, correction: {correction_s:.9f}, skew: {skew_ppm:.3f}", flush=True)
        if clock is not None and clock.synchronised and _within(correction_s, args.correction) and _within(skew_ppm, args.skew):
            return GOOD
        if tries == int(args.tries):
            return FAILED
        time.sleep(max(0.1, args.interval))


def _within(value: float, most: float) -> bool:
    return most == 0 or value <= most


def _look(directory: Path) -> Snapshot | None:
    """The daemon's state; None while there is no daemon. It may still have to start."""
    try:
        return clock_snapshot(directory)
    except Refused as refusal:
        if refusal.code != NO_DAEMON:
            raise
        return None
