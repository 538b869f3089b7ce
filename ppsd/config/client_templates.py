"""What clients of this server are told to write: one table of programs, routers and DHCP servers, each with the command that verifies it.

Each line is a comment or one that the named program reads, so the output can be put into its file as it is. Sources: chrony.conf(5);
ntp.conf(5) of ntp and ntpsec; ntp.toml(5); timesyncd.conf(5); ntpd.conf(5) of OpenNTPD; busybox's ntpd; the vendors' command references;
RFC 2132 section 8.3 (DHCP option 42) and RFC 5908 (DHCPv6 option 56).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

NTP_PORT: Final = 123
"""UDP port of NTP (RFC 5905); most clients can ask no other."""
_LABEL_BYTES: Final = 63
"""Octets of the longest part of a name (RFC 1035 section 2.3.4)."""


NTS_PORT: Final = 4460
"""TCP port of NTS key establishment (RFC 8915 section 7.1)."""
AUTHORITY_FILE: Final = "refclock-ca.pem"
"""How clients are told to call the file of the server's own authority."""


@dataclass(frozen=True, slots=True)
class NtsOffer:
    """That the server speaks NTS. ``port``: of key establishment. ``own``: its certificate is of its own authority, whose file clients
    need."""

    port: int = NTS_PORT
    own: bool = True


@dataclass(frozen=True, slots=True)
class ServerNames:
    """How clients reach this server. ``servers``: addresses or names, each of another server, so mostly one. ``also``: further addresses of
    the same server. ``key``: number of the symmetric key that clients use; None: none. ``nts``: what clients that know NTS use instead of a
    key; None: it is not offered."""

    servers: tuple[str, ...]
    also: tuple[str, ...] = ()
    port: int = NTP_PORT
    key: int | None = None
    nts: NtsOffer | None = None

    @property
    def every(self) -> tuple[str, ...]:
        """All names and addresses, the best first."""
        return (*self.servers, *self.also)


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """The address that ``name`` is; None when it is a name."""
    try:
        return ip_address(name)
    except ValueError:
        return None


def _versions(names: ServerNames, version: int) -> list[str]:
    """The addresses of one version of IP, which is all that a DHCP option can hold."""
    return [str(found) for name in names.every if (found := address_of(name)) is not None and found.version == version]


def option_42(names: ServerNames) -> bytes:
    """The value of DHCP option 42: four octets for each address (RFC 2132 section 8.3). Empty: there is no IPv4 address."""
    return b"".join(IPv4Address(text).packed for text in _versions(names, 4))


def option_56(names: ServerNames) -> bytes:
    """The value of DHCPv6 option 56: suboption 1 for an address, 3 for a name (RFC 5908 section 4). Empty: there is neither."""

    def encoded() -> Iterator[bytes]:
        for name in names.every:
            found = address_of(name)
            if isinstance(found, IPv6Address):
                yield b"\0\1\0\x10" + found.packed
            elif found is None and all(0 < len(label) <= _LABEL_BYTES for label in name.rstrip(".").split(".")):
                wire = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"
                yield b"\0\3" + len(wire).to_bytes(2, "big") + wire

    return b"".join(encoded())


def _hex(value: bytes, separator: str = "") -> str:
    return value.hex(separator) if separator else value.hex().upper()


# ---- the texts ------------------------------------------------------------------------------------------------------------------------

Text = Iterator[str]
"""Lines of a configuration."""


def _also(names: ServerNames, line: Callable[[str], str], mark: str = "#") -> Text:
    """Other addresses of the same server, as a comment: listed beside the first, they would count as a server of their own."""
    yield from (f"{mark} the same server by another address, instead: {line(name)}" for name in names.also)


def _key_hint(names: ServerNames, what: str, mark: str = "#") -> Text:
    """Where the key goes. The secret itself is never shown: it is in the server's key file."""
    if names.key is not None:
        yield f"{mark} key {names.key}, with its secret from keys.file of the server: {what}"


def _nts_hint(names: ServerNames, directory: str) -> Text:
    """Where the file of the authority comes from."""
    if names.nts is not None and names.nts.own:
        yield f"# {directory}/{AUTHORITY_FILE}: made on the server by refclock nts ca --out {AUTHORITY_FILE}, and copied here"


