"""The C core by itself: tests/native/test_*.c under AddressSanitizer and UndefinedBehaviorSanitizer."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_c_core_passes_its_own_tests() -> None:
    """`make -C native test` builds without a warning and every claim of the plain-C tests holds under the sanitizers."""
    made = subprocess.run(["make", "-C", str(ROOT / "native"), "test"], capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


def test_the_server_has_no_data_race() -> None:
    """Threads under load while rules, keys and records are replaced and counters and clients are read: ThreadSanitizer sees nothing."""
    made = subprocess.run(["make", "-C", str(ROOT / "native"), "tsan"], capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
