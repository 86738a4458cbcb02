"""Which machine fails again and again, and is set aside. Pure.

A fault is one attempt's first: a death by a signal, a hang, a lost agent; what users' functions
raise is theirs. A machine is set aside at its third one, if it had twice as many as any other: a
function that crashes wherever it runs sets nobody aside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_MANY = 3


@dataclass
class Faults:
    """Of one run, since its controller began.

    aside  addresses of machines that are set aside
    """

    aside: set[str] = field(default_factory=set)
    _found: dict[str, list[str]] = field(default_factory=dict)  # address -> what happened there

    def note(self, host: str, what: str, others: set[str]) -> list[str] | None:
        """What happened there, when it is to be set aside now; None otherwise.

        others  addresses of machines that the run has beside this one

        >>> faults = Faults()
        >>> [faults.note("10.0.0.2", "rank 1 died by SIGBUS", {"10.0.0.3"}) for _ in range(2)]
        [None, None]
        >>> len(faults.note("10.0.0.2", "rank 1 hung", {"10.0.0.3"}) or [])
        3
        """
        mine = self._found.setdefault(host, [])
        mine.append(what)
        most = max((len(each) for name, each in self._found.items() if name != host), default=0)
        if host in self.aside or not others or len(mine) < _MANY or len(mine) < 2 * most:
            return None
        self.aside.add(host)
        return list(mine)