def _chrony(names: ServerNames) -> Text:
    if names.nts is not None:
        port = f" ntsport {names.nts.port}" if names.nts.port != NTS_PORT else ""
        yield from _nts_hint(names, "/etc/chrony")
        yield from (f"server {name} iburst nts{port}" for name in names.servers)
        if names.nts.own:
            yield f"ntstrustedcerts /etc/chrony/{AUTHORITY_FILE}"
        yield from _also(names, lambda name: f"server {name} iburst nts{port}")
        return
    options = (f" port {names.port}" if names.port != NTP_PORT else "") + (f" key {names.key}" if names.key is not None else "")
    yield from _key_hint(names, f"a line like the server's, {names.key} AES128 HEX:..., in the file that keyfile of chrony.conf names")
    yield from (f"server {name} iburst{options}" for name in names.servers)
    yield from _also(names, lambda name: f"server {name} iburst{options}")


def _ntpd(names: ServerNames, keys: str, kind: str) -> Text:
    option = ""
    if names.key is not None:
        yield from _key_hint(names, f"a line {names.key} {kind} and the hexadecimal digits, in {keys}")
        yield f"keys {keys}"
        yield f"trustedkey {names.key}"
        option = f" key {names.key}"
    for name in names.servers:
        yield f"server {name} iburst{option}"
        yield f"restrict {name} nomodify noquery"
    yield from _also(names, lambda name: f"server {name} iburst{option}")


def _classic_ntpd(names: ServerNames) -> Text:
    return _ntpd(names, "/etc/ntp.keys", "AES128CMAC")


def _ntpsec(names: ServerNames) -> Text:
    if names.nts is not None:
        authority = f" ca /etc/ntpsec/{AUTHORITY_FILE}" if names.nts.own else ""
        port = f":{names.nts.port}" if names.nts.port != NTS_PORT else ""

        def line(name: str) -> str:
            return f"server {f'[{name}]' if port and ':' in name else name}{port} iburst nts{authority}"

        yield from _nts_hint(names, "/etc/ntpsec")
        yield from map(line, names.servers)
        yield from _also(names, line)
        return
    yield from _ntpd(names, "/etc/ntpsec/ntp.keys", "AES-128")


def _ntpd_rs(names: ServerNames) -> Text:
    port = names.port if names.nts is None else names.nts.port

    def address(name: str) -> str:
        return json.dumps(f"[{name}]:{port}" if ":" in name else f"{name}:{port}")

    if names.nts is not None:
        yield from _nts_hint(names, "/etc/ntpd-rs")
    for name in names.servers:
        yield from ("[[source]]", f'mode = "{"server" if names.nts is None else "nts"}"', f"address = {address(name)}")
        if names.nts is not None and names.nts.own:
            yield f'certificate-authority = "/etc/ntpd-rs/{AUTHORITY_FILE}"'
    yield from _also(names, lambda name: f"address = {address(name)}")
    yield "# it sets the clock only while that many sources agree, by default 3; in the [synchronization] that is there already:"
    yield "[synchronization]"
    yield f"minimum-agreeing-sources = {len(names.servers)}"


def _timesyncd(names: ServerNames) -> Text:
    yield "[Time]"
    yield f"NTP={' '.join(names.every)}"


def _openntpd(names: ServerNames) -> Text:
    yield from (f"server {name}" for name in names.servers)
    yield from _also(names, lambda name: f"server {name}")


def _busybox(names: ServerNames) -> Text:
    option = ""
    if names.key is not None:
        yield from _key_hint(
            names, f"a line {names.key} SHA1 and the secret in /etc/ntp.keys (busybox knows MD5 and SHA1: keys.weak = true)"
        )
        option = f"-k /etc/ntp.keys -p keyno:{names.key}:"
    peers = " ".join(f"{option}{name}" if option else f"-p {name}" for name in names.servers)
    yield f"ntpd -N {peers}"
    yield f'# at boot, on Alpine: NTPD_OPTS="-N {peers}" in /etc/conf.d/ntpd, then: rc-update add ntpd default'
    yield from _also(names, lambda name: f"-p {name}")


