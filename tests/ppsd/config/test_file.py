"""The configuration file: defaults, values, and every mistake told with its line."""

import os
import re
from dataclasses import fields, replace
from datetime import date
from pathlib import Path

import pytest

from ppsd.config import file as config
from ppsd.config.file import as_toml, locate, parse, parse_bytes, read
from ppsd.config.tables import Config, PoolUpstream, ServerUpstream, parse_endpoint
from refclock.config import GpsdSource, ReceiverSource, ShmFeed, SockSource
from refclock.schema import ConfigError, Problem

EXAMPLES = sorted((Path(__file__).parents[3] / "image" / "examples").glob("*.toml"))


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    return caught.value.problems


def test_empty_file_is_good() -> None:
    """Every key is optional."""
    assert parse("") == Config()
    assert parse("\ufeff# only a comment\r\n") == Config()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_are_valid(path: Path) -> None:
    """Every shipped example is a good configuration and survives being written and read."""
    read_config = read(path)
    assert parse(as_toml(read_config)) == read_config


def test_reference_example_shows_the_defaults() -> None:
    """examples/refclock.toml states the real defaults, key by key."""
    shown = read(next(p for p in EXAMPLES if p.name == "refclock.toml"))
    assert shown == replace(Config(), sources=(ReceiverSource(name="gps0"),))


@pytest.mark.parametrize("table", [*config.TABLES.values(), ReceiverSource], ids=lambda cls: cls.__name__)
def test_reference_example_has_every_key(table: type) -> None:
    """examples/refclock.toml names every key of every table, those without a default to show as a comment."""
    text = next(p for p in EXAMPLES if p.name == "refclock.toml").read_text(encoding="utf-8")
    keys = {f.name for f in fields(table)} - {"name"}  # a source's name is made from its type
    assert not {key for key in keys if not re.search(rf"^(# )?{key} = ", text, re.MULTILINE)}


def test_values_reach_their_fields() -> None:
    """Each kind of value is read as what it is; whole numbers are good where fractions are."""
    read_config = parse(
        """
        clock = {steer = "kernel", not_before = 2027-01-01}
        server.listen = ["127.0.0.1:123"]
        [[source]]
        type = "receiver"
        device = "/dev/ttyS0"
        baud = 9600
        message_delay_ms = 140
        [[source]]
        type = "gpsd"
        prefer = true
        [[source]]
        type = "sock"
        path = "/run/x.sock"
        [[feed]]
        type = "shm"
        unit = 2
        """
    )
    assert (read_config.clock.steer, read_config.clock.not_before) == ("kernel", date(2027, 1, 1))
    assert read_config.server.listen == ("127.0.0.1:123",)
    assert read_config.sources == (
        ReceiverSource(name="gps0", device="/dev/ttyS0", baud=9600, message_delay_ms=140.0),
        GpsdSource(name="gpsd0", prefer=True),
        SockSource(name="sock0", path="/run/x.sock"),
    )
    assert read_config.feeds == (ShmFeed(name="shm0", unit=2),)


def test_names_are_made_around_those_given() -> None:
    """A source without a name gets the first free number."""
    text = '[[source]]\ntype="shm"\nunit=0\n[[source]]\ntype="shm"\nunit=1\nname="shm0"\n[[source]]\ntype="shm"\nunit=2'
    assert [s.name for s in parse(text).sources] == ["shm1", "shm0", "shm2"]


