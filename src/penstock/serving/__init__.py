"""Model versions that answer: replicas that speak the Open Inference Protocol, and their keeper.

Importing this loads no gRPC: only replicas, which are processes of their own, do.
"""

from penstock.serving.deployments import deploy, is_kept, stop, wait_ready
from penstock.serving.keeper import Keeper, foreground
from penstock.serving.kept import Pace

__all__ = ["Keeper", "Pace", "deploy", "foreground", "is_kept", "stop", "wait_ready"]