def _windows(names: ServerNames) -> Text:
    yield "sc.exe config w32time start= auto"
    yield "net start w32time"
    yield f'w32tm /config /manualpeerlist:"{" ".join(f"{name},0x8" for name in names.servers)}" /syncfromflags:manual /reliable:no /update'
    yield "w32tm /resync"
    yield "# 0x8: ask as a client. A machine in a domain takes its time from the domain: see windows-gpo"


def _windows_gpo(names: ServerNames) -> Text:
    yield "# Computer Configuration > Policies > Administrative Templates > System > Windows Time Service > Time Providers:"
    yield "#   Enable Windows NTP Client: Enabled"
    yield "#   Configure Windows NTP Client: Enabled"
    yield f"#     NtpServer: {' '.join(f'{name},0x8' for name in names.servers)}"
    yield "#     Type: NTP"
    yield "# for the domain controller with the role of PDC emulator alone; a WMI filter finds it:"
    yield "#   Select * from Win32_ComputerSystem where DomainRole = 5"
    yield "# all other members keep Type: NT5DS, and follow it"
    yield "gpupdate /force"


def _macos(names: ServerNames) -> Text:
    yield f"sudo systemsetup -setnetworktimeserver {names.servers[0]}"
    yield "sudo systemsetup -setusingnetworktime on"
    yield "# the same by hand: System Settings > General > Date & Time > Source"


def _cisco(names: ServerNames, suffix: str) -> Text:
    yield "configure terminal"
    option = f" key {names.key}" if names.key is not None else ""
    if names.key is not None:
        yield f"! most releases know MD5 alone: the server needs keys.weak = true, and key {names.key} of type MD5 with SECRET as text"
        yield f"ntp authentication-key {names.key} md5 SECRET"
        yield f"ntp trusted-key {names.key}"
        yield "ntp authenticate"
    for index, name in enumerate(names.servers):
        yield f"ntp server {name}{' prefer' if index == 0 else ''}{option}{suffix}"
    yield "end"
    yield from _also(names, lambda name: f"ntp server {name}", "!")


def _cisco_ios(names: ServerNames) -> Text:
    yield from _cisco(names, "")
    yield "! on machines with a calendar of their own: ntp update-calendar"
    yield "write memory"


def _cisco_nxos(names: ServerNames) -> Text:
    yield from _cisco(names, "")
    yield "! by the management interface: append use-vrf management"
    yield "copy running-config startup-config"


def _catos(names: ServerNames) -> Text:
    yield from (f"set ntp server {name}" for name in names.servers)
    yield "set ntp client enable"
    yield "set timezone UTC 0"


def _junos(names: ServerNames) -> Text:
    option = ""
    if names.key is not None:
        yield f"# type md5, sha1 or sha256 as the key file has it; key {names.key} with SECRET as text"
        yield f"set system ntp authentication-key {names.key} type sha256 value SECRET"
        yield f"set system ntp trusted-key {names.key}"
        option = f" key {names.key}"
    for index, name in enumerate(names.servers):
        yield f"set system ntp server {name}{option}{' prefer' if index == 0 else ''}"
    yield "commit"
    yield from _also(names, lambda name: f"set system ntp server {name}")


def _mikrotik(names: ServerNames) -> Text:
    yield f"/system ntp client set enabled=yes servers={','.join(names.servers)}"
    yield f"# RouterOS 6: /system ntp client set enabled=yes primary-ntp={names.servers[0]}"
    if first := next(iter(_versions(names, 4)), ""):
        yield f"# tell the clients of its DHCP server: /ip dhcp-server network set [find] ntp-server={first}"
    yield from _also(names, lambda name: f"servers={name}")


def _opnsense(names: ServerNames) -> Text:
    yield "# OPNsense, pfSense: Services > Network Time > General:"
    yield from (f"#   Time servers: {name}, prefer" for name in names.servers)
    yield "# and delete the servers of the pool there, unless they shall stand in when this one fails"
    if _versions(names, 4):
        yield f"# clients: Services > DHCPv4 > (interface) > NTP servers: {' '.join(_versions(names, 4))}"


