"""What Penstock costs and gains, beside its peers: `python -m benchmarks --list`.

A benchmark is one file in this folder. Its first docstring line says what it measures; it has

    PEERS = {"torchrun": ["torch", "numpy"]}   # environment -> packages; may be empty or left out

    def measure(bench: Bench) -> None:
        def ours():   bench.add("Penstock", "recovery", "s", ...)
        def theirs(): bench.add("torchrun", "recovery", "s", ...)
        bench.alternate(bench.rounds(quick=3, full=10), ours, theirs)
        bench.ratio("torchrun / Penstock", "recovery", over="torchrun", under="Penstock")
        bench.at_most("Penstock recovers", 0.3, bench.median("Penstock", "recovery"), "s")

and nothing else: the frame lists it, makes the environments that its peers live in
(`make bench-env`; pinned by constraints.txt where it names the package), gives it a scratch folder
and a printed seed, ends every process that it started, prints the table and writes the JSON.
What a subject runs is a script in `subjects/`; both subjects are measured with the same instrument.
`frame/bench.py` has everything that a benchmark may call.
"""
