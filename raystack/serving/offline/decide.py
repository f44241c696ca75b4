"""The plan, the model and the input as they are -> what is predicted; or what an output already is of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from raystack.errors import ConfigError, Problem, nearest
from raystack.plan.prediction import InputFile, PredictPlan, divided, rows_per_part
from raystack.serving.offline.formats import Measured, measure
from raystack.serving.offline.inputs import Inputs, columns_of
from raystack.serving.offline.work import Model, Part, Work, types_of
from raystack.task import Signature

ROW = "row"
"""The column that numbers the rows of the input where the output has no other to tell them apart."""


def decided(plan: PredictPlan, model: Model, signature: Signature) -> Work:
    """Read what has to be known of the input, and decide. Raises ConfigError if a column does not fit."""
    columns = _columns(plan, signature)
    inputs = Inputs(signature, columns)
    # Values of inputs are looked at row by row, unless they are to be written, too.
    unwritten = set(inputs.columns).difference(plan.request.keep or ())
    measured = [
        _with_texts(known, inputs.texts) if file.format in ("csv", "tsv") else known
        for file, known in zip(plan.files, measure(plan.files, unwritten), strict=True)
    ]
    if problems := [
        problem
        for file, known in zip(plan.files, measured, strict=True)
        for problem in inputs.check(file.url, known, text=file.format in ("csv", "tsv"))
    ]:
        raise ConfigError(problems)
    rows = sum(known.rows for known in measured)
    part_rows = plan.part_rows or rows_per_part(rows, sum(file.bytes for file in plan.files), plan.batch)
    files = tuple(replace(file, rows=known.rows) for file, known in zip(plan.files, measured, strict=True))
    schema = _schema(plan.files, measured)
    work = _work(plan, model, signature, columns, files, schema)
    return replace(work, part_rows=part_rows, parts=_parts(measured, part_rows))


def again(plan: PredictPlan, before: Work, model: Model, signature: Signature, out: str) -> Work:
    """Return the work of an output that is there, as the plan goes on with it.

    Raises ConfigError with what differs, if it is not what the plan would do.
    """
    columns = _columns(plan, signature)
    same = [file.identity for file in plan.files] == [file.identity for file in before.inputs]
    files = before.inputs if same else plan.files
    asked = replace(before, model=model, inputs=files, columns=columns)
    if same and model.digest == before.model.digest:
        asked = _work(plan, model, signature, columns, files, before.schema)
    for what, now, then in asked.differences(before):
        rule = f"the folder is the output of another prediction: {what} is {now}, and was {then}"
        remedy = "name another folder, or what it was begun with"
        raise ConfigError(Problem(f"--out {out}", rule=rule, remedy=remedy))
    if plan.part_rows not in (None, before.part_rows):
        rule = f"the folder was begun with parts of {before.part_rows} rows"
        remedy = f"set predict.part_rows={before.part_rows}, or leave it out"
        raise ConfigError(Problem(f"--out {out}", rule=rule, got=str(plan.part_rows), remedy=remedy))
    return before


def _columns(plan: PredictPlan, signature: Signature) -> dict[str, tuple[str, ...]]:
    alone = all(file.format == "npy" for file in plan.files)
    return columns_of(signature, plan.request.columns, alone)


def _work(
    plan: PredictPlan,
    model: Model,
    signature: Signature,
    columns: Mapping[str, tuple[str, ...]],
    files: tuple[InputFile, ...],
    schema: pa.Schema,
) -> Work:
    """Return the work without its parts."""
    outputs = _outputs(plan.request.outputs, signature)
    used = [column for each in columns.values() for column in each]
    keep = _keep(plan.request.keep, used, schema, outputs)
    return Work(
        model=model,
        signature=signature.as_dict(),
        inputs=files,
        columns=columns,
        keep=keep,
        outputs=outputs,
        types=types_of(schema),
        precision=plan.serving.precision,
        numbered=not keep,
        part_rows=0,
        parts=(),
        on_error=plan.request.on_error,
        rows=sum(file.rows or 0 for file in files),
    )


def _outputs(asked: Mapping[str, str], signature: Signature) -> dict[str, str]:
    names = [spec.name for spec in signature.outputs]
    for name in asked:
        if name not in names:
            close = nearest(name, names)
            rule = f"the model's outputs are {', '.join(map(repr, names))}"
            remedy = f"did you mean '{close}'?" if close else None
            raise ConfigError(Problem("--outputs", rule=rule, got=name, remedy=remedy))
    return dict(asked) or {name: name for name in names}


def _keep(
    asked: tuple[str, ...] | None, used: Sequence[str], schema: pa.Schema, outputs: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the columns of the input that the output has."""
    names = list(schema.names)
    keep = tuple(name for name in names if name not in used) if asked is None else asked
    for name in keep:
        if names.count(name) != 1:
            close = nearest(name, names)
            rule = f"the input's columns are {', '.join(map(repr, names))}"
            remedy = f"did you mean '{close}'?" if close else None
            raise ConfigError(Problem("--keep", rule=rule, got=name, remedy=remedy))
    written = [*outputs.values(), *([ROW] if not keep else [])]
    twice = next((name for name in keep if name in written), None)
    if twice is not None:
        output = next(name for name, column in outputs.items() if column == twice)
        rule = f"the input's column '{twice}' is kept, and an output of the model has the same name"
        remedy = (
            f"name the output with --outputs {output}=predicted_{output}, or leave the column out of --keep"
        )
        raise ConfigError(Problem("--keep", rule=rule, remedy=remedy))
    return keep


def _schema(files: Sequence[InputFile], measured: Sequence[Measured]) -> pa.Schema:
    """Return the types that the columns of all files have together."""
    schemas = [pa.schema([pa.field(each.name, _plain(each.type)) for each in one.schema]) for one in measured]
    for file, schema in zip(files, schemas, strict=True):
        if set(schema.names) != set(schemas[0].names):
            other = sorted(set(schema.names) ^ set(schemas[0].names))
            rule = f"its columns are not those of {files[0].url}: only one of them has '{other[0]}'"
            remedy = "predict them apart, or give both the same columns"
            raise ConfigError(Problem(f"--in {file.url}", rule=rule, remedy=remedy))
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        rule = f"its files have a column of different types: {error}"
        raise ConfigError(Problem("--in", rule=rule, remedy="predict them apart")) from None


def _with_texts(measured: Measured, texts: Collection[str]) -> Measured:
    fields = [field.with_type(pa.string()) if field.name in texts else field for field in measured.schema]
    return replace(measured, schema=pa.schema(fields))


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _parts(measured: Sequence[Measured], part_rows: int) -> tuple[Part, ...]:
    parts = []
    for number, known in enumerate(measured):
        for start, stop in divided(known.rows, known.groups, part_rows):
            offset, end = (known.offsets[start], known.offsets[stop]) if known.offsets is not None else (0, 0)
            parts.append(Part(number, start, stop, offset, end - offset))
    return tuple(parts) or (Part(0, 0, 0),)