def _openwrt(names: ServerNames) -> Text:
    yield "uci -q delete system.ntp.server"
    yield from (f"uci add_list system.ntp.server='{name}'" for name in names.servers)
    yield "uci set system.ntp.enabled='1'"
    yield "uci set system.ntp.use_dhcp='0'"
    yield "uci commit system"
    yield "/etc/init.d/sysntpd restart"
    if _versions(names, 4):
        hand_out = f"42,{','.join(_versions(names, 4))}"
        yield f"# tell its clients: uci add_list dhcp.lan.dhcp_option='{hand_out}'; uci commit dhcp; /etc/init.d/dnsmasq restart"


def _fritzbox(names: ServerNames) -> Text:
    yield "# Home Network > Network > Network Settings > Time Synchronization (Zeitsynchronisation):"
    yield f"#   Time server (Zeitserver): {','.join(names.servers)}"
    yield "#   tick: Provide FRITZ!Box as time server in the home network (als Zeitserver im Heimnetz bereitstellen)"
    yield "# its DHCP server hands out its own address as option 42: its clients follow it, and it follows this server"


def _dnsmasq(names: ServerNames) -> Text:
    if four := _versions(names, 4):
        yield f"dhcp-option=option:ntp-server,{','.join(four)}"
    if six := _versions(names, 6):
        yield f"dhcp-option=option6:ntp-server,{','.join(f'[{text}]' for text in six)}"


def _kea(names: ServerNames) -> Text:
    four, six = _versions(names, 4), option_56(names)
    if four:
        yield "// kea-dhcp4.conf; inside Dhcp4 that is there already: the option-data alone"
        yield json.dumps({"Dhcp4": {"option-data": [{"name": "ntp-servers", "data": ", ".join(four)}]}})
    if six:
        lead = "// " if four else ""
        yield "// kea-dhcp6.conf (option 56 in its raw form, RFC 5908)"
        yield lead + json.dumps({"Dhcp6": {"option-data": [{"code": 56, "csv-format": False, "data": _hex(six)}]}})


def _isc_dhcp(names: ServerNames) -> Text:
    if four := _versions(names, 4):
        yield f"option ntp-servers {', '.join(four)};"
    if six := option_56(names):
        yield "# dhcpd6.conf (RFC 5908)"
        yield "option dhcp6.ntp-server code 56 = string;"
        yield f"option dhcp6.ntp-server {_hex(six, ':')};"


def _dhcp(names: ServerNames) -> Text:
    if four := option_42(names):
        yield f"# DHCPv4 option 42, NTP servers: {', '.join(_versions(names, 4))}; {len(four)} octets in hexadecimal: {_hex(four)}"
    if six := option_56(names):
        yield f"# DHCPv6 option 56, NTP servers (RFC 5908): {len(six)} octets in hexadecimal: {_hex(six)}"
    if not four:
        yield "# DHCPv4 option 42 can hold an IPv4 address only, and there is none here"


def _maas(names: ServerNames) -> Text:
    yield f"maas $PROFILE maas set-config name=ntp_servers value={','.join(names.servers)}"
    yield "maas $PROFILE maas set-config name=ntp_external_only value=true"
    yield "# the same by hand: Settings > Network > NTP: the address, and tick Use external NTP servers only"


def _docker(names: ServerNames) -> Text:
    yield "# a container has its host's clock and may not set it: nothing belongs into images or compose files"
    yield "# on the host: refclock client-config chrony"
    yield f"# containers that ask by themselves reach the server as {', '.join(names.every)}, by their host's address"


def _kubernetes(names: ServerNames) -> Text:
    yield "# pods have their node's clock: it is the nodes that are told. By cloud-init:"
    yield "#cloud-config"
    yield from ("ntp:", "  enabled: true", f"  servers: {json.dumps(list(names.servers))}")
    yield f"# Talos Linux, in the machine's configuration: machine: {{time: {{servers: {json.dumps(list(names.servers))}}}}}"


def _home_assistant(names: ServerNames) -> Text:
    yield "# Home Assistant OS takes option 42 of DHCP by itself. Else this file, named timesyncd.conf, on a USB stick named CONFIG:"
    yield from _timesyncd(names)


