"""Ranks that somebody else started: torchrun, SLURM's srun, or Ray Train.

The script itself becomes a rank. Rank 0's process owns the run: a thread of it holds the lease and
does the controller's work; all ranks, itself included, speak to it over a TCPStore that it hosts.

seat      who this process is, by its environment; pure. `here` asks Ray Train first (`raytrain`)
carried   a loop for Ray Train's workers, with what it takes along; `reaching`: the stores, there
exchange  the store: how ranks meet, and what they send each other
link      a rank's line to the owner (`jobs.link.Link`), with the thread that persists its parts
owner     the thread that owns the run
watch     a rank's part in the watch for hangs; `watcher` is the process that looks, one a machine
page      what they share: the page of words, and who is there
signals   SIGTERM and SIGUSR1 drain; SLURM is asked to start the job again
launching `train` under a launcher
"""
