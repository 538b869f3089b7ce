"""Conditions: what is the matter with a clock or one of its sources, as values with stable codes.

Whoever notices trouble says so as a ``Condition``: health, trust, pulses and pairing of a receiver, the discipline, the clock process.
The snapshot carries them; status, doctor, alerts and metrics read the code and never the words. Words may change with every release,
codes do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Code(StrEnum):
    """The kinds of trouble, in order of precedence: of several conditions that block, the first in this order is the reason told.

    ======================== ===================================================== =========================================================
    code                     what it means                                         what to do
    ======================== ===================================================== =========================================================
    of the whole daemon
    no-source                no source is configured and no receiver was found     plug a receiver in, or write a [[source]]
    sources-disagree         no majority of the sources agrees                     find the wrong one (refclock sources); add a third
    second-uncertain         a witness contradicts the second: it is not served    see its words; let NTP keep the clock
    upstreams-contradict     several NTP servers that agree say another time       see which is wrong: refclock query; the antenna
    raw-clock-jumped         the raw clock paused or jumped: it begins anew         nothing; see what stopped the machine
    leap-unsettled           a leap second may just have come; nobody knows yet    wait some seconds; update tzdata
    learning-frequency       the second is known, the frequency is not yet         wait some seconds
    upstreams-only           no receiver can be used: NTP servers are followed     see the receiver's own condition
    messages-only            served from messages: the pulses cannot be used       see the source's own condition
    of a source that gives no time at all
    falseticker              the other sources agree on another time               see to its delay, its edge or its receiver
    device-absent            its device is missing, held by others or unreadable   as its words say; refclock doctor
    time-runs-away           its time changes faster than a crystal can            suspect forged signals; add a second source
    watched-only             noselect: watched by configuration                    nothing
    waiting-for-samples      another program has given too few samples             start that program; see its own log
    upstream-silent          an NTP server does not answer, or to no use           as its words say: network, firewall, key
    of a receiver that names no second
    nothing-comes            not a byte comes from it                              check power, plug, TX and RX; refclock detect
    foreign-protocol         it speaks a protocol from which no time is taken      switch it to NMEA or UBX, as its words say
    line-saturated           its line is never idle, so its messages lag           a higher speed (baud), or fewer messages
    labels-refused           its messages name no usable second                    as its words say
    no-date                  it has a fix but sends no message with a date         switch on RMC or ZDA (or NAV-PVT)
    no-fix                   it has no fix                                         give the antenna a wide view of the sky
    spoofing                 it says that its signals are forged                   find the transmitter; add another source
    position-jumped          a fixed antenna is said to be elsewhere               the same; wait if the antenna was moved
    antenna-fault            the antenna or its cable is open or shorted           check plug and cable
    jamming                  it says that there is interference                    look for a transmitter or USB 3 device nearby
    seconds-stopped          it has named no valid second for a while              uncover the antenna; check its power
    waiting-for-second       it has named no valid second yet                      wait for the fix
    week-rollover            its date and a kept clock are 1024 weeks apart        set the clock, or clock.not_before; update the firmware
    time-goes-back           its date is before one that was known here            set the system clock; update the firmware
    date-unconfirmed         its date is far ahead and nothing confirms it         set the system clock
    clock-contradicts        its seconds contradict a clock that NTP keeps         see which is wrong: refclock doctor
    second-moved             its seconds jumped by whole seconds                   wait: they are being checked anew
    leap-count-unknown       it may not know the leap seconds yet                  wait up to 13 minutes after a cold start
    two-talkers              two talkers on its line name different seconds        switch one off; let NTP keep the clock
    timing-messages          it has no pulse: its messages are being timed         wait some seconds; a pulse (pps) is far better
    of its pulses
    edge-not-coming          only the edge comes that is not the configured one    set edge = "auto"
    no-rhythm                edges come, but not as pulses that mark seconds       check wire, ground and pin; set the pulse to 1 Hz
    waiting-for-pulses       no pulse has come yet                                 wait for the fix; check wire and pin: refclock pps
    pulses-stopped           pulses came and have stopped                          check the wire and the receiver's pulse setting
    wrong-edge               the configured edge ends the pulse                    set edge = "auto"
    off-second               pulses lie beside the served seconds                  have both edges captured, or the other one
    pulse-after-message      messages come before the only edge that is seen       the same, or state a negative message_delay_ms
    off-clock                pulses lie beside the seconds of a kept clock         the same, or stop what keeps that clock wrong
    of pulses and messages together
    second-contradicted      labels contradict the served second                   wait: the second is given up if that goes on
    ambiguous-delay          messages come half way between two pulses             a right clock (NTP), TIM-TP or message_delay_ms
    which-of-many            several pulses a second: which one marks it?          set the pulse to 1 Hz, or state message_delay_ms
    no-pulse-near-label      messages come, but no pulse near them                 check the wire; refclock pps
    labels-disagree          successive messages name different seconds            wait; a line with too many messages: raise the baud
    pulses-without-fix       pulses come, but the fix was lost                     give the antenna a wide view of the sky
    doubtful-receiver        its trouble is over; its next second is awaited       wait a second
    pulses-unnumbered        its pulses wait for somebody who names their second   let NTP keep the clock, or add a source
    naming-second            messages that name the second are being counted       wait some seconds
    taking-up-pulses         its pulses are being taken up                         wait some seconds
    told only, nothing is refused
    labels-in-doubt          its messages contradict pulses and served second      see its words; the time is served by the pulses
    second-unconfirmed       the second rests on one receiver's steadiness alone   let NTP keep the clock, or add a source
    copy                     it hands on the pulses of another source               nothing; a second receiver would be a second opinion
    receiver-complains       the receiver itself reports an error                  as its words say
    checksum-habit           it writes its checksums in a way of its own           nothing; update the firmware if there is one
    2d-fix                   a fix without height: the bound is wider              give the antenna a wider view of the sky
    surveying                a timing receiver is still finding its place          wait: the pulse improves when it is done
    pulse-line-unnamed       its driver does not say if the line is polled (USB)    state pps_over_usb = false for a pin or a real port
    stray-edges              edges beside the pulses                               a ground wire; a shorter wire; 100 ohm in series
    pulses-missing           one pulse in ten or more does not come                check the wire and the fix
    raw-clock-changed        the kernel counts the raw clock on another counter    see the kernel's log; choose a stable clocksource
    clock-stepped            others have set the system clock                      find out who (RC20); a virtual machine's guest tools
    clock-shared             another program sets the system clock too              end it, or set steer = "none" (RC20)
    clock-too-far-off        beyond clock.panic_s: the system clock is left alone  set the clock, or raise panic_s
    clock-slewing            the system clock is far off and is being slewed       wait, or allow steps (clock.step)
    steering-refused         the kernel refuses to steer the system clock          give CAP_SYS_TIME, or set steer = "none"
    leap-refused             an announced leap second is not believed              update tzdata (leap-seconds.list)
    leap-table-unreadable    leap-seconds.list cannot be read                      install tzdata, or set leap.file
    leap-table-damaged       leap-seconds.list is not as its makers wrote it       reinstall tzdata, or set leap.file
    leap-table-expired       leap-seconds.list has expired                         update tzdata, or set leap.file
    pulse-device-absent      its pulse device is missing or refused                as its words say; refclock doctor
    thermometer-silent       the thermometer cannot be read                        see clock.temperature
    feed-not-taken           a fed program does not take the samples               start it, as its words say; refclock feed
    state-not-saved          what was learned cannot be written or read            make run.state writable
    cpu-latency-refused      /dev/cpu_dma_latency cannot be held                   give permission, or leave cpu_latency_us out
    ======================== ===================================================== =========================================================
    """

    NO_SOURCE = "no-source"
    SOURCES_DISAGREE = "sources-disagree"
    SECOND_UNCERTAIN = "second-uncertain"
    UPSTREAMS_CONTRADICT = "upstreams-contradict"
    RAW_CLOCK_JUMPED = "raw-clock-jumped"
    LEAP_UNSETTLED = "leap-unsettled"
    LEARNING_FREQUENCY = "learning-frequency"
    UPSTREAMS_ONLY = "upstreams-only"
    MESSAGES_ONLY = "messages-only"

    FALSETICKER = "falseticker"
    DEVICE_ABSENT = "device-absent"
    TIME_RUNS_AWAY = "time-runs-away"
    WATCHED_ONLY = "watched-only"
    WAITING_FOR_SAMPLES = "waiting-for-samples"
    UPSTREAM_SILENT = "upstream-silent"

    NOTHING_COMES = "nothing-comes"
    FOREIGN_PROTOCOL = "foreign-protocol"
    LINE_SATURATED = "line-saturated"
    LABELS_REFUSED = "labels-refused"
    NO_DATE = "no-date"
    NO_FIX = "no-fix"
    SPOOFING = "spoofing"
    POSITION_JUMPED = "position-jumped"
    ANTENNA_FAULT = "antenna-fault"
    JAMMING = "jamming"
    SECONDS_STOPPED = "seconds-stopped"
    WAITING_FOR_SECOND = "waiting-for-second"
    WEEK_ROLLOVER = "week-rollover"
    TIME_GOES_BACK = "time-goes-back"
    DATE_UNCONFIRMED = "date-unconfirmed"
    CLOCK_CONTRADICTS = "clock-contradicts"
    SECOND_MOVED = "second-moved"
    LEAP_COUNT_UNKNOWN = "leap-count-unknown"
    TWO_TALKERS = "two-talkers"
    TIMING_MESSAGES = "timing-messages"

    EDGE_NOT_COMING = "edge-not-coming"
    NO_RHYTHM = "no-rhythm"
    WAITING_FOR_PULSES = "waiting-for-pulses"
    PULSES_STOPPED = "pulses-stopped"
    WRONG_EDGE = "wrong-edge"
    OFF_SECOND = "off-second"
    PULSE_AFTER_MESSAGE = "pulse-after-message"
    OFF_CLOCK = "off-clock"

    SECOND_CONTRADICTED = "second-contradicted"
    AMBIGUOUS_DELAY = "ambiguous-delay"
    WHICH_OF_MANY = "which-of-many"
    NO_PULSE_NEAR_LABEL = "no-pulse-near-label"
    LABELS_DISAGREE = "labels-disagree"
    PULSES_WITHOUT_FIX = "pulses-without-fix"
    DOUBTFUL_RECEIVER = "doubtful-receiver"
    PULSES_UNNUMBERED = "pulses-unnumbered"
    NAMING_SECOND = "naming-second"
    TAKING_UP_PULSES = "taking-up-pulses"

    LABELS_IN_DOUBT = "labels-in-doubt"
    SECOND_UNCONFIRMED = "second-unconfirmed"
    COPY = "copy"
    RECEIVER_COMPLAINS = "receiver-complains"
    CHECKSUM_HABIT = "checksum-habit"
    FIX_2D = "2d-fix"
    SURVEYING = "surveying"
    PULSE_LINE_UNNAMED = "pulse-line-unnamed"
    STRAY_EDGES = "stray-edges"
    PULSES_MISSING = "pulses-missing"
    RAW_CLOCK_CHANGED = "raw-clock-changed"
    CLOCK_STEPPED = "clock-stepped"
    CLOCK_SHARED = "clock-shared"
    CLOCK_TOO_FAR_OFF = "clock-too-far-off"
    CLOCK_SLEWING = "clock-slewing"
    STEERING_REFUSED = "steering-refused"
    LEAP_REFUSED = "leap-refused"
    LEAP_TABLE_UNREADABLE = "leap-table-unreadable"
    LEAP_TABLE_DAMAGED = "leap-table-damaged"
    LEAP_TABLE_EXPIRED = "leap-table-expired"
    PULSE_DEVICE_ABSENT = "pulse-device-absent"
    THERMOMETER_SILENT = "thermometer-silent"
    FEED_NOT_TAKEN = "feed-not-taken"
    STATE_NOT_SAVED = "state-not-saved"
    CPU_LATENCY_REFUSED = "cpu-latency-refused"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is the matter.

    ``words``: a sentence for people, with the figures and mostly with what to do. ``blocks``: while it lasts, labels or pulses are not used
    (of a source), or the clock is not as good as its sources could make it (of the daemon). ``source``: whose, "" for the whole daemon.
    """

    code: Code
    words: str
    blocks: bool = False
    source: str = ""


def obstacle(code: Code, words: str) -> Condition:
    """A condition that blocks; whose it is, ``ordered`` fills in."""
    return Condition(code, words, blocks=True)


_RANK = {code: rank for rank, code in enumerate(Code)}


def ordered(conditions: Iterable[Condition], source: str = "") -> tuple[Condition, ...]:
    """The conditions of ``source``, one of a code: those that block first, each kind in the order of ``Code``."""
    found: dict[Code, Condition] = {}
    for c in conditions:
        if c.code not in found or (c.blocks and not found[c.code].blocks):
            found[c.code] = replace(c, source=source)
    return tuple(sorted(found.values(), key=lambda c: (not c.blocks, _RANK[c.code])))


def blocking(conditions: Iterable[Condition]) -> Condition | None:
    """The first that blocks; None when nothing does."""
    return next((c for c in conditions if c.blocks), None)
