"""What Prometheus reads: counts and times, nothing of a check, a party or a visitor."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

_TIMES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter(
    "ageveil_requests", "Requests by route and status.", ("method", "route", "status"), registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "ageveil_request_seconds",
    "From the whole body to the answer.",
    ("route",),
    buckets=_TIMES,
    registry=REGISTRY,
)
MODEL_SECONDS = Histogram("ageveil_model_seconds", "The estimator alone.", buckets=_TIMES, registry=REGISTRY)
OUTCOMES = Counter("ageveil_outcomes", "Outcomes of tries.", ("outcome", "computed"), registry=REGISTRY)
REFUSED = Counter(
    "ageveil_refused", "Requests that ended in a problem, by its code.", ("code",), registry=REGISTRY
)
WAITING = Gauge("ageveil_waiting", "Tries that wait for the estimator.", registry=REGISTRY)