def _pool(names: ServerNames) -> Text:
    yield "# to serve everybody, in refclock.toml:"
    yield from ("[access]", 'allow = ["0.0.0.0/0", "::/0"]')
    yield "# examine this machine: refclock pool-check"
    yield f"# then add {', '.join(names.every)} at https://manage.ntppool.org and set the net speed to what the line can bear"


# ---- the table ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientTemplate:
    """One program or device. ``where``: the file or place. ``verify``: what shows there that it works. ``keys``, ``ports``: whether it
    knows symmetric keys, and other ports than 123. ``mark``: what begins a comment. ``needs``: 4 or 6 when it can only use such an
    address."""

    what: str
    where: str
    lines: Callable[[ServerNames], Text]
    verify: tuple[str, ...]
    keys: bool = False
    ports: bool = False
    mark: str = "#"
    needs: int = 0


_ON_CLIENT: Final = "on a client, after a new lease: the server that its NTP program asks (chronyc -n sources, timedatectl timesync-status)"
TEMPLATES: Final[dict[str, ClientTemplate]] = {
    "chrony": ClientTemplate(
        "chronyd",
        "/etc/chrony/conf.d/refclock.conf or chrony.conf, then: sudo systemctl restart chrony (or chronyd)",
        _chrony,
        ("chronyc -n sources      ^* in front of the server after some seconds", "chronyc -n authdata     with a key: its number"),
        keys=True,
        ports=True,
    ),
    "ntpd": ClientTemplate(
        "ntpd of ntp.org", "/etc/ntp.conf, then restart ntpd", _classic_ntpd, ("ntpq -pn      * in front of the server",), keys=True
    ),
    "ntpsec": ClientTemplate(
        "ntpd of NTPsec", "/etc/ntpsec/ntp.conf, then restart ntpsec", _ntpsec, ("ntpq -pn      * in front of the server",), keys=True
    ),
    "ntpd-rs": ClientTemplate("ntpd-rs", "/etc/ntpd-rs/ntp.toml", _ntpd_rs, ("ntp-ctl validate", "ntp-ctl status"), ports=True),
    "timesyncd": ClientTemplate(
        "systemd-timesyncd",
        "/etc/systemd/timesyncd.conf.d/refclock.conf, then: sudo systemctl restart systemd-timesyncd",
        _timesyncd,
        ("timedatectl timesync-status      Server: names it, Packet count: grows",),
    ),
    "openntpd": ClientTemplate(
        "OpenNTPD",
        "/etc/openntpd/ntpd.conf (/etc/ntpd.conf on OpenBSD), then restart it",
        _openntpd,
        ("ntpd -n", "ntpctl -s all      * in front of the server"),
    ),
    "busybox": ClientTemplate(
        "busybox ntpd", "a start script", _busybox, ("ntpd -d -n -q -w -p SERVER      prints the offset, sets nothing",), keys=True
    ),
    "windows": ClientTemplate(
        "Windows",
        "PowerShell or cmd as administrator",
        _windows,
        ("w32tm /query /status", "w32tm /stripchart /computer:SERVER /samples:5 /dataonly"),
    ),
    "windows-gpo": ClientTemplate("a Windows domain", "the group policy", _windows_gpo, ("w32tm /query /source", "w32tm /monitor")),
    "macos": ClientTemplate("macOS", "a terminal", _macos, ("sntp SERVER", "sudo systemsetup -getnetworktimeserver")),
    "cisco-ios": ClientTemplate(
        "Cisco IOS and IOS XE",
        "the command line, in privileged mode",
        _cisco_ios,
        ("show ntp associations      * in front of the server", "show ntp status      Clock is synchronized"),
        keys=True,
        mark="!",
    ),
    "cisco-nxos": ClientTemplate(
        "Cisco NX-OS", "the command line", _cisco_nxos, ("show ntp peer-status", "show ntp peers"), keys=True, mark="!"
    ),
    "catos": ClientTemplate("Cisco CatOS", "the command line, in privileged mode", _catos, ("show ntp",), mark="!", needs=4),
    "junos": ClientTemplate("Juniper Junos", "configuration mode", _junos, ("run show ntp associations", "run show ntp status"), keys=True),
    "mikrotik": ClientTemplate("MikroTik RouterOS", "a terminal", _mikrotik, ("/system ntp client print      status: synchronized",)),
    "opnsense": ClientTemplate("OPNsense, pfSense", "the web interface", _opnsense, ("Services > Network Time > Status; or ntpq -pn",)),
    "openwrt": ClientTemplate("OpenWrt", "a shell", _openwrt, ("ntpd -d -n -q -w -p SERVER", "logread -e ntpd")),
    "fritzbox": ClientTemplate(
        "FRITZ!Box", "the web interface, advanced view", _fritzbox, ("System > Event Log: a failure to get the time would stand there",)
    ),
    "dnsmasq": ClientTemplate(
        "dnsmasq's DHCP server", "/etc/dnsmasq.d/refclock.conf, then restart dnsmasq", _dnsmasq, ("dnsmasq --test", _ON_CLIENT)
    ),
    "kea": ClientTemplate("Kea's DHCP servers", "its configuration", _kea, ("kea-dhcp4 -t FILE; kea-dhcp6 -t FILE", _ON_CLIENT), mark="//"),
    "isc-dhcp": ClientTemplate(
        "ISC dhcpd", "/etc/dhcp/dhcpd.conf, then restart isc-dhcp-server", _isc_dhcp, ("dhcpd -t -cf FILE", _ON_CLIENT)
    ),
    "dhcp": ClientTemplate("any other DHCP server", "options 42 and 56 as octets", _dhcp, (_ON_CLIENT,)),
    "maas": ClientTemplate(
        "MAAS",
        "a shell, logged in to $PROFILE",
        _maas,
        ("maas $PROFILE maas get-config name=ntp_servers", "chronyc -n sources, on a machine"),
    ),
    "docker": ClientTemplate("containers", "nowhere", _docker, ("docker run --rm alpine date -u      the host's time",)),
    "kubernetes": ClientTemplate("the nodes of Kubernetes", "each node", _kubernetes, ("chronyc -n sources, on a node; talosctl time",)),
    "home-assistant": ClientTemplate(
        "Home Assistant OS",
        "Settings > System > Hardware; or a USB stick",
        _home_assistant,
        ("ha os import", "timedatectl timesync-status"),
    ),
    "pool": ClientTemplate("the NTP pool", "refclock.toml, and the pool's pages", _pool, ("refclock pool-check",)),
}
"""What there is, by the word that names it."""


