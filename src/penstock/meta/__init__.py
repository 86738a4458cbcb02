"""What changes, and who may change it: rows, leases, events, behind one port."""

from penstock.meta.open import open_meta, schema_of
from penstock.meta.port import Meta, Reader, Writer
from penstock.meta.probing import Probed, probe

__all__ = ["Meta", "Probed", "Reader", "Writer", "open_meta", "probe", "schema_of"]
