import my_benchmark  # noqa: F401  (registers my-three and token_f1)

from everlora.testing import benchmark_battery, metric_battery

test_my_three = benchmark_battery("my-three")
test_token_f1 = metric_battery("token_f1")