@pytest.mark.parametrize(
    ("text", "line", "key", "part"),
    [
        ('[clock]\nsteer = "kernal"', 2, "clock.steer", "did you mean kernel?"),
        ("[clock]\nsteer = 1", 2, "clock.steer", "expected a text"),
        ("[clock]\nholdover_limit_s = nan", 2, "clock.holdover_limit_s", "not a usable number"),
        ("[clock]\nholdover_limit_s = -1", 2, "clock.holdover_limit_s", "allowed: 0 to"),
        ("[clock]\nholdover_limit_s = true", 2, "clock.holdover_limit_s", "expected a number"),
        ("[clock]\nmax_bound_ms = 1e400", 2, "clock.max_bound_ms", "not a usable number"),
        ('[clock]\nnot_before = "2026-01-01"', 2, "clock.not_before", "without quotes"),
        ("[clock]\nnot_before = 2026-01-01T00:00:00", 2, "clock.not_before", "a date"),
        ("[clock]\nnot_before = 1066-10-14", 2, "clock.not_before", "out of range"),
        ("[server]\nthreads = 2.0", 2, "server.threads", "a whole number"),
        ("[server]\nthreads = 0x" + "f" * 9000, 2, "server.threads", "a huge number is out of range"),
        ("[server]\nenabled = 0xffffffffffffffffffffff", 2, "server.enabled", "true or false"),
        ("[server]\nlisten = ['0.0.0.0']", 2, "server.listen[0]", "0.0.0.0:123"),
        ("[server]\nlisten = [1]", 2, "server.listen[0]", "expected a text in quotes, found 1"),
        ("[server]\nlisten = '[::]:123'", 2, "server.listen", "expected a list"),
        ("[server]\nlisten = []", 2, "server.listen", "names no address"),
        ("[server]\nport = 123", 2, "server.port", 'listen = ["0.0.0.0:123", "[::]:123"]'),
        ("[server]\nbindaddress = '10.0.0.1'", 2, "server.bindaddress", "listen of [server]"),
        ("pool = 'pool.ntp.org'", 1, "pool", "upstream"),
        ("[access]\nallow = ['10.0.0.0/8']\ndeny = ['10.0.0.0/8']", 3, "access.deny[0]", "is also under allow, on line 2"),
        ("[access]\nallow = ['own']\ndeny = ['own']", 3, "access.deny[0]", "own is also under allow, on line 2"),
        ("[access]\nallow = ['::ffff:10.0.0.0/104']\nignore = [\n'10.0.0.0/8']", 4, "access.ignore[0]", "is also under allow"),
        ("[server]\n\nlisten = ['[::]:123',\n'[::]:123']", 4, "server.listen[1]", "already used"),
        ("[run]\ndirectory = 'here'", 2, "run.directory", "absolute path"),
        ("[run]\ndirectory = '/" + "x" * 120 + "'", 2, "run.directory", "bytes"),
        ("[run]\nstate = ''", 2, "run.state", "must not be empty"),
        ('[log]\nlevel = "in\\u0000fo"', 2, "log.level", "is not known"),
        ('[leap]\nfile = "/a\\nb"', 2, "leap.file", "control character"),
        ("[clok]\nx = 1", 1, "clok", "did you mean clock?"),
        ("steer = 1", 1, "steer", "did you mean steer of [clock]?"),
        ("[log]\nthreads = 1", 2, "log.threads", "did you mean threads of [server]?"),
        ("clock = 3", 1, "clock", "[clock]"),
        ("source = 3", 1, "source", "[[source]]"),
        ("[source]\ntype='shm'\nunit=1", 1, "source", "[[source]]"),
        ("[[source]]\nunit = 1", 1, "source[0]", "type is missing"),
        ("[[source]]\ntype = 'gps'", 2, "source[0].type", "did you mean gpsd?"),
        ("[[source]]\ntype = ['gps']", 2, "source[0].type", "allowed"),
        ("[[source]]\ntype = 'shm'", 1, "source[0]", "unit is missing"),
        ("[[source]]\ntype = 'shm'\nunit = 256", 3, "source[0].unit", "allowed: 0 to 255"),
        ("[[source]]\ntype = 'shm'\nunit = 1\nedge = 'auto'", 4, "source[0].edge", "only types receiver, gpsd and pps have it"),
        ("[[source]]\ntype = 'shm'\nunit = 1\nname = 'a b'", 4, "source[0].name", "not a name"),
        ("[[source]]\ntype = 'receiver'\ndevice = '/dev/a'\nbaud = 9601", 4, "source[0].baud", "9601 is not known"),
        ("[[source]]\ntype = 'shm'\nunit = 1\n[[feed]]\ntype = 'shm'\nunit = 1", 6, "feed[0].unit", "already used on line 3"),
        ("[[source]]\ntype='shm'\nunit=1\nnoselect=true", 4, "source[0].noselect", "none could ever be used"),
        ("[[feed]]\ntype='sock'\npath='/a'\nname='f'\n[[feed]]\ntype='sock'\npath='/b'\nname='f'", 8, "feed[1].name", "taken on line 4"),
        ("[clock]\nsteer = \n[log]\n", 2, "", "not TOML"),
        ("[log]\n" + "x=" + "[" * 5000, 0, "", "nested too deeply"),
        ("\na" + ".a" * 65 + " = 1", 2, "", "too many parts"),
        ("a = 1" + "0" * 5000, 0, "", "not TOML"),
        ('a = """', 1, "", "at the end of the file"),
    ],
)
def test_each_mistake_has_its_line_and_a_hint(text: str, line: int, key: str, part: str) -> None:
    """A single mistake gives a single problem, at its line, with what would be allowed."""
    (problem,) = problems(text)
    assert (problem.line, problem.key) == (line, key)
    assert part in problem.what


