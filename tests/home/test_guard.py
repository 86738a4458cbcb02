"""Verbs belong to the script; a rank that imports it gets one clear error."""

import os
import subprocess
import sys
import textwrap

import pytest

import penstock as ps

VERBS = ("prepare", "train", "evaluate", "promote", "deploy", "main")


def imported_by_a_rank(tmp_path, body: str) -> dict[str, str]:
    """Import a script as rank 1 does; returns the error it met, as code, what and fix."""
    (tmp_path / "script.py").write_text(textwrap.dedent(body))
    importer = (
        "import penstock as ps\n"
        "try:\n    import script\n"
        "except ps.PenstockError as e:\n    print(e.code, e.what, e.fix, sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", importer],
        env={**os.environ, "PENSTOCK_RANK": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    return dict(zip(("code", "what", "fix"), lines, strict=False))


def test_a_script_without_a_guard_is_named_with_the_remedy(tmp_path):
    error = imported_by_a_rank(tmp_path, 'import penstock as ps\nps.train(print, name="x")\n')
    assert error["code"] == "missing-main-guard"
    assert "script.py calls ps.train while it is imported" in error["what"]
    assert error["fix"].startswith("In script.py, put")  # a rank has a snapshot's path for it
    assert 'if __name__ == "__main__":' in error["fix"]


def test_the_guard_sees_through_functions_of_the_script(tmp_path):
    error = imported_by_a_rank(
        tmp_path,
        """
        import penstock as ps
        def main():
            ps.prepare("digits", print)
        ps.main(main)
        """,
    )
    assert error["code"] == "missing-main-guard"
    assert "ps.main" in error["what"]


def test_a_script_with_a_guard_is_imported(tmp_path):
    body = 'import penstock as ps\nif __name__ == "__main__":\n    ps.main(print)\n'
    assert imported_by_a_rank(tmp_path, body) == {}


@pytest.mark.parametrize("verb", VERBS)
def test_a_training_function_may_not_call_a_verb(verb, monkeypatch):
    monkeypatch.setenv("PENSTOCK_RANK", "2")
    from penstock.home import guard

    monkeypatch.setattr(guard, "_importing", lambda: None)
    arguments = {"promote": ("m", "a"), "main": (print,)}.get(verb, ("x", print))
    keywords = {"evidence": None} if verb == "promote" else {}
    with pytest.raises(ps.errors.BadInput, match=rf"ps\.{verb} was called inside rank 2"):
        getattr(ps, verb)(*arguments, **keywords)
