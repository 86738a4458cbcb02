"""damage_faults.py FOLDER SUBJECT FAULTS SEED: damages a newest checkpoint again and again.

Its last line is JSON: how many faults were found, named, passed over by an older one, silent.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
PAGE = 4096


def state(step: int) -> dict[str, Any]:
    """The states of a small network and its optimiser, some 3 MB."""
    torch.manual_seed(step)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 384),
        torch.nn.Linear(384, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 64)).square().mean().backward()
    optimizer.step()
    return {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}


def tensors(tree: Any, path: str = "") -> Tensors:
    if isinstance(tree, torch.Tensor):
        return {path: tree}
    found: Tensors = {}
    if isinstance(tree, dict):
        for key, value in tree.items():
            found |= tensors(value, f"{path}.{key}".lstrip("."))
    return found


def same(one: Any, other: Any) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(
        a[n].shape == b[n].shape and a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a
    )


class TorchSave:
    def save(self, folder: Path, step: int) -> None:
        torch.save(state(step), folder / f"{step}.pt")

    def files(self, folder: Path) -> list[Path]:
        return [folder / "2.pt"]

    def load(self, folder: Path) -> Any:
        return torch.load(folder / "2.pt", weights_only=True)


class Safetensors:
    def save(self, folder: Path, step: int) -> None:
        from safetensors.torch import save_file

        save_file(tensors(state(step)), folder / f"{step}.safetensors")

    def files(self, folder: Path) -> list[Path]:
        return [folder / "2.safetensors"]

    def load(self, folder: Path) -> Any:
        from safetensors.torch import load_file

        return load_file(folder / "2.safetensors")


class Dcp:
    def save(self, folder: Path, step: int) -> None:
        import torch.distributed.checkpoint as dcp

        dcp.save(state(step), storage_writer=dcp.FileSystemWriter(folder / str(step)), no_dist=True)

    def files(self, folder: Path) -> list[Path]:
        return [each for each in (folder / "2").rglob("*") if each.is_file()]

    def load(self, folder: Path) -> Any:
        import torch.distributed.checkpoint as dcp

        found = state(3)
        dcp.load(found, storage_reader=dcp.FileSystemReader(folder / "2"), no_dist=True)
        return found


class Penstock:
    """As a run does it that begins again: the newest whole one, then each rank loads."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.named: list[str] = []

    def blobs(self, folder: Path) -> Any:
        from penstock.blobs import open_blobs

        return open_blobs(f"file://{folder}/blobs")

    def save(self, folder: Path, step: int) -> None:
        import penstock.checkpoints as ck
        from penstock.records import Checkpoint

        blobs = self.blobs(folder)
        parts = []
        for rank in range(2):
            plan = ck.plan(state(step), {"rank": torch.full((4,), rank)}, rank, 2)
            buffer = memoryview(bytearray(plan.nbytes))
            plan.copy_into(buffer)
            parts.append(ck.persist(buffer, plan.index, blobs))
        manifest, _ = ck.assemble("run", step, 1, 2, parts, {})
        size = sum(part["nbytes"] for part in parts)
        self.rows.append(Checkpoint("run", step, blobs.put(manifest), 1, 0.0, size))

    def files(self, folder: Path) -> list[Path]:
        import penstock.checkpoints as ck

        blobs = self.blobs(folder)
        newest = self.rows[-1]
        parts = ck.read_manifest(blobs, newest.digest).blobs
        return [blobs.path(digest) for digest in (*parts, newest.digest)]

    def load(self, folder: Path) -> Any:
        import penstock.checkpoints as ck

        blobs = self.blobs(folder)
        found = ck.newest_whole(self.rows, blobs)
        self.named = [str(damage) + " " + " ".join(damage.tensors) for damage in found.damages]
        return ck.load(blobs, found.manifest, 0, 2).shared


def harm(path: Path, kind: str, chance: random.Random) -> bool:
    """One fault; whether it changed anything."""
    before = path.read_bytes()
    data = bytearray(before)
    at = chance.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "page":
        low = at // PAGE * PAGE
        high = min(len(data), low + PAGE)
        data[low:high] = bytes(high - low)
    else:
        del data[at:]
    path.chmod(0o644)
    path.write_bytes(data)
    return bytes(data) != before


def tally(subject: Any, master: Path, work: Path, kind: str, chance: random.Random) -> list[str]:
    """What became of one fault: some of found, named by tensor, older used, silent, harmless."""
    while True:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(master, work)
        files = subject.files(work)
        [path] = chance.choices(files, [each.stat().st_size for each in files])
        if harm(path, kind, chance):
            break
    names = tensors(state(2))
    try:
        loaded = subject.load(work)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return ["found", *(["named by tensor"] if any(n in str(error) for n in names) else [])]
    told = getattr(subject, "named", [])
    if told:
        named = any(name in line for line in told for name in names) or "manifest" in told[0]
        older = ["older used"] if same(loaded, state(1)) else []
        return ["found", *(["named by tensor"] if named else []), *older]
    if same(tensors(loaded), tensors(state(2))):
        return ["harmless"]
    return ["silent"]


def main(folder: Path, name: str, faults: int, seed: int) -> dict[str, int]:
    subjects: dict[str, Callable[[], Any]] = {
        "Penstock": Penstock,
        "torch.save": TorchSave,
        "safetensors": Safetensors,
        "DCP": Dcp,
    }
    subject = subjects[name]()
    master = folder / "master"
    master.mkdir()
    for step in (1, 2):
        subject.save(master, step)
    if not same(tensors(subject.load(master)), tensors(state(2))):
        raise SystemExit(f"{name} does not give back what it was given")
    counts = dict.fromkeys(("found", "named by tensor", "older used", "silent", "harmless"), 0)
    chance = random.Random(seed)
    for number in range(faults):
        kind = ("flip", "page", "truncate")[number % 3]
        for what in tally(subject, master, folder / "work", kind, chance):
            counts[what] += 1
    return counts


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    told = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps(told))
