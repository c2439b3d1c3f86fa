import mean_pull  # noqa: F401  (registers mean-pull)

from everlora.testing import battery

test_mean_pull = battery("mean-pull")
