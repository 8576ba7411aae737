import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ml.task.load import data_directory, load_builtin_task, load_task
from ml.task.samples import Samples
from ml.task.task import Task
from ml.training.train import evaluate, try_step
from protocol.errors import ConfigError
from protocol.statements.swarm import RoundSettings
from tests.ml.conftest import TINY_TASK

SOURCE = TINY_TASK.read_text().replace("import torch\n", "import numpy as np, torch\n", 1)


def load(tmp_path: Path, source: str) -> Task:
    path = tmp_path / "my_task.py"
    path.write_text(source)
    return load_task(str(path), builtin=False)


def error_of(tmp_path: Path, source: str) -> str:
    """What is said about a task whose source is wrong, whenever that shows."""
    with pytest.raises(ConfigError) as caught:
        use(load(tmp_path, source), tmp_path)
    return str(caught.value)


def use(task: Task, data_dir: Path) -> None:
    model = task.make_model(1)
    (optimizer,) = task.make_optimizers(model.parameters())
    dataset = task.train_dataset(data_dir)
    task.test_dataset(data_dir)
    inputs, targets, _ = next(
        Samples(dataset, torch.arange(8).numpy(), torch.device("cpu")).batches(8)
    )
    outputs = task.outputs(model, inputs)
    task.loss(outputs, targets).backward()  # type: ignore[no-untyped-call]  # torch's own
    task.metric(outputs, targets)
    task.step(optimizer)


def replaced(function: str, body: str) -> str:
    changed = re.sub(rf"(def {function}\([^)]*\):\n)(    .*\n)+", rf"\1    {body}\n", SOURCE)
    assert changed != SOURCE
    return changed


def test_task_file_is_loaded_with_its_digest_and_suggestions(tmp_path: Path) -> None:
    task = load(tmp_path, SOURCE)
    use(task, tmp_path)
    assert task.name == "my_task.py"
    assert task.file_sha256 == hashlib.sha256(SOURCE.encode()).digest()
    assert task.batch_size == 16
    assert task.suggestion == RoundSettings(local_unit="steps", local_amount=20.0)


def test_defaults_stand_in_for_what_is_optional(tmp_path: Path) -> None:
    source = SOURCE.replace("def optimizer", "def unused").replace("BATCH_SIZE", "X")
    task = load(tmp_path, source.replace("ROUND", "Y"))
    use(task, tmp_path)
    assert task.batch_size == 64
    assert task.suggestion == RoundSettings()
    model = task.make_model(1)
    assert isinstance(task.make_optimizers(model.parameters())[0], torch.optim.AdamW)


def test_frozen_parameters_are_not_given_to_the_optimizer(tmp_path: Path) -> None:
    task = load(tmp_path, SOURCE)
    model = task.make_model(1)
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    groups = task.make_optimizers(model.parameters())[0].param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 2


@pytest.mark.parametrize("function", ["model", "train_dataset", "test_dataset", "loss", "metric"])
def test_missing_function_is_named(tmp_path: Path, function: str) -> None:
    text = error_of(tmp_path, SOURCE.replace(f"def {function}(", "def renamed("))
    assert text == f"task my_task.py: it has no function {function}()"


def test_missing_functions_are_named_at_once(tmp_path: Path) -> None:
    assert error_of(tmp_path, "def model(): ...\n") == (
        "task my_task.py: it has no function train_dataset(), test_dataset(), loss() and metric()"
    )


@pytest.mark.parametrize(
    ("function", "body", "expected"),
    [
        ("model", "return 3", "model() returned an int, not a torch.nn.Module"),
        ("model", "return 1 / 0", "model() failed: ZeroDivisionError: division by zero (line 14"),
        ("model", "raise SystemExit(3)", "model() failed: SystemExit: 3 (line 14 of my_task.py)"),
        ("train_dataset", "return None", "train_dataset() returned None, which has no length"),
        ("train_dataset", "return []", "train_dataset() returned no samples"),
        (
            "train_dataset",
            "return iter([(torch.zeros(2, 8), torch.zeros(2))])",
            "train_dataset() returned a list_iterator, which can be gone through only once",
        ),
        (
            "test_dataset",
            "return [1, 2]",
            "test_dataset() has an int as its first item, not (input",
        ),
        ("loss", "return outputs", "loss() returned a tensor of shape [8, 3], not a scalar tensor"),
        ("loss", "return outputs @ targets", "loss() failed: RuntimeError"),
        ("loss", "return outputs.sum().detach()", "loss() returned a tensor that no parameter has"),
        ("metric", "return 'good'", "metric() returned a str, not a number"),
        ("metric", "return outputs", "metric() returned a tensor of shape [8, 3], not a number"),
        ("metric", "return outputs.numpy()", "metric() failed: RuntimeError: Can't call numpy()"),
        (
            "metric",
            "return np.ones(2)",
            "metric() returned an array of float64 of shape [2], not a",
        ),
        ("metric", "return np.bool_(True)", "metric() returned a bool, not a number"),
        ("metric", "return torch.tensor(1j)", "metric() returned a complex, not a number"),
        ("metric", "return 10**400", "metric()'s number failed: OverflowError: int too large"),
        ("optimizer", "return 1", "optimizer() returned an int, not a torch.optim.Optimizer"),
        (
            "optimizer",
            "return torch.optim.SGD([nn.Parameter(torch.zeros(1))])",
            "optimizer() returned SGD over none of the parameters that it was given",
        ),
        (
            "optimizer",
            "return torch.optim.LBFGS(parameters)",
            "optimizer() returned LBFGS, whose step() needs arguments: take one that steps by",
        ),
        (
            "optimizer",
            "return type('Broken', (torch.optim.SGD,), {'step': lambda self: 1 / 0})(parameters)",
            "optimizer()'s step() failed: ZeroDivisionError: division by zero (line",
        ),
    ],
)
def test_mistake_is_told_with_the_functions_name(
    tmp_path: Path, function: str, body: str, expected: str
) -> None:
    assert error_of(tmp_path, replaced(function, body)).startswith(f"task my_task.py: {expected}")


