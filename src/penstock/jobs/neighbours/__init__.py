"""What agents on several machines give each other: cached shards, and states in memory."""

VARIABLE = "PENSTOCK_NEIGHBOURS"  # the file that says where they are; see `doors`
