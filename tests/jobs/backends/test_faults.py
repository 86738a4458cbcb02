"""Which machine is set aside."""

from penstock.jobs.backends.faults import Faults

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def test_a_machine_that_fails_again_and_again_is_set_aside_with_what_happened_there():
    faults = Faults()
    happened = ["rank 1 died by SIGBUS", "rank 1 hung", "its agent was lost: silent"]
    assert [faults.note(B, what, {A, C}) for what in happened] == [None, None, happened]
    assert faults.aside == {B}
    assert faults.note(B, "rank 1 hung", {A, C}) is None, "it is said once"


def test_what_fails_wherever_it_runs_sets_nobody_aside():
    faults = Faults()
    found = [faults.note(host, "rank 0 died by SIGSEGV", {A, B, C} - {host}) for host in (A, B) * 9]
    assert set(found) == {None} and not faults.aside


def test_the_only_machine_is_kept():
    faults = Faults()
    assert [faults.note(A, "rank 0 hung", set()) for _ in range(9)] == [None] * 9