def test_all_mistakes_at_once() -> None:
    """Syntax errors do not hide each other nor the wrong values elsewhere, and come in the order of the file."""
    text = "[clock]\nsteer == 1\n[log]\nlevel = 'loud'\nformat = \n[[source]]\ntype = 'shm'\nunit = -1\nunti = 2\n[broken\nx = 1\n"
    found = problems(text)
    assert [p.line for p in found] == [2, 4, 5, 8, 9, 10]
    assert str(found[1]).startswith('f.toml:4: log.level: "loud" is not known; allowed: "debug"')


def test_every_wrong_element_of_a_list_is_told() -> None:
    """Of a list over several lines each element that is wrong, by its number and on its own line; the good ones are passed over."""
    text = '[access]\nallow = [\n  "10.0.0.0/8", # mine\n  "nonsense",\n  3, "10.0.0.1/8",\n  ["a", "b"],\n  "fe80::/10",\n]\n'
    found = problems(text)
    assert [(p.line, p.key) for p in found] == [
        (4, "access.allow[1]"),
        (5, "access.allow[2]"),
        (5, "access.allow[3]"),
        (6, "access.allow[4]"),
    ]
    assert "found 3" in found[1].what
    assert 'did you mean "10.0.0.0/8"?' in found[2].what
    assert "found a list" in found[3].what


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("level = debug", 'a text needs quotes: level = "debug"'),
        ("device = /dev/ttyS0  # mine", 'a text needs quotes: device = "/dev/ttyS0"'),
        ("pps = /dev/ttyS0:dcd", 'a text needs quotes: pps = "/dev/ttyS0:dcd"'),
        ("listen = 0.0.0.0:123", 'a text needs quotes: listen = "0.0.0.0:123"'),
        ("allow = [10.0.0.0/8, fe80::/10]", 'texts need quotes: allow = ["10.0.0.0/8", "fe80::/10"]'),
        ('allow = ["10.0.0.0/8", fe80::/10]', 'texts need quotes: allow = ["10.0.0.0/8", "fe80::/10"]'),
        ('[access]\nallow = [\n"10.0.0.0/8",\nfe80::/10,\n]', 'a text needs quotes: "fe80::/10"'),
        ('pps = "/dev/pps0', "a quotation mark is missing"),
        ("pps = /dev/pps0'", "a quotation mark is missing"),
        ("enabled = yes", "write it true"),
        ("enabled = False", "write it false"),
        ("server 192.168.1.1 iburst", "server is a word of chrony.conf or ntp.conf: NTP servers are"),
        ("driftfile /var/lib/chrony/drift", "driftfile is a word of chrony.conf or ntp.conf: not needed"),
        ("allow 192.168.0.0/16", 'allow = ["192.168.0.0/16"]'),
        ("refclock SHM 0 refid GPS", "[[source]]"),
        ("rtcsync", "rtcsync is a word of chrony.conf"),
        ("MakeStep 1 3", "step of [clock]"),
        ("restrict default nomodify", "lists in [access]"),
    ],
)
def test_a_line_that_is_no_toml_has_a_remedy(line: str, part: str) -> None:
    """Missing quotes, other programs' words, Python's and YAML's truth: the line as it should be, or what is written here instead."""
    (problem,) = problems(line)
    assert part in problem.what, problem.what


