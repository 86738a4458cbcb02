"""The same training with Ray Train on a cluster: python cluster_ray.py RECORD STEPS ADDRESS.

With one worker or two, as many as there is room for.
"""

import sys

import ray
from with_ray import environment, trainer


def main() -> None:
    folder, steps, address = sys.argv[1:]
    ray.init(address=address, logging_level="error", runtime_env=environment())
    trainer(folder, int(steps), (1, 2)).fit()
    ray.shutdown()


if __name__ == "__main__":
    main()
