import own_method  # noqa: F401  (registers capped-ella)

from everlora.testing import battery

test_capped_ella = battery("capped-ella")
