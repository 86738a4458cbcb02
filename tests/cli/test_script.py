"""`ps.main`: a script with the manners of the command line."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run_script(tmp_path, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text("import penstock as ps\n" + textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_error_is_one_message_with_its_place_and_code(tmp_path):
    done = run_script(
        tmp_path,
        """
        def main():
            raise ps.errors.NotFound("no dataset digitz", 'Did you mean "digits"?')
        if __name__ == "__main__":
            ps.main(main)
        """,
    )
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert lines[0] == "error [not-found] no dataset digitz"
    assert lines[1] == '  fix: Did you mean "digits"?'
    assert lines[2].strip().startswith(f"at:  {tmp_path / 'script.py'}:4 in main")
    assert "Traceback" not in done.stderr


def test_a_command_line_that_does_not_hold_is_told_without_the_parser_s_insides(tmp_path):
    script = """
        def fit(run, config):
            pass
        if __name__ == "__main__":
            ps.main(fit, {"lr": 0.1})
        """
    done = run_script(tmp_path, script, "--workers", "two")
    assert done.returncode == 2 and "--workers: 'two' is no number, and no range" in done.stderr
    assert "argparse" not in done.stderr and "at:" not in done.stderr


def test_the_script_s_own_bug_keeps_its_traceback(tmp_path):
    done = run_script(tmp_path, "def main():\n    1 / 0\nps.main(main)\n")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_the_traceback_of_a_training_function_comes_first(tmp_path):
    done = run_script(
        tmp_path,
        """
        def main():
            raise ps.errors.UserCodeFailed(
                "rank 1 raised KeyError at step 3", "Mend it.", traceback="Traceback: image\\n"
            )
        ps.main(main)
        """,
    )
    assert done.returncode == 8
    assert done.stderr.splitlines()[0] == "Traceback: image"
    assert done.stderr.splitlines()[1].startswith("error [user-code] rank 1 raised")


def test_the_traceback_of_a_training_function_has_no_frames_of_ours():
    from penstock.base.errors import NotFound
    from penstock.cli import failure

    error = NotFound('there is no dataset "digit"', 'Did you mean "digits"?')
    ours = Path(failure.__file__).parents[1] / "training" / "run.py"
    error.facts["traceback"] = (
        "Traceback (most recent call last):\n"
        '  File "train.py", line 72, in fit\n    train = run.data("digit:train")\n'
        f'  File "{ours}", line 103, in data\n    loader = reading.loader(source)\n'
        f"             ^^^^^^^^^^^^^^^\npenstock.base.errors.NotFound: {error}\n"
    )
    assert failure.text(error).splitlines() == [
        "Traceback (most recent call last):",
        '  File "train.py", line 72, in fit',
        '    train = run.data("digit:train")',
        'error [not-found] there is no dataset "digit"',
        '  fix: Did you mean "digits"?',
    ]


def test_ctrl_c_ends_clean(tmp_path):
    done = run_script(tmp_path, "def main():\n    raise KeyboardInterrupt\nps.main(main)\n")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_what_main_gives_is_given_back(tmp_path):
    done = run_script(tmp_path, "print(ps.main(lambda: 7))\n")
    assert done.stdout.split() == ["7"]


@pytest.mark.parametrize("argument", ["lrr=1", "--wokers"])
def test_a_wrong_command_line_is_one_message(tmp_path, argument):
    body = """
        def fit(run, config): ...
        ps.main(fit, {"lr": 0.1})
        """
    done = run_script(tmp_path, body, argument)
    assert done.returncode == 2
    assert done.stderr.startswith("error [bad-input]")


def test_help_shows_the_config(tmp_path):
    body = """
        def fit(run, config):
            "Fit digits."
        ps.main(fit, {"lr": 0.1, "model": {"width": 3}})
        """
    done = run_script(tmp_path, body, "--help")
    assert done.returncode == 0
    assert "Fit digits." in done.stdout
    assert "model.width=3" in done.stdout


def test_a_misspelt_option_offers_the_nearest(tmp_path):
    script = """
        def fit(run, config):
            pass
        if __name__ == "__main__":
            ps.main(fit, {"lr": 0.1})
        """
    done = run_script(tmp_path, script, "--wrokers", "2")
    assert done.returncode == 2 and 'Did you mean "--workers"?' in done.stderr
    call = "ps.main(lambda: ps.train(print, {}, chekpoint_every=3))"
    done = run_script(tmp_path, call)
    assert done.returncode == 2 and 'ps.train has no option "chekpoint_every"' in done.stderr
    assert 'Did you mean "checkpoint_every"?' in done.stderr and "Traceback" not in done.stderr
