"""The float model and its quantized forms: evaluated, timed, weighed; the gate, and the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vistadex.annotated import AnnotatedSet
from vistadex.evaluating import evaluate
from vistadex.models import ModelFile, ModelStore
from vistadex.quantizing.measuring import compare_times, peak_mib
from vistadex.quantizing.results import Quantization, Row
from vistadex.quantizing.variants import TRAINED, Variant, Workbench, write

FASTER = 1.05
"""Speed against float from which a model counts as faster."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gate lets pass."""

    max_drop: float
    force: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """Everything measured, nothing stored."""

    bench: Workbench
    variants: Sequence[Variant]
    files: Mapping[str, ModelFile]
    data: str
    measure: str
    rows: tuple[Row, ...]

    def kept(
        self,
        name: str,
        store: ModelStore,
        limits: Limits,
        source: str,
        failures: Mapping[str, int],
    ) -> Quantization:
        """Stores the chosen form under a name, or says why not.

        Args:
            source: of the calibration pictures, for the card.
        """
        before, after = self.rows[0], next(row for row in self.rows if row.chosen)
        how = next(one.how for one in self.variants if one.name == after.name)
        what = f"{after.name}: {self.measure} falls from {before.value} to {after.value}"
        dropped = before.value - after.value > limits.max_drop
        refusal, notes = "", []
        if dropped and not limits.force:
            refusal = (
                f"{what}, allowed is a drop of {limits.max_drop}; nothing was stored. Calibrate "
                "with more pictures like those it will see, try another method, or add --force"
            )
        elif dropped:
            notes.append(f"{what}, more than {limits.max_drop}: stored as forced")
        if after.speedup < FASTER:
            times = f"{after.speedup:.2f} times float's speed"
            notes.append(f"{after.name} is not faster on this machine ({times}), only smaller")
        stored = None if refusal else self._store(store, name, f"{how}; {source}", before, after)
        return Quantization(
            model=self.bench.file.card.name,
            measure=self.measure,
            rows=self.rows,
            how=how,
            pictures=len(self.bench.images),
            failures=failures,
            stored=stored,
            refusal=refusal,
            notes=tuple(notes),
        )

    def _store(self, store: ModelStore, name: str, how: str, before: Row, after: Row) -> ModelFile:
        old, file = self.bench.file, self.files[after.name]
        pairs = {
            self.measure: [before.value, after.value],
            "size_bytes": [before.size_bytes, after.size_bytes],
            "p50_ms": [before.p50_ms, after.p50_ms],
        }
        card = replace(
            old.card,
            name=name,
            derived_from=old.sha256,
            derived_with=f"quantize: {how}",
            metrics={self.measure: after.value},
            evaluation={"data": self.data, "quantization": pairs},
        )
        sidecar = file.path.with_name(f"{file.path.name}.json")
        sidecar.write_text(card.to_json(), encoding="utf-8")
        return store.add(file.path)


def judge(
    bench: Workbench,
    variants: Sequence[Variant],
    data: AnnotatedSet,
    say: Callable[[str], None],
) -> Judged:
    """Evaluates, times and weighs the float model and every variant.

    The chosen one is that which agrees best with the float model; one that was trained need not
    agree, and is chosen where it scores higher.
    """
    files = {"float": bench.file}
    for one in variants:
        files[one.name] = write(one.model, bench.file, bench.folder, one.name.replace(" ", "-"))
    values: dict[str, float] = {}
    measure = ""
    for name, file in files.items():
        say(f"evaluating {name}")
        measure, values[name] = evaluate(file, data, timed=0).headline
    say("timing them in turns")
    times = compare_times(files, bench.images)
    agreements = {"float": 1.0} | {one.name: one.agreement for one in variants}
    best = max((one for one in variants if one.name != TRAINED), key=lambda one: one.agreement).name
    if values.get(TRAINED, -1.0) > values[best]:
        best = TRAINED
    rows = [
        Row(
            name=name,
            value=round(values[name], 4),
            size_bytes=file.path.stat().st_size,
            p50_ms=times[name].p50_ms,
            images_per_s=times[name].images_per_s,
            speedup=times[name].speedup,
            peak_mib=peak_mib(file, bench.images[0]),
            agreement=round(agreements[name], 4),
            chosen=name == best,
        )
        for name, file in files.items()
    ]
    return Judged(bench, variants, files, data.name, measure, tuple(rows))
