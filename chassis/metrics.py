"""What a process counts for Prometheus.

With several workers prometheus-client adds their files up; then `PROMETHEUS_MULTIPROC_DIR` is set before this module is
imported, and the supervisor serves the sums.
"""

from __future__ import annotations

import grpc
import prometheus_client
from prometheus_client import multiprocess

_LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WRITES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._calls = prometheus_client.Counter(
            "insta_calls", "Calls that ended.", ["method", "code"], registry=self.registry
        )
        self._seconds = prometheus_client.Histogram(
            "insta_call_seconds",
            "How long calls took.",
            ["method"],
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = prometheus_client.Gauge(
            "insta_calls_in_flight",
            "Calls under way.",
            ["service"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._writes = prometheus_client.Histogram(
            "insta_writes_per_commit",
            "How many writes each transaction committed.",
            ["database"],
            buckets=_WRITES_BUCKETS,
            registry=self.registry,
        )
        self._log_size = prometheus_client.Gauge(
            "insta_wal_bytes",
            "Size of a database's write-ahead log after its latest write.",
            ["database"],
            registry=self.registry,
            # Workers have it in common.
            multiprocess_mode="mostrecent",
        )
        self._lag = prometheus_client.Gauge(
            "insta_consumer_lag_events",
            "Events of another service's log that are still to be applied.",
            ["service", "log"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def consumer_lag(self, service: str, log: str) -> prometheus_client.Gauge:
        """How many events of a log a service has still to apply."""
        return self._lag.labels(service, log)

    def method(self, service: str, name: str) -> MethodMetrics:
        """What is counted of the method /service/name."""
        method = f"{service}/{name}"
        return MethodMetrics(self._calls, self._seconds.labels(method), self._in_flight.labels(service), method)

    def committed(self, database: str) -> prometheus_client.Histogram:
        """The writes of each transaction of a database."""
        return self._writes.labels(database)

    def log_size(self, database: str) -> prometheus_client.Gauge:
        """The size of the write-ahead log of a database."""
        return self._log_size.labels(database)


class MethodMetrics:
    """Counts the calls of one method."""

    def __init__(
        self,
        calls: prometheus_client.Counter,
        seconds: prometheus_client.Histogram,
        in_flight: prometheus_client.Gauge,
        method: str,
    ) -> None:
        self._calls = calls
        self._seconds = seconds
        self._in_flight = in_flight
        self._method = method
        self._by_code: dict[grpc.StatusCode, prometheus_client.Counter] = {}

    def begin(self) -> None:
        """A call begins."""
        self._in_flight.inc()

    def end(self, code: grpc.StatusCode, seconds: float) -> None:
        """A call that had begun ends."""
        self._in_flight.dec()
        self._seconds.observe(seconds)
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._calls.labels(self._method, code.name)
        counter.inc()


def of_workers() -> prometheus_client.CollectorRegistry:
    """The sums over all workers, dead ones included."""
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry
