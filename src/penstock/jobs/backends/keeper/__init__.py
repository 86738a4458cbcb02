"""A process beside the controller that gets places on other machines, and starts it again.

On one machine controller and agent start each other again. Where the agents are elsewhere, this
process stands in for them: whatever it takes to start agents (Ray, say) lives in it and not in the
controller, and it outlives the controller by as much as an agent would. `__main__` is the process,
`asking` the controller's side.
"""
