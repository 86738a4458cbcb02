"""A verb for trainers of others, which bring a loop to processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.home import explaining
from penstock.home.guard import need_torch, only_in_scripts
from penstock.home.verbs import current

if TYPE_CHECKING:
    from penstock.training.launched.carried import Loop


def in_ray_train(loop: Callable[..., Any]) -> Loop:
    """A loop for a trainer of Ray Train: TorchTrainer(ps.in_ray_train(loop), …).

    loop     called by Ray in each worker, with or without its config; in it, `ps.attach` gives the
             run, and the other verbs find the home of this script
    returns  the loop, with this script's settings and the loop's code; when it returns or raises
             in a worker, its runs are over

    Call it in the script that makes the trainer. Raises CannotTravel, BadInput.
    """
    only_in_scripts("in_ray_train")
    explaining.ends_at("in_ray_train")
    need_torch()
    from penstock.training.launched.carried import carry

    return carry(lambda: current().stores, loop)
