"""Python, platform, core packages and extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator

from penstock.base.settings import Settings
from penstock.home.views import Check

_CORE = ("numpy", "pyarrow", "sqlalchemy", "alembic", "grpcio", "protobuf", "pydantic", "fastapi")
# extra -> (module to look for, its package, what is missing without it)
_NEEDED = {
    "torch": ("torch", "torch", "no training and publishing of models"),
    "onnx": ("onnxruntime", "onnxruntime", "no serving, no loading of models as ONNX"),
}
_OPTIONAL = {  # whoever uses one gets an error that names it
    "postgres": ("psycopg", "psycopg", "no rows in PostgreSQL"),
    "ray": ("ray", "ray", "no ranks on a Ray cluster"),
    "ray-data": ("fsspec", "fsspec", "no versions from and to datasets of Ray Data"),
    "spark": ("pyspark", "pyspark", "no versions from and to Spark's DataFrames"),
    "tune": ("optuna", "optuna", "no TPE in searches"),
    "tensorboard": ("tensorboard", "tensorboard", "no forwarding of scalars to TensorBoard"),
    "mlflow": ("mlflow", "mlflow-skinny", "no forwarding of scalars to MLflow"),
    "gpu": ("pynvml", "nvidia-ml-py", "no figures of how busy GPUs are"),
    "wandb": ("wandb", "wandb", "no forwarding of scalars to Weights & Biases"),
    "images": ("PIL", "pillow", "no decoding of pictures"),
    "hdf5": ("h5py", "h5py", "no reading of HDF5"),
    "zarr": ("zarr", "zarr", "no reading of Zarr"),
    "frames": ("duckdb", "duckdb", "no pandas, polars and DuckDB over dataset versions"),
    "demo": ("sklearn", "scikit-learn", "no `penstock demo`"),
}


def installation(settings: Settings) -> Iterator[Check]:
    """An extra that most lives need is missed when it is not there, the others are told."""
    yield _itself()
    found = {name: importlib.metadata.version(name) for name in _CORE}
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Check("packages", "ok", text, facts=found)
    for extra, (module, package, without) in (_NEEDED | _OPTIONAL).items():
        if importlib.util.find_spec(module) is not None:
            yield Check(f"extra {extra}", "ok", f"{package} {_version(package)}")
            continue
        text, fix = f"not installed: {without}", f"pip install 'penstock[{extra}]'"
        if extra in _NEEDED:
            yield Check(f"extra {extra}", "warn", text, fix)
        else:
            yield Check(f"extra {extra}", "ok", f"{text} ({fix})")


def _itself() -> Check:
    version = importlib.metadata.version("penstock")
    text = f"{version} on Python {platform.python_version()}"
    if sys.platform == "linux":
        return Check("penstock", "ok", f"{text}, Linux {platform.release()}")
    fix = "Use workers=0 or 1, or run on Linux."
    return Check("penstock", "warn", f"{text}, {sys.platform}, where nothing is tested", fix)


def _version(package: str) -> str:
    """Of a package that is there, perhaps under another name (onnxruntime-gpu, tb-nightly)."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of another distribution"
