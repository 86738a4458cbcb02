"""Agents on the nodes of a Ray cluster: Ray gives them a place, and nothing else.

`places` runs in the run's keeper, `inside` in Ray's workers. Controllers, agents and ranks never
import Ray: what they say to each other, what is lost and what goes on is decided without it.
"""
