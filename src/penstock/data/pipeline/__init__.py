"""From picks to batches, ahead of the step: in threads, or in workers forked from the image.

plan     which samples are in a rank's part of a global batch; pure
work     samples -> batch: gather, map, collate; pure
threads  does the work ahead of the step, in this process
pool     does it in worker processes, whose batches come through shared memory
"""
