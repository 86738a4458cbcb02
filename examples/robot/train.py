"""A robot arm learns to reach what its camera sees, from demonstrations: python train.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import penstock as ps
from penstock.data.samples import Stream, Windows

HERTZ, CAMERA_HERTZ, SECONDS, PIXELS = 50, 10, 2, 16
HISTORY, FRAMES, HORIZON = 8, 2, 16  # joints seen, frames seen, actions foretold
WINDOWS = Windows(
    history=HISTORY,
    horizon=HORIZON,
    history_columns=["joints"],
    horizon_columns=["action"],
    streams={"camera": Stream("robot-camera", history=FRAMES, rate=CAMERA_HERTZ)},
)


@dataclass
class Config:
    episodes: int = 300
    width: int = 128
    lr: float = 1e-3
    batch_size: int = 128
    epochs: int = 5


class Arm:
    """joints  float64 [2], radians; actions are their speeds, radians a second"""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.joints, self.wanted = draw.uniform([-1.2, 0.4], [1.2, 2.4], (2, 2))

    def points(self, joints: np.ndarray) -> np.ndarray:
        """Elbow and hand: [2, 2]."""
        angles = np.cumsum(joints)
        return np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)

    def move(self, action: np.ndarray) -> None:
        self.joints = self.joints + np.clip(action, -3, 3) / HERTZ

    def expert(self) -> np.ndarray:
        return np.clip(4 * (self.wanted - self.joints), -2, 2)

    def picture(self) -> np.ndarray:
        """uint8 [16, 16, 3]: target red, hand green, elbow blue."""
        dots = [self.points(self.wanted)[1], *self.points(self.joints)[::-1]]
        grid = np.linspace(-2.2, 2.2, PIXELS)
        far = np.stack([(grid[:, None] - y) ** 2 + (grid - x) ** 2 for x, y in dots], axis=-1)
        return (255 * np.exp(-far / 0.1)).astype(np.uint8)

    def distance(self) -> float:
        return np.linalg.norm((self.points(self.joints) - self.points(self.wanted))[1])


def demonstrations(episodes: int, camera: bool) -> Iterator[dict[str, Any]]:
    """The arm's own rows, 50 a second, or its camera's, 10 a second: two recorders, two clocks."""
    for episode in range(episodes):
        arm, noise = Arm(episode), np.random.default_rng([episode, 1])
        for step in range(SECONDS * HERTZ):
            at = {"episode": episode, "time": step / HERTZ, "key": f"{episode}/{step}"}
            if not camera:
                yield {**at, "joints": arm.joints.astype("f4"), "action": arm.expert().astype("f4")}
            elif step % (HERTZ // CAMERA_HERTZ) == 0:
                yield {**at, "image": arm.picture()}
            arm.move(arm.expert() + noise.normal(0, 0.5, 2))


class Policy(nn.Module):
    """joints float32 [B, 8, 2], camera_image uint8 [B, 2, 16, 16, 3] -> actions [B, 16, 2]"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(3 * FRAMES, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.act = nn.Sequential(
            nn.Linear(32 * (PIXELS // 2) ** 2 + 2 * HISTORY, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * HORIZON),
        )  # fmt: skip

    def forward(self, joints: torch.Tensor, camera_image: torch.Tensor) -> torch.Tensor:
        frames = camera_image.float().div(255).permute(0, 1, 4, 2, 3).flatten(1, 2)
        seen = torch.cat([self.see(frames), joints.flatten(1)], dim=1)
        return self.act(seen).unflatten(1, (HORIZON, 2))


def loss_of(actions: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean squared error per sample, [B]; what lies behind the episode's end does not count."""
    real = ~batch["pad_mask_ahead"].unsqueeze(-1)
    return ((actions - batch["action"]) ** 2 * real).sum((1, 2)) / (2 * real.sum((1, 2)))


def fit(run: ps.Run, config: Config) -> None:
    policy = run.distribute(Policy(config.width))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.lr)
    how = {"samples": WINDOWS, "batch_size": config.batch_size}
    train = run.data("robot:train", **how, epochs=config.epochs)
    test = run.data("robot:test", **how, shuffle=False)
    run.track(policy=policy, optimizer=optimizer, train=train)
    for batch in run.steps(train):
        loss = loss_of(policy(batch["joints"], batch["camera_image"]), batch).mean()
        run.backward(loss)
        run.step(optimizer, clip=1.0)
        run.log({"train/loss": loss})
        if run.every(train.steps_per_epoch):
            error = lambda b: loss_of(policy(b["joints"], b["camera_image"]), b)  # noqa: E731
            run.log({"test/loss": run.evaluate(error, test)})
    run.publish("robot-policy", policy, test.example(2), inputs=["joints", "camera_image"])


def reached(model: Any, episodes: range) -> float:
    """Mean distance of hand and target after two seconds; model None: the arm stays still."""
    total = 0.0
    for episode in episodes:
        arm = Arm(episode)
        joints, frames = [arm.joints] * HISTORY, [arm.picture()] * FRAMES
        for step in range(SECONDS * HERTZ if model else 0):
            if step % (HERTZ // CAMERA_HERTZ) == 0:
                frames = [*frames[1:], arm.picture()]
                seen = {"joints": np.float32([joints]), "camera_image": np.stack([frames])}
                actions = model(seen)[0]
            arm.move(actions[step % (HERTZ // CAMERA_HERTZ)])  # five of sixteen, then look again
            joints = [*joints[1:], arm.joints]
        total += arm.distance() / len(episodes)
    return total


def main() -> None:
    how = {"key": "key", "by": "episode", "splits": {"train": 0.9, "test": 0.1}}
    for name, camera in (("robot", False), ("robot-camera", True)):
        params = {"episodes": Config.episodes, "camera": camera}
        ps.prepare(name, demonstrations, params=params, **how)
    trained = ps.train(fit, Config(), name="robot", workers=2)
    new = range(10_000, 10_050)  # targets of no demonstration
    still, learned = reached(None, new), reached(ps.load(trained.model), new)
    print(f"distance to the target: {still:.3f} when standing still, {learned:.3f} as learned")


if __name__ == "__main__":
    ps.main(main)
