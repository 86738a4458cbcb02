"""What can travel, under which name, and what is refused."""

from __future__ import annotations

import functools
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.base.errors import BadInput, CannotTravel, MissingMainGuard, NotFound, UserCodeFailed
from penstock.jobs.source import load, locate

SHOW = """
from penstock.jobs.source import locate
from penstock.base.errors import PenstockError
def fit(run): ...
class Trainer:
    @staticmethod
    def fit(run): ...
def show(function):
    try:
        entry = locate(function)
        print(entry.text, entry.root, entry.file)
    except PenstockError as error:
        print(error.code, error.facts)
if __name__ == "__main__":
    show(fit)
    show(Trainer.fit)
"""


def run(*arguments: str, cwd: Path, path: Path | None = None) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_function_of_a_module_is_named_by_module_and_qualname(project):
    project.write(pkg____init__="", pkg__train="def fit(run): ...")
    entry = locate(project.get("pkg.train", "fit"))
    assert (entry.text, entry.root) == ("pkg.train:fit", project.root)
    assert entry.file == project.root / "pkg" / "train.py"


def test_what_was_located_can_be_loaded(project):
    project.write(train="class Trainer:\n    @staticmethod\n    def fit(run): return 7\n")
    entry = locate(project.get("train", "Trainer").fit)
    assert entry.text == "train:Trainer.fit"
    assert load(entry.text)(None) == 7


def test_a_script_is_named_by_its_file(tmp_path):
    (tmp_path / "train.py").write_text(SHOW)
    file = tmp_path / "train.py"
    assert run("train.py", cwd=tmp_path) == [
        f"train:fit {tmp_path} {file}",
        f"train:Trainer.fit {tmp_path} {file}",
    ]


def test_a_script_in_a_package_has_the_dotted_name_where_the_package_can_be_imported(tmp_path):
    script = tmp_path / "pkg" / "deep" / "train.py"
    script.parent.mkdir(parents=True)
    for folder in (script.parent, script.parent.parent):
        (folder / "__init__.py").touch()
    script.write_text(SHOW)
    by_module = run("-m", "pkg.deep.train", cwd=tmp_path)
    by_file = run(str(script), cwd=Path("/"), path=tmp_path)
    alone = run(str(script), cwd=Path("/"))
    assert by_module[0] == by_file[0] == f"pkg.deep.train:fit {tmp_path} {script}"
    assert alone[0] == f"train:fit {script.parent} {script}"


def test_a_script_that_hides_a_module_of_python_is_refused(tmp_path):
    (tmp_path / "code.py").write_text(SHOW)
    assert run("code.py", cwd=tmp_path)[0].startswith("cannot-travel")


def test_a_script_whose_name_cannot_be_imported_is_refused(tmp_path):
    (tmp_path / "train.v2.py").write_text(SHOW)
    assert run("train.v2.py", cwd=tmp_path)[0].startswith("cannot-travel")


def test_python_minus_c_cannot_travel(tmp_path):
    assert run("-c", SHOW, cwd=tmp_path)[0].startswith("cannot-travel")


def test_what_was_typed_is_found_in_its_own_process_alone(tmp_path):
    typed = (
        "from penstock.jobs.source import load, locate\n"
        "def fit(): pass\n"
        "entry = locate(fit, here=True)\n"
        "assert load(entry.text) is fit and not entry.in_file\n"
        "before, fit = fit, print\n"
        "try: locate(before, here=True)\n"
        "except Exception as error: print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", typed], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "cannot-travel\n"), done.stderr


def test_a_prompt_cannot_travel(tmp_path):
    done = subprocess.run(
        [sys.executable, "-"], input=SHOW, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith("cannot-travel"), done.stderr


class Callable:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


def nested():
    def inner() -> None: ...

    return inner


def replaced() -> None: ...


was = replaced


def replaced() -> None: ...


@pytest.mark.parametrize(
    ("thing", "word"),
    [
        (lambda: 0, "lambda"),
        (nested(), "inside a function"),
        (functools.partial(nested), "partial"),
        (Callable(), "Callable"),
        (Callable().method, "bound"),
        (math.sqrt, "not written in Python"),
        (was, "not the function"),
    ],
)
def test_what_another_process_could_not_find_is_refused_with_a_remedy(thing, word):
    with pytest.raises(CannotTravel, match=word) as caught:
        locate(thing)
    assert caught.value.fix
    assert pickle.loads(pickle.dumps(caught.value)).as_dict() == caught.value.as_dict()


def test_a_class_travels_like_a_function():
    assert locate(Callable).text.endswith("test_locate:Callable")


def test_a_decorated_function_travels_when_it_keeps_its_name(project):
    project.write(
        train="import functools\n"
        "def twice(f):\n    @functools.wraps(f)\n    def inner(): ...\n    return inner\n"
        "@twice\ndef fit(run): ...\n"
    )
    assert locate(project.get("train", "fit")).text == "train:fit"


def test_a_cached_function_travels(project):
    project.write(train="import functools\n@functools.cache\ndef fit(run): return 7\n")
    assert locate(project.get("train", "fit")).text == "train:fit"
    assert list(project.identity().parts) == ["train.fit", "train.functools"]


@pytest.mark.parametrize("text", ["train", ":fit", "train:", ""])
def test_text_that_names_no_function_is_bad_input(text):
    with pytest.raises(BadInput, match="names no function"):
        load(text)


def test_a_module_that_is_not_there_is_not_found():
    with pytest.raises(NotFound, match=r'no module "no_such_module\.train"'):
        load("no_such_module.train:fit")


def test_a_function_that_is_not_there_offers_the_nearest(project):
    project.write(train="def fit(run): ...")
    with pytest.raises(NotFound, match='Did you mean "fit"'):
        load("train:fitt")


def test_a_module_that_raises_keeps_its_traceback(project):
    project.write(train="def deep():\n    return 1 / 0\ndeep()\n")
    with pytest.raises(UserCodeFailed, match="ZeroDivisionError") as caught:
        load("train:fit")
    assert "in deep" in caught.value.facts["traceback"]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_missing_package_inside_the_module_is_the_users_error_not_a_missing_module(project):
    project.write(train="import no_such_package\n")
    with pytest.raises(UserCodeFailed, match="no_such_package"):
        load("train:fit")


def test_a_script_that_exits_while_it_is_imported_is_told_of_the_guard(project):
    project.write(train="import sys\nsys.exit(3)\n")
    with pytest.raises(UserCodeFailed, match="exit code 3") as caught:
        load("train:fit")
    assert "__main__" in caught.value.fix


def test_an_error_of_penstock_passes_through_an_import_unchanged(project):
    project.write(
        train="from penstock.base.errors import MissingMainGuard\n"
        "raise MissingMainGuard('x', 'y')\n"
    )
    with pytest.raises(MissingMainGuard):
        load("train:fit")
