"""What changes, and who may change it: rows, leases, events, behind one port."""

from penstock.meta.open import open_meta, schema_of
from penstock.meta.port import Meta, Reader, Writer

__all__ = ["Meta", "Reader", "Writer", "open_meta", "schema_of"]
