"""What the image of a training run imports, so that its ranks need not.

The first optimiser of a process imports torch._dynamo (over a second); a rank that replaces a
dead one must not pay for that again. The rest is small, and is imported late where it is used.
"""

import pydantic.dataclasses
import pydantic.fields
import pydantic.type_adapter
import torch._dynamo
import torch.nn.parallel  # noqa: F401

import penstock.blobs.local
import penstock.checkpoints.layout
import penstock.checkpoints.reader
import penstock.data.loader
import penstock.data.pipeline.worker
import penstock.training.rank
import penstock.training.sidecar  # noqa: F401

pydantic.type_adapter.TypeAdapter(int)  # the first looks for plugins in all that is installed
