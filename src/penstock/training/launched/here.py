"""Who this process is among a launcher's: Ray Train tells its workers, others set variables."""

from __future__ import annotations

import os

from penstock.base.errors import BadInput
from penstock.training.launched import carried, raytrain
from penstock.training.launched.seat import Seat, seat_in


def seat_here() -> Seat | None:
    """None where no launcher started this process. Raises BadInput on variables that are no
    numbers, and in a worker of Ray Train whose loop was not given to `in_ray_train`."""
    found = raytrain.seat()
    if found is None:
        return seat_in(os.environ)
    if carried.here() is None:
        raise BadInput(
            "this is a worker of Ray Train, and its loop took nothing along of the script's "
            "settings and code",
            "Give the trainer the loop so: TorchTrainer(ps.in_ray_train(loop), …).",
        )
    return found
