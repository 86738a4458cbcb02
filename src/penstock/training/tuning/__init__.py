"""Search over a config's values: trials that are ordinary runs, and one row of a study.

`space` says what may vary, `sampling` what to try next, `pruning` what to give up: all three are
functions of what is known, without state. `study` keeps and reads back, `live` is one trial under
way, `driver` brings them together, `tune.tune` is the call.
"""
