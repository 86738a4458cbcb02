"""The port's Reader and Writer, put together from their parts."""

from __future__ import annotations

from penstock.meta.port import Reader, Writer
from penstock.meta.rows.blobs import BlobReader, BlobWriter
from penstock.meta.rows.checkpoints import CheckpointReader, CheckpointWriter
from penstock.meta.rows.claims import ClaimReader, ClaimWriter
from penstock.meta.rows.deployments import DeploymentReader, DeploymentWriter
from penstock.meta.rows.evaluations import EvaluationReader, EvaluationWriter
from penstock.meta.rows.labels import LabelReader, LabelWriter
from penstock.meta.rows.leases import LeaseReader, LeaseWriter
from penstock.meta.rows.runs import RunReader, RunWriter
from penstock.meta.rows.units import UnitReader, UnitWriter


class SqlReader(
    RunReader,
    CheckpointReader,
    UnitReader,
    EvaluationReader,
    DeploymentReader,
    LeaseReader,
    ClaimReader,
    BlobReader,
    LabelReader,
    Reader,
):
    """A consistent view over SQL."""


class SqlWriter(
    RunWriter,
    CheckpointWriter,
    UnitWriter,
    LabelWriter,
    EvaluationWriter,
    DeploymentWriter,
    LeaseWriter,
    ClaimWriter,
    BlobWriter,
    SqlReader,
    Writer,
):
    """A transaction over SQL."""
