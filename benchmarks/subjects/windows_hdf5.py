"""An HDF5 file of one group per episode, and a torch Dataset over it that cuts windows."""

from __future__ import annotations

import h5py
import numpy as np
import torch
import windows_data as data
from torch.utils.data import DataLoader, Dataset, RandomSampler


class Windows(Dataset):
    """The file is opened once per process, on first use; an episode's arrays are looked up once."""

    def __init__(self, path, episodes, rows):
        self.path, self.episodes, self.rows = path, episodes, rows
        self.groups = None

    def __len__(self):
        return self.episodes * self.rows

    def __getitem__(self, number):
        if self.groups is None:
            self.file = h5py.File(self.path, "r")
            self.groups = [dict(self.file[str(e)].items()) for e in range(self.episodes)]
        episode, now = divmod(number, self.rows)
        group = self.groups[episode]
        state, state_pad = cut(group["state"], now - data.STEPS + 1, data.STEPS)
        action, action_pad = cut(group["action"], now, data.STEPS)
        force, force_pad = cut(group["force"], 2 * now - data.STEPS + 1, data.STEPS)
        camera, camera_pad = cut(group["camera"], now // 5 - data.FRAMES + 1, data.FRAMES)
        return {
            "state": state,
            "action": action,
            "force": force,
            "camera": camera,
            "state_pad": state_pad,
            "action_pad": action_pad,
            "force_pad": force_pad,
            "camera_pad": camera_pad,
        }


def cut(values, start, steps):
    """Rows start..start+steps-1, the ends repeated, and a mask of what is padding."""
    low, high = max(start, 0), min(start + steps, len(values))
    found = values[low:high]
    before, after = low - start, start + steps - high
    padding = np.zeros(steps, bool)
    if before or after:
        found = np.pad(found, [(before, after), *[(0, 0)] * (found.ndim - 1)], mode="edge")
        padding[:before] = True
        padding[steps - after :] = True
    return torch.from_numpy(found), torch.from_numpy(padding)


def main():
    folder, told = data.options()
    path = folder / "episodes.hdf5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            for number in range(told["episodes"]):
                group = file.create_group(str(number))
                for name, values in data.episode(number, told["rows"]).items():
                    group.create_dataset(name, data=values)
    windows = Windows(path, told["episodes"], told["rows"])
    torch.manual_seed(told["seed"])
    sampler = RandomSampler(windows, replacement=True, num_samples=1 << 30)
    loader = DataLoader(windows, data.BATCH, sampler=sampler, num_workers=told["workers"])
    data.measure(loader, told["seconds"])


if __name__ == "__main__":
    main()
