"""The names under which others find the files and sockets that this process has made.

Cleaners of directories (tmpfiles.d, scripts, people) remove names. The file goes on unseen, and nobody finds it any more. So its owner
looks now and then, and makes it anew.
"""

from __future__ import annotations

import stat
from pathlib import Path


class Name:
    """The name of a file that has just been made, and the mode of its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mode = stat.S_IMODE(path.parent.stat().st_mode)

    def missing(self) -> bool:
        """Whether nothing has that name any more. Another file there is another process's, and is left alone."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return True
        return False

    def make_directory(self) -> None:
        """Make the directory anew if it is missing too. OSError: it cannot be made."""
        directory = self.path.parent
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(self._mode)
