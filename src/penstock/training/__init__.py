"""Training: the step loop that a rank runs, and the work that its controller does for it.

`launch.train` starts or continues a run; `run.Run` is what the user's function gets; `work` sits
in the controller; `sidecar` persists checkpoints beside the ranks. Loads torch only when a rank
starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.training.attached import attach
    from penstock.training.launch import Trained, train
    from penstock.training.run import Run

__all__ = ["Run", "Trained", "attach", "train"]


def __getattr__(name: str) -> Any:
    if name == "attach":
        from penstock.training.attached import attach

        return attach
    if name == "Run":
        from penstock.training.run import Run

        return Run
    if name in ("Trained", "train"):
        from penstock.training import launch

        return getattr(launch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
