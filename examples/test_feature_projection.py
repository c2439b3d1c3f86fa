import feature_projection  # noqa: F401  (registers feature-projection)

from everlora.testing import battery

test_feature_projection = battery("feature-projection")
