"""`raystack predict config.yaml --in FILES --out FOLDER [key=value ...]`: predict all rows of files.

What is done stays, however it ends: the same command goes on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import raystack
from raystack.cli.options import Config, Json
from raystack.cli.submitting import Submitting, hand_over
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Submitting, Json, Config):
    """Options of `predict`."""

    inputs: tuple[str, ...] = option(
        "--in",
        help="a file, folder, quoted pattern or URL of them: Parquet, CSV, JSON or NumPy; may be repeated",
        default=(),
        action="append",
        metavar="FILES",
    )
    out: str | None = option(
        "--out",
        help="the folder or URL of the output, Parquet files; a part of the same prediction in it is gone on"
        " with",
        default=None,
        metavar="FOLDER",
    )
    model: str | None = option(
        "--model",
        help="models:/name@alias, models:/name/version, or a checkpoint's folder or URL (serving.model)",
        default=None,
        metavar="MODEL",
    )
    columns: tuple[str, ...] = option(
        "--columns",
        help="columns of a model's input that have another name, several for one value each; may be repeated",
        default=(),
        action="append",
        metavar="INPUT=COLUMN[,COLUMN...]",
    )
    keep: str | None = option(
        "--keep",
        help="columns of the input that the output has too, '' for none (all that are no input of the model)",
        default=None,
        metavar="COLUMN,...",
    )
    outputs: str | None = option(
        "--outputs",
        help="outputs of the model that are written, and the columns for them (all, by their names)",
        default=None,
        metavar="OUTPUT[=COLUMN],...",
    )
    on_error: str = option(
        "--on-error",
        help="a row that the model cannot take ends it, or is left out and listed in _skipped.jsonl (fail)",
        default="fail",
        choices=("fail", "skip"),
    )
    address: str | None = option(
        "--address",
        help="join the Ray cluster there, e.g. auto (target.address)",
        default=None,
        metavar="ADDRESS",
    )
    dry_run: bool = option("--dry-run", help="print the plan and stop")

    @property
    def overrides(self) -> tuple[str, ...]:
        """Return the overrides. ConfigError if a shell has made several words of a pattern."""
        for word in self.words[1:]:
            if "=" not in word and not word.startswith("~"):
                rule, remedy = (
                    "one --in is one place",
                    "quote a pattern: --in 'data/*.parquet', or repeat --in",
                )
                raise raystack.ConfigError(raystack.Problem("--in", rule=rule, got=word, remedy=remedy))
        return self.words[1:]

    @property
    def experiment(self) -> "raystack.Experiment":
        """Return the experiment, with the model and the cluster that were named."""
        found = raystack.Experiment(self.config, *self.overrides)
        if self.model is not None:
            # A folder means the same to a job, which runs elsewhere.
            model = self.model if ":/" in self.model else str(Path(self.model).expanduser().absolute())
            text = model.replace("\\", "\\\\").replace("'", "\\'")
            found = found.override(f"serving.model='{text}'")
        return found if self.address is None else found.at(self.address)

    @property
    def request(self) -> Mapping[str, Any]:
        """Return the arguments of Experiment.predict."""
        for name, value, example in (
            ("--in", self.inputs, "data.parquet"),
            ("--out", self.out, "predictions"),
        ):
            if not value:
                raise raystack.ConfigError(
                    raystack.Problem(name, rule="is missing", remedy=f"add {name} {example}")
                )
        return {
            "inputs": self.inputs,
            "out": self.out,
            "columns": dict(_mapped(self.columns)),
            "keep": None if self.keep is None else _listed(self.keep),
            "outputs": dict(_named(self.outputs or "")),
            "on_error": self.on_error,
        }


def run(options: Options, terminal: "Terminal") -> None:
    """Predict, submit, or show the plan."""
    request, experiment = options.request, options.experiment
    elsewhere = experiment.config.target.kind == "job"
    if not elsewhere:
        options.refuse_waiting("a prediction on this machine ends with its command")
    if options.dry_run:
        terminal.plan(experiment.plan_prediction(**request))
    elif elsewhere:
        hand_over(experiment.submit_prediction(**request), options, terminal)
    else:
        terminal.prediction(experiment.predict(**request, verbose=options.verbose))


def _mapped(given: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the columns of each input: of `x=a,b` and `n=c`, or of `x=a,b,n=c`."""
    for text in given:
        name, columns = "", list[str]()
        for word in _listed(text):
            before, equals, after = word.partition("=")
            if equals:
                if name:
                    yield name, tuple(columns)
                name, columns = before.strip(), [after.strip()]
            else:
                columns.append(word)
        if not name or not all(columns):
            rule = "should be INPUT=COLUMN, or INPUT=COLUMN,COLUMN"
            raise raystack.ConfigError(raystack.Problem("--columns", rule=rule, got=text))
        yield name, tuple(columns)


def _named(text: str) -> Iterator[tuple[str, str]]:
    for word in _listed(text):
        name, equals, column = word.partition("=")
        if equals and not (name.strip() and column.strip()):
            rule = "should be OUTPUT or OUTPUT=COLUMN, with commas between them"
            raise raystack.ConfigError(raystack.Problem("--outputs", rule=rule, got=word))
        yield name.strip(), column.strip() or name.strip()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


VERB = Verb(
    name="predict",
    help="predict all rows of files with a model, into a folder of Parquet files",
    options=Options,
    run=run,
    group="train and serve",
    usage="[options] --in FILES --out FOLDER config.yaml [key=value ...]",
)
