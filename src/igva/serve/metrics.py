"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from igva.serve.engine import Engine

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server."""

    def __init__(self, engine: Engine):
        self.registry = CollectorRegistry()
        self.requests = Counter("igva_requests", "Answered requests", ["path", "status"], registry=self.registry)
        self.first_token = Histogram(
            "igva_first_token_seconds",
            "From the request to its first token",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.duration = Histogram(
            "igva_request_seconds", "From the request to its last token", registry=self.registry, buckets=_SECONDS
        )
        self.disconnects = Counter(
            "igva_disconnects", "Clients that left before their answer was complete", registry=self.registry
        )
        self.registry.register(_EngineCollector(engine))

    def count(self, path: str, status: int) -> None:
        """A response went out."""
        self.requests.labels(path, str(status)).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector:
    """Reads the engine's own counts when they are asked for."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        engine, store = self._engine, self._engine.store
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "igva_running": ("Answers being generated", lambda: engine.running),
            "igva_waiting": ("Answers waiting for their turn", lambda: engine.waiting),
            "igva_layer_store_bytes": ("Layer means kept, in bytes", lambda: store.bytes),
            "igva_layer_store_pictures": ("Pictures whose layer means are kept", lambda: len(store)),
        }
        counters: dict[str, tuple[str, Callable[[], float]]] = {
            "igva_tower_pictures": ("Pictures through the vision tower", lambda: engine.counts.tower_runs),
            "igva_layer_store_hits": ("Pictures whose layer means were known", lambda: store.hits),
            "igva_layer_store_misses": ("Pictures whose layer means were not", lambda: store.misses),
            "igva_prompt_tokens": ("Tokens of prompts", lambda: engine.counts.prompt_tokens),
            "igva_new_tokens": ("Tokens generated", lambda: engine.counts.new_tokens),
            "igva_turns": ("Steps of the running batch", lambda: engine.counts.turns),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=value())
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value=value())
