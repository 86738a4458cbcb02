"""Pages of freed batches are kept for the next ones, instead of being given back and made anew.

glibc gives freed memory back to the kernel beyond a threshold (128 KiB at first), so every batch
would take its pages one fault at a time: for blobs of 100 KB that is most of the time. The
threshold is dynamic: when a block that was mapped on its own is freed, glibc takes blocks of this
size for short-lived from then on, and keeps twice as much. One block of nearly the largest size
that it learns from (32 MiB), never touched, teaches it that; a process that trains learns it
anyhow.

Source: mallopt(3), M_MMAP_THRESHOLD, M_TRIM_THRESHOLD.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_BLOCK = 31 << 20


@cache
def keep_pages() -> None:
    """Once per process; costs no memory. Nothing happens where the allocator is another one."""
    np.empty(_BLOCK, np.uint8)
