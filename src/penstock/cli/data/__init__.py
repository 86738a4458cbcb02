"""`penstock data`: look at dataset versions, compare and check them, move them in and out."""

from penstock.cli.data import expect, keeping, looking, moving
from penstock.cli.data.drawing import draw_version, draw_versions, pairs
from penstock.cli.frame import group

app = group("Datasets: versions, rows, statistics, where they came from.")
looking.register(app)
expect.register(app)
moving.register(app)
keeping.register(app)

__all__ = ["app", "draw_version", "draw_versions", "pairs"]
