"""The names under which others find the files and sockets that this process has made.

Cleaners of directories (tmpfiles.d, scripts, people) remove names. The file goes on unseen, and nobody finds it any more. So its owner
looks now and then, and makes it anew.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


class Name:
    """The name of a file that has just been made, and the mode and group of its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = path.parent.stat()

    def missing(self) -> bool:
        """Whether nothing has that name any more. Another file there is another process's, and is left alone."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return True
        self._directory = self.path.parent.stat()
        return False

    def make_directory(self) -> None:
        """Make the directory anew if it is missing too. OSError: it cannot be made."""
        directory = self.path.parent
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(PermissionError):  # only root may give it to a group that it is not in
                os.chown(directory, -1, self._directory.st_gid)
            directory.chmod(stat.S_IMODE(self._directory.st_mode))
