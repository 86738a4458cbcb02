"""Loops of other trainers with a run: killed and run again, no bit of the weights differs."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.training.conftest import Project, until

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

LIGHTNING = """
    import sys
    import time
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset
    from penstock.training.callbacks.lightning import PenstockCallback
    from penstock.training.callbacks.loader import Resumable

    class Module(pl.LightningModule):
        def __init__(self, pause):
            super().__init__()
            self.pause = pause
            self.net = torch.nn.Sequential(
                torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3),
                torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 2),
            )

        def training_step(self, batch, index):
            time.sleep(self.pause)
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch, index):
            self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, gamma=0.9)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    if __name__ == "__main__":
        pl.seed_everything(3)
        torch.set_num_threads(1)
        points = torch.randn(200, 6)
        data = TensorDataset(points, (points.sum(1) > 0).long())
        callback = PenstockCallback("base", checkpoint_every=1)
        trainer = pl.Trainer(
            max_epochs=4, callbacks=[callback], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            val_check_interval=5, log_every_n_steps=1, accumulate_grad_batches=2,
        )
        module = Module(float(sys.argv[1]))
        train = Resumable(DataLoader(data, batch_size=25, shuffle=True))
        trainer.fit(module, train, DataLoader(data, batch_size=50))
        sums = [float(p.double().sum()) for p in module.net.state_dict().values()]
        print("WEIGHTS", callback.run.finished, callback.run.global_step, sums, flush=True)
    """

TRANSFORMERS = """
    import sys
    import time
    import torch
    import torch.nn.functional as F
    from transformers import Trainer, TrainingArguments
    from penstock.training.callbacks.transformers import PenstockCallback

    class Net(torch.nn.Module):
        def __init__(self, pause):
            super().__init__()
            self.pause = pause
            self.net = torch.nn.Sequential(
                torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3),
                torch.nn.BatchNorm1d(32), torch.nn.Linear(32, 2),
            )

        def forward(self, point, labels=None):
            time.sleep(self.pause if self.training else 0)
            scores = self.net(point)
            return {"loss": F.cross_entropy(scores, labels), "logits": scores}

    if __name__ == "__main__":
        torch.manual_seed(3)
        torch.set_num_threads(1)
        points = torch.randn(200, 6)
        data = [{"point": p, "labels": (p.sum() > 0).long()} for p in points]
        callback = PenstockCallback("base", checkpoint_every=1)
        model = Net(float(sys.argv[1]))
        arguments = TrainingArguments(
            "out", num_train_epochs=4, per_device_train_batch_size=25, save_strategy="no",
            gradient_accumulation_steps=2, logging_steps=2, eval_strategy="steps", eval_steps=3,
            report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=1e-2,
        )
        trainer = Trainer(
            model, arguments, train_dataset=data, eval_dataset=data[:50], callbacks=[callback]
        )
        trainer.train(resume_from_checkpoint=callback.checkpoint())
        sums = [float(p.double().sum()) for p in model.net.state_dict().values()]
        print("WEIGHTS", callback.run.finished, callback.run.global_step, sums, flush=True)
    """

# Scales begin so high that steps are skipped until they fit: a scaler begun anew would skip others.
SCALED = TRANSFORMERS.replace("learning_rate=1e-2", "learning_rate=1e-2, max_grad_norm=0").replace(
    "        trainer.train(",
    """        trainer.accelerator.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**127, backoff_factor=2.0**-16, growth_interval=4
        )
        trainer.train(""",
)


def weights(out: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in out.splitlines() if line.startswith("WEIGHTS")]


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Callable[[str, str], Project]]:
    projects = []

    def make(name: str, source: str) -> Project:
        projects.append(Project(tmp_path / name, source))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


@pytest.mark.interop
@pytest.mark.faults
@pytest.mark.parametrize(
    ("needs", "source"),
    [
        pytest.param("pytorch_lightning", LIGHTNING, id="lightning"),
        pytest.param("transformers", TRANSFORMERS, id="transformers"),
        pytest.param("transformers", SCALED, id="transformers-with-a-scaler"),
    ],
)
def test_a_killed_training_of_another_trainer_ends_with_the_weights_of_an_undisturbed_one(
    scripts: Callable[[str, str], Project], dice: random.Random, needs: str, source: str
) -> None:
    """Killed twice, at any step: in the middle of an epoch, at its end, beside a validation."""
    pytest.importorskip(needs)
    (expected,) = weights(scripts("twin", source).run("0"))
    project = scripts("project", source)
    for least in (dice.randint(1, 6), dice.randint(7, 12)):
        script = project.start("0.05")
        until("a checkpoint", lambda least=least: project.committed("base") >= least)
        script.send_signal(signal.SIGKILL)
        script.communicate()
    assert weights(project.run("0")) == [expected]
    run = project.newest("base")
    assert run.state == "finished" and run.step == 16
    resumed = [body["step"] for body in project.events("base", "attempt.resumed")]
    assert len(resumed) == 2 and 0 < resumed[0] < resumed[1] < 16
    (again,) = weights(project.run("0"))  # finished: its weights, and no step
    assert again == expected.replace("False", "True", 1)
