"""`run.publish`: one package per run and name, made by rank 0; every rank learns its reference."""

from __future__ import annotations

from typing import Any

import torch

from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.jobs.link import Link
from penstock.training import naming


class Publisher:
    """One rank's. `source` is the run's code snapshot, part of a version's lineage."""

    def __init__(self, link: Link, blobs: Blobs, layout: Layout, source: str) -> None:
        self._link = link
        self._blobs = blobs
        self._layout = layout
        self._source = source

    def publish(
        self, name: str, model: torch.nn.Module, example: Any, inputs: list[str] | None, step: int
    ) -> str:
        """The version's reference, "NAME@VERSION"; what an earlier attempt published is found.

        model  the user's own, unwrapped; equal on all ranks
        """
        if self._link.rank == 0:
            found = self._link.call("find-published", {"name": name})
            if "reference" not in found:
                found = self._package(name, model, example, inputs, step)
        else:
            found = self._link.call("wait-published", {"name": name})
        return str(found["reference"])

    def _package(
        self, name: str, model: torch.nn.Module, example: Any, inputs: list[str] | None, step: int
    ) -> dict[str, Any]:
        from penstock import registry
        from penstock.checkpoints import weights_digest

        resolved = self._link.call("resolved", {})
        lineage = {
            "run": self._link.run_id,
            "step": step,
            "data": resolved["data"],
            "source": self._source,
        }
        if resolved["left_out"]:
            lineage["left_out"] = resolved["left_out"]
        packed = registry.package(
            model,
            example,
            self._blobs,
            self._layout,
            name=name,
            lineage=lineage,
            inputs=inputs,
        )
        weights = weights_digest(naming.state_of(model))
        summary = {**packed.summary, "weights": weights, "notes": list(packed.notes)}
        return self._link.call(
            "publish",
            {
                "name": name,
                "digest": packed.digest,
                "refs": list(packed.refs),
                "summary": summary,
            },
        )