@pytest.mark.parametrize(
    "number",
    [
        "1",
        "0.5",
        "fractions.Fraction(1, 2)",
        "decimal.Decimal('0.5')",
        "np.float32(0.5)",
        "np.float64(0.5)",
        "np.int64(1)",
        "np.array(0.5)",
        "np.array([[0.5]])",
        "torch.tensor(1)",
        "torch.tensor([0.5])",
    ],
)
def test_metric_may_be_any_kind_of_number(tmp_path: Path, number: str) -> None:
    source = "import decimal, fractions\n" + replaced("metric", f"return {number}")
    value = load(tmp_path, source).metric(None, None)
    assert type(value) is float
    assert value in (0.5, 1.0)


def test_optimizer_that_cannot_step_is_named_while_training(tmp_path: Path) -> None:
    source = SOURCE.replace("def optimizer", "def unused").replace(
        "nn.Linear(8, 16)", "nn.Embedding(9, 2, sparse=True), nn.Flatten(), nn.Linear(16, 16)"
    )
    source = source.replace(
        "centers[labels] + torch.randn(count, 8, generator=generator)",
        "labels[:, None].repeat(1, 8)",
    )
    task = load(tmp_path, source)
    samples = Samples(task.train_dataset(tmp_path), np.arange(480), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"my_task.py: AdamW's step\(\) failed: .*sparse"):
        try_step(task.make_model(1), task, samples)


@pytest.mark.parametrize(
    ("function", "signature", "called"),
    [
        ("train_dataset", "(data_dir, shard, shards)", "train_dataset(data_dir)"),
        ("test_dataset", "()", "test_dataset(data_dir)"),
        ("model", "(self)", "model()"),
        ("loss", "(batch)", "loss(outputs, targets)"),
    ],
)
def test_function_that_takes_other_arguments_is_told_how_it_is_called(
    tmp_path: Path, function: str, signature: str, called: str
) -> None:
    source = re.sub(rf"def {function}\([^)]*\)", f"def {function}{signature}", SOURCE)
    assert error_of(tmp_path, source) == (
        f"task my_task.py: {function}{signature} will be called as {called}"
    )


def test_functions_may_take_more_than_they_are_given(tmp_path: Path) -> None:
    source = SOURCE.replace(
        "def train_dataset(data_dir)", "def train_dataset(data_dir, small=True)"
    )
    assert source != SOURCE
    use(load(tmp_path, source), tmp_path)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("1 / 0", "test_dataset() item 5 failed: ZeroDivisionError: division by zero (line 2 of"),
        (
            "(torch.zeros(9), 0)",
            "test_dataset() item 5 is (Tensor[9], int), item 0 (Tensor[8], int): they do not make a"
            " batch: RuntimeError",
        ),
        (
            "(list(range(8)), 0)",
            "test_dataset() item 5 is (list[8], int), item 0 (Tensor[8], int): they do not make",
        ),
        ("None", "test_dataset() item 5 is NoneType, item 0 (Tensor[8], int): they do not make"),
    ],
)
def test_sample_that_cannot_be_used_is_named(tmp_path: Path, item: str, expected: str) -> None:
    source = f"""class Data(list):
    def __getitem__(self, index): return {item} if index == 5 else (torch.zeros(8), 0)
"""
    task = load(tmp_path, source + replaced("test_dataset", "return Data(range(8))"))
    samples = Samples(task.test_dataset(tmp_path), np.arange(8), torch.device("cpu"))
    with pytest.raises(ConfigError) as caught:
        evaluate(task.make_model(1), task, samples)
    assert str(caught.value).startswith(f"task my_task.py: {expected}")


