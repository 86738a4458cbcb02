"""The meta store in PostgreSQL, for controllers and servers of many machines.

`store` has the transactions, `rows` what differs in them (the clock, the cursor of events),
`schema` makes and migrates the tables, `address` reads the URL, `faults` tells what an error means.
"""
