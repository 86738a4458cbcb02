"""What Penstock can do, as one port: the doors (cli, server, facade) know nothing else."""

from penstock.home.port import Home

__all__ = ["Home"]
