"""The physical limit: `numpy.take` from memory maps, with row numbers that are there already."""

from __future__ import annotations

import numpy as np
import torch
import windows_data as data


def main():
    folder, told = data.options()
    names = ("state", "action", "force", "camera")
    if not (folder / "written").exists():
        episodes = [data.episode(number, told["rows"]) for number in range(told["episodes"])]
        for name in names:
            np.save(folder / f"{name}.npy", np.concatenate([each[name] for each in episodes]))
        (folder / "written").touch()
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    draw = np.random.default_rng(told["seed"])
    last = len(arrays["camera"]) - data.FRAMES
    now = draw.integers(data.STEPS, 5 * last, (256, data.BATCH, 1))
    steps, frames = np.arange(data.STEPS), np.arange(data.FRAMES)
    rows = {"state": now - steps, "action": now - steps, "force": 2 * now - steps}
    rows["camera"] = now // 5 + frames

    def batches():
        while True:
            for number in range(256):
                yield {
                    name: torch.from_numpy(np.take(array, rows[name][number], axis=0))
                    for name, array in arrays.items()
                }

    data.measure(batches(), told["seconds"])


if __name__ == "__main__":
    main()
