"""Where a run's agents are, and how its controller reaches them.

`processes` has one agent beside the controller. `fleet` shows several, on machines of their own, as
if they were one; who starts them there is a `Places`, and `hosting` is how. `port` is what the
controller knows of all that.
"""
