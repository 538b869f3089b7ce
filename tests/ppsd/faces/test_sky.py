"""The satellites in a table and on the sky."""

from __future__ import annotations

from dataclasses import replace

from known_daemon import LOCKED

from ppsd.faces.sky import designation, satellites, sky
from refclock.sample import Satellite


def test_the_sky() -> None:
    """North is up, the zenith in the middle, unused satellites in brackets, those without a place left out."""
    some = [
        Satellite("GPS", 7, 90, 0, 40, True),
        Satellite("GPS", 12, 0, 0, 40, True),
        Satellite("GPS", 3, 30, 90, 20, False),
        Satellite("GPS", 99, None, None, None, False),
    ]
    rows = sky(some).splitlines()
    assert "N" in rows[0]
    assert "G12" in rows[1]
    assert rows[len(rows) // 2].replace(".", " ").split() == ["W", "G07", "(G03)", "E"]
    assert "99" not in sky(some)


def test_satellites_are_unambiguous() -> None:
    """Number 7 of GPS and of Galileo have different names, GLONASS's the same by NMEA's numbers and by UBX's; names that would cover each
    other are moved apart, and none is cut at the rim."""
    names = [("GPS", 7, "G07"), ("Galileo", 7, "E07"), ("Galileo", 307, "E07"), ("GLONASS", 7, "R07"), ("GLONASS", 71, "R07")]
    names += [("SBAS", 136, "S36"), ("SBAS", 49, "S36"), ("QZSS", 194, "J02"), ("BeiDou", 12, "C12"), ("", 5, "?05")]
    for system, number, name in names:
        assert designation(Satellite(system, number, 10, 10, 40, True)) == name
    together = [
        Satellite("GPS", 7, 40, 200, 40, True),
        Satellite("Galileo", 7, 41, 201, 40, True),
        Satellite("GLONASS", 7, 40, 199, 40, False),
    ]
    shown = sky([*together, Satellite("GPS", 30, 0, 270, 40, False), Satellite("GPS", 31, 0, 90, 40, False)])
    for name in ("G07", "E07", "(R07)", "(G30)", "(G31)"):
        assert name in shown, shown
    assert max(map(len, shown.splitlines())) <= 49


def test_the_report() -> None:
    """The strongest that are used come first; the rows have what is known, and nothing for what is not."""
    some = (Satellite("GPS", 9, None, None, None, False), Satellite("GPS", 7, 40, 200, 31, True), Satellite("Galileo", 301, 5, 0, 44, True))
    told = satellites(replace(LOCKED, sources=(replace(LOCKED.sources[0], satellites=some), *LOCKED.sources[1:])))
    assert told.rows == ("gps0,E01,Galileo,5,0,44,used", "gps0,G07,GPS,40,200,31,used", "gps0,G09,GPS,,,,")
    assert told.text.splitlines()[2:5] == [
        "E01        Galileo         5°       0°  44 dB-Hz  used     #################",
        "G07        GPS            40°     200°  31 dB-Hz  used     ##########",
        "G09        GPS              -        -         -  not used",
    ]
    assert [s["number"] for s in told.told["gps0"]] == [9, 7, 301]
    assert "no receiver tells" in satellites(LOCKED).text
