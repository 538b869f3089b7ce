"""A report to strangers: nothing in it tells who and where its owner is, and it can still be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppsd.faces.anonymous import Anonymiser

PLANTED = {
    "NMEA RMC": ("$GNRMC,101112.00,A,4807.0380,N,01131.0000,E,0.0,0.0,281126,,,A*6C", ("4807.0", "01131.0", "6C")),
    "NMEA GGA": ("got $GPGGA,101112.00,4807.03801,N,01131.00002,E,1,08,0.9,545.4,M,46.9,M,,*47 on /dev/ttyS0", ("4807", "01131", "545.4")),
    "NMEA GLL": ("$GPGLL,4916.45,N,12311.12,W,225444,A,*1D", ("4916", "12311")),
    "NMEA GNS": ("'$GNGNS,101112.00,4807.0380,N,01131.0000,E,AA,08,0.9,545.4,46.9,,*47'", ("4807", "01131")),
    "NMEA without a checksum, cut off": ("broken: $GPRMC,101112.00,A,4807.03", ("4807",)),
    "NMEA without a dollar": ("GNGGA,101112.00,4807.0380,N,01131.0000,E,1,08", ("4807", "01131")),
    "PUBX": ("$PUBX,00,101112.00,4807.0380,N,01131.0000,E,545.4,G3,2.1,2.0*5F", ("4807", "01131", "545.4")),
    "PGRMF": ("$PGRMF,290,293895,160305,093802,13,5213.1439,N,02100.6511,E,A,2,0,62,2,1*26", ("5213", "02100")),
    "NMEA with spaces": ("4807.0380, N, 01131.0000, E", ("4807", "01131")),
    "gpsd TPV": (
        '{"class":"TPV","lat":48.117300,"lon":11.516667,"altHAE":545.4,"ecefx":4177000.1}',
        ("48.117", "11.516", "545.4", "4177000"),
    ),
    "degrees in words": ("latitude 48.1173, longitude 11.5167, altitude 545", ("48.1173", "11.5167", "545")),
    "a pair of degrees": ("at 48.117312 11.516701", ("48.117", "11.516")),
    "a pair with letters": ("48.1173° N, 11.5167° E", ("48.117", "11.516")),
    "degrees, minutes, seconds": ("48°07'02.3\" N 11°31'00.1\" E", ("48°", "11°", "02.3")),
    "degrees, minutes, seconds with spaces": ("48 07 02.3 N 11 31 00.1 E", ("48 07", "11 31")),
    "degrees and minutes": ("N48 07.038 E011 31.000 or 48 07.038N 11 31.000E", ("07.038", "31.000")),
    "NMEA's figures in words": ("4807.038 N 01131.000 E", ("4807", "01131")),
    "decimal commas": ("48,1173 11,5167", ("1173", "5167")),
    "geo URI": ("geo:48.1173,11.5167", ("48.1173", "11.5167")),
    "configured position": ('fixed_position = "48.1173 11.5167 545.4"', ("48.1173", "11.5167", "545.4")),
    "configured position, ECEF": ('fixed_position = "ecef 4278000.1 645000.2 4672000.3"', ("4278000", "645000")),
    "ECEF": ("ecef 4278000.1 645000.2 4672000.3", ("4278000", "645000", "4672000")),
    "UBX in octets": ("b5 62 01 07 5c 00 10 27 00 00 ea 07 0b 1c 0a 0b 0c 37 21 00", ("5c 00 10 27",)),
    "UBX in hexadecimal": ("b56201075c0010270000ea070b1c0a0b0c372100", ("5c001027",)),
    "public IPv4": ("client 8.8.4.4:51234 refused", ("8.8.4.4",)),
    "public IPv4 network": ('allow = ["own", "203.0.113.0/24"]', ("203.0.113",)),
    "public IPv4 at the end of a sentence": ("It comes from 203.0.113.7.", ("203.0.113",)),
    "public IPv6": ("[2001:db8:85a3::8a2e:370:7334]:123", ("2001:db8", "7334")),
    "range of public IPv4": ("203.0.113.7-203.0.113.9", ("203.0.113",)),
    "public IPv4 with dashes": ("host-203-0-113-7 asks", ("203-0-113",)),
    "public IPv6 after a word": ("addr:2001:db8::1 eth0:2001:db8::2", ("2001:db8",)),
    "public IPv6 network": ("2001:db8:5::/64 at eth0", ("2001:db8",)),
    "public IPv6 before a colon": ("2a01:4f8::1: no reply", ("2a01", "4f8")),
    "public IPv6 in full": ("2001:0DB8:85A3:0000:0000:8A2E:0370:7334", ("0DB8", "7334")),
    "mapped IPv4": ("::ffff:203.0.113.9", ("203.0.113",)),
    "link-local IPv6 with its MAC": ("fe80::de4f:22ff:fe11:2233%eth0", ("de4f", "2233")),
    "reverse name": ("9.113.0.203.in-addr.arpa", ("113.0.203",)),
    "reverse name of IPv6": ("4.3.3.7.0.7.3.0.e.2.a.8.0.0.0.0.0.0.0.0.3.a.5.8.8.b.d.0.1.0.0.2.ip6.arpa", ("4.3.3.7",)),
    "MAC": ("link/ether dc:a6:32:01:02:03 brd ff:ff:ff:ff:ff:ff", ("dc:a6", "01:02:03")),
    "MAC after a name, before a colon": ("eth0:dc:a6:32:01:02:03: lost", ("dc:a6", "02:03")),
    "MAC in capitals with dashes": ("DC-A6-32-01-02-03", ("DC-A6",)),
    "MAC as Cisco writes it": ("dca6.3201.0203", ("dca6",)),
    "MAC in an interface's name": ("enxdca632010203: carrier lost", ("dca632",)),
    "EUI-64": ("dc:a6:32:ff:fe:01:02:03", ("dc:a6",)),
    "own name": ("Nov 28 10:11:12 shed refclock[1]: SHED is up", ("shed", "SHED")),
    "own name within another": ("shed-gps and gps@shed and shed's and _shed_", ("shed",)),
    "own name, whole": ("shed.garden.example.org", ("shed", "garden")),
    "name of a server": ("time from ntp1.uni-somewhere.de: -3 ms", ("uni-somewhere",)),
    "name in a URL": ("https://box.somewhere.net/page", ("somewhere",)),
    "name on the LAN": ("nas.fritz.box and laptop.local and pc.lan", ("nas", "fritz", "laptop", "pc.")),
    "host of a provider": ("p203-0-113-7.dip0.provider.net", ("203-0", "provider")),
    "mail": ("mail to jane.doe@example.org", ("jane", "doe")),
    "home": ("reading /home/jane/refclock.toml: no such file", ("jane",)),
    "user": ("started by jdoe", ("jdoe",)),
    "key of ntp.keys": ("12 SHA256 HEX:0011223344556677", ("0011223344556677",)),
    "key of ntp.keys in letters": ("1 M 5up3rS3cr3t", ("5up3r",)),
    "AES key": ("7 AES128 deadbeefdeadbeefdeadbeefdeadbeef", ("deadbeef",)),
    "known key": ("trying correct-horse now", ("correct-horse",)),
    "password": ('password = "hunter2 and more"', ("hunter2",)),
    "password in words": ("password hunter2 refused", ("hunter2",)),
    "password of several words": ("passphrase: correct horse staple", ("correct", "horse", "staple")),
    "WPA with a space": ('wpa-psk "hunter2 and more"', ("hunter2",)),
    "key after its type": ("SHA1:abcdef0123", ("abcdef",)),
    "WPA": ("  psk=0c0ffee0aabbcc", ("0c0ffee",)),
    "network's name": ("ssid: JanesWiFi", ("Janes",)),
    "bare key": ('key = "hunter2"', ("hunter2",)),
    "token": ("Authorization token: abc.def.ghi", ("abc.def",)),
    "credentials in a URL": ("http://jane:hunter2@proxy.lan/", ("hunter2", "jane")),
    "PEM": ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----", ("MIIE",)),
    "PEM cut off": ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA", ("MHcC",)),
    "base64": ("cookie wQkF3n9Lm8ZxTt0aVb1Cc2Dd3Ee4Ff5Gg6Hh7Ii8Jj9Kk0=", ("wQkF3",)),
    "serial number of an adapter": ("/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0", ("A50285BI",)),
    "serial number": ("serial number: 0000e1c3", ("e1c3",)),
    "machine id": ("machine 4f2d1c0b9a8877665544332211009988", ("4f2d1c",)),
    "UUID": ("root=UUID=0a1b2c3d-1111-2222-3333-0123456789ab", ("0a1b2c3d",)),
}
NAMES, SECRETS = ("shed", "shed.garden.example.org", "jdoe"), ("correct-horse",)
PLAIN = """WARN  RC31  the firewall (inet filter, chain input) keeps UDP 123 out from 192.168.1.0/24 at eth0
            do: sudo nft insert rule inet filter input udp dport 123 accept; and write that rule into /etc/nftables.conf
