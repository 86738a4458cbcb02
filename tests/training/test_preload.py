"""The image holds what a rank needs before its first step, and has one thread."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch

SCRIPT = """
import sys
import penstock.training.preload
known = set(sys.modules)
import torch
model = torch.nn.parallel.DistributedDataParallel
torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
threads = open("/proc/self/status").read().split("Threads:")[1].split()[0]
print(len(set(sys.modules) - known), threads)
"""


def test_an_optimiser_imports_nothing_more_and_the_image_has_one_thread():
    environment = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    imported, threads = map(int, done.stdout.split())
    assert imported < 5
    assert threads == 1
