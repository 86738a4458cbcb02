"""Where a project is: the folder with its settings."""

from __future__ import annotations

from pathlib import Path

FILE = "penstock.toml"


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder upwards with `penstock.toml` or `.git`; else the folder itself."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file() or (folder / ".git").exists():
            return folder
    return here
