"""A study as doors show it: its row, its trials, and the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.home.runs import view
from penstock.home.views import StudyView, TrialView

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores


def one(stores: Stores, name: str) -> StudyView:
    """The newest study of a name. Raises NotFound."""
    from penstock.training.tuning import reading
    from penstock.training.tuning.history import best_of
    from penstock.training.tuning.setup import Setup

    with stores.meta.read() as meta:
        study = reading.find(meta, name)
        shown = view(meta, study)
    setup = Setup.of(study)
    trials = reading.trials(stores, study)
    best = best_of(trials, setup.direction)
    return StudyView(
        run=shown,
        metric=setup.metric,
        direction=setup.direction,
        search={key: value for key, value in setup.as_data().items() if key != "trials"},
        best=None if best is None else best.name,
        trials=[
            TrialView(
                each.number,
                each.name,
                each.run,
                each.state,
                each.params,
                each.value,
                each.step,
                each.model,
                each.reason,
                each.created_at,
                each.ended_at,
            )
            for each in trials
        ],
    )