def client_config(word: str, names: ServerNames) -> str:
    """The text for the client ``word``, which is in TEMPLATES: what it is and where it goes, the lines, and how to verify them."""
    template, mark = TEMPLATES[word], TEMPLATES[word].mark
    lines = [f"{mark} {template.what}: {template.where}"]
    if names.port != NTP_PORT and not template.ports:
        lines.append(
            f"{mark} it asks port {NTP_PORT} only, and this server listens on port {names.port}: add port {NTP_PORT} to server.listen"
        )
    if names.key is not None and not template.keys:
        lines.append(f"{mark} it knows no symmetric keys: key {names.key} is left out, and access.authenticated would keep it out")
    if template.needs and not _versions(names, template.needs):
        lines.append(f"{mark} it can only ask an IPv{template.needs} address, and this server has none")
    lines += template.lines(names)
    lines += [f"{mark} verify: {words.replace('SERVER', names.servers[0])}" for words in template.verify]
    return "\n".join(lines) + "\n"


def nts_configurations(names: ServerNames) -> dict[str, tuple[str, ...]]:
    """What clients that know NTS write, without comments, by their programs' names."""
    texts = {"chrony": _chrony(names), "ntpsec": _ntpsec(names), "ntpd-rs": _ntpd_rs(names)}
    return {word: tuple(line for line in text if not line.startswith("#")) for word, text in texts.items()}


def listed() -> str:
    """What there is, a line each."""
    width = max(map(len, TEMPLATES))
    return "".join(f"{word:<{width}}  {template.what}\n" for word, template in TEMPLATES.items())