listen = ["0.0.0.0:123", "[::]:123", "[::1]:323", "10.0.0.5:123"]
[keys] file = "/etc/refclock/refclock.keys"; clock.steer = "kernel"; ppsd.clock.main
2026-11-28T10:11:12+0000 refclock-clock.service: LOCKED, within 1.234567 us, frequency -12.345678 ppm, uptime 12:34:56
{"offset_ns": -1234, "frequency_ppm": -12.34567, "skew_ppm": 0.01234, "bound_terms_ns": {"bias": 1200.0, "place": 3.5}}
/dev/serial/by-path/platform-fd500000.pcie-usb-0:1.3:1.0, CapEff: 000001ffffffffff, kernel 6.12.47+rpt-rpi-v8, UTC 101112.00
gps0: GNTXT ANTENNA OK; refid GPS; leap-seconds.list expires on 2027-06-28; KeyboardInterrupt
"""


@pytest.mark.parametrize("what", PLANTED)
def test_nothing_planted_is_found(what: str) -> None:
    """Each kind of thing that tells who or where somebody is, alone and within a long text, is gone."""
    planted, telling = PLANTED[what]
    for text in (
        planted,
        f"{PLAIN}{planted}\n{PLAIN}",
        f'{{"why": "{planted}", "n": 1}}',
        f"2026-11-28T10:11:12 clock event='{planted}' n=1",
    ):
        cleaned = Anonymiser(NAMES, SECRETS).clean(text)
        assert not [each for each in telling if each in cleaned], cleaned


def test_what_helps_stays() -> None:
    """Findings, settings, private and loopback addresses, figures and times are left as they are."""
    assert Anonymiser(NAMES, SECRETS).clean(PLAIN) == PLAIN


def test_the_same_thing_has_the_same_word() -> None:
    """A reader still sees that two lines speak of one machine, and that two machines are two."""
    told = Anonymiser().clean("8.8.4.4 asks; 9.9.9.9 asks; 8.8.4.4 is refused")
    assert told == "<public-v4-1> asks; <public-v4-2> asks; <public-v4-1> is refused"
    assert Anonymiser().clean("2A01:4F8::1 and 2a01:4f8:0::1") == "<public-v6-1> and <public-v6-1>"


@given(
    st.floats(-90, 90).filter(lambda d: abs(d) > 0.001),
    st.floats(-180, 180).filter(lambda d: abs(d) > 0.001),
    st.sampled_from(("GP", "GN", "GL", "GA", "GB", "BD")),
    st.integers(2, 7),
)
def test_no_place_of_any_receiver_stays(latitude: float, longitude: float, talker: str, digits: int) -> None:
    """Whatever the place and the number of digits: neither coordinate of GGA, RMC, GLL or GNS is left."""
    lat = f"{int(abs(latitude)):02}{abs(latitude) % 1 * 60:0{digits + 3}.{digits}f}"
    lon = f"{int(abs(longitude)):03}{abs(longitude) % 1 * 60:0{digits + 3}.{digits}f}"
    place = f"{lat},{'NS'[latitude < 0]},{lon},{'EW'[longitude < 0]}"
    for kind, rest in (("GGA,101112.00,{},1,08,0.9", 1), ("RMC,101112.00,A,{},0,0", 1), ("GLL,{},101112", 1), ("GNS,101112.00,{},AA", 1)):
        del rest
        cleaned = Anonymiser().clean(f"heard ${talker}{kind.format(place)}*00")
        assert lat not in cleaned
        assert lon not in cleaned


@pytest.mark.parametrize(
    "piece", ["a", "1:", "a.", "-", "$GPGGA,", "1.1.", '"', "b5:62:", "<", "/x", "0" * 9 + " ", "key ", "N 1", "a-", "_", "1", "a@", "1,N,"]
)
def test_no_text_is_too_long(piece: str) -> None:
    """Whatever fills a log, 50 kB of it are cleaned; a pattern that tries every pair of places would not come back."""
    word = piece * (390 // len(piece))
    for text in (piece * (50_000 // len(piece)), f"{word} " * 50, f"{word}\n" * 50):
        Anonymiser(NAMES, SECRETS).clean(text)
