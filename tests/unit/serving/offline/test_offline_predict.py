"""Files of any format become a folder of predictions, in the order of their rows."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raystack import Experiment, Predictor
from raystack.errors import ConfigError, ServingError
from raystack.events import PredictionEvent, PredictionStarted, RowsPredicted
from raystack.outcome import Prediction
from raystack.registry.connection import connect

TINY = Path(__file__).parents[3] / "tiny" / "config.yaml"
ROWS = 200
Predict = Callable[..., Prediction]
Model = Callable[..., Path]
Numbers = npt.NDArray[np.float32]


def frame(x: Numbers) -> pd.DataFrame:
    """The rows with a number and a name."""
    return pd.DataFrame(
        {"id": np.arange(len(x)) + 7, "name": [f"a, {i}" for i in range(len(x))], "x": list(x)}
    )


def columns(x: Numbers) -> pd.DataFrame:
    """The same with a column for each number."""
    wide = pd.DataFrame({name: x[:, column] for column, name in enumerate("abcd")})
    return pd.concat([frame(x)[["id", "name"]], wide], axis=1)


def write(folder: Path, form: str, x: Numbers) -> tuple[Path, dict[str, Any]]:
    """A file of the format, and the options that it takes."""
    file, rows = folder / f"data.{form}", frame(x)
    options: dict[str, Any] = {}
    texts = columns(x).to_csv(index=False, lineterminator="\r\n" if form == "csv" else "\n")
    if form in ("csv", "csv.gz", "tsv"):
        options["columns"] = {"x": list("abcd")}
    if form == "csv":
        file.write_text(texts, newline="")
    elif form == "csv.gz":
        file.write_bytes(gzip.compress(texts.encode()))
    elif form == "tsv":
        columns(x).to_csv(file, index=False, sep="\t")
    elif form == "parquet":
        rows.to_parquet(file, row_group_size=50)
    elif form == "jsonl":
        rows.to_json(file, orient="records", lines=True, double_precision=15)
    elif form == "json":
        rows.to_json(file, orient="records", double_precision=15)
    elif form == "npy":
        np.save(file, x)
    elif form == "npz":
        np.savez_compressed(file, x=x, id=rows["id"], name=rows["name"].to_numpy(str))
    return file, options


def read(folder: Path) -> pd.DataFrame:
    """The output, as any program reads it."""
    return pd.read_parquet(folder / "out")


def expected(model: Path, x: Numbers) -> Numbers:
    """What the model answers in this process."""
    answer: Numbers = Predictor.load(model).predict({"x": x})["y"]
    return answer


@pytest.mark.parametrize("form", ["parquet", "csv", "csv.gz", "tsv", "json", "jsonl", "npy", "npz"])
def test_every_format_gives_the_same_predictions_beside_the_other_columns_in_order(
    form: str, model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, options = write(tmp_path, form, x)
    made = predict(folder := model(), file, **options)
    assert (made.rows, made.skipped, made.parts, made.already) == (ROWS, 0, 4, False)
    found = read(tmp_path)
    np.testing.assert_allclose(np.stack(found["y"].to_list()), expected(folder, x), rtol=1e-5)
    if form == "npy":
        assert found["row"].tolist() == list(range(ROWS)), "without other columns the rows are numbered"
        return
    assert list(found) == ["id", "name", "y"]
    assert found["id"].tolist() == frame(x)["id"].tolist()
    assert found["name"].tolist() == frame(x)["name"].tolist()


def test_a_folder_and_a_pattern_are_their_files_by_name_and_several_are_in_the_order_given(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    (data := tmp_path / "data").mkdir()
    for number in range(3):
        frame(x[number * 50 : number * 50 + 50]).assign(file=number).to_parquet(data / f"{number}.parquet")
    (data / "_SUCCESS").touch()
    (data / ".part.crc").touch()
    (data / "notes.md").write_text("no data")
    with pytest.raises(ConfigError, match=r"says its format.*notes\.md\); rename it, or give a pattern"):
        predict(folder := model(), data)
    predict(folder, [str(data / "2.parquet"), str(data / "[01].parquet")])
    assert read(tmp_path)["file"].tolist() == [2] * 50 + [0] * 50 + [1] * 50
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "00000-2-0-50.parquet",
        "00001-0-0-50.parquet",
        "00002-1-0-50.parquet",
        "_manifest.json",
    ]


def test_what_is_kept_and_written_can_be_chosen(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    frame(x).rename(columns={"name": "y"}).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(ConfigError, match=r"--keep: the input's column 'y' is kept.*--outputs y=predicted_y"):
        predict(folder := model(), tmp_path / "data.parquet")
    predict(folder, tmp_path / "data.parquet", outputs={"y": "predicted"}, keep=["y", "x"])
    found = read(tmp_path)
    assert list(found) == ["y", "x", "predicted"]
    np.testing.assert_array_equal(np.stack(found["x"].to_list()), x)


def test_the_manifest_says_what_made_the_folder(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, _ = write(tmp_path, "parquet", x)
    made = predict(folder := model(), file)
    manifest = json.loads(Path(made.manifest).read_text())
    assert manifest["complete"] is True
    assert (manifest["rows"], manifest["skipped"]) == (ROWS, 0)
    assert (manifest["model"]["uri"], manifest["model"]["step"]) == (str(folder), 12)
    assert manifest["signature"]["outputs"][0]["name"] == "y"
    (found,) = manifest["inputs"]
    assert (found["url"], found["bytes"], found["rows"]) == (str(file), file.stat().st_size, ROWS)
    assert found["mark"] == str(file.stat().st_mtime)


def test_inputs_of_any_length_are_predicted_with_those_of_equal_length(
    model: Model, predict: Predict, tmp_path: Path
) -> None:
    tokens = [list(range(1, 2 + row * row % 5)) for row in range(100)]
    pq.write_table(pa.table({"tokens": tokens}), tmp_path / "data.parquet")
    predict(folder := model("lists"), tmp_path / "data.parquet")
    found = read(tmp_path)
    assert found["total"].tolist() == [sum(each) for each in tokens]
    assert [list(each) for each in found["doubled"]] == [[2 * one for one in each] for each in tokens]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"tokens": each}) for each in tokens))
    Path(tmp_path / "out").rename(tmp_path / "first")
    predict(folder, tmp_path / "data.jsonl")
    assert read(tmp_path)["total"].tolist() == found["total"].tolist()


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "npz"])
def test_texts_are_texts_in_the_output(form: str, model: Model, predict: Predict, tmp_path: Path) -> None:
    texts = pd.DataFrame({"text": ["ärger", "1.5", "[1]", "null", "2020-01-01", "true", " "] * 5})
    file = tmp_path / f"data.{form}"
    if form == "npz":
        np.savez(file, text=texts["text"].to_numpy(str))
    elif form == "jsonl":
        texts.to_json(file, orient="records", lines=True)
    else:
        {"parquet": texts.to_parquet, "csv": texts.to_csv}[form](file, index=False)
    predict(model("texts"), file)
    assert [each[0] for each in read(tmp_path)["upper"]] == texts["text"].str.upper().tolist()


def test_texts_of_a_csv_that_look_like_numbers_stay_as_they_are_written(
    model: Model, predict: Predict, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("text,id\n007,1\n1e3,2\n")
    predict(model("texts"), tmp_path / "data.csv")
    assert [each[0] for each in read(tmp_path)["upper"]] == ["007", "1E3"]


@pytest.mark.parametrize("shape", ["nested", "flat", "tensor", "texts"])
def test_a_tensor_of_several_dimensions_is_nested_lists_or_flat_or_a_tensor_of_arrow_or_json(
    shape: str, model: Model, predict: Predict, tmp_path: Path
) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
    made = {
        "nested": lambda: pa.array(pixels.tolist()),
        "flat": lambda: pa.array(pixels.reshape(10, 6).tolist(), pa.list_(pa.uint8(), 6)),
        "tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
        "texts": lambda: pa.array([json.dumps(each) for each in pixels.tolist()]),
    }
    table = pa.table({"x": made[shape]()})
    file = tmp_path / ("data.csv" if shape == "texts" else "data.parquet")
    if shape == "texts":
        table.to_pandas().to_csv(file, index=False)
    else:
        pq.write_table(table, file)
    predict(model("images"), file)
    np.testing.assert_allclose(read(tmp_path)["mean"], pixels.mean((1, 2)))


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ({"xx": [[1.0] * 4]}, {}, "column 'x': the model's input 'x' is a column, float32 [-1, 4] (got the"),
        ({"xx": [[1.0] * 4]}, {}, "columns 'xx'); did you mean --columns x=xx?"),
        ({"x": ["a"]}, {}, "column 'x': the signature says float32 [-1, 4] of input 'x' (got string)"),
        ({"x": [[["a"]]]}, {}, "of input 'x' (got list<element: list<element: string>>)"),
        ({"x": [1.0]}, {}, "of input 'x' (got double)"),
        ({"x": [[1.0] * 4]}, {"columns": {"z": "x"}}, "--columns: the model's inputs are 'x' (got z)"),
        ({"x": [[1.0] * 4]}, {"outputs": ["yy"]}, "--outputs: the model's outputs are 'y' (got yy); did you"),
        ({"x": [[1.0] * 4]}, {"keep": ["idd"]}, "--keep: the input's columns are 'x' (got idd)"),
        ({"a": [1.0], "b": [2.0]}, {"columns": {"x": ["a", "b"]}}, "column 'a': the signature says float32"),
    ],
)
def test_what_does_not_fit_the_model_is_named_before_anything_is_predicted(
    data: dict[str, Any], options: dict[str, Any], says: str, model: Model, predict: Predict, tmp_path: Path
) -> None:
    pq.write_table(pa.table(data), tmp_path / "data.parquet")
    with pytest.raises(ConfigError) as raised:
        predict(model(), tmp_path / "data.parquet", **options)
    assert says in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.parquet", b"PAR1 and nothing", "cannot be read as parquet"),
        ("data.csv", b"", "cannot be read as csv: it is empty"),
        ("data.csv", b'x,id\n"1,2\n', "a quote is opened, and never closed"),
        ("data.jsonl", b'{"x": 1}\n[1]\n', "cannot be read as jsonl: row 1 should be an object"),
        ("data.jsonl", b'{"x": 1}\n{"x": \n', "row 1 is no JSON"),
        ("data.json", b"[1, 2]", "it should be a list of objects"),
        ("data.npz", b"no zip", "cannot be read as npz: File is not a zip file"),
        ("data.npy", b"no array", "cannot be read as npy"),
    ],
)
def test_a_file_that_is_not_of_its_format_is_named(
    name: str, content: bytes, says: str, model: Model, predict: Predict, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        predict(model(), tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert says in str(raised.value)


def bad(x: Numbers) -> Numbers:
    """Numbers of which the model refuses rows 70 and 150."""
    x[[70, 150], 2] = 13
    return x


def test_a_row_that_the_model_cannot_take_is_named_and_what_is_done_stays(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, _ = write(tmp_path, "parquet", bad(x))
    with pytest.raises(ServingError) as raised:
        predict(folder := model(), file)
    assert f"{file}, row 70: task: the task raised: ValueError: a bad sample" in str(raised.value)
    assert [path.name for path in sorted((tmp_path / "out").glob("*.parquet"))] == ["00000-data-0-50.parquet"]
    made = predict(folder, file, on_error="skip")
    assert (made.rows, made.skipped) == (ROWS - 2, 2)
    found = read(tmp_path)
    left = [row for row in range(ROWS) if row not in (70, 150)]
    assert found["id"].tolist() == [row + 7 for row in left]
    np.testing.assert_allclose(np.stack(found["y"].to_list()), expected(folder, x[left]), rtol=1e-5)
    skipped = [json.loads(line) for line in (tmp_path / "out" / "_skipped.jsonl").read_text().splitlines()]
    assert [(each["file"], each["row"]) for each in skipped] == [(str(file), 70), (str(file), 150)]
    assert "a bad sample" in skipped[0]["reason"]


def test_values_that_do_not_fit_are_rows_that_the_model_cannot_take(
    model: Model, predict: Predict, tmp_path: Path
) -> None:
    rows: list[Any] = [[1.0] * 4] * 40
    rows[7], rows[21], rows[33] = [1.0] * 3, None, [1.0, None, 1.0, 1.0]
    pq.write_table(pa.table({"x": rows, "id": range(40)}), tmp_path / "data.parquet")
    with pytest.raises(ServingError) as raised:
        predict(folder := model(), tmp_path / "data.parquet")
    assert "row 7, column 'x': the signature says float32 [-1, 4] of input 'x' (got shape [3])" in str(
        raised.value
    )
    made = predict(folder, tmp_path / "data.parquet", on_error="skip")
    assert (made.rows, made.skipped) == (37, 3)
    reasons = (tmp_path / "out" / "_skipped.jsonl").read_text()
    assert reasons.count("of input 'x' (got nulls)") == 2
    texts = "a,b,c,d,id\n" + "".join(f"{'n/a' if row == 5 else 100 + row},1,2,3,{row}\n" for row in range(20))
    (tmp_path / "data.csv").write_text(texts)
    (tmp_path / "out").rename(tmp_path / "first")
    made = predict(folder, tmp_path / "data.csv", columns={"x": list("abcd")}, on_error="skip")
    assert (made.rows, made.skipped) == (19, 1)
    assert read(tmp_path)["id"].tolist() == [row for row in range(20) if row != 5]


def test_what_is_missing_is_done_and_nothing_else(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, _ = write(tmp_path, "jsonl", x)
    predict(folder := model(), file)
    whole, parts = read(tmp_path), sorted((tmp_path / "out").glob("*.parquet"))
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-7])  # a disk's fault: it has no footer
    (tmp_path / "out" / ".00001-data-64-128.parquet.5ab0").write_bytes(b"of a command that was killed")
    before = {path: path.stat().st_mtime_ns for path in parts if path != parts[1]}
    events: list[PredictionEvent] = []
    again = predict(folder, file, events=events)
    assert (again.rows, again.already) == (ROWS, False)
    pd.testing.assert_frame_equal(read(tmp_path), whole)
    started, *rows = events
    assert isinstance(started, PredictionStarted)
    assert (started.rows, started.done) == (ROWS, ROWS - 128)
    assert [event.done for event in rows if isinstance(event, RowsPredicted)][-1] == ROWS
    unchanged = [path for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert unchanged == [parts[0], parts[3]]
    assert not list((tmp_path / "out").glob(".*"))
    assert predict(folder, file).already


def test_a_folder_of_another_prediction_is_refused_with_what_differs(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, _ = write(tmp_path, "parquet", x)
    predict(folder := model(), file)

    def refused(*arguments: Any, **options: Any) -> str:
        with pytest.raises(ConfigError) as raised:
            predict(*arguments, **options)
        assert str(tmp_path / "out") in str(raised.value)
        return str(raised.value)

    other = model(seed=1)
    assert f"the model is {other}, and was {folder}; name another folder" in refused(other, file)
    assert "--keep is id, and was id, name" in refused(folder, file, keep=["id"])
    assert "--outputs is y=z, and was y=y" in refused(folder, file, outputs={"y": "z"})
    assert "with parts of 64 rows" in refused(folder, file, "predict.part_rows=50")
    copy = file.with_name("copy.parquet")
    copy.write_bytes(file.read_bytes())
    assert f"the input's files is {copy}, and was {file}" in refused(folder, copy)
    frame(x[:150]).to_parquet(file)
    assert f"{file} is {file.stat().st_size} bytes, changed " in refused(folder, file)


def test_a_folder_with_other_files_is_refused(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, _ = write(tmp_path, "npy", x)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.parquet").touch()
    with pytest.raises(ConfigError, match=r"the folder is not empty, and has no _manifest\.json \(got mine"):
        predict(folder := model(), file)
    (tmp_path / "out").rename(tmp_path / "first")
    (tmp_path / "out").touch()
    with pytest.raises(ConfigError, match=f"--out {tmp_path}/out: is a file, and the output is a folder"):
        predict(folder, file)
    with pytest.raises(ConfigError, match=r"--out: is the folder of the input, too, or above it"):
        predict(folder, tmp_path / "out" / "data.npy")


def test_an_input_that_changes_meanwhile_is_told(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    file, _ = write(tmp_path, "npy", x)

    class Changing(list[PredictionEvent]):
        def append(self, event: PredictionEvent) -> None:
            if isinstance(event, RowsPredicted) and event.done == ROWS:
                np.save(file, x[:100])

    with pytest.raises(ConfigError, match="--in: has changed while it was predicted"):
        predict(model(), file, events=Changing())


def test_the_output_is_no_input_where_it_lies_beside_it(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    frame(x).to_json(tmp_path / "data" / "a.jsonl", orient="records", lines=True, double_precision=15)
    place = str(tmp_path / "[do][au]t*" / "**")
    assert predict(folder := model(), place, keep=["id", "x"]).rows == ROWS
    assert predict(folder, place, keep=["id", "x"]).already
    np.testing.assert_allclose(np.stack(read(tmp_path)["x"].to_list()), x, rtol=1e-6)


def test_an_alias_is_the_version_that_it_was_when_the_folder_was_begun(
    model: Model, predict: Predict, x: Numbers, tmp_path: Path, empty_store: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"
    client = connect(uri, None)
    client.create_registered_model("demo")
    for version, seed in (("1", 0), ("2", 1)):
        client.create_model_version("demo", str(model(seed=seed)))
        client.set_registered_model_alias("demo", f"v-{version}", version)
    client.set_registered_model_alias("demo", "champion", "1")
    file, _ = write(tmp_path, "parquet", x)
    tracking = f"tracking={{kind: mlflow, uri: '{uri}'}}"
    assert predict("models:/demo@champion", file, tracking).model == "models:/demo/1"
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["model"]["requested"] == "models:/demo@champion"
    assert predict("models:/demo/1", file, tracking).already
    client.set_registered_model_alias("demo", "champion", "2")
    with pytest.raises(ConfigError, match="the model is models:/demo/2, and was models:/demo/1"):
        predict("models:/demo@champion", file, tracking)


def test_an_input_without_rows_has_an_output_without_rows(
    model: Model, predict: Predict, tmp_path: Path
) -> None:
    types = pa.schema([("id", pa.int64()), ("name", pa.string()), ("x", pa.list_(pa.float32()))])
    pq.write_table(types.empty_table(), tmp_path / "data.parquet")
    assert predict(model(), tmp_path / "data.parquet").rows == 0
    assert list(read(tmp_path)) == ["id", "name", "y"]


def test_an_object_store_holds_input_and_output(model: Model, x: Numbers, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    file, _ = write(tmp_path, "parquet", x)
    store.pipe_file("/bucket/data/a.parquet", file.read_bytes())
    experiment = Experiment(TINY, f"serving.model='{model()}'", "predict.part_rows=64")
    out, silent = "memory://bucket/out", list[PredictionEvent]().append
    made = experiment.predict("memory://bucket/data/*.parquet", out, on_event=silent)
    assert made.rows == ROWS
    assert made.manifest == "memory://bucket/out/_manifest.json"
    assert len(store.ls("/bucket/out")) == 5
    assert experiment.predict("memory://bucket/data/", out, on_event=silent).already
