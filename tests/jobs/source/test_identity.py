"""What changes an identity, what does not, and how the difference is told."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.jobs.source import difference, identity

TRAIN = """
import math
import helpers
from dataclasses import dataclass
from shapes import Net as Model, SIZES

RATE = 1e-3
TABLE = {"a": 1}

@dataclass
class Config:
    width: int = 64

def unrelated(x):
    return x

def fit(run, config: Config, depth=SIZES[0]):
    model = Model()
    return helpers.outer(RATE) + math.pi + TABLE["a"]
"""
HELPERS = """
from deep.inner import scale

def outer(x):
    return scale(x)

def bystander(x):
    return x
"""
INNER = """
FACTOR = 3

def scale(x):
    return x * FACTOR
"""
SHAPES = """
SIZES = (1, 2)

class Base:
    def forward(self, x):
        return x

class Net(Base):
    def own(self):
        return 1
"""
FILES = {
    "train": TRAIN,
    "helpers": HELPERS,
    "deep____init__": "",
    "deep__inner": INNER,
    "shapes": SHAPES,
}

HARMFUL = [
    ("deep__inner", "x * FACTOR", "x + FACTOR", "deep.inner.scale changed"),
    ("deep__inner", "FACTOR = 3", "FACTOR = 4", "deep.inner.FACTOR changed"),
    ("helpers", "return scale(x)", "return scale(x) + 1", "helpers.outer changed"),
    ("shapes", "return x", "return -x", "shapes.Base changed"),
    ("shapes", "return 1", "return 2", "shapes.Net changed"),
    ("shapes", "(1, 2)", "(2, 2)", "shapes.SIZES changed"),
    ("train", "RATE = 1e-3", "RATE = 1e-4", "train.RATE changed"),
    ("train", '{"a": 1}', '{"a": 2}', "train.TABLE changed"),
    ("train", "width: int = 64", "width: int = 65", "train.Config changed"),
    ("train", "depth=SIZES[0]", "depth=SIZES[1]", "train.fit changed"),
    ("train", "@dataclass\n", "", "train.Config changed"),
    ("train", "Net as Model", "Base as Model", "train.Model changed"),
    ("helpers", "from deep.inner import scale", "from deep.inner import FACTOR as scale",
     "deep.inner.scale is no longer used"),
]  # fmt: skip

HARMLESS = [
    ("deep__inner", "    return x * FACTOR", "    # why\n    return (x\n        * FACTOR)"),
    ("deep__inner", "FACTOR = 3", "FACTOR = 0x3  # three"),
    ("helpers", "def outer(x):", 'def outer(x):\n    """Scale it."""'),
    ("helpers", "return x", "return x + 1"),  # of the bystander
    ("shapes", "class Net(Base):", 'class Net(Base):\n    """A net."""\n'),
    ("train", "    return x\n", "    return x * 2\n"),  # of the unrelated function
    ("train", "import math", "import math\nimport json\n\nnew = 1\n"),
    ("train", '"a"', "'a'"),
]


def edited(edits):
    files = dict(FILES)
    for module, old, new in edits:
        assert old in files[module]
        files[module] = files[module].replace(old, new)
    return files


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(st.sampled_from(HARMLESS), min_size=1, max_size=4, unique_by=lambda e: e[:2]))
def test_what_does_not_matter_does_not_change_the_identity(project, edits):
    project.write(**FILES)
    before = project.identity()
    project.write(**edited(edits))
    after = project.identity()
    assert difference(before.parts, after.parts) == []
    assert before.digest == after.digest


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(harm=st.sampled_from(HARMFUL), noise=st.sampled_from(HARMLESS))
def test_what_matters_changes_the_identity_and_is_named(project, harm, noise):
    *edit, line = harm
    project.write(**FILES)
    before = project.identity()
    try:
        project.write(**edited([noise, tuple(edit)]))
    except AssertionError:  # the noise rewrote the place of the harm
        project.write(**edited([tuple(edit)]))
    after = project.identity()
    assert before.digest != after.digest
    assert line in difference(before.parts, after.parts)


@pytest.mark.parametrize("harm", HARMFUL, ids=lambda harm: harm[3])
def test_only_what_changed_is_named(project, harm):
    *edit, line = harm
    project.write(**FILES)
    before = project.identity()
    project.write(**edited([tuple(edit)]))
    lines = difference(before.parts, project.identity().parts)
    assert line in lines
    assert len([told for told in lines if told.endswith(" changed")]) <= 1 + ("import" in edit[1])


SCRIPT = """
from penstock.jobs.source import identity
import json, train
print(json.dumps([identity(train.fit).digest, identity(train.fit).parts]))
"""


def test_every_process_finds_the_same_identity_whatever_its_hash_seed(project):
    project.write(**FILES, other=SCRIPT)
    mine = project.identity()
    for seed in ("0", "1", "77"):
        done = subprocess.run(
            [sys.executable, "other.py"],
            cwd=project.root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [mine.digest, mine.parts]


def test_a_script_and_the_module_of_its_file_have_one_identity(project):
    main = "\nif __name__ == '__main__':\n    from penstock.jobs.source import identity\n"
    project.write(**{**FILES, "train": TRAIN + main + "    print(identity(fit).digest)\n"})
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=project.root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == project.identity().digest


def test_functions_that_call_each_other_are_followed_once(project):
    project.write(
        train="import other\ndef fit(n):\n    return other.back(n)\n",
        other="import train\ndef back(n):\n    return train.fit(n - 1) if n else 0\n",
    )
    assert {"train.fit", "other.back"} <= set(project.identity().parts)


def test_modules_that_import_a_name_from_each_other_end(project):
    project.write(
        train="import one\ndef fit():\n    return one.x\n",
        one="try:\n    from two import x\nexcept ImportError:\n    x = 1\n",
        two="from one import x\n",
    )
    assert {"one.x", "two.x"} <= set(project.identity().parts)


def test_an_installed_package_counts_by_its_version(project):
    project.write(
        train="import numpy as np\nimport sklearn.svm\ndef fit():\n    return np, sklearn\n"
    )
    parts = project.identity().parts
    import numpy

    assert parts["package numpy"] == numpy.__version__
    assert "package scikit-learn" in parts
    older = {**parts, "package numpy": "1.0"}
    assert difference(older, parts) == [f"package numpy 1.0 became {numpy.__version__}"]


def test_another_name_of_an_installed_package_is_another_identity(project):
    project.write(train="from math import sin as f\ndef fit():\n    return f(1)\n")
    before = project.identity()
    project.write(train="from math import cos as f\ndef fit():\n    return f(1)\n")
    assert difference(before.parts, project.identity().parts) == ["train.f changed"]


def test_what_a_function_imports_when_it_is_called_is_followed(project):
    project.write(train="def fit():\n    from late import step\n    return step()\n")
    project.write(late="def step():\n    return 1\ndef other():\n    return 1\n")
    before = project.identity()
    assert "late.step" in before.parts
    project.write(late="def step():\n    return 2\ndef other():\n    return 1\n")
    assert difference(before.parts, project.identity().parts) == ["late.step changed"]


def test_an_import_does_not_change_the_identity_before_and_after_the_first_call(project):
    project.write(
        train="def fit():\n    from late import WIDTH\n    return WIDTH\n",
        late="import os\nWIDTH = len(os.environ)\n",
    )
    fit = project.get("train", "fit")
    before = identity(fit)
    fit()
    assert "late" in sys.modules
    assert identity(fit) == before


def test_relative_imports_and_packages_are_followed(project):
    project.write(
        pkg____init__="from .part import f\n",
        pkg__part="from . import low\ndef f():\n    return low.g()\n",
        pkg__low="def g():\n    return 1\n",
        train="import pkg\nimport pkg.low\ndef fit():\n    return pkg.f() + pkg.low.g()\n",
    )
    assert {"pkg.part.f", "pkg.low.g", "pkg.f"} <= set(project.identity().parts)


def test_a_global_that_is_computed_counts_by_its_value(project, monkeypatch):
    text = "import os\nWIDTH = int(os.environ['TEST_WIDTH'])\ndef fit():\n    return WIDTH\n"
    project.write(train=text)
    monkeypatch.setenv("TEST_WIDTH", "64")
    before = project.identity()
    assert project.identity() == before
    monkeypatch.setenv("TEST_WIDTH", "65")
    assert difference(before.parts, project.identity().parts) == ["train.WIDTH changed"]


@pytest.mark.parametrize(
    "value",
    [
        "[{}, 'x']",
        "{{'a': [{}]}}",
        "{{{}, 5}}",
        "np.arange({})",
        "{{n: np.full(2, n) for n in range({})}}",
        "Frozen([{}])",
    ],
)
def test_what_a_module_computes_counts_by_its_value(project, monkeypatch, value):
    text = (
        "import os\nfrom dataclasses import dataclass\nimport numpy as np\n"
        "@dataclass(frozen=True)\nclass Frozen:\n    inner: list\n"
        "COUNT = int(os.environ['TEST_WIDTH'])\nTABLE = " + value.format("COUNT") + "\n"
    )
    project.write(tables=text, train="import tables\ndef fit():\n    return len(tables.TABLE)\n")
    monkeypatch.setenv("TEST_WIDTH", "3")
    before = project.identity()
    assert project.identity() == before
    monkeypatch.setenv("TEST_WIDTH", "4")
    changed = difference(before.parts, project.identity().parts)
    assert changed == ["tables.COUNT changed", "tables.TABLE changed"]


@pytest.mark.parametrize(
    "change",
    [
        "SEEN['x'] = 1",
        "del SEEN['old']",
        "SEEN.update(x=1)",
        "SEEN.setdefault('x', []).append(1)",
        "global SEEN; SEEN = {1: 2}",
        "import other; other.fill()",
        "import train; train.SEEN.clear()",
        "SEEN['old'].sort(reverse=True)",
        "random.shuffle(SEEN['old'])",
        "np.add(SEEN['array'], 1, out=SEEN['array'])",
        "torch.zeros_(SEEN)",
    ],
)
def test_a_global_that_the_program_fills_does_not_change_the_identity(project, change):
    project.write(
        train="import random\nimport numpy as np\n"
        "SEEN = dict(old=[1, 2, 3], array=np.arange(3))\n"
        "class torch:\n    zeros_ = lambda: None\n"
        f"def fit():\n    {change}\n",
        other="def fill():\n    from train import SEEN\n    SEEN['x'] = 1\n",
    )
    fit = project.get("train", "fit")
    before = identity(fit)
    with contextlib.suppress(TypeError):
        fit()
    assert identity(fit) == before


def test_what_is_too_large_to_be_looked_at_each_time_counts_by_its_statement(project):
    project.write(train="TABLE = list(range(1 << 18))\ndef fit():\n    return TABLE[0]\n")
    fit = project.get("train", "fit")
    before = identity(fit)
    fit.__globals__["TABLE"][0] = 7
    assert identity(fit) == before


def test_a_statement_that_changes_what_a_module_does_counts(project):
    text = "import decimal\ndecimal.getcontext().prec = {}\ndef fit():\n    return decimal\n"
    project.write(train=text.format(5))
    before = project.identity()
    project.write(train=text.format(6))
    assert difference(before.parts, project.identity().parts) == ["train.decimal changed"]


def test_functions_in_a_registry_are_followed(project):
    project.write(
        registry="KNOWN = {}\ndef register(f):\n    KNOWN[f.__name__] = f\n    return f\n",
        steps="from registry import register\n@register\ndef a():\n    return 1\n",
        train="import steps\nfrom registry import KNOWN\ndef fit():\n    return KNOWN['a']()\n",
    )
    before = project.identity()
    assert "steps.a" in before.parts
    project.write(steps="from registry import register\n@register\ndef a():\n    return 2\n")
    assert difference(before.parts, project.identity().parts) == ["steps.a changed"]


def test_what_stands_under_the_main_guard_does_not_count(project):
    text = "import decimal\ndef fit():\n    return decimal\nif __name__ == '__main__':\n    "
    project.write(train=text + "decimal.getcontext()\n")
    before = project.identity()
    project.write(train=text + "decimal.localcontext()\n    print(fit())\n")
    assert project.identity() == before


@pytest.mark.parametrize(
    "body",
    [
        "return eval('hidden()')",
        "return globals()['hidden']()",
        "return getattr(run, 'hid' + 'den')",
        "exec('hidden()')",
    ],
)
def test_what_cannot_be_followed_counts_as_the_whole_module(project, body):
    text = f"def hidden():\n    return {{}}\ndef fit(run=None):\n    {body}\n"
    project.write(train=text.format(1))
    before = project.identity()
    project.write(train=text.format(1) + "# a comment\n")
    assert project.identity() == before
    project.write(train=text.format(2))
    assert "train (whole) changed" in difference(before.parts, project.identity().parts)


def test_a_computed_getattr_on_an_installed_package_is_no_reason_to_give_up(project):
    project.write(train="import numpy as np\ndef fit(name):\n    return getattr(np, name)\n")
    assert "train (whole)" not in project.identity().parts


def test_a_module_that_is_passed_around_counts_whole(project):
    project.write(train="import steps\ndef fit():\n    return use(steps)\ndef use(m): ...\n")
    project.write(steps="def a():\n    return 1\n")
    before = project.identity()
    project.write(steps="def a():\n    return 2\n")
    assert "steps.a changed" in difference(before.parts, project.identity().parts)


def test_a_star_import_is_read(project):
    project.write(train="from steps import *\ndef fit():\n    return a()\n")
    project.write(steps="def a():\n    return 1\ndef b():\n    return 1\n")
    before = project.identity()
    project.write(steps="def a():\n    return 1\ndef b():\n    return 2\n")
    assert project.identity() == before
    project.write(steps="def a():\n    return 2\ndef b():\n    return 2\n")
    assert difference(before.parts, project.identity().parts) == ["steps.a changed"]


def test_a_star_import_of_what_cannot_be_read_counts_whole(project):
    project.write(train="from steps import *\ndef fit():\n    return a()\n")
    project.write(steps="exec('def a():\\n    return 1')\n")
    before = project.identity()
    project.write(steps="exec('def a():\\n    return 2')\n")
    assert difference(before.parts, project.identity().parts) == ["steps (whole) changed"]


def test_a_local_name_does_not_refer_to_the_global_of_that_name(project):
    text = (
        "def loss(x):\n    return {}\ndef fit(x):\n    loss = x\n    return [x for x in [loss]]\n"
    )
    project.write(train=text.format(1))
    before = project.identity()
    project.write(train=text.format(2))
    assert project.identity() == before


NOTEBOOK = """
from penstock.jobs.source import identity
RATE = {rate}
class Net:
    size = {size}
    @staticmethod
    def forward(x): return x - 1
def helper(x): return Net.forward(x) + {added}
def fit(): return helper(RATE)
print(identity(fit).digest)
"""


def test_code_without_a_file_is_still_told_apart():
    def digest(rate=1, added=1, size=1):
        text = NOTEBOOK.format(rate=rate, added=added, size=size)
        command = [sys.executable, "-c", text]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert digest() == digest()
    assert len({digest(), digest(rate=2), digest(added=2), digest(size=2)}) == 4


def test_deeply_nested_source_is_read(project):
    project.write(train=f"X = {' + '.join(['1'] * 700)}\ndef fit():\n    return X\n")
    assert "train.X" in project.identity().parts


def test_equal_parts_have_no_difference_and_new_ones_are_named():
    assert difference({"a": "1"}, {"a": "1"}) == []
    assert difference({"a": "1"}, {"b": "1"}) == ["a is no longer used", "b is new"]
