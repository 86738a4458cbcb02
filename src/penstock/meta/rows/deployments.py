"""Named endpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import select, update

from penstock.base.errors import Conflict, NotFound
from penstock.base.nearest import did_you_mean
from penstock.meta.rows.events import EventReader, EventWriter
from penstock.meta.rows.session import columns
from penstock.meta.tables import deployments
from penstock.records import Deployment, to_data
from penstock.records.references import check_name


class DeploymentReader(EventReader):
    def find_deployment(self, name: str) -> Deployment | None:
        return self.one(
            Deployment, columns(deployments, Deployment).where(deployments.c.name == name)
        )

    def get_deployment(self, name: str) -> Deployment:
        if (found := self.find_deployment(name)) is not None:
            return found
        known = self.texts(select(deployments.c.name))
        raise NotFound(
            f'there is no deployment "{name}"', did_you_mean(name, known), deployment=name
        )

    def deployments(self) -> list[Deployment]:
        """In the order of their names."""
        return self.all(Deployment, columns(deployments, Deployment).order_by(deployments.c.name))


class DeploymentWriter(DeploymentReader, EventWriter):
    def put_deployment(self, deployment: Deployment, expect: int | None) -> Deployment:
        check_name(deployment.name, "deployment name")
        now = self.now()
        put = replace(deployment, revision=(expect or 0) + 1, updated_at=now)
        if expect is None:
            put = replace(put, created_at=put.created_at or now)
            done = self.insert_new(deployments, [to_data(put)]) == 1
        else:
            values = {key: value for key, value in to_data(put).items() if key != "created_at"}
            where = (deployments.c.name == put.name, deployments.c.revision == expect)
            done = self.execute(update(deployments).where(*where).values(**values)).rowcount == 1
        found = self.find_deployment(put.name)
        if not done or found is None:
            raise Conflict(
                f'deployment "{put.name}" was changed by somebody else',
                "Look at it again, then decide.",
                deployment=put.name,
                expected=expect,
                found=None if found is None else found.revision,
            )
        body: dict[str, Any] = {"state": put.state, "wanted": put.wanted, "revision": put.revision}
        body |= {"resolved": put.resolved, "address": put.address}
        self.event(f"deployment/{put.name}", "deployment.changed", body)
        return found
