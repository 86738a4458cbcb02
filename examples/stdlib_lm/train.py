"""A small GPT learns Python from the standard library's own source: python train.py [--quick]."""

import math
import sys
import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import penstock as ps
from penstock.data.samples import Pack
from penstock.data.types import Tokens

QUICK = "--quick" in sys.argv
NAME = "stdlib-quick" if QUICK else "stdlib"
STDLIB = Path(sysconfig.get_path("stdlib"))
NOT_OURS = {"test", "tests", "idle_test", "site-packages", "dist-packages"}


@dataclass
class Config:
    data: str = NAME
    length: int = 128 if QUICK else 256  # tokens of a row; a token is a byte
    layers: int = 2 if QUICK else 4
    width: int = 64 if QUICK else 128
    lr: float = 4e-3 if QUICK else 3e-3
    batch_size: int = 32  # rows, at every number of workers


def clean(row: dict[str, Any]) -> dict[str, Any]:
    lines = [line.rstrip().expandtabs(4) for line in row["text"].splitlines()]
    return {**row, "text": "\n".join(lines).strip() + "\n"}


def tokenise(row: dict[str, Any]) -> dict[str, Any]:
    return {"key": row["key"], "tokens": np.frombuffer(row["text"].encode(), np.uint8)}


def prepare() -> Any:
    folders = [STDLIB / name for name in ("json", "logging", "email")] if QUICK else [STDLIB]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return ps.prepare(
        NAME,
        [str(p) for p in files if not NOT_OURS.intersection(p.relative_to(STDLIB).parts)],
        steps=[("map", clean), ("map", tokenise)],
        splits={"train": 0.9, "test": 0.1},
        dedupe="tokens",
        types={"tokens": Tokens()},
    )


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        parts = self.look(self.before(x)).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*parts, attn_mask=seen)  # four heads
        x = x + self.join(found.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.between(x))))


class GPT(nn.Module):
    """tokens uint8 [B, L], segment_ids, position_ids int32 [B, L] -> logits float32 [B, L, 256]"""

    def __init__(self, length: int, layers: int, width: int) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.tell = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 256))
        nn.init.normal_(self.bytes.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(
        self, tokens: torch.Tensor, segment_ids: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        same = segment_ids[:, :, None] == segment_ids[:, None, :]  # a file sees only itself
        seen = torch.ones_like(same).tril() & same
        x = self.bytes(tokens.int()) + self.places(position_ids)
        for block in self.blocks:
            x = block(x, seen[:, None])
        return self.tell(x)


def bits(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Bits that tell each row's next bytes, and how many bytes these are: [B] each."""
    logits = model(batch["tokens"], batch["segment_ids"], batch["position_ids"])
    nats = F.cross_entropy(logits[:, :-1].mT, batch["tokens"][:, 1:].long(), reduction="none")
    before, ids = batch["segment_ids"][:, :-1], batch["segment_ids"][:, 1:]
    told = (ids == before) & (ids > 0)
    return (nats * told).sum(1) / math.log(2), told.sum(1).float()


def fit(run: ps.Run, config: Config) -> None:
    model = run.distribute(GPT(config.length, config.layers, config.width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.1)
    how: dict[str, Any] = {"samples": Pack(config.length), "batch_size": config.batch_size}
    train = run.data(f"{config.data}:train", **how)
    test = run.data(f"{config.data}:test", **how, shuffle=False)
    slope = lambda step: min(1, (step + 1) / 20, 1.05 - step / len(train))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, slope)
    run.track(model=model, optimizer=optimizer, schedule=schedule, train=train)
    for batch in run.steps(train):
        total, count = bits(model, batch)
        run.backward(total.sum() / count.sum())
        run.step(optimizer, clip=1.0)
        schedule.step()
        run.log({"train/bits_per_byte": total.sum() / count.sum()})
    total, count = (run.evaluate(lambda b, n=n: bits(model, b)[n], test) for n in (0, 1))
    run.log({"test/bits_per_byte": total / count})
    run.publish("stdlib-gpt", model, test.example(2))


def sample(model: Any, count: int, length: int) -> str:
    draw, text = np.random.default_rng(0), list(b"import os\n\n\ndef ")
    for _ in range(count):
        seen = text[1 - length :]  # the last place of a row was never asked for more
        row = np.array([seen + [0] * (length - len(seen))], np.uint8)
        places = np.arange(length, dtype=np.int32)[None]
        ids = (places < len(seen)).astype(np.int32)
        told = model({"tokens": row, "segment_ids": ids, "position_ids": places})
        chances = np.exp(np.asarray(told, np.float64)[0, len(seen) - 1] / 0.7)
        text.append(int(draw.choice(256, p=chances / chances.sum())))
    return bytes(text).decode(errors="replace")


def main() -> None:
    prepare()
    trained = ps.train(fit, Config(), name=NAME, workers=2)
    files = ps.open(f"{NAME}:test")["tokens"]
    shares = np.bincount(np.concatenate(files)) / sum(map(len, files)) + 1e-12
    unigram = -(shares * np.log2(shares)).sum()
    packed = 8 * sum(len(zlib.compress(each, 9)) for each in files) / sum(map(len, files))
    found = ps.connect().run(NAME).metrics["test/bits_per_byte"][1]
    print(sample(ps.load(trained.model), 60 if QUICK else 360, Config().length))
    print(f"bits per byte: {found:.2f}; by frequency {unigram:.2f}; each file by zlib {packed:.2f}")


if __name__ == "__main__":
    ps.main(main)
