"""What the image of a training run imports, so that its ranks need not."""

import penstock.checkpoints.layout
import penstock.checkpoints.reader
import penstock.data.loader
import penstock.training.rank
import penstock.training.sidecar  # noqa: F401
