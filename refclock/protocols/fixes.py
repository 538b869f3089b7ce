"""What a stated fix is worth for time: one table of NMEA's mode indicators, GGA's quality and UBX's fix types.

A receiver may go on stating positions after it has lost its satellites. It estimates them, repeats what an operator typed in, or simulates.
Its clock then runs on its own crystal, and the pulse with it, so such a fix names no second.

================= ============================== =========================================== ==============================================
worth             NMEA mode (2.3, 4.11)          GGA quality                                 UBX gpsFix, fixType
================= ============================== =========================================== ==============================================
KNOWN_PLACE       -                              7 with satellites in use                    5 time only
SATELLITES        A, D, P, R, F                  1, 2, 3, 4, 5; 9                            2, 3; 4 with dead reckoning besides
ESTIMATED         E                              6                                           1 dead reckoning only
INVENTED          M manual, S simulator          8 simulator; 7 without satellites in use    -
NONE              N, and any other               0, and any other                            0, and any without gnssFixOK
================= ============================== =========================================== ==============================================

Where makers differ from NMEA 0183:

* GGA 7 is "manual input". NovAtel ("manual input mode (fixed position)": FIX POSITION), Unicore ("user fixed position": MODE BASE) and gpsd
  (Motorola Oncore in position hold) send it for a base station, whose place is given and whose time is measured. The count of satellites in
  use tells them from an operator's input. Mode M comes without a count and is never taken.
* GGA 9 is NovAtel's fix with SBAS.
* Up to NMEA 2.1, u-blox receivers send GGA 1 for dead reckoning, and RMC has no mode: nothing tells them from a fix.
* The navigational status behind RMC's mode (NMEA 4.1: S safe, C caution, U unsafe, V not valid) rates the position for navigation, and V is
  what u-blox, Unicore and others always send. It says nothing of time and is not read.

Sources: NMEA 0183 4.11 as quoted in the manuals of Furuno FA-50 and JRC JSS-2250; u-blox M8, F9 and F10 interface descriptions ("position
fix flags"); NovAtel OEM7 GPGGA; Unicore reference commands GPGGA; gpsd's driver_nmea0183.c.

Flow: nmea | ubx -> **fixes** -> a label or the reason for none.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from refclock.protocols.labels import Reject
from refclock.sample import FixMode


class FixWorth(Enum):
    """What a fix is worth for time."""

    NONE = "none"
    INVENTED = "invented"
    ESTIMATED = "estimated"
    SATELLITES = "satellites"
    KNOWN_PLACE = "known-place"

    @property
    def measured(self) -> bool:
        """Whether time is being measured by satellites."""
        return self in (FixWorth.SATELLITES, FixWorth.KNOWN_PLACE)

    @property
    def coasting(self) -> bool:
        """Whether a position is stated that does not come from satellites: it contradicts whoever states a fix."""
        return self in (FixWorth.INVENTED, FixWorth.ESTIMATED)

    @property
    def reject(self) -> Reject:
        """Why a statement with such a fix gives no label."""
        return _REJECTS.get(self, Reject.NO_FIX)


_REJECTS = {FixWorth.INVENTED: Reject.MANUAL_OR_SIMULATED, FixWorth.ESTIMATED: Reject.ESTIMATED}
_MODES: Final = {
    **dict.fromkeys("ADPRF", FixWorth.SATELLITES),
    **dict.fromkeys("MS", FixWorth.INVENTED),
    "E": FixWorth.ESTIMATED,
}
_QUALITIES: Final = {
    **dict.fromkeys("123459", FixWorth.SATELLITES),
    "6": FixWorth.ESTIMATED,
    "7": FixWorth.INVENTED,
    "8": FixWorth.INVENTED,
}
UBX_MODES: Final = {2: FixMode.FIX_2D, 3: FixMode.FIX_3D, 4: FixMode.FIX_3D, 5: FixMode.TIME_ONLY}
"""gpsFix and fixType: the mode of a fix by satellites."""


def by_mode(letters: str) -> FixWorth:
    """By mode indicators: one letter of RMC, GLL or VTG; a letter for each constellation in GNS. One that is simulated or typed in spoils
    the others; else one measured by satellites is enough."""
    worth = {_MODES.get(letter, FixWorth.NONE) for letter in letters}
    order = (FixWorth.INVENTED, FixWorth.SATELLITES, FixWorth.ESTIMATED)
    return next((w for w in order if w in worth), FixWorth.NONE)


def by_quality(quality: str, satellites: int) -> FixWorth:
    """By GGA's quality and its count of satellites in use."""
    if quality == "7" and satellites:
        return FixWorth.KNOWN_PLACE
    return _QUALITIES.get(quality, FixWorth.NONE)


def by_ubx(fix: int, ok: bool) -> FixWorth:
    """By gpsFix or fixType, and gpsFixOk or gnssFixOK."""
    if not ok:
        return FixWorth.NONE
    if fix == 1:
        return FixWorth.ESTIMATED
    if fix in UBX_MODES:
        return FixWorth.KNOWN_PLACE if UBX_MODES[fix] is FixMode.TIME_ONLY else FixWorth.SATELLITES
    return FixWorth.NONE
