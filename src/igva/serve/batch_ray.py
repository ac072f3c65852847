"""Spread a batch over the processes, GPUs and machines of a Ray cluster, with Ray Data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from igva.errors import UserError
from igva.serve.batch_file import Line, LocalAnswerer


class RayAnswerer:
    """Hands lines to workers that each hold the model. Their machines must see the pictures under the same paths.

    Args:
        model: name or path, loaded by every worker.
        workers: how many; each takes a GPU where the cluster has any.
        address: of a cluster; None starts one on this machine, or joins that of ``RAY_ADDRESS``.
    """

    def __init__(
        self, model: str, batch_size: int, max_new_tokens: int, workers: int, dtype: str | None, address: str | None
    ):
        try:
            import ray
            from ray.data import DataContext
        except ImportError as error:
            raise UserError("--engine ray needs Ray: pip install 'igva[ray]'") from error
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        self.batch_size, self.workers = batch_size, workers
        self.settings: dict[str, Any] = {
            "model": model,
            "batch_size": batch_size,
            "max_new_tokens": max_new_tokens,
            "dtype": dtype,
        }
        self.num_gpus = 1 if ray.cluster_resources().get("GPU") else 0

    def __call__(self, lines: Sequence[Line]) -> Iterator[tuple[str | None, str | None]]:
        import ray

        if not lines:
            return
        rows = [
            {"id": line.id, "images": [str(path.absolute()) for path in line.images], "question": line.question}
            for line in lines
        ]
        answered = ray.data.from_items(rows).map_batches(
            _Worker,
            fn_constructor_kwargs=self.settings,
            batch_size=self.batch_size,
            batch_format="pandas",
            num_gpus=self.num_gpus,
            compute=ray.data.ActorPoolStrategy(size=self.workers),
        )
        for row in answered.iter_rows():
            yield (row["answer"], None) if row["error"] is None else (None, row["error"])


class _Worker:
    """One process with the model."""

    def __init__(self, model: str, batch_size: int, max_new_tokens: int, dtype: str | None):
        from igva.answering import load

        self._answer = LocalAnswerer(*load(model, dtype=dtype), batch_size, max_new_tokens).answer

    def __call__(self, batch: Any) -> Any:
        lines = [
            Line(name, tuple(map(Path, images)), question)
            for name, images, question in zip(batch["id"], batch["images"], batch["question"], strict=True)
        ]
        results = self._answer(lines)
        batch["answer"] = [answer for answer, _ in results]
        batch["error"] = [error for _, error in results]
        return batch[["answer", "error"]]
