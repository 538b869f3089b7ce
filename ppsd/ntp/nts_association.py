"""NTS with one server: its keys while there are some, and when new ones are wanted (RFC 8915 section 5.7). Sans-IO.

Flow: ``wants_keys`` -> NTS-KE process -> ``got`` -> ``seal``, by which requests are sealed. New keys are wanted when there are none or no
cookies are left, when the server does not know the old ones, and when those are old. Until they have come, the old ones are used on. Each
try doubles the pause before the next one, until a sealed reply has come: neither a server without keys nor somebody who forges NAKs makes
this machine ask often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ppsd.ntp.nts_client import Aead, Seal, Verdict
from ppsd.ntp.nts_errands import Keys, NoKeys
from refclock.sample import NS, Authentication

FIRST_PAUSE_NS: Final = 16 * NS
"""ns from the first try to the second; each further one is twice as long."""
LONGEST_PAUSE_NS: Final = 4096 * NS
"""ns between two tries at most: a server that is mended is noticed within 70 minutes."""
REFRESH_NS: Final = 28 * 86_400 * NS
"""ns for which keys are used: four weeks, as in chronyd (chrony.conf(5), ntsrefresh). By then the server has shown a certificate again."""
UNDATED_NS: Final = 900 * NS
"""ns for which keys are used that a certificate with wrong dates brought: by then the time is known, and its dates can be checked."""


NAKED: Final = "the server does not know the keys of NTS any more: new ones are being established"
"""Why there is no answer."""


class Secured:
    """See the module. Times are raw ns. ``make``: a cipher by its number and key. ``attempts``: how often keys were asked for since there
    were some. ``why``: why there are none."""

    def __init__(self, make: Callable[[int, bytes], Aead], now_ns: int) -> None:
        self._make = make
        self._pause_ns = FIRST_PAUSE_NS
        self._due_ns = now_ns
        self._asked = False
        self.seal: Seal | None = None
        self.keys: Keys | None = None
        self.since_ns = now_ns
        self.attempts = 0
        self._established = 0
        self.why = "its keys of NTS are being established"

    @property
    def ready(self) -> bool:
        """Whether a request can be sealed."""
        return self.seal is not None and bool(self.seal.cookies)

    def wants_keys(self, now_ns: int) -> bool:
        """Whether keys are to be asked for, now that a request is due."""
        if self._asked or now_ns < self._due_ns:
            return False
        return not self.ready or (self.seal is not None and self.seal.naked) or now_ns - self.since_ns > self._lasting_ns

    @property
    def _lasting_ns(self) -> int:
        return UNDATED_NS if self.keys is not None and self.keys.undated else REFRESH_NS

    def asked(self, now_ns: int) -> None:
        """Keys are asked for."""
        self._asked, self._due_ns = True, now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        self.attempts += 1

    def got(self, answer: Keys | NoKeys, now_ns: int) -> None:
        """The answer; it takes the place of the old keys, when it brings some."""
        self._asked = False
        if isinstance(answer, NoKeys):
            self.why = f"no keys of NTS: {answer.why}"
            return
        self.use(answer, now_ns)
        self.attempts = 0
        self._established += 1

    def use(self, keys: Keys, since_ns: int) -> None:
        """Use keys that were established at ``since_ns``."""
        try:
            ciphers = self._make(keys.terms.aead, keys.to_server), self._make(keys.terms.aead, keys.to_client)
        except ValueError as error:
            self.why = f"no keys of NTS: {error}"
            return
        self.seal = Seal(keys.terms.aead, *ciphers, keys.terms.cookies)
        self.keys, self.since_ns, self.why = keys, since_ns, ""

    def replied(self, data: bytes) -> Verdict:
        """What a datagram is."""
        if self.seal is None:
            return Verdict.STRANGE
        verdict = self.seal.reply(data)
        if verdict is Verdict.GENUINE:
            self._pause_ns, self.why = FIRST_PAUSE_NS, ""
        elif verdict is Verdict.NAK:
            self.why = NAKED
        return verdict

    def wake(self, now_ns: int) -> None:
        """The network has changed: keys that could not be got are asked for at once."""
        if not self.ready:
            self._due_ns, self._pause_ns = now_ns, FIRST_PAUSE_NS

    def kept(self) -> Keys | None:
        """The keys with the cookies that are left; None when they are of no use later."""
        if self.keys is None or self.seal is None or not self.seal.cookies or self.seal.naked:
            return None
        return replace(self.keys, terms=replace(self.keys.terms, cookies=self.seal.cookies))

    def authentication(self, now_ns: int) -> Authentication:
        """What people are told. Kept keys of an earlier run count as established once."""
        if self.seal is None or self.keys is None:
            return Authentication("nts", ke_attempts=self.attempts)
        cookies = self.seal.cookies
        return Authentication(
            mode="nts",
            key_id=max(1, self._established),
            key_type=self.seal.cipher,
            key_bits=8 * len(self.keys.to_client),
            ke_attempts=self.attempts,
            ke_age_s=(now_ns - self.since_ns) // NS,
            naks=self.seal.naks,
            cookies=len(cookies),
            cookie_bytes=len(cookies[0]) if cookies else 0,
        )
