"""What `refclock status` and `refclock doctor` say of a whole daemon: clock, server, port and feeds together."""

from __future__ import annotations

import re

from peers import PYTHON, REFCLOCK, Processes, locked, wait_for

HOLD = """
import socket, time
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 11123))
print("held", flush=True)
time.sleep(600)
"""


def test_a_port_that_another_program_holds_is_told_first(network: Processes) -> None:
    """The clock is locked, and another program has the port: status begins with that, names the program and exits with 2, as the doctor
    does; once the port is free the same daemon serves, and status exits with 0."""
    directory = network.directory / "run"
    holder = network.start("holder", [PYTHON, "-c", HOLD])
    wait_for("the port is held", lambda: "held" in network.output("holder"), 10)
    network.start("refclock", [*REFCLOCK, "run", "--sim", "--run-dir", str(directory)])
    wait_for("LOCKED", lambda: locked(directory), 60)
    status = network.run([*REFCLOCK, "status", "--run-dir", str(directory)])
    assert status.stdout.startswith("NOT SERVED: "), status.stdout
    assert re.search(rf"127.0.0.1:11123 is held by python[0-9.]* \(pid {holder.pid}\)", status.stdout.splitlines()[0])
    assert status.returncode == 2
    doctor = network.run([*REFCLOCK, "doctor", "--run-dir", str(directory)], 60)
    assert "FAIL  RC30  127.0.0.1:11123 is held by" in doctor.stdout, doctor.stdout
    assert doctor.returncode == 2

    holder.kill()
    holder.wait()
    wait_for("served", lambda: network.run([*REFCLOCK, "status", "--run-dir", str(directory)]).returncode == 0, 60)
    found = network.run([*REFCLOCK, "doctor", "--run-dir", str(directory)], 60).stdout
    assert "ok    RC30  serving on 127.0.0.1:11123" in found, found
    assert "ok    RC39  127.0.0.1:11123 answers with the time, stratum 1" in found, found
