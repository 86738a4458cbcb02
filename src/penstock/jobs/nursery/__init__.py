"""A warm process of a script, from which its runs get controllers, agents and, by them, images.

`__main__` is the process, `owner` its owner's side in the script, `asking` how a controller asks it
for an agent. Everything works without it, as cold processes.
"""
