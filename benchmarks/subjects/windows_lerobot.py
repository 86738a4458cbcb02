"""The episodes as a LeRobot dataset, at its one rate of 50 Hz, and its own windows.

LeRobot imports torchvision, whose build may not fit a torch without CUDA; its dataset needs none of
torchvision's own operations, so they are declared here, which lets it be imported.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import torch
import windows_data as data
from torch import library as operations
from torch.utils.data import DataLoader, RandomSampler

NAME = "bench/windows"
FPS = 50


def declare_operations():
    spec = importlib.util.find_spec("torchvision")
    text = Path(spec.origin).with_name("_meta_registrations.py").read_text()
    declared = operations.Library("torchvision", "DEF")
    for name in dict.fromkeys(re.findall(r'"(?:torchvision::)?(\w+)"\)', text)):
        declared.define(f"{name}(Tensor x) -> Tensor")
    return declared


def write(root, episodes, rows):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    shutil.rmtree(root, ignore_errors=True)
    vector = lambda n: {"dtype": "float32", "shape": (n,), "names": None}  # noqa: E731
    picture = {"dtype": "image", "shape": data.PICTURE, "names": ["height", "width", "channels"]}
    features = {"observation.state": vector(data.STATE), "action": vector(data.STATE)}
    features |= {"observation.force": vector(data.FORCE), "observation.image": picture}
    made = LeRobotDataset.create(NAME, fps=FPS, root=root, use_videos=False, features=features)
    for number in range(episodes):
        found = data.episode(number, rows)
        for row in range(rows):
            frame = {"observation.state": found["state"][row], "action": found["action"][row]}
            frame["observation.force"] = found["force"][2 * row]
            frame["observation.image"] = found["camera"][row // 5]
            made.add_frame(frame, task="none")
        made.save_episode()


def main():
    kept = declare_operations()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    folder, told = data.options()
    root = folder / "lerobot"
    if not (folder / "written").exists():
        write(root, told["episodes"], told["rows"])
        (folder / "written").touch()
    past = [-step / FPS for step in reversed(range(data.STEPS))]
    deltas = {"observation.state": past, "observation.force": past}
    deltas |= {"action": [step / FPS for step in range(data.STEPS)], "observation.image": [-0.1, 0]}
    windows = LeRobotDataset(NAME, root=root, delta_timestamps=deltas)
    torch.manual_seed(told["seed"])
    sampler = RandomSampler(windows, replacement=True, num_samples=1 << 30)
    loader = DataLoader(windows, data.BATCH, sampler=sampler, num_workers=told["workers"])
    data.measure(loader, told["seconds"])
    del kept


if __name__ == "__main__":
    main()
