"""What has to be there: pyspark in a version that is known, Java, a session of the classic kind."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from penstock.base.errors import BadInput, MissingExtra, PenstockError, Unavailable
from penstock.data.clusters.sending import in_text

T = TypeVar("T")
OLDEST, BELOW = (4, 1), (4, 4)
_SHOWN = 600  # characters of what Spark says


def need_pyspark() -> None:
    """Raises MissingExtra without pyspark, BadInput for a version that cannot do it."""
    try:
        found = version("pyspark")
    except PackageNotFoundError:
        raise missing() from None
    check_version(found)


def missing() -> MissingExtra:
    return MissingExtra(
        "this needs pyspark, which is not installed", "pip install 'penstock[spark]'"
    )


def check_version(found: str) -> None:
    """Raises BadInput for a pyspark that is not between 4.1 and 4.3."""
    numbers = tuple(int(each) for each in re.findall(r"\d+", found)[:2])
    if not OLDEST <= numbers < BELOW:
        raise BadInput(
            f"pyspark {found} is installed; its data sources are not those that Penstock knows",
            "Install pyspark 4.1 to 4.3, here and on the cluster: pip install 'penstock[spark]'.",
            version=found,
        )


def open_session(master: str | None = None, conf: Mapping[str, str] | None = None) -> Any:
    """A session; the one that is there where one is.

    master  such as "local[2]" or "spark://HOST:7077"; default: what Spark's configuration says
    conf    Spark's settings by name
    With a master of "local…" the tasks' Python is this one, unless PYSPARK_PYTHON says otherwise:
    Spark would take the first on the PATH, which is another where an environment is not activated.

    Raises MissingExtra, BadInput, and Unavailable without Java.
    """
    need_pyspark()
    need_java(os.environ)
    from pyspark.sql import SparkSession

    if master is not None and master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

    builder: Any = SparkSession.builder
    builder = builder if master is None else builder.master(master)
    for name, value in (conf or {}).items():
        builder = builder.config(name, value)
    return spoken(builder.getOrCreate)


def need_java(environment: Mapping[str, str]) -> None:
    """Raises Unavailable where Spark would find no Java to start."""
    home = environment.get("JAVA_HOME")
    if home and os.access(Path(home) / "bin" / "java", os.X_OK):
        return
    where = f"JAVA_HOME is {home}" if home else "no java is on the PATH"
    if home or shutil.which("java", path=environment.get("PATH", "")) is None:
        raise Unavailable(
            f"Spark needs Java, which is not there: {where}",
            "Install Java 17 or newer, or set JAVA_HOME to where it is.",
        )


def check_session(spark: Any) -> None:
    """Raises BadInput for what is no session, and for one of Spark Connect."""
    from pyspark.sql import SparkSession

    if ".connect." in type(spark).__module__:
        raise BadInput(
            "this is a session of Spark Connect, whose tasks cannot tell this script anything",
            "Run the script where Spark's driver may be: by spark-submit, or with a master of "
            "spark://HOST:7077.",
        )
    if not isinstance(spark, SparkSession):
        raise BadInput(
            f"this is a {type(spark).__name__}, not a session of Spark's",
            "Pass the SparkSession: ps.spark.read(spark, …), or what ps.spark.session() gives.",
        )


def is_local(spark: Any) -> bool:
    """Whether all of Spark is on this machine."""
    return str(spark.sparkContext.master).startswith("local")


def estimated_bytes(frame: Any) -> int:
    """What Spark thinks that a frame's rows take: of files their size; where it does not know, more
    than anybody has."""
    plan = spoken(frame._jdf.queryExecution().optimizedPlan)
    return int(str(plan.stats().sizeInBytes()))  # py4j gives a number, or Java's for a large one


def spoken(call: Callable[[], T]) -> T:
    """What a call into Spark gives. Raises the family's error for one of Spark's."""
    try:
        return call()
    except PenstockError:
        raise
    except Exception as error:
        raise meaning(str(error)) from error


def meaning(text: str) -> PenstockError:
    """The family's error for what Spark says of a failure."""
    if (sent := in_text(text)) is not None:
        return sent
    if match := re.search(r"No module named '([\w.]+)'", text):
        return BadInput(
            f"Spark's Python processes cannot import {match[1]}",
            "Install the same packages on every machine of the cluster as here "
            "(pip install 'penstock[spark]'), or say where: PYSPARK_PYTHON, spark.archives.",
            module=match[1],
        )
    if "PYTHON_VERSION_MISMATCH" in text:
        return BadInput(
            "Spark's Python is of another version than this script's",
            "Set PYSPARK_PYTHON to a Python of the same version on every machine.",
        )
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["it says nothing"]
    return Unavailable(
        f"Spark failed: {' '.join(lines)[:_SHOWN]}", "Spark's own logs have the rest."
    )
