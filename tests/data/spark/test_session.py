"""What has to be there before Spark can be asked, and what Spark's own failures mean. Spark
runs only where a local session is asked for."""

import os
import signal
import subprocess
import sys

import pytest

from penstock.base.errors import BadInput, StoreUnreachable, Unavailable
from penstock.data.clusters.sending import Passing, results, told
from penstock.data.spark.session import check_version, meaning, need_java


@pytest.mark.parametrize("version", ["3.5.4", "4.0.1", "4.4.0", "5.0.0.dev1"])
def test_a_pyspark_of_another_version_is_refused(version):
    with pytest.raises(BadInput, match=f"pyspark {version} is installed"):
        check_version(version)


@pytest.mark.parametrize("version", ["4.1.0", "4.2.1", "4.3.0"])
def test_one_that_is_known_is_not(version):
    check_version(version)


def test_no_java_is_said(tmp_path):
    with pytest.raises(Unavailable, match="no java is on the PATH"):
        need_java({"PATH": str(tmp_path)})
    with pytest.raises(Unavailable, match="JAVA_HOME is"):
        need_java({"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path)})
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.touch(0o755)
    need_java({"PATH": "", "JAVA_HOME": str(tmp_path)})
    need_java({"PATH": str(java.parent)})


def test_failures_of_spark_have_a_meaning():
    missing = meaning("Traceback …\nModuleNotFoundError: No module named 'penstock.data'")
    assert isinstance(missing, BadInput) and "cannot import penstock.data" in missing.what
    python = meaning("[PYTHON_VERSION_MISMATCH] Python in worker has different version")
    assert isinstance(python, BadInput)
    assert isinstance(meaning("Job aborted"), Unavailable)


def test_what_would_happen_again_is_a_result_and_what_may_pass_is_raised():
    def wrong():
        raise BadInput("no", "Mend it.", rows=[1])

    def away():
        raise StoreUnreachable("the store is away", "Wait.", url="s3://b")

    with pytest.raises(BadInput) as caught:
        results(told(wrong))
    assert caught.value.as_dict() == BadInput("no", "Mend it.", rows=[1]).as_dict()
    with pytest.raises(Passing) as raised:
        told(away)
    again = meaning(f"Job aborted due to stage failure: {raised.value}\n at org.apache")
    assert again.as_dict() == StoreUnreachable("the store is away", "Wait.", url="s3://b").as_dict()


LOCAL = """
import penstock as ps

spark = ps.spark.session("local[1]", spark__ui__enabled="false", spark__driver__memory="500m")
made = ps.spark.write(spark.range(5), "numbers", key="id", splits={"all": 1})
print(made.version.summary["rows"])
spark.stop()
"""


KILLED = """
import os, signal
import penstock as ps
from penstock.data.spark import writing

writing.results = lambda found: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.spark
@pytest.mark.timeout(180)
def test_a_script_that_is_killed_as_spark_commits_leaves_nothing_of_ours(tmp_path):
    (tmp_path / "script.py").write_text(KILLED + LOCAL)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = os.environ | {"TMPDIR": str(temporary), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(temporary.glob("penstock*")) == []


@pytest.mark.spark
@pytest.mark.timeout(180)
def test_a_local_session_has_the_python_of_its_script(tmp_path):
    """Not the first one on the PATH, which has no Penstock."""
    (tmp_path / "script.py").write_text(LOCAL)
    kept = {key: os.environ[key] for key in ("JAVA_HOME", "HOME") if key in os.environ}
    other = tmp_path / "bin" / "python3"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 7\n")
    other.chmod(0o755)
    env = kept | {"PATH": f"{other.parent}:{os.environ['PATH']}", "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["5"]), done.stderr
