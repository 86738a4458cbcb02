"""Ray Data on real nodes: versions are read as its datasets, and these become versions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

DRIVER = Path(__file__).parent / "ray_driver.py"


@pytest.fixture
def driver(cluster, tmp_path):
    """`driver(part)`: what a part of `ray_driver.py` found, on two nodes of a CPU each."""
    cluster.add()
    cluster.add()

    def run(part):
        done = subprocess.run(
            [sys.executable, DRIVER, part, tmp_path],
            env=cluster.environment | {"RAY_ADDRESS": cluster.address},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert "FOUND" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.rpartition("FOUND")[2])

    return run


@pytest.mark.long
def test_a_dataset_of_rays_becomes_the_version_that_its_rows_are(driver):
    found = driver("writing")
    assert found["same"] and found["reused"] and found["content keys"]
    assert "its rows, key and splits are the same" in found["why"]
    assert "keys name several rows" in found["twice"]["what"]
    assert found["twice"]["facts"]["count"] == 10
    assert "cannot name a sample" in found["missing"]["what"]
    assert 'no dataset can hold: "s" is struct' in found["nested"]["what"]
    assert "workers, filter cannot be given" in found["options"]["what"]
    assert found["versions"] == ["keyless@1", "plain-keyless@1", "plain@1", "rays@1"]


@pytest.mark.long
def test_a_version_is_read_by_rays_workers_shard_by_shard(driver):
    found = driver("reading")
    assert found["blocks"] == 4 and found["rows"] == 1000
    assert found["columns"] == ["id", "image"] and found["image"] == [4, 2, 3]
    assert found["sum"] == found["selected"] == 499500
    assert found["part"] == [400, 300, 699, "id"]
    assert found["tasks"] == ["id"]


@pytest.mark.long
@pytest.mark.faults
def test_a_worker_that_dies_leaves_one_version_of_the_same_rows(driver):
    found = driver("dying")
    assert found["died"] and found["same"]
    assert found["versions"] == ["plain@1", "rays@1"]
