"""Handwritten digits from raw arrays to an endpoint: python train.py, and run it again."""

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import penstock as ps

SUITE = ps.Suite(
    "digits",
    data="digits:test",
    metrics=ps.classification(label="label", inputs=["image"]),
    slices=["label"],
    gates=[ps.at_least("accuracy", 0.95), ps.not_worse("accuracy", margin=0.02)],
)


@dataclass
class Config:
    width: int = 64
    lr: float = 3e-3
    batch_size: int = 60  # global: the same at every world size
    epochs: int = 20
    shuffle_labels: bool = False  # a model that must not get through the gate
    pause: float = 0.0  # seconds per step, to have time to kill something


class Net(nn.Module):
    """image  float32 [B, 8, 8]  0..1  ->  logits  float32 [B, 10]"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(width * 16, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classify(self.convolve(image.unsqueeze(1)))


def make_digits() -> dict[str, Any]:
    """1,797 handwritten digits of scikit-learn, each named by its place in the collection."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return {
        "id": [f"digit-{number:04d}" for number in range(len(found.target))],
        "image": (found.images / 16).astype("float32"),
        "label": found.target.astype("int64"),
    }


def make_dataset() -> Any:
    splits = {"train": 0.7, "validation": 0.1, "test": 0.2}
    return ps.prepare("digits", make_digits, key="id", splits=splits)


def hits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (model(batch["image"]).argmax(1) == batch["label"]).float()


def fit(run: ps.Run, config: Config) -> None:
    """An ordinary PyTorch loop; every rank runs it."""
    model = run.distribute(Net(config.width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    train = run.data("digits:train", batch_size=config.batch_size, epochs=config.epochs)
    val = run.data("digits:validation", batch_size=90, shuffle=False)
    run.track(model=model, optimizer=optimizer, train=train)
    for batch in run.steps(train):
        labels = batch["label"]
        if config.shuffle_labels:
            labels = labels[torch.randperm(len(labels))]
        loss = F.cross_entropy(model(batch["image"]), labels)
        run.backward(loss)
        run.step(optimizer, clip=1.0)
        run.log({"train/loss": loss})
        if run.every(100):
            run.log({"val/accuracy": run.evaluate(lambda b: hits(model, b), val)})
            run.keep_best("val/accuracy")
        if config.pause:
            time.sleep(config.pause)
    run.publish("digits-cnn", model, example=val.example(2))


def main() -> None:
    make_dataset()
    trained = ps.train(fit, Config(), name="base", workers=2, checkpoint_every=20)
    report = ps.evaluate(SUITE, trained.model, baseline="digits-cnn@production")
    ps.promote(trained.model, "production", evidence=report)
    ps.deploy("digits", "digits-cnn@production")


if __name__ == "__main__":
    ps.main(main)
