"""Examples in docstrings run."""

import doctest


def test_every_example_in_a_docstring_is_true(modules):
    failed = {
        module.__name__: result.failed
        for module in modules
        if (result := doctest.testmod(module)).failed
    }
    assert not failed


def test_there_are_examples(modules):
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert sum(bool(test.examples) for m in modules for test in finder.find(m)) > 10
