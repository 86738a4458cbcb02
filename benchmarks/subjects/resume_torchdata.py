"""torchdata's StatefulDataLoader over memory maps: the state is taken there, then loaded."""

from __future__ import annotations

import resume_rows as data
import torch
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader


class Rows(Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return torch.from_numpy(self.x[row].copy())


def main():
    folder, told = data.options()
    dataset = Rows(data.memmap(folder, told["rows"]))
    states = {}

    def loader():
        return StatefulDataLoader(dataset, batch_size=data.BATCH, shuffle=True)

    for share in (0.1, 0.5, 0.9):
        torch.manual_seed(1)
        there = loader()
        batches = iter(there)
        for _ in range(int(share * len(there))):
            next(batches)
        states[share] = there.state_dict()

    def first(share):
        made = loader()
        made.load_state_dict(states[share])
        batches = iter(made)
        next(batches)
        return batches

    data.measure(first, told)


if __name__ == "__main__":
    main()
