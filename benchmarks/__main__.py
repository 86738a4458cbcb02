"""`python -m benchmarks`."""

import sys

from benchmarks.frame.command import main

sys.exit(main())