def test_model_without_anything_to_learn_is_told(tmp_path: Path) -> None:
    task = load(tmp_path, SOURCE.replace("def optimizer", "def unused"))
    with pytest.raises(ConfigError, match="no parameter requires a gradient"):
        task.make_optimizers(task.make_model(1).requires_grad_(False).parameters())


def test_model_that_does_not_fit_the_data_is_told(tmp_path: Path) -> None:
    text = error_of(tmp_path, SOURCE.replace("nn.Linear(8, 16)", "nn.Linear(9, 16)"))
    assert text.startswith("task my_task.py: the model's forward failed: RuntimeError: mat1 and")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("BATCH_SIZE = 0", "BATCH_SIZE is 0, not a whole number from 1 to 1048576"),
        ("BATCH_SIZE = True", "BATCH_SIZE is True, not a whole number"),
        ("BATCH_SIZE = 10**9", "BATCH_SIZE is 1000000000, not a whole number"),
        ("ROUND = 3", "ROUND is an int, not a dict"),
        ("ROUND = {'epochs': 3}", "ROUND has 'epochs'; known are local_unit, local_amount"),
        ("ROUND = {'local_amount': 'x'}", "ROUND['local_amount'] is 'x': Expected `float`"),
        (
            "ROUND = {'local_unit': 'stepz'}",
            "task my_task.py: ROUND: local unit 'stepz': write epochs, steps or seconds",
        ),
        (
            "ROUND = {'exchange': 'allreduce', 'compression': 'topk'}",
            "task my_task.py: ROUND: compression topk does not go with allreduce",
        ),
        ("ROUND = {'partition': 'labels'}", "task my_task.py: ROUND: partition 'labels': write"),
        ("ROUND = {'numerics': 0}", "task my_task.py: ROUND: numerics is 0: this p2pd averages"),
        ("optimizer = 3", "optimizer is not a function"),
    ],
)
def test_wrong_constant_is_named(tmp_path: Path, source: str, expected: str) -> None:
    assert expected in error_of(tmp_path, f"{SOURCE}\n{source}\n")


def test_file_that_does_not_run_is_explained(tmp_path: Path) -> None:
    assert "my_task.py: SyntaxError" in error_of(tmp_path, "def model(:\n")
    assert "ModuleNotFoundError: No module named 'no_such_thing' (line 1" in error_of(
        tmp_path, "import no_such_thing\n"
    )
    (tmp_path / "helper.py").touch()
    assert "(line 1 of my_task.py); a task is one file" in error_of(tmp_path, "import helper\n")
    with pytest.raises(ConfigError, match="No such file"):
        load_task(str(tmp_path / "missing.py"), builtin=False)


def test_file_that_is_another_than_the_swarms_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match=r"my_task.py is not the swarm's any more: its SHA-256"):
        load_task(str(path), builtin=False, file_sha256=b"\0" * 32)
    assert not (tmp_path / "ran").exists()
    path.write_text(SOURCE)
    digest = hashlib.sha256(SOURCE.encode()).digest()
    assert load_task(str(path), builtin=False, file_sha256=digest).file_sha256 == digest


def test_dataclasses_work_in_a_task_file(tmp_path: Path) -> None:
    source = "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: 'int' = 3\n"
    assert load(tmp_path, source + SOURCE).module.A().x == 3


def test_unknown_builtin_task_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no built-in task 'cifar'; there are digits, mnist"):
        load_builtin_task("cifar")


def test_equal_seeds_give_equal_models(tmp_path: Path) -> None:
    task = load(tmp_path, SOURCE)
    first, second, other = (task.make_model(seed)[0].weight for seed in (1, 1, 2))  # type: ignore[index]
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_data_directory_is_the_named_one_then_the_environments_then_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.delenv("P2PD_DATA_DIR", raising=False)
    assert data_directory("") == Path("/cache/p2pd/data")
    monkeypatch.setenv("P2PD_DATA_DIR", "/data")
    assert data_directory("") == Path("/data")
    assert data_directory("/chosen") == Path("/chosen")


def test_digits_are_split_alike_in_every_class() -> None:
    task = load_builtin_task("digits")
    train, test = task.train_dataset(Path()), task.test_dataset(Path())
    assert len(train) + len(test) == 1797
    counts = torch.bincount(test.tensors[1])
    assert counts.tolist() == [-(-int(n) // 5) for n in counts + torch.bincount(train.tensors[1])]


def test_mnist_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    task = load_builtin_task("mnist")
    (tmp_path / "data").write_text("no directory, so nothing can be downloaded into it")
    with pytest.raises(ConfigError) as caught:
        task.train_dataset(tmp_path / "data")
    text = str(caught.value)
    assert "train_dataset() failed" in text
    assert f"into {tmp_path}/data/MNIST/raw" in text
    assert "P2PD_DATA_DIR" in text