def test_the_default_rules_may_be_narrowed() -> None:
    """A network that is allowed by default may be denied: only what the file itself says twice is a contradiction."""
    parse('[access]\ndeny = ["10.0.0.0/8"]\n')
    parse('[access]\nallow = ["10.0.0.0/8"]\ndeny = ["10.1.0.0/16"]\n')


def test_a_whole_chrony_conf_is_answered_line_by_line() -> None:
    """Who names chrony.conf is told for each line what refclock has instead."""
    found = problems(
        "pool 2.debian.pool.ntp.org iburst\nkeyfile /etc/chrony/chrony.keys\nmaxupdateskew 100.0\nrtcsync\nmakestep 1 3\nlog a\n"
    )
    assert [p.line for p in found] == [1, 2, 3, 4, 5, 6]
    assert all("is a word of chrony.conf" in p.what for p in found)


def test_a_line_left_out_is_not_reported_missing() -> None:
    """What a syntax error hides is not called missing too."""
    (problem,) = problems("[[source]]\ntype = 'receiver'\ndevice = /dev/ttyS0\n")
    assert problem.line == 3


def test_locate_sees_every_way_to_write_a_key() -> None:
    """Lines of dotted, quoted and inline keys, after multi-line values and comments that look like keys."""
    text = 'a = """\n[x]\nb = 1\n"""\nc = [ # [y]\n  1,\n] \n"d e".f = {g = 1}\n[h."i"]\nj = \'\'\'\nk = 1\'\'\'\n[[l]]\n[[l]]\nm = 2\n'
    lines = locate(text)
    assert lines[("a",)] == 1
    assert lines[("c",)] == 5
    assert lines[("d e", "f")] == 8
    assert lines[("h", "i")] == 9
    assert lines[("h", "i", "j")] == 10
    assert lines[("l", 0)] == 12
    assert lines[("l", 1, "m")] == 14
    assert ("h", "i", "k") not in lines


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, directory, pipe, unreadable, huge, looping, not UTF-8: one clear problem each."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    huge = tmp_path / "huge"
    huge.write_bytes(b"#" * (config.LIMIT_BYTES + 1))
    latin = tmp_path / "latin"
    latin.write_bytes(b"\n# caf\xe9")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, part in ((tmp_path / "no", "does not exist"), (tmp_path, "directory"), (loop, "cannot be read"), (huge, "1 MB")):
        with pytest.raises(ConfigError, match=part):
            read(path)
    with pytest.raises(ConfigError, match="pipe"):
        read(fifo)
    with pytest.raises(ConfigError, match=r"latin:2: byte 0xe9 is not UTF-8"):
        read(latin)
    with pytest.raises(ConfigError):
        parse_bytes(b"\xff\xfea\x00", "utf-16")


@pytest.mark.parametrize(
    "text",
    [
        'x = "' + '\\"' * 100_000,
        "[server]\n" + "".join(f"k{i} = 1\n" for i in range(50_000)),
        'x = {"' + " " * 100_000 + '" = 1, "' + " " * 100_000 + '" = 2}',
    ],
    ids=["a string that does not end", "keys of another program", "one long key twice"],
)
def test_a_mistake_is_told_in_some_lines_whatever_its_size(text: str) -> None:
    """Text by the 100 kB that is no configuration: the mistakes are told, not each of thousands, and no text is searched again and again
    (that would take hours)."""
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert len(error.value.problems) <= 21
    assert len(str(error.value)) < 4000


def test_endpoints() -> None:
    """Addresses are numeric; IPv6 stands in brackets; the port is a port."""
    assert parse_endpoint("127.0.0.1:11123") == ("127.0.0.1", 11123)
    assert parse_endpoint("[fe80::1%eth0]:123") == ("fe80::1%eth0", 123)
    for bad in ("::1:123", "localhost:123", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "[1.2.3.4]:123", "1.2.3:1", "[::]:", "1.2.3.4:١٢"):
        assert parse_endpoint(bad) is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pulse_width_ms = 900", ""),
        ("pulse_width_ms = 1000", "1000 is out of range; allowed: 1 to 999"),
        ("pulse_without_fix_s = 604800", ""),
        ("pulse_without_fix_s = 604801", "allowed: 1 to 604800"),
        ("holdover_ppb = 1.5", ""),
        ("holdover_ppb = -1", "allowed: 0 to 100000"),
        ("message_delay_ms = -1000", ""),
        ("message_delay_ms = 1500", ""),
        ("message_delay_ms = 1501", "allowed: -1000 to 1500"),
    ],
)
def test_what_the_file_may_state_of_a_pulse_is_what_the_program_can(line: str, complaint: str) -> None:
    """A pulse shorter than its period, a week without a fix, a message up to a second early or one and a half late."""
    text = f'[[source]]\ntype = "receiver"\n{line}\n'
    if not complaint:
        parse(text)
        return
    with pytest.raises(ConfigError, match=complaint):
        parse(text)


