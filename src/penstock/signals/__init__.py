"""What ranks tell while they work: scalars, spans and texts, emitted without ever waiting.

Here values are only emitted, kept and read back; what they mean is understood higher up.
"""

from penstock.signals.curve import Curve
from penstock.signals.emitter import Emitter
from penstock.signals.reader import read_scalars, read_spans, read_texts, reduce_scalars
from penstock.signals.sealing import seal, trim
from penstock.signals.segment import mark_closed, written

__all__ = [
    "Curve",
    "Emitter",
    "mark_closed",
    "read_scalars",
    "read_spans",
    "read_texts",
    "reduce_scalars",
    "seal",
    "trim",
    "written",
]
