"""What Prometheus may ask: requests, executions, and how much there is of everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interpreter.errors import CellshellError
from interpreter.models import CodeResult, ExecResult

if TYPE_CHECKING:
    from interpreter.execution import Execution
    from interpreter.fork_server import ForkServer
    from interpreter.interpreter import Interpreter
    from interpreter.ready_boxes import ReadyBoxes
    from interpreter.spares import Spares

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cellshell_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.executions = Histogram(
            "cellshell_execution_seconds",
            "Commands and runs of code that ended, by how; or by the code of what ended them.",
            ("kind", "outcome"),
            buckets=SECONDS,
            registry=self.registry,
        )

    def answered(self, scope: Scope, status: int) -> None:
        """Count one request."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()

    def follow(self, execution: Execution) -> None:
        """Count an execution when it ends, whoever waits for it then."""
        execution.ended.add_done_callback(lambda _: self._ended(execution))

    def _ended(self, execution: Execution) -> None:
        match execution.ending:
            case CellshellError() as error:
                self._observe(execution.kind, error.code, 0.0)
            case ExecResult() | CodeResult() as result:
                self._observe(execution.kind, outcome(result), result.duration)

    def _observe(self, kind: str, how: str, duration: float) -> None:
        self.executions.labels(kind, how).observe(duration)


def outcome(result: ExecResult | CodeResult) -> str:
    """How an execution ended, in the words that runs of code have."""
    if isinstance(result, CodeResult):
        return result.status
    if result.timed_out:
        return "timeout"
    if result.cancelled:
        return "interrupted"
    return "ok" if result.success else "error"


class Population(Collector):
    """How many sandboxes, sessions, contexts and processes there are, counted when asked."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter

    def collect(self) -> Iterator[Metric]:
        sandboxes = self.interpreter.sandboxes()
        sessions = [session for sandbox in sandboxes for session in sandbox.sessions()]
        contexts = sum(len(session.contexts()) for session in sessions)
        processes = sum(
            process.info().status == "running"
            for sandbox in sandboxes
            for process in sandbox.processes.list()
        )
        for noun, count in (
            ("sandboxes", len(sandboxes)),
            ("sessions", len(sessions)),
            ("contexts", contexts),
            ("processes", processes),
        ):
            words = f"Running {noun}." if noun == "processes" else f"{noun.capitalize()} there are."
            yield GaugeMetricFamily(f"cellshell_{noun}", words, count)
        yield from _stock("spare_kernels", "Python kernels", self.interpreter.spares)
        yield from _stock("ready_boxes", "Boxes of the usual kind", self.interpreter.ready_boxes)
        if forks := self.interpreter.forks:
            yield _kernels(forks)


def _stock(name: str, what: str, stock: Spares | ReadyBoxes) -> Iterator[Metric]:
    words = f"{what} that were asked for, by whether one was ready."
    family = CounterMetricFamily(f"cellshell_{name}", words, labels=("result",))
    family.add_metric(("hit",), stock.hits)
    family.add_metric(("miss",), stock.misses)
    yield family
    words = f"{what} that wait to be asked for."
    yield GaugeMetricFamily(f"cellshell_{name}_waiting", words, stock.waiting)


def _kernels(forks: ForkServer) -> CounterMetricFamily:
    words = "Python kernels that were forked, and those that had to be started, by the reason."
    family = CounterMetricFamily("cellshell_python_kernels", words, labels=("how", "reason"))
    family.add_metric(("forked", ""), forks.forked)
    for reason, count in forks.cold.items():
        family.add_metric(("started", reason), count)
    return family


class Meter:
    """ASGI middleware that counts requests by route and status."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            self.metrics.answered(scope, status)