def test_one_address_answers_one_protocol() -> None:
    """NTP and chronyc cannot share an address and port, however it is written."""
    with pytest.raises(ConfigError) as refused:
        parse('[server]\nlisten = ["127.0.0.1:323", "[::]:123"]\n[chronyc]\nlisten = ["127.0.0.1:323", "[0::0]:123"]\n')
    assert [problem.key for problem in refused.value.problems] == ["chronyc.listen[0]", "chronyc.listen[1]"]


def test_upstreams() -> None:
    """Servers and pools by one kind of table, of which a server is the default; names are made where none is written."""
    read_config = parse('[[upstream]]\nhost = "192.0.2.1"\n[[upstream]]\ntype = "pool"\nhost = "pool.ntp.org"\nmost = 3\n')
    assert read_config.upstreams == (ServerUpstream(name="ntp0", host="192.0.2.1"), PoolUpstream(name="pool0", host="pool.ntp.org", most=3))
    assert parse(as_toml(read_config)) == read_config
    assert read_config.asked == read_config.upstreams
    assert replace(read_config, clock=replace(read_config.clock, upstreams="off")).asked == ()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("", "host is missing"),
        ('host = "192.0.2.1:123"', "neither a host's name nor an address"),
        ('host = "a b"', "neither a host's name nor an address"),
        ('host = "a"\nminpoll = 8\nmaxpoll = 6', "more than maxpoll"),
        ('host = "a"\nkey = 1', "keys.file"),
        ('host = "a"\nmost = 2', "most"),
        ('host = "a"\ntype = "peer"', '"server", "pool"'),
    ],
)
def test_upstreams_that_cannot_be_meant(table: str, told: str) -> None:
    """Each mistake in an upstream is told with its line, and what is allowed."""
    found = problems(f"[[upstream]]\n{table}\n")
    assert len(found) == 1
    assert told in str(found[0])
    assert found[0].line > 0


def test_upstreams_alone_are_told_apart_from_a_receiver() -> None:
    """Without [[source]] a receiver is looked for, but not with role only; that one wants upstreams, and no source."""
    text = '[[upstream]]\nhost = "192.0.2.1"\n'
    assert [source.name for source in parse(text).heard] == ["gps0"]
    alone = parse(f'[clock]\nupstreams = "only"\n{text}')
    assert (alone.upstreams_alone, alone.heard) == (True, ())
    for wrong, told in (("", "names nobody to ask"), (f'[[source]]\ntype = "receiver"\n{text}', "wants no receiver")):
        with pytest.raises(ConfigError, match=told):
            parse(f'[clock]\nupstreams = "only"\n{wrong}')


def test_upstreams_need_the_process_that_asks_them() -> None:
    """Without the server nobody would ask: told, unless they are off."""
    text = '[server]\nenabled = false\n[[upstream]]\nhost = "a"\n'
    assert "server.enabled" in str(problems(text)[0])
    assert parse(f'[clock]\nupstreams = "off"\n{text}').upstreams


@pytest.mark.parametrize("table", [ServerUpstream, PoolUpstream], ids=lambda cls: cls.__name__)
def test_reference_example_has_every_key_of_upstreams(table: type) -> None:
    """examples/refclock.toml shows each as a comment."""
    text = next(p for p in EXAMPLES if p.name == "refclock.toml").read_text(encoding="utf-8")
    assert not {f.name for f in fields(table) if f.name != "name" and not re.search(rf"^# {f.name} = ", text, re.MULTILINE)}
