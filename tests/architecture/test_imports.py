"""The import table of ARCHITECTURE.md as data."""

import ast

import pytest

from tests.architecture.imports import imports, loaded_with, modules, unit

TABLE: dict[str, set[str]] = {
    "errors": set(),
    "clock": set(),
    "logs": set(),
    "job": set(),
    "steplog": set(),
    "spec": set(),
    "code": {"steplog", "clock"},
    "packages": {"code", "steplog"},
    "policy": {"job", "steplog"},
    "metrics": set(),
    "data": {"steplog", "spec"},
    "stream": {"data", "steplog", "spec", "metrics", "clock", "logs"},
    "checkpoint": {"steplog", "spec", "metrics", "clock"},
    "train": {"data", "steplog", "spec", "policy", "metrics", "clock"},
    "snapshot": {"train", "checkpoint", "steplog"},
    "rank": {"train", "checkpoint", "snapshot", "data", "steplog", "spec", "policy"},
    "replay": {"train", "stream", "checkpoint", "snapshot", "rank", "code", "packages", "data", "steplog", "spec"},
    "runtime": {
        "job",
        "policy",
        "stream",
        "train",
        "rank",
        "checkpoint",
        "code",
        "packages",
        "steplog",
        "data",
        "spec",
        "metrics",
        "clock",
        "logs",
    },
    "rpc": {"job", "spec"},
    "client": {"rpc", "job", "spec", "code"},
    "control": {"job", "rpc", "code", "policy", "spec", "metrics", "clock", "logs"},
}
"""Who imports whom, beside `errors`, which all may import. Not here: `local` and `cli`, which put the parts together."""

COMPOSITION = {"local", "cli", ""}
TRAINER_FILES = {"dtrain.runtime.trainer", "dtrain.runtime.generation", "dtrain.runtime.pulling"}
"""What runs in a trainer's process: the only part of `runtime` that knows `train`."""

ALONE: dict[str, set[str]] = {
    "structlog": {"logs"},
    "pydantic": {"spec"},
    "pydantic_core": {"spec"},
    "yaml": {"spec"},
    "ruamel": {"spec", "cli"},
    "prometheus_client": {"metrics"},
    "kafka": {"stream"},
    "confluent_kafka": {"stream"},
    "pathspec": {"code"},
    "packaging": {"spec", "packages"},
    "fastavro": {"data"},
    "httpx": {"data", "stream"},
    "safetensors": {"checkpoint"},
    "obstore": {"checkpoint", "stream"},
    "torch": {"train", "snapshot", "rank", "replay", "local", "runtime"},
    "ray": {"runtime"},
    "grpc": {"rpc", "client", "control"},
    "grpc_status": {"rpc"},
    "grpc_health": {"control"},
    "grpc_reflection": {"control"},
    "google": {"rpc", "client", "data"},
    "sqlalchemy": {"control"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pyarrow": {"data", "stream", "train", "rank", "local", "runtime", "replay", "checkpoint"},
}
"""Outside package → who alone imports it."""


def test_table_has_a_row_for_every_package() -> None:
    assert {unit(name) for name in modules()} <= TABLE.keys() | COMPOSITION


def test_no_package_imports_what_the_table_does_not_allow() -> None:
    found = {
        f"{i.source} imports {i.target}"
        for i in imports()
        if i.target in modules()
        and unit(i.source) not in COMPOSITION
        and unit(i.target) not in {unit(i.source), "errors", ""} | TABLE[unit(i.source)]
    }
    assert found == set()


def test_outside_packages_are_imported_where_the_table_says_alone() -> None:
    found = {
        f"{i.source} imports {i.target}"
        for i in imports()
        if unit(i.source) not in ALONE.get(i.target.split(".")[0], {unit(i.source)})
    }
    assert found == set()


def test_runtime_knows_train_in_the_trainers_files_alone() -> None:
    found = {
        i.source
        for i in imports()
        if unit(i.source) == "runtime" and (unit(i.target) in {"train", "rank"} or i.target.split(".")[0] == "torch")
    }
    assert found <= TRAINER_FILES


def test_no_cycle_at_import_time() -> None:
    early = {(i.source, i.target) for i in imports() if i.is_early and i.target in modules()}
    assert {(source, target) for source, target in early if source in loaded_with(target)} == set()


@pytest.mark.parametrize(
    "name", sorted(name for name, path in modules().items() if path.name == "__init__.py" and name != "dtrain")
)
def test_package_file_holds_a_docstring_only(name: str) -> None:
    body = ast.parse(modules()[name].read_text()).body
    assert len(body) == 1
    assert ast.get_docstring(ast.Module(body, []))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dtrain", {"torch", "ray", "pyarrow", "kafka", "grpc", "pydantic"}),
        ("dtrain.runtime.coordinator", {"torch"}),
        ("dtrain.runtime.reader", {"torch"}),
        ("dtrain.runtime.launcher", {"torch"}),
        ("dtrain.control.server", {"torch", "ray", "kafka", "pyarrow", "dtrain.packages.tool"}),
        ("dtrain.client.client", {"torch", "ray", "kafka", "pyarrow", "sqlalchemy", "dtrain.packages.tool"}),
        ("dtrain.spec.load", {"torch", "ray", "kafka", "pyarrow", "grpc"}),
        ("dtrain.checkpoint.commit", {"torch", "ray", "kafka", "grpc", "pydantic"}),
        ("dtrain.cli.main", {"torch", "ray", "kafka", "pyarrow", "sqlalchemy"}),
    ],
)
def test_process_that_does_not_need_it_does_not_load_it(module: str, heavy: set[str]) -> None:
    if module not in modules():
        pytest.skip(f"{module} is not built yet")
    assert loaded_with(module) & heavy == set()


def test_environment_is_read_in_cli_alone() -> None:
    # In processes that Ray starts, where nobody of ours hands it on; and what must not be handed on at all.
    others = {"dtrain.runtime.trace", "dtrain.spec.secrets"}
    found = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if unit(name) != "cli"
        and isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv", "environb"}
        and ast.unparse(node.value) == "os"
    }
    assert found == others


def test_nothing_is_unpickled_and_no_code_is_run_from_text() -> None:
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "torch.distributed.checkpoint"}
    assert {i.source for i in imports() if i.target in banned or i.target.split(".")[0] in banned} == set()
    calls = {
        (name, ast.unparse(node.func))
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "torch.save", "eval", "exec", "np.load"}
    }
    assert calls == set()
